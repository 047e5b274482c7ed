"""Search hyperparameters of the book's MNIST network with Hyperband, or at random for comparison.

Book: chapter 6, "Hyperband".

    python chapter06/hyperband_mnist.py                # the real set, R = 81: not for a small CPU
    python chapter06/hyperband_mnist.py --train-images 2000 --max-iter 27
    python chapter06/hyperband_mnist.py --data sample --train-images 1000 --max-iter 9
    python chapter06/hyperband_mnist.py --engine ray   # on all cores, or on a cluster

What to expect: 342 epochs in 65 evaluations from the second command, 17 to 20 minutes on 2 busy
cores, and a lowest validation loss of 0.244 (mean of 3 seeds; Keras 3.15, TensorFlow 2.21).
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import socket
import sys
import time
import warnings
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from hyperband import Hyperband, LocalEngine, RayEngine, describe
from keras import layers
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

logging.getLogger("tensorflow").setLevel("ERROR")  # it warns of each new network's compilation
ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter06"
PARTS = ("train", "val", "test")


def load_data(source=None):
    """Return train, validation and test digits, each flattened to one row of pixels.

    Args:
        source: None for MNIST as Keras serves it (LeCun, Cortes and Burges), "sample" for 5,000
            of its digits in data/samples, or the path of an .npz file with Keras's keys
            (`x_train`, `y_train`, `x_test`, `y_test`).

    Returns:
        dict with `train_X`, `val_X`, `test_X`: uint8 (n, height * width), 0-255; `train_y`,
        `val_y`, `test_y`: int64 (n,), 0 to classes-1; `class_names`: list of str; `image_shape`:
        (height, width). The last twelfth of the training digits is the validation set: the book's
        last 5,000, which leaves 55,000 of MNIST's 60,000.

    Raises:
        OSError: nothing there, or MNIST is not on this machine and cannot be fetched.
        ValueError: it is there, but not in the format above; the message says what is wrong.
    """
    if source is None:
        return split_digits(*download_mnist())
    path = DATA_DIR / "samples" / "mnist.npz" if source == "sample" else Path(source)
    return split_digits(*read_npz(path))


def download_mnist():
    """MNIST from Keras's cache (~/.keras/datasets), fetched on first use."""
    socket.setdefaulttimeout(20)  # a silent network must not hold us for minutes
    try:
        (train_X, train_y), (test_X, test_y) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise OSError(
            f"MNIST is not on this machine and could not be fetched ({error}). With a network, "
            "run `python data/fetch.py mnist`; without one, `--data sample` works now, "
            "and data/README.md tells how to bring the file by hand"
        ) from error
    return train_X, train_y, test_X, test_y


def read_npz(path):
    """Read and check an .npz with Keras's keys; returns its four arrays."""
    try:
        with np.load(path, allow_pickle=False) as archive:  # a pickle could run anything
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; give an .npz file") from None
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a readable .npz of plain arrays ({error}); "
            "numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...) writes one"
        ) from error

    def require(condition, problem):
        if not condition:
            raise ValueError(f"{path}: {problem}")

    keys = ("x_train", "y_train", "x_test", "y_test")
    missing = ", ".join(key for key in keys if key not in arrays)
    require(not missing, f"{missing} missing (it has {', '.join(arrays) or 'nothing'})")
    for part in ("train", "test"):
        X, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        require(
            X.ndim == 3 and X.dtype == np.uint8 and X.size,
            f"x_{part} is {X.dtype} {X.shape}; expected uint8 (images, height, width)",
        )
        require(
            y.shape in ((len(X),), (len(X), 1)) and np.issubdtype(y.dtype, np.integer),
            f"y_{part} is {y.dtype} {y.shape}; expected one whole number for each of {len(X)}",
        )
    X_train, y_train, X_test, y_test = (arrays[key] for key in keys)
    require(
        X_train.shape[1:] == X_test.shape[1:],
        f"train images are {X_train.shape[1:]}, test images {X_test.shape[1:]}",
    )
    classes = np.unique(y_train)
    require(len(classes) > 1, f"y_train holds nothing but {classes[0]}; needs two classes or more")
    labels = np.union1d(classes, y_test)
    require(
        np.array_equal(classes, np.arange(len(classes))) and len(labels) == len(classes),
        f"labels out of range: they run from {labels[0]} to {labels[-1]}; expected every whole "
        f"number from 0 to {len(classes) - 1}, each of them in y_train",
    )
    require(
        len(np.unique(y_train[: -count_validation(y_train)])) == len(classes),
        "all images of a class are in the last twelfth of x_train, the validation set; "
        "shuffle x_train and y_train together",
    )
    return X_train, y_train, X_test, y_test


