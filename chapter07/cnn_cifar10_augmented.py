"""Data augmentation on CIFAR-10: the book's CNN with and without it, and a better network.

Book: chapter 7, "Using data augmentation".

    python chapter07/cnn_cifar10_augmented.py                    # both trainings, real set
    python chapter07/cnn_cifar10_augmented.py --data sample      # stand-in, needs no network
    python chapter07/cnn_cifar10_augmented.py --network better   # better arranged
    python chapter07/cnn_cifar10_augmented.py --data my_photos/  # one folder of images per class

The book's network is trained twice from the same weights for the same number of steps: on the
images as they are, then on images turned by up to 20 degrees, shifted by up to 2 % and mirrored
at random, anew in each epoch. Look at learning_curves.png: without augmentation the network soon
knows its training images by heart and its validation loss climbs; with augmentation both come
much later. After 12 epochs of the real set: lowest validation loss in epoch 3 without and 10 with
augmentation, test accuracy 0.695 and 0.689; the better network 0.801. Half a minute to a minute
and a half for an epoch on one shared CPU core, two for the better network's (Keras 3.15, TensorFlow
2.21, Python 3.11; chapter07/README.md has the runs, benchmarks/bench_augmentation.py the ratio).
"""

import argparse
import importlib.metadata
import json
import logging
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
from sklearn.model_selection import train_test_split
from tqdm import tqdm

logging.getLogger("tensorflow").setLevel("ERROR")  # it warns of each new network's compilation
matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter07"
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]  # in label order
CIFAR10_CLASSES += ["dog", "frog", "horse", "ship", "truck"]
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}
MIN_IMAGE_SIZE = 10  # two rounds of 3x3 convolution and 2x2 pooling leave 1x1 of it
DEFAULTS = {"book": {"epochs": 20, "batch_size": 32}, "better": {"epochs": 12, "batch_size": 128}}


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


def build_network(input_shape=(32, 32, 3), num_classes=10, dropout=0.2, learning_rate=0.001):
    """The book's network, compiled: the same as in cnn_cifar10.py, dropout included.

    Returns:
        keras.Model from (n, *input_shape), 0-255, to class probabilities (n, num_classes).
    """
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
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)

    model = keras.Model(inputs=inputs, outputs=output, name="cnn_cifar10")
    return compile_model(model, keras.optimizers.Adam(learning_rate=learning_rate))


def build_better_network(
    total_steps, input_shape=(32, 32, 3), num_classes=10, dropout=0.2, learning_rate=0.003
):
    """The same blocks, better arranged; half the parameters of the book's network.

    - Four convolutional blocks of 32 to 256 filters with padding: the maps shrink only where they
      are pooled, and more kinds of features follow as the maps get smaller.
    - Normalisation before relu, which makes the convolution's own bias needless.
    - Global average pooling where the book flattens: most of its parameters are in `fc1`.
    - A learning rate that rises over the first tenth of the `total_steps` and falls to zero along
      a cosine: large steps while there is far to go, small ones to settle.

    Returns:
        keras.Model as `build_network` gives it.
    """
    inputs = keras.Input(shape=input_shape, name="input")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs)
    for number, filters in enumerate((32, 64, 128, 256), start=1):
        if number > 1:
            x = layers.MaxPooling2D(padding="same", name=f"pool_{number - 1}")(x)
        x = layers.Conv2D(
            filters, kernel_size=(3, 3), padding="same", use_bias=False, name=f"conv_{number}"
        )(x)
        x = fuse(layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{number}"))(x)
        x = layers.Activation("relu", name=f"relu_{number}")(x)
    x = layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)

    model = keras.Model(inputs=inputs, outputs=output, name="better_cnn_cifar10")
    warmup = total_steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, total_steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
    )
    return compile_model(model, keras.optimizers.AdamW(schedule, weight_decay=0.02))


def compile_model(model, optimizer):
    """`model`, compiled for classification with integer labels."""
    model.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=16,  # batches per trip from Python (benchmarks/bench_cnn_cifar10.py)
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


