"""Chapter 10's LSTM: reviews per second, all padded to the longest against batches of like length.

    python benchmarks/bench_lstm_imdb.py                        # Keras's IMDB, about 2 minutes
    python benchmarks/bench_lstm_imdb.py --data aclImdb/        # the same reviews as text
    python benchmarks/bench_lstm_imdb.py --train-epochs 2       # what each way learns: much longer

The book's way: every review padded in front to the longest of all (2,494 words in IMDB), batches in
random order. Ours: chapter10/lstm_imdb.py's `BucketedBatches`, training reviews cut to their last
words (--max-length). The network, `build_network` of that script, and the batch size are the same.
A padded epoch takes many minutes, so both ways are timed by turns on a few randomly chosen batches
of an epoch, after a warm-up.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from common import ROOT, load_script, record


class PaddedBatches(keras.utils.PyDataset):
    """The book's way: all reviews as long as the longest, zeros in front."""

    def __init__(self, documents, labels, batch_size, length, seed=None):
        super().__init__()
        self.X, self.y = keras.utils.pad_sequences(documents, length), labels
        self.batch_size, self.rng = batch_size, seed and np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        rows = self.rng.permutation(len(self.y)) if self.rng else np.arange(len(self.y))
        self.batches = np.split(rows, range(self.batch_size, len(rows), self.batch_size))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.X[self.batches[index]], self.y[self.batches[index]]


class SomeBatches(keras.utils.PyDataset):
    """`count` batches drawn at random from another data set, made beforehand."""

    def __init__(self, dataset, count, seed):
        super().__init__()
        chosen = np.random.default_rng(seed).permutation(len(dataset))[:count]
        # The two first batches of differing length tell Keras that the length is not fixed.
        self.batches = sorted((dataset[i] for i in chosen), key=lambda batch: batch[0].shape[1])
        self.batches = self.batches[::-1][:1] + self.batches[:-1]

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", help="folder or tar of reviews (default: data/aclImdb, or else Keras's IMDB)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--max-length", type=int, default=400, help="ours (default: 400)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements each (default: 5)")
    parser.add_argument("--batches", type=int, nargs=2, default=(4, 40), help="timed at a time")
    parser.add_argument("--train-epochs", type=int, help="train both ways instead of timing them")
    args = parser.parse_args()

    script = load_script(ROOT / "chapter10" / "lstm_imdb.py")
    folder = ROOT / "data" / "aclImdb"
    source = args.data or (folder if folder.is_dir() else None)
    try:
        data = script.load_data(source=source)
    except OSError as error:
        if args.data:
            raise
        print(f"{error}\nThe sample's reviews instead, which are shorter.")
        source, data = "sample", script.load_data(source="sample")
    longest = max(map(len, data["train_X"]))
    X, y = data["train_X"], data["train_y"]
    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"{len(y):,} reviews, the longest of {longest:,} words, batch size {args.batch_size}"
    )
    ways = {
        f"padded to {longest:,}": PaddedBatches(X, y, args.batch_size, longest, seed=1),
        f"of like length, at most {args.max_length}": script.BucketedBatches(
            X, y, args.batch_size, args.max_length, seed=1
        ),
    }
    if args.train_epochs:
        val = script.BucketedBatches(data["val_X"], data["val_y"], 250)
        for name, dataset in ways.items():
            keras.utils.set_random_seed(1)
            model = script.build_network(len(data["vocabulary"]) + 2)
            for epoch in range(args.train_epochs):
                start = time.perf_counter()
                model.fit(dataset, shuffle=False, verbose=0)  # it shuffles by itself
                seconds = time.perf_counter() - start
                accuracy = model.evaluate(val, verbose=0, return_dict=True)["accuracy"]
                print(
                    f"  {name:28} epoch {epoch + 1}: {seconds:6.0f} s, "
                    f"validation accuracy {accuracy:.4f}",
                    flush=True,
                )
        return

    models = {name: script.build_network(len(data["vocabulary"]) + 2) for name in ways}
    speeds = {name: [] for name in ways}
    for turn in range(args.repeats + 1):
        for (name, dataset), count in zip(ways.items(), args.batches, strict=True):
            batches = SomeBatches(dataset, count, seed=turn)
            start = time.perf_counter()
            models[name].fit(batches, shuffle=False, verbose=0)
            if turn > 0:  # the first time compiles
                reviews = sum(len(labels) for _, labels in batches.batches)
                speeds[name].append(reviews / (time.perf_counter() - start))
    baseline = statistics.median(next(iter(speeds.values())))
    for name, values in speeds.items():
        median = statistics.median(values)
        print(
            f"  {name:28} {median:7.1f} reviews/s ({min(values):.1f} to {max(values):.1f}), "
            f"{len(y) / median:6.0f} s an epoch, {median / baseline:5.2f} times"
        )
    which = "the sample's reviews" if source == "sample" else f"{len(y):,} reviews"
    record(f"chapter 10, LSTM: training on {which}", "reviews/s", *speeds.values())


if __name__ == "__main__":
    main()