def count_validation(train_y):
    """How many of the training digits become validation digits: 5,000 of 60,000."""
    return max(len(train_y) // 12, 1)


def split_digits(train_X, train_y, test_X, test_y):
    """Flatten the digits and set the last training digits aside; the dict of `load_data`."""
    val = len(train_y) - count_validation(train_y)
    train_rows, test_rows = (X.reshape(len(X), -1) for X in (train_X, test_X))
    train_y, test_y = (y.ravel().astype("int64") for y in (train_y, test_y))
    return {
        "train_X": train_rows[:val],
        "train_y": train_y[:val],
        "val_X": train_rows[val:],
        "val_y": train_y[val:],
        "test_X": test_rows,
        "test_y": test_y,
        "class_names": [str(label) for label in np.unique(train_y)],
        "image_shape": train_X.shape[1:],
    }


def build_network(dropout=0.5, optimizer="adam", input_features=784, num_classes=10):
    """The book's network, compiled: 512, 256 and 128 neurons, dropout after each.

    Args:
        dropout: share of the neurons that is dropped. The book calls it `keep_prob`, and hands it
            to the same argument of `Dropout` (docs/differences.md).
        optimizer: "rmsprop", "adam" or "adadelta".
    """
    if optimizer == "adadelta":  # its learning rate was 1 in the book's Keras; now it is 0.001
        optimizer = keras.optimizers.Adadelta(learning_rate=1.0)
    inputs = keras.Input(shape=(input_features,), name="input")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    for number, neurons in enumerate((512, 256, 128), 1):
        x = layers.Dense(neurons, activation="relu", name=f"hidden{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    prediction = layers.Dense(num_classes, activation="softmax", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=prediction, name="hyperband_mnist")
    model.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=16,  # batches per trip from Python
    )
    return model


def get_params(rng):
    """Draw one configuration from the book's space: 3 batch sizes, 3 optimizers, 10 dropouts."""
    return {
        "batch_size": rng.choice([5, 10, 100]),
        "optimizer": rng.choice(["rmsprop", "adam", "adadelta"]),
        "dropout": rng.choice(np.linspace(0.1, 0.5, 10)),
    }


def try_params(data, num_iters, hyperparameters, trial):
    """Train a configuration up to `num_iters` epochs, from its own weights if there are any.

    Returns:
        dict: validation `loss` and `accuracy` after the last epoch, `losses` after each one.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(trial.seed)
    if trial.epochs_done:
        model = keras.models.load_model(trial.checkpoint)  # with the optimizer's state
    else:
        model = build_network(
            hyperparameters["dropout"],
            hyperparameters["optimizer"],
            data["train_X"].shape[1],
            len(data["class_names"]),
        )
    history = model.fit(
        data["train_X"],
        data["train_y"],
        batch_size=hyperparameters["batch_size"],
        initial_epoch=trial.epochs_done,
        epochs=num_iters,
        validation_data=(data["val_X"], data["val_y"]),
        validation_batch_size=500,
        verbose=0,
    ).history
    model.save(trial.checkpoint)
    losses = [round(loss, 6) for loss in history["val_loss"]]
    return {"loss": losses[-1], "accuracy": history["val_accuracy"][-1], "losses": losses}


def fit_baseline(data):
    """Test accuracy of multinomial logistic regression, the simplest model that could work."""
    print("Baseline: logistic regression on pixels …")
    model = LogisticRegression(max_iter=50)  # near enough: more iterations gain nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(data["train_X"].astype("float32") / 255, data["train_y"])
    accuracy = model.score(data["test_X"].astype("float32") / 255, data["test_y"])
    return {"logistic_regression_accuracy": accuracy}


def evaluate(model, data, part):
    """Loss and accuracy on one part of the data: "train", "val" or "test"."""
    return model.evaluate(
        data[f"{part}_X"], data[f"{part}_y"], batch_size=500, verbose=0, return_dict=True
    )


def load_best_model(run_dir, data):
    """The network of the best evaluation, as the search left it.

    Raises:
        OSError: there is none. ValueError: it cannot be read, or was trained on other data.
    """
    path = run_dir / "best.keras"
    if not path.exists():
        raise OSError(f"{path} does not exist; search first, without --evaluate")
    try:
        model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error}); search again") from error
    expected = (data["train_X"].shape[1], len(data["class_names"]))
    found = (model.input_shape[1], model.output_shape[1])
    if found != expected:
        raise ValueError(
            f"{path} was trained on other data: pixels and classes are {found}, "
            f"here {expected}; give the --data it was trained on"
        )
    return model


def write_table(results, path):
    """All evaluations, best first, as CSV."""
    table = pd.json_normalize(results).drop(columns="losses")
    table.rename(columns=lambda name: name.removeprefix("params.")).to_csv(path, index=False)


def plot_search(results, path):
    """Validation loss of each evaluation and the best so far, against the epochs spent."""
    finished = [e for e in sorted(results, key=lambda e: e["spent"]) if e["loss"] is not None]
    spent, losses = [e["spent"] for e in finished], [e["loss"] for e in finished]
    fig, ax = plt.subplots(figsize=(8, 4.5))
    points = ax.scatter(spent, losses, c=[e["epochs"] for e in finished], s=25, cmap="viridis")
    fig.colorbar(points, label="epochs trained when judged")
    ax.step(spent, np.minimum.accumulate(losses), where="post", color="grey", label="best so far")
    ax.set(xlabel="epochs spent by the search", ylabel="validation loss", yscale="log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.grid(alpha=0.3)
    ax.legend()
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", metavar="SOURCE", help='"sample" or an .npz file')
    add("--max-iter", type=whole(1), default=81, help="epochs of the longest training (R)")
    add("--eta", type=whole(2), default=3, help="one configuration in ETA goes on (default: 3)")
    add("--train-images", type=whole(2), metavar="N", help="only the first N (default: all)")
    add("--random-search", type=whole(1), metavar="N", help="N configurations in full instead")
    add("--from-scratch", action="store_true", help="survivors start over, as in the book")
    add("--engine", choices=["local", "ray"], default="local")
    add("--workers", type=whole(1), default=os.cpu_count(), help="Ray's, on this machine")
    add("--ray-address", metavar="HOST:PORT", help="search on this Ray cluster instead")
    add("--run-dir", type=Path, help="default: runs/chapter06/hyperband_mnist")
    add("--seed", type=whole(0), default=1, help="default: 1")
    add("--evaluate", action="store_true", help="no search: only score the best network again")
    args = parser.parse_args()
    if args.ray_address and args.engine != "ray":
        parser.error("--ray-address needs --engine ray")
    if (
        args.run_dir is None
    ):  # a first try on the sample must not end up in a search of the real set
        name = "hyperband_mnist" + ("_random" if args.random_search else "")
        args.run_dir = RUNS_DIR / (name + ("_sample" if args.data == "sample" else ""))
    return args


def whole(least):
    """A whole number, `least` or more, for argparse."""

    def number(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return number


def main():
    args = parse_arguments()
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    device += f" ({os.cpu_count()} cores)" if device.startswith("cpu") else ""
    print(f"Keras {keras.__version__} on {backend}, device: {device}")
    source = {None: "MNIST", "sample": "sample (5,000 digits of MNIST)"}.get(args.data, args.data)
    try:
        data = load_data(args.data)
        for key in ("train_X", "train_y"):
            data[key] = data[key][: args.train_images]
        if args.evaluate:
            model = load_best_model(args.run_dir, data)
        else:
            counts = {f"{part}_images": len(data[f"{part}_y"]) for part in PARTS}
            search = Hyperband(
                data,
                get_params,
                try_params,
                max_iter=args.max_iter,
                eta=args.eta,
                seed=args.seed,
                run_dir=args.run_dir,
                from_scratch=args.from_scratch,
                random_search=args.random_search,
                settings={"data": source, **counts},
            )
            ray = args.engine == "ray"
            engine = RayEngine(args.workers, args.ray_address) if ray else LocalEngine()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Data: {source}: " + ", ".join(f"{len(data[f'{part}_y']):,} {part}" for part in PARTS))
    if args.evaluate:
        print(
            " test accuracy {accuracy:.4f}, loss {loss:.4f}".format(**evaluate(model, data, "test"))
        )
        return

    for s, rungs in search.table.items():
        print(f"bracket {s}: " + ", then ".join(f"{n} for {r} epochs" for n, r in rungs))
    print(f"budget: {search.budget} epochs, {engine.slots} at a time")
    resumed, start = bool(search.done), time.perf_counter()
    try:
        results = search.run(engine)
        if results[0]["loss"] is None:
            raise ValueError("every configuration diverged: no network to score")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on after the last finished evaluation.")
    seconds = round(time.perf_counter() - start, 1)
    write_table(results, args.run_dir / "results.csv")
    plot_search(results, args.run_dir / "score_against_budget.png")
    best = results[0]
    print("\nThe ten best evaluations:")
    for entry in results[:10]:
        print(describe(entry))
    model = load_best_model(args.run_dir, data)
    scores = {part: evaluate(model, data, part) for part in PARTS}
    scores["baselines"] = fit_baseline(data)
    print(f"\n{seconds} s. Best: {best['params']}, after {best['epochs']} epochs")
    for part in PARTS:
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}, loss {scores[part]['loss']:.4f}")
    accuracy = scores["baselines"]["logistic_regression_accuracy"]
    print(f" test accuracy {accuracy:.4f} with logistic regression")
    metrics = {
        "script": "chapter06/hyperband_mnist.py",
        **search.settings,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "engine": args.engine,
        "workers": engine.slots,
        "epochs": search.budget,
        "best_epoch": best["epochs"],
        "best_params": best["params"],
        "evaluations": len(results),
        "seconds": None if resumed else seconds,
        "parameters": model.count_params(),
        **scores,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Evaluations, table, best network, metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