def create_datagen(rotation_range=20, shift_range=0.02, horizontal_flip=True):
    """The random changes, as one Keras model that runs on the device which trains.

    The book's `ImageDataGenerator` made them with SciPy on the host, image by image, while the
    device waited. These layers work on a whole batch, and only in training: used with
    `training=False` they pass images on unchanged.

    Args:
        rotation_range: largest turn in degrees, both ways.
        shift_range: largest shift, as a share of height and width. Where a turn or a shift leaves
            a gap, the nearest pixel's colour fills it, as in the book.
        horizontal_flip: whether to mirror every other image.

    Returns:
        keras.Sequential from images (n, height, width, channels) to the same, float32.
    """
    changes = []
    if horizontal_flip:
        changes.append(layers.RandomFlip("horizontal"))
    if rotation_range:
        changes.append(layers.RandomRotation(rotation_range / 360, fill_mode="nearest"))
    if shift_range:
        changes.append(layers.RandomTranslation(shift_range, shift_range, fill_mode="nearest"))
    if keras.backend.backend() == "jax":
        for layer in changes:  # marked not compilable for TensorFlow's sake; JAX can and must
            layer.supports_jit = True
    return keras.Sequential(changes, name="augmentation")


def add_augmentation(network, datagen):
    """A model to train in `network`'s place: the random changes first, then `network` itself.

    Both share weights and optimizer, so what this one learns is in `network`, which never contains
    the random layers: it is what gets saved, and it takes images as they are.
    """
    inputs = keras.Input(shape=network.input_shape[1:], name="input")
    model = keras.Model(inputs, network(datagen(inputs)), name="training")
    return compile_model(model, network.optimizer)


class SaveNetwork(keras.callbacks.ModelCheckpoint):
    """`ModelCheckpoint` that saves `network` instead of the model in training around it."""

    def __init__(self, network, path, **options):
        super().__init__(path, **options)
        self.network = network

    def set_model(self, model):
        super().set_model(self.network)


class ScoreTrainingImages(keras.callbacks.Callback):
    """Log `clean_loss` and `clean_accuracy`: unchanged training images, dropout off.

    Keras's own training figures are averages over an epoch with dropout, and here over augmented
    images, which are harder. Set against validation they hide overfitting; these do not.
    """

    def __init__(self, network, data, count=5000):
        super().__init__()
        rows = np.random.default_rng(0).permutation(len(data["train_y"]))[:count]
        self.network, self.rows = network, (data["train_X"][rows], data["train_y"][rows])

    def on_epoch_end(self, epoch, logs=None):
        scores = self.network.evaluate(*self.rows, batch_size=500, verbose=0, return_dict=True)
        logs |= {f"clean_{name}": value for name, value in scores.items()}


