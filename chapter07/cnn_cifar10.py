"""Train the book's convolutional network on CIFAR-10: 32x32 colour photographs, 10 classes.

Book: chapter 7, "Training a convolutional neural network in Keras".

    python chapter07/cnn_cifar10.py                    # the real set (170 MB, fetched once)
    python chapter07/cnn_cifar10.py --data sample      # small stand-in, needs no network
    python chapter07/cnn_cifar10.py --data my_photos/  # one folder of images per class

What to expect: about 0.70 test accuracy after 12 epochs, logistic regression 0.40; from the fourth
epoch on the network overfits, as the book shows. Half a minute an epoch or less on 2 CPU cores
(Keras 3.15, TensorFlow 2.21, Python 3.11; chapter07/README.md has the run). The sample's 12 epochs
take half a minute in all.
"""

import argparse
import contextlib
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
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from tqdm import tqdm

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter07"
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]  # in label order
CIFAR10_CLASSES += ["dog", "frog", "horse", "ship", "truck"]
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}
MIN_IMAGE_SIZE = 10  # two rounds of 3x3 convolution and 2x2 pooling leave 1x1 of it


def load_data(source=None, image_size=32):
    """Return train, validation and test images with their labels.

    Args:
        source: None for CIFAR-10 as Keras serves it (Krizhevsky, 2009), "sample" for the stand-in
            in data/samples, or a path: an .npz file with Keras's keys (`x_train`, `y_train`,
            `x_test`, `y_test`, optionally `class_names`) or a folder with one folder of images
            per class.
        image_size: side in pixels to which images from a folder are resized.

    Returns:
        dict with `train_X`, `val_X`, `test_X`: uint8 (n, height, width, channels), 0-255;
        `train_y`, `val_y`, `test_y`: int64 (n,), 0 to classes-1; `class_names`: list of str.
        Half of the test images of CIFAR-10 or an .npz become the validation set (the book's
        50,000/5,000/5,000); a folder is split 80/10/10, each class alike.

    Raises:
        OSError: nothing there, or CIFAR-10 is not on this machine and cannot be fetched.
        ValueError: it is there, but not in the format above; the message says what is wrong.
    """
    if source is None:
        return split_npz(download_cifar10(), CIFAR10_CLASSES)
    path = DATA_DIR / "samples" / "cifar10.npz" if source == "sample" else Path(source)
    if path.is_dir():
        return load_folder(path, image_size)
    arrays, class_names = read_npz(path)
    return split_npz(arrays, CIFAR10_CLASSES if source == "sample" else class_names)


def download_cifar10():
    """CIFAR-10 from Keras's cache (~/.keras/datasets), fetched on first use."""
    socket.setdefaulttimeout(20)  # a silent network must not hold us for minutes
    try:
        (train_X, train_y), (test_X, test_y) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise OSError(
            f"CIFAR-10 is not on this machine and could not be fetched ({error}). With a network, "
            "run `python data/fetch.py cifar10`; without one, `--data sample` works now, "
            "and data/README.md tells how to bring the file by hand"
        ) from error
    return train_X, train_y, test_X, test_y


def read_npz(path):
    """Read and check an .npz with Keras's keys; returns its four arrays and the class names."""
    try:
        with np.load(path, allow_pickle=False) as archive:  # a pickle could run anything
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; give an .npz file or a folder") from None
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
            X.ndim == 4 and X.dtype == np.uint8 and X.shape[3] in (1, 3),
            f"x_{part} is {X.dtype} {X.shape}; "
            "expected uint8 (images, height, width, 1 or 3 channels)",
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
    require(
        min(X_train.shape[1:3]) >= MIN_IMAGE_SIZE,
        f"images are {X_train.shape[1:3]} pixels; this network needs {MIN_IMAGE_SIZE} or more",
    )
    classes = np.unique(y_train)
    require(len(classes) > 1 and len(X_test) > 1, "needs two classes and two test images or more")
    names = [str(name) for name in arrays.get("class_names", classes)]
    labels = np.union1d(classes, y_test)
    require(
        np.array_equal(classes, np.arange(len(names))) and len(labels) == len(names),
        f"labels out of range: they run from {labels[0]} to {labels[-1]}; expected every whole "
        f"number from 0 to {len(names) - 1}, each of them in y_train",
    )
    return (X_train, y_train, X_test, y_test), names


