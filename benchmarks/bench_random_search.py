"""Chapter 6's random search: its fits, the book's way against ours, in one run.

    python benchmarks/bench_random_search.py          # about 2 minutes on 2 cores

Both fit the same candidates on the same folds, by turns. The digits are the sample's, repeated
until there are --images of them. The book's way: pixels scaled to float32 beforehand, one-hot
labels, `fit` as it comes, one batch per trip from Python. Ours: the script's `fit` on bytes.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from common import ROOT, load_script, record
from sklearn.model_selection import ParameterSampler, StratifiedKFold


def book_fit(X, y, epochs, seed, batch_size, optimizer, dropout, learning_rate):
    """The book's listing in today's names: no `Rescaling`, `compile` and `fit` as they come."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    optimizer = keras.optimizers.get(optimizer)
    optimizer.learning_rate = learning_rate
    inputs = keras.Input(shape=(X.shape[1],), name="input")
    x = inputs
    for number, neurons in enumerate((512, 256, 128), 1):
        x = keras.layers.Dense(neurons, activation="relu", name=f"hidden{number}")(x)
        x = keras.layers.Dropout(dropout)(x)
    prediction = keras.layers.Dense(10, activation="softmax", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=prediction)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, keras.utils.to_categorical(y, 10), batch_size, epochs, verbose=0)
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
    space = script.create_hyperparameters()
    candidates = list(ParameterSampler(space, args.n_iter, random_state=1))
    folds = [train for train, _ in StratifiedKFold(args.cv).split(X, y)]
    contestants = {
        "the book's way": (book_fit, X.astype("float32") / 255),
        "ours": (script.fit, X),
    }
    seconds = {name: [] for name in contestants}
    for turn in range(args.repeats + 1):
        for name, (fit, images) in contestants.items():
            start = time.perf_counter()
            for hyperparameters in candidates:
                for train in folds if turn else [np.arange(1000)]:  # the first search warms up
                    fit(images[train], y[train], args.epochs, 1, **hyperparameters)
            if turn:
                seconds[name].append(time.perf_counter() - start)

    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"{args.n_iter * args.cv} fits on {len(X):,} digits, median (lowest to highest) of "
        f"{args.repeats} searches"
    )
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:15} {median:6.1f} s ({min(values):.1f} to {max(values):.1f})")
    ratio = statistics.median(seconds["the book's way"]) / statistics.median(seconds["ours"])
    print(f"{'ratio':15} {ratio:6.2f}")
    record("chapter 6, random search", "s", seconds["the book's way"], seconds["ours"])


if __name__ == "__main__":
    main()
