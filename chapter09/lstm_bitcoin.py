"""Train the book's two-layer LSTM: next minute's change of the bitcoin price from the ten before.

Book: chapter 9, "Using an LSTM for time series prediction".

    python data/fetch.py bitcoin                          # the real prices
    python chapter09/lstm_bitcoin.py                      # train January to May 2017, test June
    python chapter09/lstm_bitcoin.py --stateless          # the ordinary LSTM, to compare
    python chapter09/lstm_bitcoin.py --data sample        # simulated stand-in, no network
    python chapter09/lstm_bitcoin.py --data my_prices.csv --train-dates 2020-01-01 2020-05-31 \
        --test-dates 2020-06-01 2020-06-30

Look at the last lines: does the network beat the last value, the simplest forecast there is?
It does not, though it looks the part on a chart of prices (predict_and_graph.py): on the real June
the RMSE is 3.68 dollars for both, 0.0202 scaled; over four trainings the network's squared error
lies between 0.4 % below and 0.03 % above the last value's (chapter09/README.md). An epoch takes 20
to 30 seconds on 2 CPU cores, 4 with --each-minute (Keras 3.15, TensorFlow 2.21, Python 3.11).

The test month is scored once. Everything a forecast uses lies before the minute it is for.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from baselines import compare_with_last_value, dickey_fuller, forecast_baselines, score
from keras import layers
from sklearn.preprocessing import MinMaxScaler

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter09"
TRAIN_DATES = ("2017-01-01", "2017-05-31")
TEST_DATES = ("2017-06-01", "2017-06-30")
VAL_SHARE = 0.1  # the last tenth of the training months chooses the epoch
LAGS = 10
BATCH_SIZE = 100
# The two spellings of the columns: Kaggle's, as in the book, and the Bitstamp mirror's.
COLUMNS = {"open": "Open", "high": "High", "low": "Low", "close": "Close"}
COLUMNS |= {"timestamp": "Timestamp", "volume": "Volume", "volume_(btc)": "Volume"}


def read_data(source=None):
    """Read minute prices; nothing is filled yet.

    Args:
        source: None for data/bitcoin/bitcoin.csv, "sample" for the stand-in, or the path of a CSV
            file with the columns `Timestamp` (Unix seconds, whole minutes, ascending) and `Close`
            (US dollars, empty or NaN in a minute without a trade); `Open`, `High`, `Low` and
            `Volume_(BTC)` or `Volume` are read where they stand. Capitals do not matter.

    Returns:
        DataFrame of float64 with a DatetimeIndex (UTC) and the columns found, in the file's order.

    Raises:
        OSError: nothing there. ValueError: not in the format above; the message says where.
    """
    path = DATA_DIR / "bitcoin" / "bitcoin.csv" if source is None else Path(source)
    if source == "sample":
        path = DATA_DIR / "samples" / "bitcoin.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist or is no file; `python data/fetch.py bitcoin` brings the real "
            "prices, --data takes a CSV file, and --data sample works now"
        )
    try:
        df = pd.read_csv(
            path,
            usecols=lambda name: name.lower() in COLUMNS,
            encoding="utf-8-sig",
            low_memory=False,
        ).rename(columns=lambda name: COLUMNS[name.lower()])
    except ValueError as error:  # not text, no text at all, or rows of different lengths
        raise ValueError(f"{path} is not a readable CSV file ({error})") from error
    missing = ", ".join(name for name in ("Timestamp", "Close") if name not in df)
    if missing:
        raise ValueError(
            f"{path}: column missing: {missing} (it has {', '.join(df) or 'no other'})"
        )
    if df.columns.has_duplicates:
        raise ValueError(f"{path}: two columns for {df.columns[df.columns.duplicated()][0]}")
    if not df.index.equals(pd.RangeIndex(len(df))):
        raise ValueError(f"{path}: its rows have more cells than its first line has column names")
    if df.empty:
        raise ValueError(f"{path} has a header but no prices below it")

    def refuse(rows, column, problem):
        for row in np.flatnonzero(rows)[:1]:
            raise ValueError(
                f"{path}, row {row + 1} below the header, column {column}: "
                f'"{df[column].iat[row]}" {problem}'
            )

    for column in df:
        numbers = pd.to_numeric(df[column], errors="coerce")
        refuse(numbers.isna() & df[column].notna() | np.isinf(numbers), column, "is not a number")
        df[column] = numbers.astype("float64")
    stamps = df.Timestamp
    refuse(stamps.isna(), "Timestamp", "is no time")
    refuse(stamps.abs() > 1e11, "Timestamp", "is too large for Unix seconds (milliseconds?)")
    refuse(stamps % 60 != 0, "Timestamp", "is not a whole minute")
    refuse(stamps.diff() == 0, "Timestamp", "stands twice")
    refuse(stamps.diff() < 0, "Timestamp", "is earlier than the row before; sort the file by time")
    refuse(df.Close <= 0, "Close", "is not a price above 0")
    if df.Close.isna().all():
        raise ValueError(f"{path}: column Close is empty in every row")
    df.index = pd.to_datetime(df.pop("Timestamp"), unit="s").rename("Time")
    return df


def select_dates(df, start, end):
    """The rows from `start` to `end`, both included; a bare date means the whole day.

    The book compares times with dates and so loses all of the last day but its first minute.
    """
    try:
        rows = df.loc[start:end]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{start} to {end} is not a range of dates (YYYY-MM-DD)") from error
    if rows.empty:
        raise ValueError(
            f"no prices from {start} to {end}; there are some from {df.index[0]} to {df.index[-1]}"
        )
    return rows


def fill_gaps(df):
    """One row for each minute: without a trade the last price stands on, and the volume is 0.

    Only the past fills a gap. Minutes before the first trade are dropped.

    Returns:
        (df, gaps): the filled frame; dict with the number of minutes `filled`, of them
        `without_price` (a row, but no price) and `without_row`, and the `longest` run.
    """
    first = df.Close.first_valid_index()
    if first is None:
        raise ValueError(f"no price at all from {df.index[0]} to {df.index[-1]}")
    df = df.loc[first:]
    grid = df.asfreq("min")
    empty = grid.Close.isna()
    runs = empty.groupby((~empty).cumsum()).sum()
    gaps = {
        "filled": int(empty.sum()),
        "without_price": int(df.Close.isna().sum()),
        "without_row": len(grid) - len(df),
        "longest": int(runs.max()),
    }
    if "Volume" in grid:
        grid["Volume"] = grid.Volume.fillna(0)
    return grid.ffill(), gaps


def diff_data(df):
    """From stock to flow: each minute's change. The first minute has none and stays NaN."""
    return df.diff()