def split_npz(arrays, class_names):
    """Halve the test set into validation and test; returns the dict of `load_data`."""
    train_X, train_y, test_X, test_y = arrays
    # Shuffled, so that a file sorted by class splits well too; fixed, so that every run agrees.
    val, test = np.array_split(np.random.default_rng(0).permutation(len(test_X)), 2)
    return {
        "train_X": train_X,
        "train_y": train_y.ravel().astype("int64"),
        "val_X": test_X[val],
        "val_y": test_y.ravel()[val].astype("int64"),
        "test_X": test_X[test],
        "test_y": test_y.ravel()[test].astype("int64"),
        "class_names": list(class_names),
    }


def load_folder(folder, image_size):
    """Read FOLDER/<class>/<image> files, resized to squares; returns the dict of `load_data`."""
    class_names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if len(found) < 10:  # one each for validation and test is the least an 80/10/10 split needs
            raise ValueError(f"{folder / name} holds {len(found)} images; 10 or more are needed")
        files += found
        labels += [label] * len(found)
    if len(class_names) < 2:
        raise ValueError(
            f"{folder} has {len(class_names)} class folders; "
            "expected one folder of images for each of two or more classes"
        )
    images = np.empty((len(files), image_size, image_size, 3), dtype="uint8")
    for index, file in enumerate(tqdm(files, desc="Reading images", unit="image")):
        try:
            with Image.open(file) as image:
                images[index] = image.convert("RGB").resize((image_size, image_size))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file} is not a readable image ({error})") from error
    y = np.array(labels)
    train, rest = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    val, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    data = {"class_names": class_names}
    for part, rows in (("train", train), ("val", val), ("test", test)):
        data[f"{part}_X"], data[f"{part}_y"] = images[rows], y[rows]
    return data


def build_network(
    num_gpu=1, input_shape=(32, 32, 3), num_classes=10, dropout=0.2, learning_rate=0.001
):
    """The book's network, compiled: two convolutional blocks, two dense layers, softmax.

    It takes raw pixels (0-255) and integer labels, where the book scales and one-hot encodes
    beforehand: same network, a fraction of the memory (docs/differences.md). With `num_gpu` above
    1 each batch is split over that many devices.

    Returns:
        keras.Model from (n, *input_shape) to class probabilities (n, num_classes).
    """
    with share_batches(num_gpu):
        inputs = keras.Input(shape=input_shape, name="input")
        x = layers.Rescaling(1 / 255, name="rescale")(inputs)

        x = layers.Conv2D(64, kernel_size=(3, 3), activation="relu", name="conv_1")(x)
        x = fuse(layers.BatchNormalization(name="batch_norm_1"))(x)
        x = layers.MaxPooling2D(pool_size=(2, 2), name="pool_1")(x)

        x = layers.Conv2D(32, kernel_size=(3, 3), activation="relu", name="conv_2")(x)
        x = fuse(layers.BatchNormalization(name="batch_norm_2"))(x)
        x = layers.MaxPooling2D(pool_size=(2, 2), name="pool_2")(x)

        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(512, activation="relu", name="fc1")(x)
        x = layers.Dropout(dropout, name="dropout1")(x)
        x = layers.Dense(256, activation="relu", name="fc2")(x)
        x = layers.Dropout(dropout, name="dropout2")(x)
        # Probabilities stay float32 under mixed precision: small ones would vanish in 16 bits.
        output = layers.Dense(num_classes, activation="softmax", name="softmax", dtype="float32")(x)

        model = keras.Model(inputs=inputs, outputs=output, name="cnn_cifar10")
        model.compile(
            optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            # 16 batches per trip from Python (benchmarks/); MirroredStrategy can do only one
            steps_per_execution=16 if num_gpu == 1 else 1,
        )
    return model


