"""Chapter 6's random search: the whole search, the book's way against ours, in one run.

    python benchmarks/bench_random_search.py          # about 2 minutes on 2 cores

Both fit the same candidates on the same folds, by turns, and refit the best. The digits are the
sample's, repeated until there are --images of them. The book's way: pixels scaled to float32
beforehand, `fit` as it comes, one batch per trip from Python. Ours: the script's `build_network`
on bytes, 16 batches per trip.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from common import ROOT, load_script, record
from sklearn.model_selection import RandomizedSearchCV


def book_network(X, y, dropout, optimizer):
    """The book's listing in today's names: no `Rescaling`, `compile` as it comes."""
    if optimizer == "adadelta":
        optimizer = keras.optimizers.Adadelta(learning_rate=1.0)
    inputs = keras.Input(shape=(X.shape[1],), name="input")
    x = inputs
    for number, neurons in enumerate((512, 256, 128), 1):
        x = keras.layers.Dense(neurons, activation="relu", name=f"hidden{number}")(x)
        x = keras.layers.Dropout(dropout)(x)
    prediction = keras.layers.Dense(y.shape[1], activation="softmax", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=prediction)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=36_000, help="digits (default: 36000)")
    parser.add_argument("--n-iter", type=int, default=2, help="candidates (default: 2)")
    parser.add_argument("--cv", type=int, default=3, help="folds (default: 3)")
    parser.add_argument("--epochs", type=int, default=1, help="of each fit (default: 1)")
    parser.add_argument("--repeats", type=int, default=2, help="timed searches each (default: 2)")
    args = parser.parse_args()

    script = load_script(ROOT / "chapter06" / "random_search_mnist.py")
    data = script.load_data("sample")
    rows = np.resize(np.arange(len(data["train_X"])), args.images)
    X, y = data["train_X"][rows], data["train_y"][rows]

    class BookClassifier(script.MnistClassifier):
        """The same wrapper around the book's network, predicting in batches of 32."""

        def __init__(self, dropout=0.5, optimizer="adam", batch_size=32, epochs=1, seed=1):
            super().__init__(dropout, optimizer, batch_size, epochs, seed)
            self.model = book_network

        def predict(self, X):
            return self.classes_[self.model_.predict(X, verbose=0).argmax(axis=-1)]

    contestants = {
        "the book's way": (BookClassifier, X.astype("float32") / 255),
        "ours": (script.MnistClassifier, X),
    }
    seconds = {name: [] for name in contestants}
    for turn in range(args.repeats + 1):
        for name, (classifier, images) in contestants.items():
            search = RandomizedSearchCV(
                classifier(epochs=args.epochs),
                script.create_hyperparameters(),
                n_iter=args.n_iter if turn else 1,  # the first search warms up
                cv=args.cv if turn else 2,
                random_state=1,
            )
            limit = len(X) if turn else 1000
            start = time.perf_counter()
            search.fit(images[:limit], y[:limit])
            if turn:
                seconds[name].append(time.perf_counter() - start)

    fits = args.n_iter * args.cv + 1
    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"{fits} fits on {len(X):,} digits, median (lowest to highest) of {args.repeats} searches"
    )
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:15} {median:6.1f} s ({min(values):.1f} to {max(values):.1f})")
    ratio = statistics.median(seconds["the book's way"]) / statistics.median(seconds["ours"])
    print(f"{'ratio':15} {ratio:6.2f}")
    record("chapter 6, random search", "s", seconds["the book's way"], seconds["ours"])


if __name__ == "__main__":
    main()
