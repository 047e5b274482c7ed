"""Search hyperparameters of the book's MNIST network with Hyperband, or at random beside it.

Book: chapter 6, "Hyperband". The search itself is hyperband.py, as in the book.

    python chapter06/hyperband_mnist.py                 # the real set, R = 81: many hours on a CPU
    python chapter06/hyperband_mnist.py --data sample --max-iter 9            # a few minutes
    python chapter06/hyperband_mnist.py --data sample --max-iter 9 --random-search 8 \\
        --run-dir runs/random_search                    # the same space at about the same cost
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from hyperband import Hyperband, Trial
from keras import layers
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "mnist.npz"


def load_data(source=None, train_images=None):
    """Digits and their labels; 5,000 of the training digits become the validation set.

    `source` is None for MNIST (LeCun, Cortes and Burges), "sample", or an .npz file with Keras's
    keys x_train, y_train, x_test, y_test; `train_images`, how many of the training digits to take.
    Returns a dict: train_X, val_X, test_X, uint8 (n, height * width); train_y, val_y, test_y,
    int64 (n,), 0 to classes-1; sizes, the numbers of pixels and of classes.
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
    data = dict(zip(("train_X", "val_X", "train_y", "val_y"), parts, strict=True))
    data |= {name: data[name][:train_images] for name in ("train_X", "train_y")}
    data |= {"test_X": test_X.reshape(len(test_X), -1), "test_y": test_y}
    return data | {"sizes": (rows.shape[1], int(train_y.max()) + 1)}


def build_network(sizes=(784, 10), dropout=0.5, optimizer="adam", learning_rate=0.001):
    """The book's network, compiled: pixels (n, sizes[0]), 0-255, to sizes[1] probabilities."""
    inputs = keras.Input(shape=(sizes[0],), name="input")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    for number, neurons in enumerate((512, 256, 128), 1):
        x = layers.Dense(neurons, activation="relu", name=f"hidden{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout{number}")(x)  # the book's `keep_prob`
    prediction = layers.Dense(sizes[1], activation="softmax", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=prediction, name="hyperband_mnist")
    optimizer = keras.optimizers.get(optimizer)
    optimizer.learning_rate = learning_rate
    loss = "sparse_categorical_crossentropy"  # of labels as they are, not one-hot encoded
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=16)
    return model


def get_params(rng):
    """Draw a configuration: the book's space and the learning rate, log-uniform, in addition."""
    return {
        "batch_size": int(rng.choice([5, 10, 100])),
        "optimizer": str(rng.choice(["rmsprop", "adam", "adadelta"])),
        "dropout": float(rng.choice(np.linspace(0.1, 0.5, 10))),
        "learning_rate": float(10 ** rng.uniform(-4, 0)),
    }


def try_params(data, num_iters, hyperparameters, trial):
    """Train a configuration up to `num_iters` epochs; its validation loss and their lowest."""
    batch_size = hyperparameters.pop("batch_size")
    keras.utils.clear_session()  # dozens of networks would fill the memory
    keras.utils.set_random_seed(trial.seed)
    if trial.epochs_done:
        model = keras.models.load_model(trial.start)  # the optimizer's state, too
    else:
        model = build_network(data["sizes"], **hyperparameters)
    rows = tf.data.Dataset.from_tensor_slices((data["train_X"], data["train_y"]))
    history = model.fit(
        rows.shuffle(len(rows), seed=trial.seed).batch(batch_size),
        epochs=num_iters,
        initial_epoch=trial.epochs_done,
        validation_data=(data["val_X"], data["val_y"]),
        validation_batch_size=500,
        shuffle=False,  # the rows are, anew in each epoch
        verbose=0,
    ).history
    model.save(trial.save_to)
    losses = [loss for loss in history["val_loss"] if np.isfinite(loss)]
    last = {"loss": history["val_loss"][-1], "accuracy": history["val_accuracy"][-1]}
    return last | {"lowest_loss": min(losses, default=None)}  # of these epochs


def join(data):
    """The data with the validation digits among the training digits, for the winner."""
    parts = {f"train_{n}": np.concatenate([data[f"train_{n}"], data[f"val_{n}"]]) for n in "Xy"}
    return data | parts