def fuse(batch_norm):
    """Let TensorFlow normalise a training batch in one op, where Keras 3 spells out a dozen.

    Same results to rounding, faster (docs/differences.md). Only this layer object changes: the
    saved file holds a plain BatchNormalization. Other backends fuse operations by themselves.
    """
    if keras.backend.backend() != "tensorflow":
        return batch_norm
    import tensorflow as tf

    plain_call = batch_norm.call

    def call(inputs, training=None, mask=None):
        if not training:
            return plain_call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=batch_norm.gamma.value,
            offset=batch_norm.beta.value,
            mean=[],
            variance=[],
            epsilon=batch_norm.epsilon,
        )
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], variance.dtype)
        variance *= (count - 1) / count  # the op divides by count - 1, Keras by count
        keep = batch_norm.momentum
        for moving, batch in (
            (batch_norm.moving_mean, mean),
            (batch_norm.moving_variance, variance),
        ):
            moving.assign(moving * keep + batch * (1 - keep))
        return outputs

    batch_norm.call = call
    return batch_norm


def share_batches(num_gpu):
    """A context in which to build a network that splits each batch over `num_gpu` devices.

    Raises:
        ValueError: this machine has fewer devices, or the backend cannot share a batch.
    """
    if num_gpu == 1:
        return contextlib.nullcontext()
    devices = list_devices()
    if len(devices) < num_gpu:
        raise ValueError(f"--num-gpus {num_gpu}: this machine has {len(devices)} ({devices})")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy(devices[:num_gpu]).scope()
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=devices[:num_gpu])
        )
        return contextlib.nullcontext()
    raise ValueError(f"--num-gpus does not work on the {keras.backend.backend()} backend")


def list_devices():
    """The devices that can train, as Keras names them: all GPUs or TPUs, else the CPUs."""
    devices = keras.distribution.list_devices()
    return [name for name in devices if not name.startswith("cpu")] or devices