def scale_data(flow, scaler=None):
    """Scale flows to [-1, 1]: the range of `flow` without a scaler, else that of the scaler given.

    The book refits the scaler it is given, so that its test set was scaled by itself.

    Returns:
        (scaler, scaled): MinMaxScaler; Series. Flows beyond the fitted range land beyond ±1.
    """
    values = flow.to_numpy().reshape(-1, 1)
    if scaler is None:
        scaler = MinMaxScaler(feature_range=(-1, 1)).fit(values)
    return scaler, pd.Series(scaler.transform(values)[:, 0], index=flow.index, name="Price")


def lag_dataframe(series, lags=1):
    """Each value `y` beside the `lags` values before it, oldest first: lag_3, lag_2, lag_1, y.

    The number says how many minutes back a column looks. Rows without a whole history are dropped;
    the book fills them with zeros, which are changes that never happened.
    """
    columns = {f"lag_{back}": series.shift(back) for back in range(lags, 0, -1)}
    return pd.DataFrame(columns | {"y": series}).dropna()


def split_dates(df, train_dates=TRAIN_DATES, test_dates=TEST_DATES):
    """Start and end of "train", "val" (the last tenth of the training months) and "test"."""
    train = select_dates(df, *train_dates).index
    test = select_dates(df, *test_dates).index
    if test[0] <= train[-1]:
        raise ValueError(f"the test range starts {test[0]}, before the training range ends")
    cut = int(len(train) * (1 - VAL_SHARE))
    return {
        "train": (train[0], train[max(cut - 1, 0)]),
        "val": (train[cut], train[-1]),
        "test": (test[0], test[-1]),
    }


