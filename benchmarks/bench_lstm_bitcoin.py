"""Chapter 9's LSTM: forecasts per second in training, the book's way against ours, in one run.

    python benchmarks/bench_lstm_bitcoin.py                    # about two minutes on 2 cores
    python benchmarks/bench_lstm_bitcoin.py --data bitcoin.csv

The book's way: float64 arrays, `fit` as it comes, one batch per trip from Python. Ours: the
script's own `build_network`, float32, 16 batches per trip, in stream order. Then the stateless
network, `--each-minute` (as many forecasts, but each minute read once instead of ten times), and
ours unrolled and compiled by XLA. All train the same layers on the same minutes at the book's batch
size, by turns, after a warm-up; validation, checkpoints and logs are left out. Speed is forecasts
learned from per second; the seconds of a whole epoch are those of the 195,600 training windows of
January to May 2017.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from common import record

CHAPTER = Path(__file__).resolve().parent.parent / "chapter09"
sys.path.insert(0, str(CHAPTER))  # for its lstm_bitcoin and baselines
import lstm_bitcoin

EPOCH = 195_600  # windows in one epoch of the real months


def recompile(network, unroll=False, **settings):
    """The same layers with random weights of their own, compiled otherwise."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.LSTM):
            config["unroll"] = unroll
        return layer.__class__.from_config(config)

    model = keras.models.clone_model(network, clone_function=clone)
    model.compile(optimizer="adam", loss="mean_squared_error", **settings)
    return model


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="sample", help='default: "sample"')
    parser.add_argument("--windows", type=int, default=16_000, help="an epoch (default: 16,000)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs measured each (default: 5)")
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    df, _ = lstm_bitcoin.fill_gaps(lstm_bitcoin.read_data(args.data))
    data = lstm_bitcoin.prep_data(df, lstm_bitcoin.split_dates(df))
    X, y = data["train_X"][: args.windows], data["train_y"][: args.windows]
    streams = lstm_bitcoin.arrange(X, y, lstm_bitcoin.BATCH_SIZE)
    whole = len(streams[0])
    plain = X[:whole].astype("float64"), y[:whole].astype("float64")
    read_once = lstm_bitcoin.arrange(X, y, lstm_bitcoin.BATCH_SIZE, each_minute=True)
    ours = lstm_bitcoin.build_network()
    stateless = lstm_bitcoin.build_network(stateful=False)
    compiled = recompile(ours, unroll=True, steps_per_execution=16, jit_compile=True)
    contestants = {  # model, windows, shuffled
        "the book's way": (recompile(ours), plain, True),
        "ours": (ours, streams, False),
        "ours, --stateless": (stateless, (X[:whole], y[:whole]), True),
        "ours, --each-minute": (lstm_bitcoin.build_network(each_minute=True), read_once, False),
        "ours, unrolled, XLA": (compiled, streams, False),
    }
    speeds = {name: [] for name in contestants}
    for turn in range(args.repeats + 2):
        for name, (model, arrays, shuffle) in contestants.items():
            start = time.perf_counter()
            model.fit(*arrays, batch_size=lstm_bitcoin.BATCH_SIZE, shuffle=shuffle, verbose=0)
            if turn > 1:  # the first two compile: whole trips of 16 batches, then the odd one
                speeds[name].append(arrays[1].size / (time.perf_counter() - start))

    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"batch size {lstm_bitcoin.BATCH_SIZE}, {whole:,} windows, "
        f"median (lowest to highest) of {args.repeats}"
    )
    book = np.array(speeds["the book's way"])
    for name, values in speeds.items():
        median = statistics.median(values)
        by_turn = np.array(values) / book  # of the same turn: a busy machine slows both
        print(
            f"  {name:20} {median:7.0f} forecasts/s ({min(values):.0f} to {max(values):.0f})"
            f"  {median / np.median(book):5.2f} times (by turns {by_turn.min():.2f} to "
            f"{by_turn.max():.2f})  {EPOCH / median:5.1f} s an epoch"
        )
    record("chapter 9, LSTM: training", "forecasts/s", book, speeds["ours"])


if __name__ == "__main__":
    main()
