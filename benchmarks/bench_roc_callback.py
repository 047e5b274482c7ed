"""Chapter 4's ROC AUC callback: seconds per epoch, the book's way against ours, in one run.

    python benchmarks/bench_roc_callback.py            # about 1 minute on 2 cores

The book's way: `fit` as it comes, and a callback that runs `predict` over the training and the
validation rows in batches of 32 after every epoch. Ours: the script's own `build_network`, 16
batches per trip from Python, and its `RocAUCScore`. In between: the book's callback on our
network. All train the same network on as many rows as the real set has, by turns, after a warm-up
epoch; after each epoch the callback is called once more, to be timed alone. Both callbacks must
agree on the score.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
CHAPTER = Path(__file__).resolve().parent.parent / "chapter04"
sys.path.insert(0, str(CHAPTER))  # for its roc_callback

import dnn_eeg
import keras
import numpy as np
from common import record
from sklearn.metrics import roc_auc_score

BATCH_SIZE = 32


class BookRocAUC(keras.callbacks.Callback):
    """Two calls of `predict` with its default batch size after every epoch, as in the book."""

    def __init__(self, training_data, validation_data):
        super().__init__()
        self.sets = {"roc_auc": training_data, "val_roc_auc": validation_data}

    def on_epoch_end(self, epoch, logs=None):
        for name, (X, y) in self.sets.items():
            logs[name] = roc_auc_score(y, self.model.predict(X, verbose=0))


def compile_as_in_the_book(model):
    """One batch per trip from Python, which is what `compile` does when told nothing."""
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=9200, help="for training (default: 9200)")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs each (default: 5)")
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    data = dnn_eeg.load_data("sample")  # the speed does not depend on what the rows show
    X = data["train_X"]
    sets = []
    for part, count in (("train", args.rows), ("val", args.rows // 8)):
        rows = np.resize(np.arange(len(data[f"{part}_y"])), count)
        sets.append((data[f"{part}_X"][rows], data[f"{part}_y"][rows]))

    contestants = {
        "the book's way": (compile_as_in_the_book(dnn_eeg.build_network(X)), BookRocAUC(*sets)),
        "the book's callback, our network": (dnn_eeg.build_network(X), BookRocAUC(*sets)),
        "ours": (dnn_eeg.build_network(X), dnn_eeg.RocAUCScore(*sets)),
    }
    check = BookRocAUC(*sets)
    epochs, callbacks = ({name: [] for name in contestants} for _ in range(2))
    for turn in range(args.repeats + 1):
        for name, (model, callback) in contestants.items():
            start = time.perf_counter()
            history = model.fit(
                *sets[0],
                batch_size=BATCH_SIZE,
                validation_data=sets[1],
                callbacks=[callback],
                verbose=0,
            ).history
            middle = time.perf_counter()
            callback.on_epoch_end(0, {})
            end = time.perf_counter()
            if turn > 0:  # the first epoch compiles
                epochs[name].append(middle - start)
                callbacks[name].append(end - middle)
            check.set_model(model)
            check.on_epoch_end(0, expected := {})
            for score, value in expected.items():  # 32 rows at a time round differently
                assert abs(history[score][0] - value) < 1e-3

    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"batch size {BATCH_SIZE}, {args.rows} + {args.rows // 8} rows, "
        f"median (lowest to highest) of {args.repeats} epochs"
    )
    for what, seconds in (("one epoch", epochs), ("the callback alone", callbacks)):
        print(what)
        for name, values in seconds.items():
            median = statistics.median(values)
            print(f"  {name:33} {median:7.3f} s ({min(values):.3f} to {max(values):.3f})")
        book, ours = (statistics.median(seconds[name]) for name in ("the book's way", "ours"))
        print(f"  {'ratio':33} {book / ours:7.2f}")
    record("chapter 4, MLP with ROC AUC: an epoch", "s", epochs["the book's way"], epochs["ours"])


if __name__ == "__main__":
    main()