def prep_data(df, dates, lags=LAGS, scaler=None):
    """Difference, scale and lag filled prices, then cut them into parts.

    Cut last, so that June's first windows look back into May, as a forecaster would.

    Args:
        df: filled prices (`fill_gaps`). dates: part → (start, end), as from `split_dates`.
        lags: minutes in a window. scaler: None to fit one on the part "train" alone.

    Returns:
        dict with, for each part, `<part>_X`: float32 (n, lags, 1), oldest minute first;
        `<part>_y`: float32 (n,), the scaled flow that follows; `<part>_times`: the minutes of
        `<part>_y`; and `scaler`.
    """
    flow = diff_data(df).Close
    if scaler is None:
        scaler, _ = scale_data(select_dates(flow, *dates["train"]).dropna())
    scaler, scaled = scale_data(flow, scaler)
    lagged = lag_dataframe(scaled, lags)
    data = {"scaler": scaler}
    for part, (start, end) in dates.items():
        rows = lagged.loc[start:end]
        data[f"{part}_X"] = rows.drop(columns="y").to_numpy("float32")[:, :, np.newaxis]
        data[f"{part}_y"] = rows["y"].to_numpy("float32")
        data[f"{part}_times"] = rows.index
    return data


def stream_order(count, batch_size, lags):
    """The order in which a stateful network has to read `count` windows that follow each other.

    A stateful layer starts row r of a batch from the state that row r of the batch before left.
    That makes sense only if the one window begins where the other ended, `lags` minutes later. So
    the series is cut into batch_size / lags blocks; row r stays in one block, at one offset, and
    moves on by a whole window from batch to batch: 100 streams without gap or overlap. In the
    order of time itself each row would leave out 90 minutes between its windows; shuffled, as the
    book's `fit` does by default, it would go on anywhere.

    Returns:
        int array, a multiple of `batch_size` long; numbers from `count` on are padding.
    """
    steps = -(-count // batch_size)
    order = np.arange(steps * batch_size).reshape(batch_size // lags, steps, lags)
    return order.transpose(1, 0, 2).ravel()


def build_network(
    sequence_length=LAGS, batch_size=BATCH_SIZE, stateful=True, units=100, each_minute=False
):
    """The book's network, compiled: two LSTM layers, one tanh output, trained on squared error.

    Returns:
        keras.Model from (n, sequence_length, 1) to (n, 1), with `each_minute` to
        (n, sequence_length, 1), a forecast after each minute of the window; the weights fit both.
        A stateful one takes batches of exactly `batch_size`.
    """
    inputs = keras.Input(
        batch_shape=(batch_size if stateful else None, sequence_length, 1), name="input"
    )
    x = layers.LSTM(units, return_sequences=True, stateful=stateful, name="lstm1")(inputs)
    x = layers.LSTM(units, return_sequences=each_minute, stateful=stateful, name="lstm2")(x)
    output = layers.Dense(1, activation="tanh", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=output, name="lstm_bitcoin")
    # 16 batches per trip from Python (benchmarks/bench_lstm_bitcoin.py)
    model.compile(optimizer="adam", loss="mean_squared_error", steps_per_execution=16)
    return model


def reset_states(model):
    """Empty the memory of every stateful layer. Keras never does that by itself."""
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()


class ResetStates(keras.callbacks.Callback):
    """Start each epoch and each validation from an empty memory.

    Otherwise January would begin with what validation, May's end, left behind.
    """

    def on_epoch_begin(self, epoch, logs=None):
        reset_states(self.model)

    def on_test_begin(self, logs=None):
        reset_states(self.model)


def create_callbacks(run_dir, resuming=False):
    """Callbacks that reset states, keep the best epoch, log each, and let a killed run go on.

    Args:
        run_dir: pathlib.Path of an existing folder.
        resuming: whether to go on with the logs of an interrupted run.
    """
    best_path, history_path = run_dir / "model.keras", run_dir / "history.csv"
    best_so_far = None
    # Without the threshold the first epoch after a restart would replace a better one. A file
    # half-written when the run was killed does not count.
    if resuming and history_path.exists() and zipfile.is_zipfile(best_path):
        best_so_far = pd.read_csv(history_path)["val_loss"].min()
    return [
        ResetStates(),
        keras.callbacks.ModelCheckpoint(
            best_path,
            monitor="val_loss",
            mode="min",
            save_best_only=True,
            initial_value_threshold=best_so_far,
        ),
        keras.callbacks.CSVLogger(history_path, append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]


def finished_epochs(backup_dir):
    """Number of epochs that the backup of `BackupAndRestore` in `backup_dir` holds; 0 without one.

    A kill while Keras writes that number leaves an empty file. Then the backup of the epoch before,
    which `double_checkpoint` keeps, takes its place.
    """
    for suffix in ("", ".bkp"):
        try:
            text = (backup_dir / f"training_metadata.json{suffix}").read_text()
            epochs = json.loads(text)["epoch"]
        except (OSError, ValueError):
            continue
        if suffix:
            for name in ("latest.weights.h5", "training_metadata.json"):
                shutil.copy(backup_dir / f"{name}.bkp", backup_dir / name)
        return epochs
    return 0


def interrupted_run(run_dir, settings):
    """Whether `run_dir` holds an unfinished training of the same settings; says what it found.

    A backup of other data or another seed is set aside: going on from it would mix two runs.
    """
    settings_path = run_dir / "settings.json"
    epochs = finished_epochs(run_dir / "backup")
    if epochs:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            print(f"Resuming the interrupted run in {run_dir} after epoch {epochs}.")
            return True
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    shutil.rmtree(run_dir / "backup", ignore_errors=True)
    (run_dir / "model.keras").unlink(missing_ok=True)  # its scaler is about to be replaced
    settings_path.write_text(json.dumps(settings, indent=2))
    (run_dir / "scaler.json").write_text(json.dumps(settings["scaler"], indent=2))
    return False


def describe_scaler(scaler):
    """The scaler in plain numbers, which any program can read: no pickle needed."""
    return {
        "column": "change of Close, US dollars a minute",
        "smallest": float(scaler.data_min_[0]),
        "largest": float(scaler.data_max_[0]),
    }


def load_run(run_dir):
    """Model of the best epoch and scaler saved in `run_dir`.

    Raises:
        OSError: there is none. ValueError: it cannot be read.
    """
    path = run_dir / "model.keras"
    if not path.exists():
        raise OSError(f"{path} does not exist; train first: python chapter09/lstm_bitcoin.py")
    try:
        model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
        limits = json.loads((run_dir / "scaler.json").read_text())
        _, lags, _ = model.input_shape
        # The two extremes are all that the scaler has learned.
        scaler, _ = scale_data(pd.Series([limits["smallest"], limits["largest"]], dtype="float64"))
    except Exception as error:  # many kinds, depending on which part of which file is damaged
        raise ValueError(
            f"{path} or its scaler.json cannot be loaded ({error}); train again"
        ) from error
    return model, scaler, lags


def is_stateful(model):
    """Whether the network carries its state from batch to batch."""
    return model.get_layer("lstm1").stateful


def arrange(X, y, batch_size, each_minute=False):
    """Windows in stream order for `fit`; the oldest few go, so that all batches are whole.

    With `each_minute` only windows that do not overlap stay, a tenth, and each has the flows after
    all of its minutes as target: as many forecasts, but every minute is read once, not ten times.
    """
    lags = step = X.shape[1]
    if each_minute:
        count = len(X) // (lags * batch_size) * batch_size
        X, y = X[-count * lags :][lags - 1 :: lags], y[-count * lags :].reshape(count, lags, 1)
        step = 1  # the next window in the series goes on where this one ends
    count = len(X) // batch_size * batch_size
    order = stream_order(count, batch_size, step)
    return X[-count:][order], y[-count:][order]


def predict(model, X, batch_size=None):
    """Scaled flows that the network expects after the windows X, in their order, (n,).

    A stateful network reads all of X as one series, from an empty memory: a batch is the `lags`
    windows between which there is one minute each. With `batch_size` it reads blocks side by side
    instead, as in training: faster on a long series.
    """
    if not is_stateful(model):
        return model.predict(X, batch_size=1000, verbose=0)[:, 0]
    lags = X.shape[1]
    batch_size = batch_size or lags
    # A stateful network knows one batch size only: the same weights go into one of another.
    network = build_network(lags, batch_size, units=model.get_layer("lstm1").units)
    network.set_weights(model.get_weights())
    order = stream_order(len(X), batch_size, lags)
    expected = np.empty(len(order), "float32")
    padded = np.minimum(order, len(X) - 1)
    expected[order] = network.predict(X[padded], batch_size=batch_size, verbose=len(X) > 5000)[:, 0]
    return expected[: len(X)]


def to_dollars(scaler, scaled):
    """Scaled flows back to US dollars a minute."""
    return scaler.inverse_transform(np.reshape(scaled, (-1, 1)).astype("float64"))[:, 0]


def evaluate(model, data, flow, part):
    """Scores of the network on one part of the data (`score`), and its forecasts in dollars."""
    batch_size = model.input_shape[0] if part == "train" else None
    expected = to_dollars(data["scaler"], predict(model, data[f"{part}_X"], batch_size))
    return score(flow[data[f"{part}_times"]], expected, **yardsticks(data, flow)), expected


def yardsticks(data, flow):
    """What errors are measured in: dollars per scaled unit, and the naive error in training."""
    return {
        "dollars_per_unit": 1 / float(data["scaler"].scale_[0]),
        "naive_mae": float(flow[data["train_times"]].abs().mean()),
    }


def report(model, data, df, exog):
    """Score the network and the baselines, print all and the verdict; returns the scores."""
    flow = diff_data(df).Close
    scores = {}
    for part in ("train", "val", "test"):
        scores[part], expected = evaluate(model, data, flow, part)
    test_times = data["test_times"]
    actual = flow[test_times]
    print("Baselines: last value, drift, exponential smoothing, ARIMA …")
    columns = df[exog].shift(1) if exog else None  # known one minute ahead: last minute's
    forecasts, fits = forecast_baselines(df.Close, test_times, columns)
    table = {"LSTM": scores["test"]}
    for name, forecast in forecasts.items():
        table[name] = score(actual, forecast, **yardsticks(data, flow))
    scores["baselines"] = {
        f"{name.lower().replace(' ', '_')}_{metric}": value
        for name, metrics in table.items()
        if name != "LSTM"
        for metric, value in metrics.items()
    } | fits

    print(f"\nTest, {test_times[0]} to {test_times[-1]}, one minute ahead:")
    print(f"{'':24}RMSE scaled  RMSE USD  MASE   direction right (95 % interval)")
    for name, row in table.items():
        right = "forecasts no move"
        if row["direction"] is not None:
            right = "{direction:.4f} ({direction_low:.4f} to {direction_high:.4f})".format(**row)
        print(
            f"{name:24}{row['rmse_scaled']:11.5f}{row['rmse_usd']:10.4f}{row['mase']:7.4f}  {right}"
        )
    print(
        "Direction counts the minutes in which the price moved and the model forecast a move;\n"
        f"the price stood still in {(actual == 0).mean():.1%} of all minutes."
    )
    for name, forecast in {"LSTM": expected, **forecasts}.items():
        if name != "last value":
            verdict = compare_with_last_value(actual, forecast)
            print(f"{name} against the last value: {verdict.pop('words')}")
            if name == "LSTM":
                scores["verdict"] = verdict
    scores["adf"] = {}
    known = df.Close[: test_times[0]]
    for name, series in (("price", known), ("flow", flow[known.index].dropna())):
        statistic, p_value = dickey_fuller(series)
        scores["adf"] |= {f"{name}_statistic": statistic, f"{name}_p_value": p_value}
        print(
            f"Augmented Dickey-Fuller on the {name}: statistic {statistic:.2f}, p = {p_value:.3g}"
        )
    return scores


def plot_history(history, naive, path):
    """Training and validation loss by epoch, validation beside the last value's, as a picture."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    epochs = history["epoch"] + 1
    left.plot(epochs, history["loss"], marker=".")
    left.set(title="training", ylabel="mean squared error (scaled)")
    right.plot(epochs, history["val_loss"], marker=".", label="network")
    right.axhline(naive, color="tab:green", label="last value")
    right.axvline(epochs[history["val_loss"].idxmin()], color="grey", ls=":", label="best epoch")
    right.set(title="validation")
    right.legend()
    for ax in (left, right):
        ax.set(xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        ax.grid(alpha=0.3)
    fig.tight_layout()
    fig.savefig(path, dpi=80)
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    dates = {"nargs": 2, "metavar": ("START", "END")}
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file of minute prices')
    parser.add_argument("--epochs", type=positive, default=10, help="default: 10")
    parser.add_argument("--batch-size", type=positive, default=BATCH_SIZE, help="default: 100")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter09/lstm_bitcoin")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--stateless", action="store_true", help="forget after every window")
    ways.add_argument(
        "--book-order",
        action="store_true",
        help="train as the book's listing does: windows shuffled, states never reset",
    )
    ways.add_argument(
        "--each-minute",
        action="store_true",
        help="learn from a forecast after each minute of a window: epochs eight times as fast",
    )
    parser.add_argument(
        "--lags", type=positive, default=LAGS, help="minutes in a window (default: 10)"
    )
    parser.add_argument("--train-dates", default=TRAIN_DATES, help="whole days", **dates)
    parser.add_argument("--test-dates", default=TEST_DATES, help="whole days", **dates)
    parser.add_argument(
        "--exog",
        nargs="+",
        choices=["Open", "High", "Low", "Volume"],
        metavar="COLUMN",
        help="also fit ARIMAX with the last minute's value of these columns, such as Volume",
    )
    args = parser.parse_args()
    if not args.stateless and args.batch_size % args.lags:
        parser.error(f"--batch-size must be a multiple of --lags ({args.lags}), or use --stateless")
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        ways = ("stateless", "book_order", "each_minute")
        name = "_".join(["lstm_bitcoin", *(way for way in ways if getattr(args, way))])
        args.run_dir = RUNS_DIR / (name + "_sample" * (args.data == "sample"))
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def load_data(args):
    """Filled prices from the start of training to the end of the test, and the arrays of them."""
    df = read_data(args.data)
    # Rows outside the two ranges are left out before gaps are filled and counted.
    df, gaps = fill_gaps(select_dates(df, args.train_dates[0], args.test_dates[1]))
    missing = [column for column in args.exog or [] if column not in df]
    if missing:
        raise ValueError(f"--exog {missing[0]}: the file has no such column ({', '.join(df)})")
    data = prep_data(df, split_dates(df, args.train_dates, args.test_dates), args.lags)
    for part in ("train", "val", "test"):
        least = args.batch_size * (args.lags if args.each_minute else 1)
        if len(data[f"{part}_y"]) < least:
            raise ValueError(
                f"{len(data[f'{part}_y'])} minutes with {args.lags} before them are too few for "
                f"the {part} set; one batch of {args.batch_size} needs {least}"
            )
    return df, gaps, data


def train(model, data, args, settings):
    """Fit `model`, going on from an interrupted run; the best epoch is left in the run directory.

    Returns:
        (history, seconds): DataFrame with one row per epoch; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    resuming = interrupted_run(args.run_dir, settings)
    fit_set, val_set = ((data[f"{part}_X"], data[f"{part}_y"]) for part in ("train", "val"))
    callbacks = create_callbacks(args.run_dir, resuming)
    if args.book_order:
        callbacks = [c for c in callbacks if not isinstance(c, ResetStates)]
        whole = len(fit_set[0]) // args.batch_size * args.batch_size
        fit_set = [array[-whole:] for array in fit_set]
        val_set = arrange(*val_set, args.batch_size)
    elif is_stateful(model):
        fit_set, val_set = (
            arrange(*pair, args.batch_size, args.each_minute) for pair in (fit_set, val_set)
        )
    start = time.perf_counter()
    model.fit(
        *fit_set,
        batch_size=args.batch_size,
        epochs=args.epochs,
        # The order is the point of a stateful network; the book leaves `fit`'s default, to shuffle.
        shuffle=args.stateless or args.book_order,
        validation_data=val_set,
        validation_batch_size=args.batch_size,
        callbacks=callbacks,
    )
    seconds = None if resuming else round(time.perf_counter() - start, 1)
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    no_change = data["scaler"].transform([[0]])[0, 0]  # the last value's forecast, scaled
    naive = float(np.mean((val_set[1] - no_change) ** 2))  # of the minutes that `fit` has seen
    plot_history(history, naive, args.run_dir / "learning_curves.png")
    return history, seconds


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    devices = keras.distribution.list_devices()
    gpus = [name for name in devices if not name.startswith("cpu")]
    device = gpus[0] if gpus else f"{devices[0]} ({os.cpu_count()} cores)"
    print(f"Keras {keras.__version__} on {backend}, device: {device}")

    try:
        if backend == "jax" and not args.stateless:
            # Keras 3.15: no state is kept between batches on JAX, and nothing says so.
            raise ValueError("a stateful LSTM forgets all the same on JAX; give --stateless")
        df, gaps, data = load_data(args)
        if args.evaluate:
            model, scaler, lags = load_run(args.run_dir)
            if describe_scaler(scaler) != describe_scaler(data["scaler"]) or lags != args.lags:
                raise ValueError(
                    f"{args.run_dir} was trained on other prices or lags; "
                    "give the --data, --train-dates and --lags it was trained with"
                )
        else:
            model = build_network(
                args.lags, args.batch_size, not args.stateless, each_minute=args.each_minute
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = Path(args.data).name if args.data else "bitcoin.csv"
    if args.data == "sample":
        source = "sample (a stand-in for the bitcoin prices, simulated)"
    print(f"Data: {source}")
    for part in ("train", "val", "test"):
        times = data[f"{part}_times"]
        print(f"  {part:5} {len(times):7,} minutes, {times[0]} to {times[-1]}")
    print(
        f"Without a trade: {gaps['filled']:,} of {len(df):,} minutes ({gaps['without_price']:,} "
        f"rows without a price, {gaps['without_row']:,} without a row; longest run "
        f"{gaps['longest']}).\nThey carry the last price forward: change 0, volume 0."
    )
    if args.evaluate:
        report(model, data, df, args.exog)
        return

    model.summary()
    settings = {
        "data": str(Path(args.data).resolve()) if args.data else source,
        "train_dates": list(args.train_dates),
        "scaler": describe_scaler(data["scaler"]),
        "lags": args.lags,
        "stateful": not args.stateless,
        "book_order": args.book_order,
        "each_minute": args.each_minute,
        "seed": args.seed,
        "batch_size": args.batch_size,
    }
    try:
        history, seconds = train(model, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    best_epoch = int(history["epoch"][history["val_loss"].idxmin()]) + 1
    print(f"\nThe best of {len(history)} epochs was number {best_epoch}.")
    model, _, _ = load_run(args.run_dir)
    metrics = {
        "script": "chapter09/lstm_bitcoin.py",
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "seconds": seconds,
        "parameters": model.count_params(),
        "stateful": not args.stateless,
        "book_order": args.book_order,
        "each_minute": args.each_minute,
        "gaps": gaps,
        **report(model, data, df, args.exog),
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(
        f"Model, scaler and metrics are in {args.run_dir}; pictures of any days: "
        f"python chapter09/predict_and_graph.py --run-dir {args.run_dir}"
    )


if __name__ == "__main__":
    main()
