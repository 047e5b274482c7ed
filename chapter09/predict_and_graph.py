"""Load the network of a run, forecast any days after its training, draw forecast against fact.

Book: chapter 9, "Measuring performance": the figures of the flow and of the price.

    python chapter09/predict_and_graph.py                              # June 2017
    python chapter09/predict_and_graph.py --days 2017-06-12 2017-06-13
    python chapter09/predict_and_graph.py --data sample --run-dir runs/lstm_bitcoin_sample

In flow.png the forecast is nearly flat: there is next to nothing to go by. In price.png the same
forecast looks excellent, and so does the last value, one minute late: on a chart of prices all do
that stay near the last price. predictions.csv holds every minute.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import pandas as pd
from lstm_bitcoin import TEST_DATES, load_data
from lstm_bitcoin_stateful import forecast


def predict_days(run_dir, source, days):
    """By the minute, in dollars: price, last price, expected price, flow and expected flow."""
    settings = json.loads((run_dir / "settings.json").read_text())
    model = keras.models.load_model(run_dir / "model.keras")
    data = load_data(source, settings["train_dates"], days, settings["lags"], settings["inputs"])
    price = data["prices"]["Close"]
    table = pd.DataFrame({"price": price, "last_price": price.shift(1), "flow": price.diff()})
    table = table.loc[data["test_times"]]
    table["predicted_flow"] = forecast(model, data["test_X"])
    table["predicted_price"] = table["last_price"] + table["predicted_flow"]
    return table


def draw(table, columns, path):
    """`columns` of all minutes, and of the two hours in which the price moved most."""
    moves = table["flow"].abs().rolling(120, min_periods=1).sum()
    end = moves.argmax() + 1
    fig, axes = plt.subplots(2, 1, figsize=(9, 7), layout="constrained")
    for ax, rows in zip(axes, (table, table.iloc[max(0, end - 120) : end]), strict=True):
        rows[columns].plot(ax=ax, linewidth=1, grid=True, ylabel="US dollars", xlabel="")
    fig.savefig(path, dpi=80)
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file of minute prices')
    parser.add_argument("--run-dir", type=Path, default="runs/lstm_bitcoin", help="of the training")
    parser.add_argument("--days", nargs=2, default=TEST_DATES, help="first and last, both included")
    args = parser.parse_args()
    try:
        table = predict_days(args.run_dir, args.data, args.days)
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        source = args.data or "bitcoin (python data/fetch.py bitcoin)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    table.to_csv(args.run_dir / "predictions.csv")
    draw(table, ["flow", "predicted_flow"], args.run_dir / "flow.png")
    draw(table, ["price", "last_price", "predicted_price"], args.run_dir / "price.png")
    print("Standard deviations of the changes, dollars:")
    print(table[["flow", "predicted_flow"]].std().to_string())
    print(f"{len(table)} minutes and two pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
