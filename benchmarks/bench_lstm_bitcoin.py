"""Chapter 9's LSTM: forecasts per second in training, the book's way against ours, in one run.

    python benchmarks/bench_lstm_bitcoin.py                    # about two minutes on 2 cores
    python benchmarks/bench_lstm_bitcoin.py --data bitcoin.csv

The book's way: its stateful network, shuffled windows as float64 arrays, one batch per trip from
Python. Ours: lstm_bitcoin.py, float32 from a tf.data pipeline, 16 batches per trip; and
lstm_bitcoin_stateful.py, which learns from as many forecasts but reads each minute once instead of
ten times. All train the same layers on the same minutes at the book's batch size, by turns, after a
warm-up; validation, checkpoints and logs are left out. The seconds of an epoch are those of the
195,600 training windows of January to May 2017.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import ROOT, load_script, record, time_fit

EPOCH = 195_600  # windows in one epoch of the real months
BATCH_SIZE = 100


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="sample", help='default: "sample"')
    parser.add_argument("--windows", type=int, default=16_000, help="an epoch (default: 16,000)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs measured each (default: 5)")
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    stateful = load_script(ROOT / "chapter09" / "lstm_bitcoin_stateful.py")
    plain = load_script(ROOT / "chapter09" / "lstm_bitcoin.py")
    data = plain.load_data(args.data)
    whole = min(args.windows, len(data["train_y"])) // BATCH_SIZE * BATCH_SIZE
    X, y = data["train_X"][:whole], data["train_y"][:whole]
    book = stateful.build_network(X, "minmax", BATCH_SIZE, book_order=True)
    book.compile("adam", "mean_squared_error")  # one batch per trip
    windows = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(whole).batch(BATCH_SIZE)
    streams = tf.data.Dataset.from_tensor_slices(stateful.make_streams(X, y, BATCH_SIZE))
    arrays = X.astype("float64"), y.astype("float64")
    contestants = {
        "the book's way": (book, arrays, {"batch_size": BATCH_SIZE, "shuffle": True}),
        "ours": (plain.build_network(X), (windows,), {"shuffle": False}),
        "ours, each minute once": (
            stateful.build_network(X, "minmax", BATCH_SIZE),
            (streams.batch(BATCH_SIZE),),
            {"shuffle": False},
        ),
    }
    speeds = {name: [] for name in contestants}
    for turn in range(args.repeats + 2):
        for name, (model, rows, options) in contestants.items():
            seconds = time_fit(model, *rows, **options)
            if turn > 1:  # the first two compile: whole trips of 16 batches, then the odd one
                speeds[name].append(whole / seconds)

    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"batch size {BATCH_SIZE}, {whole:,} windows, "
        f"median (lowest to highest) of {args.repeats}"
    )
    theirs = np.array(speeds["the book's way"])
    for name, values in speeds.items():
        median = statistics.median(values)
        by_turn = np.array(values) / theirs  # of the same turn: a busy machine slows both
        print(
            f"  {name:22} {median:7.0f} forecasts/s ({min(values):.0f} to {max(values):.0f})"
            f"  {median / np.median(theirs):5.2f} times (by turns {by_turn.min():.2f} to "
            f"{by_turn.max():.2f})  {EPOCH / median:5.1f} s an epoch"
        )
    record("chapter 9, LSTM: training", "forecasts/s", theirs, speeds["ours"])


if __name__ == "__main__":
    main()
