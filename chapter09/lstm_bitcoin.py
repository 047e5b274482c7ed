"""Train the book's two-layer LSTM: the next minute's change of the bitcoin price from ten before.

Book: chapter 9, "Using an LSTM for time series prediction". Hard to beat: the last value (README).

    python chapter09/lstm_bitcoin.py                  # trains on January to May 2017, tests on June
    python chapter09/lstm_bitcoin.py --data sample    # simulated prices, needs no network
    python chapter09/lstm_bitcoin.py --scale std --inputs volume range --run-dir runs/lstm_more
"""

import argparse
import json
import os
import shutil
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers

DATA = Path(__file__).resolve().parent.parent / "data"
SOURCES = {None: DATA / "bitcoin" / "bitcoin.csv", "sample": DATA / "samples" / "bitcoin.csv"}
TRAIN_DATES, TEST_DATES = ["2017-01-01", "2017-05-31"], ["2017-06-01", "2017-06-30"]
INPUTS = {  # what a network may know of a minute beside the change of its price
    "volume": lambda prices: np.log1p(prices["Volume"]),
    "range": lambda prices: prices["High"] - prices["Low"],
}


def load_data(source=None, train_dates=TRAIN_DATES, test_dates=TEST_DATES, lags=10, inputs=()):
    """Windows of `lags` minutes and the change of the price, in dollars, in the minute after each.

    `source`: None for data/bitcoin/bitcoin.csv, "sample" or a CSV file (`read_data`); dates: first
    and last, both included; `inputs`: keys of INPUTS. Returns a dict: train_X, val_X, test_X,
    float32 (n, lags, 1 + len(inputs)), oldest minute first; train_y, val_y, test_y (n,);
    test_times, the minutes of test_y; prices. The last tenth of the training minutes validates.
    """
    prices = read_data(SOURCES.get(source, source)).loc[train_dates[0] : test_dates[1]]
    try:
        flow = [prices["Close"].diff(), *(INPUTS[name](prices) for name in inputs)]
    except KeyError as error:
        raise ValueError(f"no {error} among its columns {list(prices)}") from error
    flow = np.stack(flow, axis=1, dtype="float32")[1:]  # the first minute has no change
    end = len(prices.loc[: train_dates[1]]) - lags - 1
    start = len(flow) - lags - len(prices.loc[test_dates[0] :])
    if end < 10 or not end <= start < len(flow) - lags:
        raise ValueError(f"{max(end, 0)} minutes to train, or no days to forecast after them")
    if not np.isfinite(flow).all() or np.ptp(flow[:end, 0]) == 0:
        raise ValueError("an input is not finite, or the price never changes in training")
    # The first window of the test looks back into training; none is filled up with zeros.
    X, y = np.lib.stride_tricks.sliding_window_view(flow[:-1], lags, axis=0), flow[lags:, 0]
    parts = {"train": slice(end * 9 // 10), "val": slice(end * 9 // 10, end)}
    data = {"test_times": prices.index[start + lags + 1 :], "prices": prices}
    for part, rows in (parts | {"test": slice(start, None)}).items():
        data |= {f"{part}_X": X[rows].swapaxes(1, 2), f"{part}_y": y[rows]}
    return data


def build_network(train_X, scale="minmax"):
    """The book's network, compiled: windows (n, lags, inputs) to changes (n, 1), in dollars."""
    minutes = train_X[:, -1].astype("float64")  # each of them once
    center, width = minutes.mean(axis=0), 5 * minutes.std(axis=0)
    if scale == "minmax":  # the book's: from -1 to 1, where no change is not 0
        low, high = minutes.min(axis=0), minutes.max(axis=0)
        center, width = (low + high) / 2, (high - low) / 2
    inputs = keras.Input(shape=train_X.shape[1:], name="input")
    x = layers.Normalization(mean=center, variance=width**2, name="scale")(inputs)
    x = layers.LSTM(100, return_sequences=True, name="lstm1")(x)
    x = layers.LSTM(100, return_sequences=False, name="lstm2")(x)
    x = layers.Dense(1, activation="tanh" if scale == "minmax" else "linear", name="output")(x)
    output = layers.Rescaling(float(width[0]), offset=float(center[0]), name="dollars")(x)
    model = keras.Model(inputs=inputs, outputs=output, name="lstm_bitcoin")
    model.compile("adam", loss="mean_squared_error", steps_per_execution=16)  # batches a call
    return model


def create_callbacks(model, run_dir):
    """A log, the last model and the best one: `model`, saved after each epoch."""

    def save(epoch, logs):  # renamed when whole: a kill leaves the files of the epoch before
        new = run_dir / "new.keras"
        model.save(new)
        if pd.read_csv(run_dir / "history.csv")["val_loss"].argmin() == epoch:
            shutil.copy(new, run_dir / "new_model.keras").replace(run_dir / "model.keras")
        new.replace(run_dir / "last.keras")

    return [
        callbacks.CSVLogger(run_dir / "history.csv", append=(run_dir / "last.keras").exists()),
        callbacks.LambdaCallback(on_epoch_end=save),
    ]


def open_run(run_dir, settings, X, y):
    """The last model of the same run in `run_dir` and the epochs done; None and 0 of a new one."""
    run_dir.mkdir(parents=True, exist_ok=True)
    noted, log, last = (run_dir / name for name in ("settings.json", "history.csv", "last.keras"))
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    if not last.exists():
        return None, 0
    lines, size = log.read_bytes().splitlines(keepends=True), settings["batch_size"]
    model = keras.models.load_model(last)
    model.evaluate(X[:size], y[:size], size, verbose=0)  # is it a network for rows like these?
    done = int(model.optimizer.iterations) // -(-len(y) // size)
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return model, done


def read_data(path):
    """Close by the minute (UTC) and, where the CSV file has them, Open, High, Low and Volume.

    Kaggle's, Bitstamp's, Binance's and Yahoo's names; times in seconds, ms, µs or ns since 1970,
    or ISO 8601; in any order. A minute without a trade keeps the last price.
    """
    head = pd.read_csv(path, sep="\a", nrows=0).columns[0]  # its first line
    if head.startswith("version https://git-lfs"):
        raise ValueError("a Git LFS pointer instead of the file: git lfs pull brings it")
    table = pd.read_csv(path, sep=max(",;\t", key=head.count), index_col=False)
    names = table.columns.str.strip().str.replace("_", " ").str.title()
    table.columns = names.str.replace("Volume .*", "Volume", regex=True)
    table = table.loc[:, ~table.columns.duplicated()]
    times = table.filter(["Timestamp", "Unix", "Open Time", "Datetime", "Date", "Time"])
    if times.empty or "Close" not in table:
        raise ValueError(f"no rows, or no Timestamp or Close among its columns: {list(names)}")
    times = pd.Index(times.iloc[:, 0], name="Time")
    if pd.api.types.is_numeric_dtype(times):
        unit = ["s", "ms", "us", "ns"][np.searchsorted([1e11, 1e14, 1e17], times[0])]
        times = pd.to_datetime(times, unit=unit)
    times = pd.to_datetime(times, format="ISO8601", utc=True).tz_localize(None)
    table = table.filter(["Open", "High", "Low", "Close", "Volume"]).astype("float64")
    step = times.unique().sort_values().to_series().diff().median()
    if step != pd.Timedelta(minutes=1):
        raise ValueError(f"it has no minutes: from row to row it is {step} (median)")
    if not table["Close"].min() > 0:
        raise ValueError("a price in Close is not above 0, or all are missing")
    table = table.set_index(times).sort_index().resample("min").last()
    table["Close"] = table["Close"].ffill()
    empty = {name: 0 if name == "Volume" else table["Close"] for name in table}
    return table.fillna(empty).dropna()  # what is before the first trade goes


def report(model, data, run_dir, forecast=None):
    """Root mean squared errors of the test in dollars; writes forecasts.csv, for baselines.py."""
    X, change = data["test_X"], data["test_y"]
    expected = forecast(model, X) if forecast else model.predict(X, 1000, verbose=0)[:, 0]
    ours, naive = (float(np.sqrt(np.mean((change - x) ** 2))) for x in (expected, 0))
    print(f"test RMSE {ours:.4f} dollars; of the last value, which expects no change: {naive:.4f}")
    table = pd.DataFrame({"change": change, "forecast": expected}, index=data["test_times"])
    table.to_csv(run_dir / "forecasts.csv")
    return {"test": {"rmse": ours}, "baselines": {"last_value_rmse": naive}}


def parse_arguments(parser=None):
    parser = parser or argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file of minute prices')
    parser.add_argument("--train-dates", nargs=2, default=TRAIN_DATES, help="2017-01-01 2017-05-31")
    parser.add_argument("--test-dates", nargs=2, default=TEST_DATES, help="2017-06-01 2017-06-30")
    parser.add_argument("--lags", type=int, default=10, help="minutes in a window, default: 10")
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=[], help="further inputs")
    parser.add_argument("--scale", choices=["minmax", "std"], default="minmax", help="of inputs")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--batch-size", type=int, default=100, help="default: 100")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/<script>")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", Path(parser.prog).stem + suffix)
    if min(args.epochs, args.batch_size, args.lags) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs, --batch-size and --lags begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data, args.train_dates, args.test_dates, args.lags, args.inputs)
        X, y = data["train_X"], data["train_y"]
        settings = {"script": "lstm_bitcoin", "data": zlib.crc32(X.tobytes() + y.tobytes())}
        settings |= {"train_dates": args.train_dates, "lags": args.lags, "inputs": args.inputs}
        settings |= {"scale": args.scale, "batch_size": args.batch_size, "seed": args.seed}
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["data"] != settings["data"]:
                raise ValueError(f"{args.run_dir} was trained on other minutes or inputs")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data, args.run_dir)
        model, done = open_run(args.run_dir, settings, X, y)
        model = model or build_network(X, args.scale)
        model.make_train_function()  # what a backend refuses, it says here
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        source = args.data or "bitcoin (python data/fetch.py bitcoin)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    rows = tf.data.Dataset.from_tensor_slices((X, y))
    model.fit(
        rows.shuffle(len(rows), seed=args.seed + done).batch(args.batch_size),
        epochs=args.epochs,
        initial_epoch=done,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=create_callbacks(model, args.run_dir),
        shuffle=False,  # the windows are, anew in each epoch
    )
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch").rename(lambda n: n + 1)
    axes = history.plot(subplots=True, grid=True, ylabel="dollars squared")
    axes[0].figure.savefig(args.run_dir / "learning_curves.png")
    best = keras.models.load_model(args.run_dir / "model.keras")
    metrics = settings | {"test_dates": args.test_dates} | report(best, data, args.run_dir)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_loss"].argmin()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics, forecasts and a picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
