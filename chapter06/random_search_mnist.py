"""Search hyperparameters of the book's MNIST network at random, with scikit-learn.

Book: chapter 6, "Using random search with scikit-learn".

    python chapter06/random_search_mnist.py                  # the real set (11 MB, fetched once)
    python chapter06/random_search_mnist.py --data sample    # 5,000 of its digits, needs no network

It trains each of ten candidates three times for an epoch, then the best on all training digits.
"""

import argparse
import json
import sys
import time
import zlib
from itertools import product
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from hyperband import open_run
from keras import layers
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterSampler, StratifiedKFold, train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "mnist.npz"


def load_data(source=None):
    """Digits and their labels; 5,000 of the training digits are kept out, as in chapter 5.

    `source` is None for MNIST (LeCun, Cortes and Burges), "sample", or an .npz file with Keras's
    keys x_train, y_train, x_test, y_test.
    Returns a dict: train_X, test_X, uint8 (n, height * width); train_y, test_y, int64 (n,), 0 to
    classes-1.
    """
    if source is None:
        (train_X, train_y), (test_X, test_y) = keras.datasets.mnist.load_data()
    else:
        with np.load(SAMPLE if source == "sample" else source, allow_pickle=False) as file:
            train_X, train_y = file["x_train"], file["y_train"]
            test_X, test_y = file["x_test"], file["y_test"]
    for X, y in ((train_X, train_y), (test_X, test_y)):
        if X.dtype != np.uint8 or X.ndim != 3 or X.shape != (y.size, *train_X.shape[1:]):
            raise ValueError(f"not uint8 (n, height, width), (n,): {X.dtype} {X.shape}, {y.shape}")
    train_y, test_y = train_y.ravel().astype("int64"), test_y.ravel().astype("int64")
    if set(train_y) != set(range(train_y.max() + 1)) or not set() < set(test_y) <= set(train_y):
        raise ValueError("labels are not whole numbers from 0 on, each of them in y_train")
    rows, size = train_X.reshape(len(train_X), -1), min(5000, len(train_y) // 12)
    parts = train_test_split(rows, train_y, test_size=size, stratify=train_y, random_state=0)
    test = {"test_X": test_X.reshape(len(test_X), -1), "test_y": test_y}
    return {"train_X": parts[0], "train_y": parts[2]} | test


def build_network(sizes=(784, 10), dropout=0.5, optimizer="adam", learning_rate=0.001):
    """The book's network, compiled: pixels (n, sizes[0]), 0-255, to sizes[1] probabilities."""
    inputs = keras.Input(shape=(sizes[0],), name="input")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    for number, neurons in enumerate((512, 256, 128), 1):
        x = layers.Dense(neurons, activation="relu", name=f"hidden{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout{number}")(x)  # the book's `keep_prob`
    prediction = layers.Dense(sizes[1], activation="softmax", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=prediction, name="random_search_mnist")
    optimizer = keras.optimizers.get(optimizer)
    optimizer.learning_rate = learning_rate
    loss = "sparse_categorical_crossentropy"  # of labels as they are, not one-hot encoded
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=16)
    return model


def create_hyperparameters():
    """The book's lists, and the learning rate, as often between 0.0001 and 0.001 as 0.1 and 1."""
    return {
        "batch_size": [10, 20, 30, 40, 50],
        "optimizer": ["rmsprop", "adam", "adadelta"],
        "dropout": np.linspace(0.1, 0.5, 5).tolist(),
        "learning_rate": loguniform(1e-4, 1),
    }


def fit(X, y, epochs, seed, batch_size, **hyperparameters):
    """Train the book's network on digits X, uint8 (n, pixels), and their labels y, int64 (n,)."""
    keras.utils.clear_session()  # dozens of networks would fill the memory
    keras.utils.set_random_seed(seed)
    model = build_network((X.shape[1], int(y.max()) + 1), **hyperparameters)
    rows = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), seed=seed).batch(batch_size)
    model.fit(rows, epochs=epochs, shuffle=False, verbose=0)  # the rows are shuffled
    return model