def plot_search(table, path):
    """Above, who was dropped when in each bracket; below, the losses by each hyperparameter."""
    table = table.assign(loss=table["loss"].clip(upper=5))  # what diverged lies on the upper edge
    params = pd.json_normalize(table["params"])
    brackets = sorted(table.groupby("bracket"), reverse=True)
    shape = 2, max(len(brackets), len(params.columns))
    fig, axes = plt.subplots(*shape, sharey=True, figsize=(14, 7), layout="constrained")
    for ax, (s, bracket) in zip(axes[0], brackets, strict=False):
        for _, one in bracket.sort_values("rung").groupby("config"):
            ax.plot(one["epochs"].astype(str), one["loss"], "o-", color="tab:blue", alpha=0.5)
        counts = ", ".join(map(str, bracket.groupby("rung").size()))
        ax.set(title=f"bracket {s}: {counts}", xlabel="epochs", yscale="log")
    for ax, name in zip(axes[1], params, strict=False):
        ax.scatter(params[name], table["loss"], c=table["epochs"], norm="log")
        ax.set_xlabel(name)
    axes[1, list(params).index("learning_rate")].set_xscale("log")
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    fig.supylabel("validation loss")
    fig.savefig(path)


def fit_baseline(data):
    """Test accuracy of logistic regression on pixels, the simplest model that could work."""
    train, test = (data[f"{part}_X"] / np.float32(255) for part in ("train", "test"))
    return LogisticRegression(tol=0.001).fit(train, data["train_y"]).score(test, data["test_y"])


def report(model, data, results, run_dir):
    """Draw the search; the figures of the winner and, on the test digits, of its network."""
    table = pd.DataFrame(results)
    plot_search(table, run_dir / "search.png")
    X, y = data["test_X"], data["test_y"]
    test, accuracy = model.evaluate(X, y, verbose=0, return_dict=True), fit_baseline(data)
    print(f"Best: {results[0]}, test accuracy {test['accuracy']:.4f} when trained again")
    print(f"Logistic regression: test accuracy {accuracy:.4f}")
    scores = {"test": test, "baselines": {"logistic_regression_accuracy": accuracy}}
    scores |= {"best": results[0], "lowest_loss": float(table["lowest_loss"].min())}
    return scores | {"epochs": int(table["trained"].sum()), "seconds": table["seconds"].sum()}


def parse_arguments(name="hyperband_mnist", description=__doc__):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--train-images", type=int, metavar="N", help="search on N of the digits")
    parser.add_argument("--max-iter", type=int, default=81, help="epochs of the longest training")
    parser.add_argument("--random-search", type=int, metavar="N", help="N random ones in full")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help=f"default: runs/{name}")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"{name}{suffix}")
    counts = [n for n in (args.train_images, args.max_iter, args.random_search) if n is not None]
    if min(counts) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--seed begins at 0, the other numbers at 1")
    return args


def main():
    args = parse_arguments()
    best, new = args.run_dir / "model.keras", args.run_dir / "new_model.keras"
    tf.get_logger().setLevel("ERROR")  # it warns of each new network's compilation
    try:
        data = load_data(args.data, args.train_images)
        checksum = zlib.crc32(data["train_X"].tobytes() + data["train_y"].tobytes())
        names = ("max_iter", "random_search", "seed", "run_dir")
        options = {name: getattr(args, name) for name in names}
        options["settings"] = {"script": "hyperband_mnist", "data": checksum}
        search = Hyperband(data, get_params, try_params, **options)
        model = keras.models.load_model(best) if best.exists() else None
        results, data = search.run(), join(data)
        if model is None:  # the winner's, trained anew
            trial = Trial(args.seed, epochs_done=0, start=None, save_to=new)
            try_params(data, results[0]["epochs"], dict(results[0]["params"]), trial)
            model = keras.models.load_model(new.replace(best))
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command goes on after the last finished evaluation.")
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'MNIST'}: {' '.join(str(error).split())[:500]}")
    scores = report(model, data, results, args.run_dir)
    (args.run_dir / "metrics.json").write_text(json.dumps(search.settings | scores, indent=2))
    print(f"Model, evaluations, metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
