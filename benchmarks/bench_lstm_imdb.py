"""Chapter 10's LSTM: reviews per second, all padded to the longest against batches of like length.

    python benchmarks/bench_lstm_imdb.py                        # Keras's IMDB, about 2 minutes
    python benchmarks/bench_lstm_imdb.py --data aclImdb/        # the same reviews as text

The book's way: every review padded to the longest of all (2,494 words in IMDB), batches in random
order. Ours: chapter10/lstm_imdb.py's `batch_by_length`, of texts cut to 400 words. The network,
`build_network` of that script, and the batch size are the same. A padded epoch takes many minutes,
so both ways are timed by turns on a few batches of an epoch, after a warm-up.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import ROOT, load_script, record, time_fit


def pad_to_longest(X, y, batch_size):
    """Batches in random order; the longest review is in each, so each is padded to its length."""
    longest = np.argmax([text.count(" ") for text in X])
    rows = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(y), seed=1)
    return rows.batch(batch_size - 1, drop_remainder=True).map(
        lambda texts, labels: (
            tf.concat([texts, [X[longest]]], axis=0),
            tf.concat([labels, [y[longest]]], axis=0),
        )
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", help='"sample", folder or tar of reviews (default: Keras\'s IMDB)'
    )
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--repeats", type=int, default=5, help="measurements each (default: 5)")
    parser.add_argument("--batches", type=int, nargs=2, default=(4, 40), help="timed at a time")
    args = parser.parse_args()

    script = load_script(ROOT / "chapter10" / "lstm_imdb.py")
    try:
        data = script.load_data(args.data)
    except Exception as error:  # Keras raises a bare one when a download fails
        if args.data:
            raise
        print(f"{error}\nThe sample's reviews instead, which are shorter.")
        args.data, data = "sample", script.load_data("sample")
    X, y = data["train_X"], data["train_y"]
    print(f"Keras {keras.__version__}, {os.cpu_count()} cores, {len(y):,} reviews")
    short = np.array([" ".join(text.split()[-400:]) for text in X], dtype=object)
    ways = {
        "padded to the longest": pad_to_longest(X, y, args.batch_size),
        "of like length, last 400 words": script.batch_by_length(short, y, args.batch_size, seed=1),
    }
    models = {name: script.build_network(X, steps=len(y) // args.batch_size) for name in ways}
    speeds = {name: [] for name in ways}
    for turn in range(args.repeats + 1):
        for (name, batches), count in zip(ways.items(), args.batches, strict=True):
            seconds = time_fit(models[name], batches.take(count), shuffle=False)
            if turn > 0:  # the first time compiles
                speeds[name].append(count * args.batch_size / seconds)
    baseline = statistics.median(next(iter(speeds.values())))
    for name, values in speeds.items():
        median = statistics.median(values)
        print(
            f"  {name:30} {median:7.1f} reviews/s ({min(values):.1f} to {max(values):.1f}), "
            f"{len(y) / median:6.0f} s an epoch, {median / baseline:5.2f} times"
        )
    which = "the sample's reviews" if args.data == "sample" else f"{len(y):,} reviews"
    record(f"chapter 10, LSTM: training on {which}", "reviews/s", *speeds.values())


if __name__ == "__main__":
    main()
