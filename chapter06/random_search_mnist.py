"""Search hyperparameters of the book's MNIST network at random, with scikit-learn.

Book: chapter 6, "Using random search with scikit-learn".

    python chapter06/random_search_mnist.py                  # the real set (11 MB, fetched once)
    python chapter06/random_search_mnist.py --data sample    # 5,000 of its digits, needs no network
    python chapter06/random_search_mnist.py --n-jobs 4       # four fits at a time
    python chapter06/random_search_mnist.py --engine ray     # on all cores, or on a cluster

What to expect: 31 fits of one epoch, 9 minutes on 2 busy CPU cores, test accuracy 0.963, logistic
regression 0.922 (Keras 3.15, TensorFlow 2.21, Python 3.11; chapter06/README.md has the run).
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

import joblib
import keras
import matplotlib
import numpy as np
import pandas as pd
from keras import layers
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV

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


def build_network(X, y, dropout=0.5, optimizer="adam"):
    """The book's network, compiled: 512, 256 and 128 neurons, dropout after each.

    Args:
        X, y: what it will be fitted to, uint8 (n, pixels) and one-hot (n, classes): the wrapper
            hands them in, and the sizes of the input and the output are read from them.
        dropout: share of the neurons that is dropped. The book calls it `keep_prob`, and hands it
            to the same argument of `Dropout` (docs/differences.md).
        optimizer: "rmsprop", "adam" or "adadelta".
    """
    if optimizer == "adadelta":  # its learning rate was 1 in the book's Keras; now it is 0.001
        optimizer = keras.optimizers.Adadelta(learning_rate=1.0)
    inputs = keras.Input(shape=(X.shape[1],), name="input")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    for number, neurons in enumerate((512, 256, 128), 1):
        x = layers.Dense(neurons, activation="relu", name=f"hidden{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    prediction = layers.Dense(y.shape[1], activation="softmax", name="output")(x)
    model = keras.Model(inputs=inputs, outputs=prediction, name="random_search_mnist")
    model.compile(
        optimizer=optimizer,
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=16,  # batches per trip from Python: benchmarks/
    )
    return model


class MnistClassifier(keras.wrappers.SKLearnClassifier):
    """The network as scikit-learn wants it: each hyperparameter an argument of its own.

    Keras's wrapper takes them in two dicts and loses one, `fit_kwargs`, when scikit-learn clones
    it for the next candidate: every fit would have one epoch of batches of 32.
    """

    def __init__(self, dropout=0.5, optimizer="adam", batch_size=32, epochs=1, seed=1):
        super().__init__(build_network)
        self.dropout = dropout
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed

    def __sklearn_clone__(self):
        return type(self)(**self.get_params())

    def fit(self, X, y):
        keras.backend.clear_session()
        keras.utils.set_random_seed(self.seed)
        self.model_kwargs = {"dropout": self.dropout, "optimizer": self.optimizer}
        return super().fit(X, y, batch_size=self.batch_size, epochs=self.epochs, verbose=0)

    def predict(self, X):
        return self.classes_[self.model_.predict(X, batch_size=500, verbose=0).argmax(axis=-1)]


def create_hyperparameters():
    """The book's space: 5 batch sizes, 3 optimizers, 5 dropouts."""
    return {
        "batch_size": [10, 20, 30, 40, 50],
        "optimizer": ["rmsprop", "adam", "adadelta"],
        "dropout": np.linspace(0.1, 0.5, 5).tolist(),
    }


def create_search(n_iter=10, cv=3, epochs=1, n_jobs=None, seed=1):
    """scikit-learn's random search over the book's space, refitted with the best candidate."""
    return RandomizedSearchCV(
        estimator=MnistClassifier(epochs=epochs, seed=seed),
        param_distributions=create_hyperparameters(),
        n_iter=n_iter,
        cv=cv,
        n_jobs=n_jobs,
        random_state=seed,
        verbose=3,
    )