def search(X, y, log, finished, n_iter=10, cv=3, epochs=1, seed=1):
    """The candidates with their accuracy in cross-validation, best first: a DataFrame.

    It draws and splits as RandomizedSearchCV does, but each fit that ends is a line of `log`, and
    those in `finished` are not repeated.
    """
    sampler = ParameterSampler(create_hyperparameters(), n_iter, random_state=seed)
    fits = list(product(enumerate(sampler), StratifiedKFold(cv).split(X, y)))
    for (candidate, hyperparameters), (train, val) in fits[len(finished) :]:
        start = time.perf_counter()
        model = fit(X[train], y[train], epochs, seed, **hyperparameters)
        scores = model.evaluate(X[val], y[val], batch_size=500, verbose=0, return_dict=True)
        line = {"candidate": candidate, **hyperparameters, "accuracy": scores["accuracy"]}
        line |= {"seconds": round(time.perf_counter() - start, 2)}
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        finished.append(line)
        print(f"{len(finished)} of {len(fits)}: {json.dumps(line)}", flush=True)
    folds = pd.DataFrame(finished).groupby("candidate")
    table = folds.first().assign(accuracy=folds["accuracy"].mean(), seconds=folds["seconds"].sum())
    table["deviation"] = folds["accuracy"].std()
    return table.sort_values("accuracy", ascending=False)


def plot_search(table, path):
    """A panel for each hyperparameter: accuracy in cross-validation by its values."""
    fig, axes = plt.subplots(1, 4, sharey=True, figsize=(12, 4), layout="constrained")
    for ax, name in zip(axes, create_hyperparameters(), strict=True):
        ax.errorbar(table[name], table["accuracy"], table["deviation"], fmt="o", capsize=3)
        ax.set_xlabel(name)
    axes[3].set_xscale("log")
    axes[0].set_ylabel("accuracy of the folds, mean ± standard deviation")
    fig.savefig(path)


def fit_baseline(data):
    """Test accuracy of logistic regression on pixels, the simplest model that could work."""
    train, test = (data[f"{part}_X"] / np.float32(255) for part in ("train", "test"))
    return LogisticRegression(tol=0.001).fit(train, data["train_y"]).score(test, data["test_y"])


def report(model, data, table, run_dir):
    """Draw the search; the figures of the winner and, on the test digits, of its network."""
    plot_search(table, run_dir / "search.png")
    X, y = data["test_X"], data["test_y"]
    test, accuracy = model.evaluate(X, y, verbose=0, return_dict=True), fit_baseline(data)
    print(table.to_string())
    print(f"The first, trained on all of them: test accuracy {test['accuracy']:.4f}")
    print(f"Logistic regression: test accuracy {accuracy:.4f}")
    scores = {"test": test, "baselines": {"logistic_regression_accuracy": accuracy}}
    return scores | {"best": table.iloc[0].to_dict(), "seconds": table["seconds"].sum()}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--n-iter", type=int, default=10, help="candidates (default: 10)")
    parser.add_argument("--cv", type=int, default=3, help="folds (default: 3)")
    parser.add_argument("--epochs", type=int, default=1, help="of each fit (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/random_search_mnist")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"random_search_mnist{suffix}")
    if min(args.n_iter, args.epochs, args.cv - 1) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--n-iter and --epochs begin at 1, --cv at 2, --seed at 0")
    return args


def main():
    args = parse_arguments()
    best, new = args.run_dir / "model.keras", args.run_dir / "new_model.keras"
    tf.get_logger().setLevel("ERROR")  # it warns of each new network's compilation
    try:
        data = load_data(args.data)
        X, y = data["train_X"], data["train_y"]
        options = {name: getattr(args, name) for name in ("n_iter", "cv", "epochs", "seed")}
        checksum = zlib.crc32(X.tobytes() + y.tobytes())
        settings = {"script": "random_search_mnist", "data": checksum, **options}
        finished = open_run(args.run_dir, settings)
        model = keras.models.load_model(best) if best.exists() else None
        table = search(X, y, args.run_dir / "evaluations.jsonl", finished, **options)
        if model is None:
            winner = table[list(create_hyperparameters())].iloc[0].to_dict()
            model = fit(X, y, args.epochs, args.seed, **winner)
            model.save(new)
            new.replace(best)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command goes on after the last finished fit.")
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'MNIST'}: {' '.join(str(error).split())[:500]}")
    scores = report(model, data, table, args.run_dir)
    (args.run_dir / "metrics.json").write_text(json.dumps(settings | scores, indent=2))
    print(f"Model, scores, metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
