"""Train the book's multilayer perceptron on MNIST: handwritten digits, 28x28, 10 classes.

Book: chapter 5, "Building a multiclass classifier in Keras".

    python chapter05/mlp_mnist.py                      # the real set (11 MB, fetched once)
    python chapter05/mlp_mnist.py --data sample        # 5,000 of its digits, needs no network
    python chapter05/mlp_mnist.py --data my_set.npz    # images and labels of your own

What to expect: test accuracy about 0.982 at the best of 50 epochs (the book: 0.9806), logistic
regression 0.922; the validation loss is lowest after two or three epochs and then rises. Three to
seven minutes on 2 busy CPU cores (Keras 3.15, TensorFlow 2.21, Python 3.11; chapter05/README.md
has the runs).
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
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
from keras import layers
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, classification_report

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter05"
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


def build_network(input_features=784, num_classes=10, learning_rate=0.001):
    """The book's network, compiled: hidden layers of 512, 256 and 128 neurons, softmax.

    It takes raw pixels (0-255) and integer labels, where the book scales and one-hot encodes
    beforehand: same network, a quarter of the memory (docs/differences.md).

    Returns:
        keras.Model from (n, input_features) to class probabilities (n, num_classes).
    """
    inputs = keras.Input(shape=(input_features,), name="input")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    x = layers.Dense(512, activation="relu", name="hidden1")(x)
    x = layers.Dense(256, activation="relu", name="hidden2")(x)
    x = layers.Dense(128, activation="relu", name="hidden3")(x)
    prediction = layers.Dense(num_classes, activation="softmax", name="output")(x)

    model = keras.Model(inputs=inputs, outputs=prediction, name="mlp_mnist")
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=16,  # batches per trip from Python
        jit_compile=True,  # also on CPUs, where Keras would not: benchmarks/
    )
    return model


def create_callbacks(run_dir, resuming=False):
    """Callbacks that keep the best epoch, log each epoch, and let a killed run go on.

    Args:
        run_dir: pathlib.Path of an existing folder; its name is the run's name in TensorBoard, and
            runs that lie side by side in one folder are compared there.
        resuming: whether to go on with the logs of an interrupted run.
    """
    best_path, history_path = run_dir / "model.keras", run_dir / "history.csv"
    best_so_far = None
    # Without the threshold the first epoch after a restart would replace a better one. A file
    # half-written when the run was killed does not count.
    if resuming and history_path.exists() and zipfile.is_zipfile(best_path):
        best_so_far = pd.read_csv(history_path)["val_accuracy"].max()
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            best_path,
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            initial_value_threshold=best_so_far,
        ),
        keras.callbacks.CSVLogger(history_path, append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]
    if importlib.util.find_spec("tensorflow"):  # it writes TensorBoard's files on every backend
        callbacks.insert(0, keras.callbacks.TensorBoard(run_dir))  # …/train and …/validation
    return callbacks


def finished_epochs(backup_dir):
    """Number of epochs that the backup of `BackupAndRestore` in `backup_dir` holds; 0 without one.

    A kill while Keras writes that number leaves an empty file. Then the backup of the epoch before,
    which `double_checkpoint` keeps, takes its place.
    """
    for suffix in ("", ".bkp"):
        try:
            text = (backup_dir / f"training_metadata.json{suffix}").read_text()
            epochs = json.loads(text)["epoch"]
        except (OSError, ValueError):
            continue
        if suffix:
            for name in ("latest.weights.h5", "training_metadata.json"):
                shutil.copy(backup_dir / f"{name}.bkp", backup_dir / name)
        return epochs
    return 0


def interrupted_run(run_dir, settings):
    """Whether `run_dir` holds an unfinished training of the same settings; says what it found.

    A backup of other data or another seed is set aside: going on from it would mix two runs.
    """
    settings_path = run_dir / "settings.json"
    epochs = finished_epochs(run_dir / "backup")
    if epochs:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            print(f"Resuming the interrupted run in {run_dir} after epoch {epochs}.")
            return True
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    for name in ("backup", "train", "validation"):  # else two runs would share one curve
        shutil.rmtree(run_dir / name, ignore_errors=True)
    settings_path.write_text(json.dumps(settings, indent=2))
    return False


def fit_baseline(data):
    """Test accuracy of multinomial logistic regression, the simplest model that could work."""
    print("Baseline: logistic regression on pixels …")
    model = LogisticRegression(max_iter=50)  # 300 take minutes and add 0.003
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(data["train_X"].astype("float32") / 255, data["train_y"])
    accuracy = model.score(data["test_X"].astype("float32") / 255, data["test_y"])
    return {"logistic_regression_accuracy": accuracy}


def plot_confusion_matrix(data, y_hat, path):
    """How often each class (row) was taken for each other one (column), as a picture."""
    class_names = data["class_names"]
    side = min(2.5 + 0.35 * len(class_names), 16)
    fig, ax = plt.subplots(figsize=(side, side))
    ConfusionMatrixDisplay.from_predictions(
        data["test_y"],
        y_hat,
        labels=range(len(class_names)),
        display_labels=class_names,
        colorbar=False,
        ax=ax,
    )
    save_figure(fig, path)


def plot_mistakes(data, y_softmax, path):
    """The wrong answers of which the network was surest, as a grid of pictures."""
    class_names, y_hat = data["class_names"], y_softmax.argmax(axis=-1)
    sureness = np.where(y_hat != data["test_y"], y_softmax.max(axis=-1), 0)
    fig, axes = plt.subplots(3, 6, figsize=(9, 5.5))
    for ax, i in zip(axes.flat, np.argsort(-sureness), strict=False):
        if sureness[i]:
            ax.imshow(data["test_X"][i].reshape(data["image_shape"]), cmap="gray_r")
            guess = f"{class_names[y_hat[i]]} ({sureness[i]:.0%})"
            ax.set_title(f"{guess}\nis {class_names[data['test_y'][i]]}", fontsize=9)
    for ax in axes.flat:
        ax.axis("off")
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def evaluate(model, data, part):
    """Loss and accuracy on one part of the data: "train", "val" or "test"."""
    return model.evaluate(
        data[f"{part}_X"], data[f"{part}_y"], batch_size=500, verbose=0, return_dict=True
    )


def load_best_model(run_dir, data):
    """The model of the best epoch saved in `run_dir`.

    Raises:
        OSError: there is none. ValueError: it cannot be read, or was trained on other data.
    """
    path = run_dir / "model.keras"
    if not path.exists():
        raise OSError(f"{path} does not exist; train first, without --evaluate")
    try:
        model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error}); train again") from error
    expected = (data["train_X"].shape[1], len(data["class_names"]))
    found = (model.input_shape[1], model.output_shape[1])
    if found != expected:
        raise ValueError(
            f"{path} was trained on other data: pixels and classes are {found}, "
            f"here {expected}; give the --data it was trained on"
        )
    return model


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--epochs", type=positive, default=50, help="default: 50")
    parser.add_argument("--batch-size", type=positive, default=30, help="default: 30")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter05/tb/mlp")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        folder = "tb_sample" if args.data == "sample" else "tb"
        args.run_dir = RUNS_DIR / folder / "mlp"
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def train(model, data, args, settings):
    """Fit `model`, going on from an interrupted run; the best epoch is left in the run directory.

    Returns:
        (history, seconds): DataFrame with one row per epoch; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    resuming = interrupted_run(args.run_dir, settings)
    start = time.perf_counter()
    model.fit(
        data["train_X"],
        data["train_y"],
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=create_callbacks(args.run_dir, resuming),
    )
    seconds = None if resuming else round(time.perf_counter() - start, 1)
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history.reset_index(drop=True), seconds