def drop_remainder(data, num_gpu):
    """Cut each part by at most num_gpu - 1 images, so that every batch splits evenly (for JAX)."""
    return {
        key: rows if key == "class_names" else rows[: len(rows) // num_gpu * num_gpu]
        for key, rows in data.items()
    }


def create_callbacks(run_dir, resuming=False):
    """Callbacks that keep the best epoch, log each epoch, and let a killed run go on.

    Args:
        run_dir: pathlib.Path of an existing folder.
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
        callbacks.insert(0, keras.callbacks.TensorBoard(run_dir / "tb"))
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
    shutil.rmtree(run_dir / "backup", ignore_errors=True)
    shutil.rmtree(run_dir / "tb", ignore_errors=True)
    settings_path.write_text(json.dumps(settings, indent=2))
    return False


def fit_baseline(data):
    """Test accuracy of logistic regression on pixels, the simplest model that could work."""
    print("Baseline: logistic regression on pixels …")
    model = LogisticRegression(max_iter=50)  # near enough: more iterations overfit the pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(to_rows(data["train_X"]), data["train_y"])
    return {"logistic_regression_accuracy": model.score(to_rows(data["test_X"]), data["test_y"])}


def to_rows(images):
    """(n, height, width, channels) uint8 to (n, pixels) float32 between -1 and 1."""
    return images.reshape(len(images), -1).astype("float32") / 127.5 - 1


def plot_history(history, path):
    """Loss and accuracy by epoch, training against validation, as a picture."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    epochs = history["epoch"] + 1
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.plot(epochs, history[metric], marker=".", label="training")
        ax.plot(epochs, history["val_" + metric], marker=".", label="validation")
        ax.set(xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    best = history["val_accuracy"].idxmax()
    axes[1].axvline(epochs[best], color="grey", linestyle=":", label="best epoch")
    axes[1].legend()
    save_figure(fig, path)


def plot_confusion_matrix(data, probabilities, path):
    """How often each class (row) was taken for each other one (column), as a picture."""
    class_names = data["class_names"]
    side = min(2.5 + 0.45 * len(class_names), 16)
    fig, ax = plt.subplots(figsize=(side, side))
    ConfusionMatrixDisplay.from_predictions(
        data["test_y"],
        probabilities.argmax(axis=1),
        labels=range(len(class_names)),
        display_labels=class_names,
        xticks_rotation="vertical",
        colorbar=False,
        ax=ax,
    )
    save_figure(fig, path)


def plot_mistakes(data, probabilities, path):
    """The wrong answers of which the network was surest, as a grid of pictures."""
    class_names, guesses = data["class_names"], probabilities.argmax(axis=1)
    sureness = np.where(guesses != data["test_y"], probabilities.max(axis=1), 0)
    fig, axes = plt.subplots(3, 5, figsize=(10, 7))
    for ax, i in zip(axes.flat, np.argsort(-sureness), strict=False):
        ax.axis("off")
        if sureness[i]:
            ax.imshow(data["test_X"][i].squeeze(), cmap="gray")
            guess = f"{class_names[guesses[i]]} ({sureness[i]:.0%})"
            ax.set_title(f"{guess}\nis {class_names[data['test_y'][i]]}", fontsize=9)
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
    expected = (*data["train_X"].shape[1:], len(data["class_names"]))
    found = (*model.input_shape[1:], model.output_shape[1])
    if found != expected:
        raise ValueError(
            f"{path} was trained on other data: height, width, channels and classes are {found}, "
            f"here {expected}; give the --data it was trained on"
        )
    return model


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", an .npz file or a folder')
    parser.add_argument("--epochs", type=positive, default=20, help="default: 20 (the book: 200)")
    parser.add_argument("--batch-size", type=positive, default=32, help="default: 32")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter07/cnn_cifar10")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    parser.add_argument(
        "--image-size",
        type=positive,
        default=32,
        help="side in pixels to which a folder's images are resized (default: 32)",
    )
    parser.add_argument(
        "--num-gpus", type=positive, default=1, help="devices that share each batch (default: 1)"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="host 0 (docs/scaling.md)")
    parser.add_argument("--num-hosts", type=positive, help="processes that train together")
    parser.add_argument("--host-index", type=int, help="which of them this is, from 0")
    parser.add_argument(
        "--mixed-precision", action="store_true", help="16-bit arithmetic: faster on recent GPUs"
    )
    args = parser.parse_args()
    if args.image_size < MIN_IMAGE_SIZE:
        parser.error(f"--image-size must be {MIN_IMAGE_SIZE} or more for this network")
    if args.batch_size % args.num_gpus:
        parser.error(f"--batch-size must be a multiple of --num-gpus ({args.num_gpus})")
    together = (args.coordinator, args.num_hosts, args.host_index)
    if any(value is not None for value in together):
        if None in together:
            parser.error("--coordinator, --num-hosts and --host-index belong together")
        if not 0 <= args.host_index < args.num_hosts:
            parser.error(f"--host-index must be from 0 to {args.num_hosts - 1}")
        if args.evaluate or args.num_gpus > 1:
            parser.error("--num-hosts trains, with all devices: no --evaluate, no --num-gpus")
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        args.run_dir = RUNS_DIR / ("cnn_cifar10_sample" if args.data == "sample" else "cnn_cifar10")
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
    return history, seconds


def train_on_hosts(model, data, args, settings):
    """As `train`, together with other hosts; only host 0 keeps the model and can go on from it.

    Raises:
        ValueError: the batch does not divide evenly.
    """
    import many_hosts

    num_devices = len(list_devices())
    if args.batch_size % num_devices:
        raise ValueError(f"--batch-size must be a multiple of {num_devices}, one part per device")
    args.run_dir.mkdir(parents=True, exist_ok=True)
    backup_dir = args.run_dir / "backup"
    if args.host_index == 0:
        resuming = interrupted_run(args.run_dir, settings)
        callbacks = create_callbacks(args.run_dir, resuming)
        callbacks[-1] = many_hosts.Backup(backup_dir, double_checkpoint=True)
    else:
        callbacks = [keras.callbacks.CSVLogger(args.run_dir / f"history_{args.host_index}.csv")]
    try:
        start = time.perf_counter()
        done = many_hosts.restore_everywhere(
            model,
            lambda: build_network(1, model.input_shape[1:], model.output_shape[1]),
            backup_dir,
            finished_epochs(backup_dir),
            args.host_index,
        )
        share = {
            part: many_hosts.HostShare(
                data[f"{part}_X"],
                data[f"{part}_y"],
                args.batch_size,
                args.num_hosts,
                args.host_index,
                seed=args.seed if part == "train" else None,
                epoch=done,
                multiple=num_devices,
            )
            for part in ("train", "val")
        }
        model.fit(
            share["train"],
            epochs=args.epochs,
            initial_epoch=done,
            shuffle=False,  # HostShare shuffles, on all hosts alike
            validation_data=share["val"],
            callbacks=[many_hosts.OnlyHere(callbacks)],
            verbose="auto" if args.host_index == 0 else 2,
        )
        seconds = None if done else round(time.perf_counter() - start, 1)
        many_hosts.part_from_hosts()
    except (RuntimeError, ValueError) as error:  # JAX raises the one or the other
        print(
            f"error: the connection to another host is lost ({many_hosts.first_line(error)}). "
            "Start all hosts again with the same commands: they go on from the last finished epoch",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # an orderly end would wait for the lost host
    if args.host_index:
        print(f"Host {args.host_index} is done; host 0 has the model and the figures.")
        sys.exit()
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history, seconds


def report(model, data, run_dir):
    """Score the model and the baseline, print both, draw the pictures; returns the scores."""
    scores = {part: evaluate(model, data, part) for part in ("train", "val", "test")}
    scores["baselines"] = fit_baseline(data)
    for part in ("train", "val", "test"):
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    accuracy = scores["baselines"]["logistic_regression_accuracy"]
    print(f" test accuracy {accuracy:.4f} with logistic regression")

    probabilities = model.predict(data["test_X"], batch_size=500, verbose=0)
    plot_confusion_matrix(data, probabilities, run_dir / "confusion_matrix.png")
    plot_mistakes(data, probabilities, run_dir / "mistakes.png")
    return scores


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    if args.num_hosts:
        import many_hosts

        try:
            many_hosts.join_hosts(args.coordinator, args.num_hosts, args.host_index)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
    devices = list_devices()[: None if args.num_hosts else args.num_gpus]
    on_cpu = devices[0].startswith("cpu")
    device = ", ".join(devices) + (f" ({os.cpu_count()} cores)" if on_cpu else "")
    print(f"Keras {keras.__version__} on {backend}, device: {device}")
    if args.mixed_precision:  # CPUs and TPUs know bfloat16, GPUs are fastest at float16
        keras.config.set_dtype_policy("mixed_bfloat16" if on_cpu else "mixed_float16")

    try:
        data = load_data(args.data, args.image_size)
        if args.num_gpus > 1:
            data = drop_remainder(data, args.num_gpus)
        if args.evaluate:
            model = load_best_model(args.run_dir, data)
        else:
            model = build_network(
                args.num_gpus, data["train_X"].shape[1:], len(data["class_names"])
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = Path(args.data).name if args.data else "CIFAR-10"
    if args.data == "sample":
        source = "sample (a stand-in for CIFAR-10, drawn from emoji)"
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in ("train", "val", "test")]
    print(f"Data: {source}: {', '.join(counts)} images in {len(data['class_names'])} classes")
    if args.evaluate:
        report(model, data, args.run_dir)
        print(f"Pictures are in {args.run_dir}")
        return

    model.summary()
    settings = {
        "data": str(Path(args.data).resolve()) if args.data else source,
        "input_shape": list(model.input_shape[1:]),
        "seed": args.seed,
        "batch_size": args.batch_size,
        "precision": keras.config.dtype_policy().name,
    }
    try:
        fit = train_on_hosts if args.num_hosts else train
        history, seconds = fit(model, data, args, settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_history(history, args.run_dir / "learning_curves.png")
    best_epoch = int(history["epoch"][history["val_accuracy"].idxmax()]) + 1
    print(f"\nThe best of {len(history)} epochs was number {best_epoch}:")
    metrics = {
        "script": "chapter07/cnn_cifar10.py",
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
        **report(load_best_model(args.run_dir, data), data, args.run_dir),
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