def start_ray(workers, address=None):
    """Import and start Ray, reachable from this machine only, or join the cluster at `address`.

    Returns:
        what scikit-learn is to run in: `with start_ray(2): search.fit(X, y)`. Each worker that
        dies is started again, and its fit repeated.

    Raises:
        OSError: Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
    if address is None:  # Ray listens on every interface of a Linux machine unless told so
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    else:
        host, _, port = address.rpartition(":")
        try:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise OSError(f"no Ray cluster answers at {address!r} ({error})") from error
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise OSError(
            "Ray is not installed; `make cluster` or `pip install -r requirements-cluster.txt` "
            "brings it, and `--engine local` works without"
        ) from error
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        ray.init("local", num_cpus=workers, include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address, **quiet)
        except Exception as error:  # many kinds: another version of Ray or Python, no such cluster
            raise OSError(f"the Ray cluster at {address} cannot be joined ({error})") from error
    register_ray()
    workers = int(ray.cluster_resources()["CPU"])
    retries = {"num_cpus": 1, "max_restarts": 3, "max_task_retries": 3}  # of workers that died
    return joblib.parallel_config("ray", n_jobs=workers, ray_remote_args=retries)


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
        data[f"{part}_X"],
        keras.utils.to_categorical(data[f"{part}_y"], len(data["class_names"])),
        batch_size=500,
        verbose=0,
        return_dict=True,
    )


def load_best_model(run_dir, data):
    """The refitted network saved in `run_dir`.

    Raises:
        OSError: there is none. ValueError: it cannot be read, or was trained on other data.
    """
    path = run_dir / "model.keras"
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


def tabulate(search):
    """The candidates of a finished search, one row each, in the order they were drawn."""
    results = pd.DataFrame(search.cv_results_)
    names = [f"param_{name}" for name in create_hyperparameters()]
    names += ["mean_test_score", "std_test_score", "rank_test_score", "mean_fit_time"]
    table = results[names].rename(columns=lambda name: name.removeprefix("param_"))
    table.insert(0, "spent", search.n_splits_ * search.estimator.epochs * (results.index + 1))
    return table


def plot_search(table, path):
    """Accuracy of each candidate and the best so far, against the epochs spent."""
    fig, ax = plt.subplots(figsize=(8, 4.5))
    ax.errorbar(
        table["spent"],
        table["mean_test_score"],
        yerr=table["std_test_score"],
        fmt="o",
        capsize=3,
        label="candidate: mean and standard deviation of its folds",
    )
    best = table["mean_test_score"].cummax()
    ax.step(table["spent"], best, where="post", color="grey", label="best so far")
    ax.set(xlabel="epochs spent by the search", ylabel="accuracy in cross-validation")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", metavar="SOURCE", help='"sample" or an .npz file')
    add("--n-iter", type=whole(1), default=10, help="candidates (default: 10)")
    add("--cv", type=whole(2), default=3, help="folds (default: 3)")
    add("--epochs", type=whole(1), default=1, help="of each fit (default: 1, as in the book)")
    add("--n-jobs", type=whole(1), help="fits at a time (default: 1; with Ray: one for each core)")
    add("--train-images", type=whole(2), metavar="N", help="only the first N (default: all)")
    add("--engine", choices=["local", "ray"], default="local")
    add("--ray-address", metavar="HOST:PORT", help="search on this Ray cluster instead")
    add("--run-dir", type=Path, help="default: runs/chapter06/random_search_mnist")
    add("--seed", type=whole(0), default=1, help="default: 1")
    add("--evaluate", action="store_true", help="no search: only score the best network again")
    args = parser.parse_args()
    if args.ray_address and args.engine != "ray":
        parser.error("--ray-address needs --engine ray")
    if args.run_dir is None:  # a first try on the sample must not replace a search of the real set
        name = "random_search_mnist" + ("_sample" if args.data == "sample" else "")
        args.run_dir = RUNS_DIR / name
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
        smallest = np.bincount(data["train_y"], minlength=len(data["class_names"])).min()
        if smallest < args.cv:
            raise ValueError(f"--cv {args.cv}: a class has only {smallest} training images")
        if args.evaluate:
            model = load_best_model(args.run_dir, data)
        if args.engine == "ray" and not args.evaluate:
            engine = start_ray(args.n_jobs or os.cpu_count(), args.ray_address)
        else:
            engine = joblib.parallel_config(n_jobs=args.n_jobs or 1)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Data: {source}: " + ", ".join(f"{len(data[f'{part}_y']):,} {part}" for part in PARTS))
    if args.evaluate:
        print(
            " test accuracy {accuracy:.4f}, loss {loss:.4f}".format(**evaluate(model, data, "test"))
        )
        return

    start = time.perf_counter()
    search = create_search(args.n_iter, args.cv, args.epochs, seed=args.seed)
    with engine:
        search.fit(data["train_X"], data["train_y"])
    seconds = round(time.perf_counter() - start, 1)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    model = search.best_estimator_.model_
    model.save(args.run_dir / "model.keras")
    table = tabulate(search)
    table.to_csv(args.run_dir / "results.csv", index=False)
    plot_search(table, args.run_dir / "score_against_budget.png")
    print(table.sort_values("rank_test_score").to_string(index=False, float_format="%.4f"))

    scores = {part: evaluate(model, data, part) for part in PARTS}
    scores["baselines"] = fit_baseline(data)
    print(f"\n{seconds} s. Best: {search.best_params_}, fitted again on all training images:")
    for part in PARTS:
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}, loss {scores[part]['loss']:.4f}")
    accuracy = scores["baselines"]["logistic_regression_accuracy"]
    print(f" test accuracy {accuracy:.4f} with logistic regression")
    metrics = {
        "script": "chapter06/random_search_mnist.py",
        "data": source,
        "train_images": len(data["train_y"]),
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "engine": args.engine,
        "epochs": args.epochs,
        "candidates": args.n_iter,
        "folds": args.cv,
        "best_params": search.best_params_,
        "best_cv_accuracy": search.best_score_,
        "seconds": seconds,
        "parameters": model.count_params(),
        **scores,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Table, network, metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