def create_callbacks(network, data, run_dir, resuming=False):
    """Callbacks that keep the best epoch, log each epoch, and let a killed run go on.

    Args:
        network: what to save. data: as `load_data` gives it.
        run_dir: pathlib.Path of an existing folder.
        resuming: whether to go on with the logs of an interrupted run.
    """
    best_path, history_path = run_dir / "model.keras", run_dir / "history.csv"
    best_so_far = None
    # Without the threshold the first epoch after a restart would replace a better one. A file
    # half-written when the run was killed does not count.
    if resuming and history_path.exists() and zipfile.is_zipfile(best_path):
        best_so_far = pd.read_csv(history_path)["val_accuracy"].max()
    return [
        SaveNetwork(
            network,
            best_path,
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            initial_value_threshold=best_so_far,
        ),
        ScoreTrainingImages(network, data),  # before the log, which then has its figures
        keras.callbacks.CSVLogger(history_path, append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]


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
    settings_path.write_text(json.dumps(settings, indent=2))
    return False


def train(network, datagen, data, args, run_dir, settings):
    """Fit `network`, on images changed by `datagen` unless it is None; the best epoch is saved.

    Goes on from an interrupted training in `run_dir`; one that is finished is not done again.

    Returns:
        (history, seconds): DataFrame with one row per epoch; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    finished_path, seconds = run_dir / "finished.json", None
    if finished_path.exists() and json.loads(finished_path.read_text()) == settings:
        print(f"Finished before the interruption: the training in {run_dir}.")
    else:
        finished_path.unlink(missing_ok=True)
        resuming = interrupted_run(run_dir, settings)
        start = time.perf_counter()
        model = network if datagen is None else add_augmentation(network, datagen)
        model.fit(
            data["train_X"],
            data["train_y"],
            batch_size=args.batch_size,
            epochs=args.epochs,
            validation_data=(data["val_X"], data["val_y"]),
            callbacks=create_callbacks(network, data, run_dir, resuming),
        )
        if not resuming:
            seconds = round(time.perf_counter() - start, 1)
        finished_path.write_text(json.dumps(settings, indent=2))
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history.reset_index(drop=True), seconds


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


def summarize(history, seconds, network, data):
    """One training's figures: best epoch, where validation loss was lowest, scores."""
    return {
        "best_epoch": int(history["val_accuracy"].idxmax()) + 1,
        "lowest_val_loss_epoch": int(history["val_loss"].idxmin()) + 1,
        "last_epoch_gap": float((history["clean_accuracy"] - history["val_accuracy"]).iloc[-1]),
        "seconds": seconds,
        **{part: evaluate(network, data, part) for part in ("train", "val", "test")},
    }


def print_comparison(results, baseline):
    """One column for each training."""
    print("\n" + " " * 42 + "".join(f"{name:>24}" for name in results))
    lines = {
        "best epoch by validation accuracy": lambda r: str(r["best_epoch"]),
        "  its accuracy on training images": lambda r: f"{r['train']['accuracy']:.4f}",
        "  its validation accuracy": lambda r: f"{r['val']['accuracy']:.4f}",
        "  its test accuracy": lambda r: f"{r['test']['accuracy']:.4f}",
        "epoch of the lowest validation loss": lambda r: str(r["lowest_val_loss_epoch"]),
        "last epoch: training minus validation": lambda r: f"{r['last_epoch_gap']:.4f}",
    }
    for title, value in lines.items():
        print(f"{title:42}" + "".join(f"{value(result):>24}" for result in results.values()))
    print(f"{'test accuracy of logistic regression':42}{baseline:>24.4f}")


def plot_histories(histories, path):
    """Loss and accuracy by epoch of all trainings, on training and validation images."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for colour, (name, history) in zip(("C3", "C0"), histories.items(), strict=False):
        for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
            epochs = history["epoch"] + 1
            ax.plot(epochs, history[f"clean_{metric}"], ".--", color=colour)
            ax.plot(epochs, history[f"val_{metric}"], ".-", color=colour, label=name)
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.set(xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    axes[1].plot([], [], "--", color="grey", label="training images, unchanged")
    axes[1].plot([], [], color="grey", label="validation images")
    axes[1].legend(fontsize=9)
    save_figure(fig, path)


def plot_augmented(datagen, data, path):
    """Four training images (left) and what the network is shown in their place."""
    fig, axes = plt.subplots(4, 9, figsize=(10, 4.8))
    for row, image in zip(axes, data["train_X"], strict=False):
        changed = datagen(np.repeat(image[None], 8, axis=0).astype("float32"), training=True)
        changed = keras.ops.convert_to_numpy(changed).round().clip(0, 255).astype("uint8")
        for ax, picture in zip(row, [image, *changed], strict=True):
            ax.imshow(picture.squeeze(), cmap="gray")
            ax.axis("off")
    axes[0, 0].set_title("original", fontsize=10)
    axes[0, 1].set_title("augmented", fontsize=10)
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", an .npz file or a folder')
    parser.add_argument("--network", choices=DEFAULTS, default="book", help="default: book")
    parser.add_argument("--epochs", type=positive, help="default: 20; 12 for the better network")
    parser.add_argument("--batch-size", type=positive, help="default: 32; 128 for the better one")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter07/<script>[_better]")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    parser.add_argument(
        "--image-size",
        type=positive,
        default=32,
        help="side in pixels to which a folder's images are resized (default: 32)",
    )
    args = parser.parse_args()
    if args.image_size < MIN_IMAGE_SIZE:
        parser.error(f"--image-size must be {MIN_IMAGE_SIZE} or more for this network")
    for name, value in DEFAULTS[args.network].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        name = "cnn_cifar10_augmented" + "_better" * (args.network == "better")
        args.run_dir = RUNS_DIR / (name + "_sample" * (args.data == "sample"))
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def list_trainings(args, data):
    """What to train: name → (folder, function that builds the network, random changes or None)."""
    shape, classes = data["train_X"].shape[1:], len(data["class_names"])
    if args.network == "better":
        total_steps = args.epochs * -(-len(data["train_X"]) // args.batch_size)
        changes = create_datagen(rotation_range=0, shift_range=0.1)
        return {
            "better network": (
                args.run_dir,
                lambda: build_better_network(total_steps, shape, classes),
                changes,
            )
        }

    def build():
        return build_network(shape, classes)

    return {
        "without augmentation": (args.run_dir / "without", build, None),
        "with augmentation": (args.run_dir, build, create_datagen()),
    }


def train_all(args, data, source):
    """Train everything `list_trainings` names.

    Returns:
        (histories, results): name → DataFrame, name → dict as `summarize` gives it.
    """
    histories, results = {}, {}
    for name, (run_dir, build, datagen) in list_trainings(args, data).items():
        print(f"\nTraining: {name}, {args.epochs} epochs")
        keras.utils.set_random_seed(args.seed)  # all start from the same weights
        network = build()
        settings = {
            "data": str(Path(args.data).resolve()) if args.data else source,
            "input_shape": list(network.input_shape[1:]),
            "network": args.network,
            "augmentation": datagen is not None,
            "seed": args.seed,
            "batch_size": args.batch_size,
            "epochs": args.epochs,
        }
        histories[name], seconds = train(network, datagen, data, args, run_dir, settings)
        best = load_best_model(run_dir, data)
        results[name] = summarize(histories[name], seconds, best, data)
    return histories, results


def main():
    args = parse_arguments()
    backend = keras.backend.backend()
    devices = keras.distribution.list_devices()
    device = next((name for name in devices if not name.startswith("cpu")), devices[0])
    device += f" ({os.cpu_count()} cores)" if device.startswith("cpu") else ""
    print(f"Keras {keras.__version__} on {backend}, device: {device}")

    try:
        data = load_data(args.data, args.image_size)
        model = load_best_model(args.run_dir, data) if args.evaluate else None
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = Path(args.data).name if args.data else "CIFAR-10"
    if args.data == "sample":
        source = "sample (a stand-in for CIFAR-10, drawn from emoji)"
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in ("train", "val", "test")]
    print(f"Data: {source}: {', '.join(counts)} images in {len(data['class_names'])} classes")
    if args.evaluate:
        for part in ("train", "val", "test"):
            print(f"{part:>5} accuracy {evaluate(model, data, part)['accuracy']:.4f}")
        return

    args.run_dir.mkdir(parents=True, exist_ok=True)
    *_, datagen = list(list_trainings(args, data).values())[-1]
    plot_augmented(datagen, data, args.run_dir / "augmented_images.png")
    try:
        histories, results = train_all(args, data, source)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_histories(histories, args.run_dir / "learning_curves.png")
    baselines = fit_baseline(data)
    print_comparison(results, baselines["logistic_regression_accuracy"])
    name, result = list(results.items())[-1]
    metrics = {
        "script": "chapter07/cnn_cifar10_augmented.py",
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "network": args.network,
        "batch_size": args.batch_size,
        "epochs": args.epochs,
        "parameters": load_best_model(args.run_dir, data).count_params(),
        **result,
        "baselines": baselines,
        **{other.replace(" ", "_"): results[other] for other in results if other != name},
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for finished in args.run_dir.rglob("finished.json"):  # the same command trains anew
        finished.unlink()
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