def report(model, data, run_dir):
    """Score the model and the baseline, print both, draw the pictures; returns the scores."""
    scores = {part: evaluate(model, data, part) for part in PARTS}
    scores["baselines"] = fit_baseline(data)
    y_softmax = model.predict(data["test_X"], batch_size=500, verbose=0)
    y_hat = y_softmax.argmax(axis=-1)
    class_names = data["class_names"]
    print(f"Test loss is {scores['test']['loss']:.4f}. By class:")
    print(
        classification_report(
            data["test_y"],
            y_hat,
            labels=range(len(class_names)),
            target_names=class_names,
            zero_division=0,
        )
    )
    for part in PARTS:
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    accuracy = scores["baselines"]["logistic_regression_accuracy"]
    print(f" test accuracy {accuracy:.4f} with logistic regression")

    plot_confusion_matrix(data, y_hat, run_dir / "confusion_matrix.png")
    plot_mistakes(data, y_softmax, run_dir / "mistakes.png")
    return scores


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    if device.startswith("cpu"):
        device += f" ({os.cpu_count()} cores)"
    print(f"Keras {keras.__version__} on {backend}, device: {device}")

    try:
        data = load_data(args.data)
        if args.evaluate:
            model = load_best_model(args.run_dir, data)
        else:
            model = build_network(data["train_X"].shape[1], len(data["class_names"]))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = {None: "MNIST", "sample": "sample (5,000 digits of MNIST)"}.get(args.data, args.data)
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in PARTS]
    print(f"Data: {source}: {', '.join(counts)} images in {len(data['class_names'])} classes")
    if args.evaluate:
        report(model, data, args.run_dir)
        print(f"Pictures are in {args.run_dir}")
        return

    model.summary()
    settings = {
        "data": source,
        "image_shape": list(data["image_shape"]),
        "seed": args.seed,
        "batch_size": args.batch_size,
    }
    try:
        history, seconds = train(model, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    best_epoch = int(history["epoch"][history["val_accuracy"].idxmax()]) + 1
    print(f"\nThe best of {len(history)} epochs was number {best_epoch}:")
    metrics = {
        "script": "chapter05/mlp_mnist.py",
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "seconds": seconds,
        "parameters": model.count_params(),
        "last_epoch": history.drop(columns="epoch").iloc[-1].to_dict(),  # overfitted or not
        **report(load_best_model(args.run_dir, data), data, args.run_dir),
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Model, metrics and pictures are in {args.run_dir}. Beside the other runs:")
    print(f"  python chapter05/compare_runs.py {args.run_dir.parent}")
    print(f"  tensorboard --logdir {args.run_dir.parent} --port 6006")


if __name__ == "__main__":
    main()
