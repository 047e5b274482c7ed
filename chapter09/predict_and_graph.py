"""Load the network that lstm_bitcoin.py has saved, predict any days, draw forecast against fact.

Book: chapter 9, "Measuring performance": the figures of predicted and actual flow and of the price.

    python chapter09/predict_and_graph.py                                  # June 2017
    python chapter09/predict_and_graph.py --start 2017-06-12 --end 2017-06-13
    python chapter09/predict_and_graph.py --run-dir runs/chapter09/lstm_bitcoin_sample --data sample

It trains nothing: model.keras and scaler.json are all it needs. What to look for: in `flow.png`
the forecast is nearly flat while the actual change jumps about, so the network has found next to
nothing to go by. In `price.png` the same forecast looks excellent, and so does the last value, one
minute late: on a chart of prices any forecast near the last price does. Judge by the flow.
`predictions.csv` holds every minute.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from lstm_bitcoin import (
    RUNS_DIR,
    TEST_DATES,
    diff_data,
    fill_gaps,
    load_run,
    plt,
    predict,
    prep_data,
    read_data,
    select_dates,
    to_dollars,
)


def predict_dates(model, scaler, lags, df, start, end):
    """Forecasts for each minute from `start` to `end`, each made one minute ahead.

    Args:
        df: prices as `read_data` returns them; windows reach back to before `start`.

    Returns:
        DataFrame by minute, in dollars: `last_price`, a minute before; `price` and `flow`, the
        actual ones; `predicted_flow`; `predicted_price`, the last price plus the predicted flow.

    Raises:
        ValueError: no prices there, or fewer than the `lags` + 1 minutes before the first forecast.
    """
    chosen = select_dates(df, start, end).index
    # The day before is enough to look back on; a file may hold ten years.
    filled, _ = fill_gaps(df[chosen[0] - pd.Timedelta(days=1) : chosen[-1]])
    flow = diff_data(filled).Close
    data = prep_data(filled, {"chosen": (start, end)}, lags, scaler)
    times = data["chosen_times"]
    if times.empty:
        raise ValueError(
            f"no minute from {start} to {end} has {lags + 1} minutes of prices before it"
        )
    expected = to_dollars(scaler, predict(model, data["chosen_X"]))
    last_price = filled.Close.shift(1)[times]
    return pd.DataFrame(
        {
            "last_price": last_price,
            "price": filled.Close[times],
            "flow": flow[times],
            "predicted_flow": expected,
            "predicted_price": last_price + expected,
        }
    )


def plot_flow(table, path):
    """Actual and predicted change by the minute: all of it, and the busiest two hours."""
    fig, axes = plt.subplots(2, 1, figsize=(9, 7))
    for ax, rows in zip(axes, (table, busiest(table)), strict=True):
        ax.plot(rows["flow"], color="tab:blue", lw=0.8, label="actual")
        ax.plot(rows["predicted_flow"], color="tab:green", lw=1, label="predicted")
        finish(ax, "change (US dollars a minute)")
    save(fig, path)


def plot_price(table, path):
    """Price, last value and network's forecast: all of it, and the busiest two hours."""
    fig, axes = plt.subplots(2, 1, figsize=(9, 7))
    for ax, rows in zip(axes, (table, busiest(table)), strict=True):
        ax.plot(rows["price"], color="tab:blue", lw=2.5, alpha=0.6, label="actual")
        ax.plot(rows["last_price"], color="tab:green", lw=1, label="last value")
        ax.plot(rows["predicted_price"], color="tab:red", lw=1, ls="--", label="LSTM")
        finish(ax, "price (US dollars)")
    save(fig, path)


def busiest(table, minutes=120):
    """The run of `minutes` rows in which the price moved most."""
    end = table["flow"].abs().rolling(min(minutes, len(table))).sum().to_numpy()
    last = int(np.nanargmax(end))
    return table.iloc[max(0, last - minutes + 1) : last + 1]


def finish(ax, label):
    """Axis labels, grid and legend."""
    ax.set(ylabel=label)
    ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(ax.xaxis.get_major_locator()))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=9)  # above the picture


def save(fig, path):
    """Write a figure and free it."""
    fig.tight_layout()
    fig.savefig(path, dpi=80)
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file of minute prices')
    parser.add_argument(
        "--run-dir", type=Path, default=RUNS_DIR / "lstm_bitcoin", help="of the training"
    )
    parser.add_argument("--start", default=TEST_DATES[0], help=f"default: {TEST_DATES[0]}")
    parser.add_argument("--end", default=TEST_DATES[1], help=f"default: {TEST_DATES[1]}")
    parser.add_argument("--output", type=Path, help="for the pictures; default: the run directory")
    args = parser.parse_args()
    try:
        model, scaler, lags = load_run(args.run_dir)
        table = predict_dates(model, scaler, lags, read_data(args.data), args.start, args.end)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    out_dir = args.output or args.run_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    table.to_csv(out_dir / "predictions.csv", float_format="%.6f")
    plot_flow(table, out_dir / "flow.png")
    plot_price(table, out_dir / "price.png")
    error, naive = table["predicted_flow"] - table["flow"], table["flow"]
    print(f"{len(table):,} minutes, {table.index[0]} to {table.index[-1]}")
    print(f"RMSE of the network {np.sqrt((error**2).mean()):.4f} US dollars a minute")
    print(f"RMSE of the last value {np.sqrt((naive**2).mean()):.4f}")
    print(
        f"Standard deviation of the changes: {table['flow'].std():.4f} actual, "
        f"{table['predicted_flow'].std():.4f} predicted"
    )
    print(f"flow.png, price.png and predictions.csv are in {out_dir}")


if __name__ == "__main__":
    main()
