"""Train the book's convolutional network on CIFAR-10: 32x32 colour photographs of ten kinds.

Book: chapter 7, "Training a convolutional neural network in Keras".

    python chapter07/cnn_cifar10.py                   # the real set (170 MB, fetched once)
    python chapter07/cnn_cifar10.py --data sample     # a small stand-in, needs no network
    python chapter07/cnn_cifar10.py --data my.npz     # yours: photos_to_npz.py makes it

What to expect: test accuracy 0.715 ± 0.006 (three seeds, JPEG copies of the images; a linear model:
0.40), overfitting from the fifth epoch on, as in the book; 35 seconds an epoch on two CPU cores.
"""

import argparse
import json
import os
import shutil
import sys
import zlib
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.model_selection import train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "cifar10.npz"
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def load_data(source=None):
    """Images with their classes; half of the test images become the validation set.

    `source` is None for CIFAR-10 (Krizhevsky, 2009), "sample", or an .npz file with Keras's keys
    x_train, y_train, x_test, y_test and, where they are not CIFAR-10's, class_names.
    Returns a dict: train_X … test_X, uint8 (n, h, w, channels); train_y … test_y (n,); class_names.
    """
    class_names = CIFAR10
    if source is None:
        (train_X, train_y), (test_X, test_y) = keras.datasets.cifar10.load_data()
    else:
        with np.load(SAMPLE if source == "sample" else source, allow_pickle=False) as file:
            train_X, train_y = file["x_train"], file["y_train"]
            test_X, test_y = file["x_test"], file["y_test"]
            class_names = [str(name) for name in file.get("class_names", class_names)]
    for X, y in ((train_X, train_y), (test_X, test_y)):
        if X.dtype != np.uint8 or X.ndim != 4 or X.shape != (y.size, *train_X.shape[1:]):
            raise ValueError(f"not uint8 (n, h, w, channels), a label each: {X.dtype} {X.shape}")
    train_y, test_y = train_y.ravel().astype("int64"), test_y.ravel().astype("int64")
    if set(train_y) != set(range(len(class_names))) or not set(test_y) <= set(train_y):
        raise ValueError(f"labels are not 0 to {len(class_names) - 1}, one for each of class_names")
    data = {"train_X": train_X, "train_y": train_y, "class_names": class_names}
    halves = train_test_split(test_X, test_y, test_size=0.5, stratify=test_y, random_state=0)
    return data | dict(zip(("val_X", "test_X", "val_y", "test_y"), halves, strict=True))


def build_network(num_gpu=1, input_shape=(32, 32, 3), num_classes=10):
    """The book's network, compiled: pixels (n, *input_shape), 0-255, to class probabilities."""
    with share_batches(num_gpu):
        inputs = keras.Input(shape=input_shape, name="input")
        x = layers.Rescaling(1 / 255, name="rescale")(inputs)
        # Running averages of momentum 0.99 would lag behind for the first few hundred batches.
        x = layers.Conv2D(64, kernel_size=(3, 3), activation="relu", name="conv_1")(x)
        x = layers.BatchNormalization(momentum=0.9, name="batch_norm_1")(x)
        x = layers.MaxPooling2D(pool_size=(2, 2), name="pool_1")(x)

        x = layers.Conv2D(32, kernel_size=(3, 3), activation="relu", name="conv_2")(x)
        x = layers.BatchNormalization(momentum=0.9, name="batch_norm_2")(x)
        x = layers.MaxPooling2D(pool_size=(2, 2), name="pool_2")(x)
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(512, activation="relu", name="fc1")(x)
        x = layers.Dropout(0.2, name="dropout1")(x)
        x = layers.Dense(256, activation="relu", name="fc2")(x)
        x = layers.Dropout(0.2, name="dropout2")(x)
        output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)

        model = keras.Model(inputs=inputs, outputs=output, name="cnn_cifar10")
        model.compile(
            optimizer="adam",
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            steps_per_execution=16 if num_gpu == 1 else 1,  # batches a trip from Python
        )
    return model


def share_batches(num_gpu):
    """The scope of a network whose batches `num_gpu` GPUs share (the book: multi_gpu_model)."""
    if num_gpu == 1:
        return tf.distribute.get_strategy().scope()  # nothing is shared
    gpus = len(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() != "tensorflow" or not 1 < num_gpu <= gpus:
        raise ValueError(f"--num-gpus {num_gpu} needs TensorFlow, and so many GPUs; it has {gpus}")
    return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(num_gpu)]).scope()


def create_callbacks(model, run_dir):
    """TensorBoard, a log, the last model and the best one: `model`, saved after each epoch."""

    def save(epoch, logs):  # renamed when whole: a kill leaves the files of the epoch before
        new = run_dir / "new.keras"
        model.save(new)
        if pd.read_csv(run_dir / "history.csv")["val_accuracy"].argmax() == epoch:
            shutil.copy(new, run_dir / "new_model.keras").replace(run_dir / "model.keras")
        new.replace(run_dir / "last.keras")

    return [
        callbacks.TensorBoard(run_dir / "tb"),
        callbacks.CSVLogger(run_dir / "history.csv", append=(run_dir / "last.keras").exists()),
        callbacks.LambdaCallback(on_epoch_end=save),
    ]


def open_run(run_dir, settings, train_X, train_y):
    """The last model of the same run in `run_dir` and the epochs done; None and 0 of a new one."""
    run_dir.mkdir(parents=True, exist_ok=True)
    noted, log, last = (run_dir / name for name in ("settings.json", "history.csv", "last.keras"))
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    if not last.exists():
        return None, 0
    lines = log.read_bytes().splitlines(keepends=True)
    # New random numbers from here on, not those of the first epoch again.
    keras.utils.set_random_seed((settings["seed"] + len(lines)) % 2**32)
    model = keras.models.load_model(last)
    model.evaluate(train_X[:1], train_y[:1], verbose=0)  # is it a network for rows like these?
    done = int(model.optimizer.iterations) // -(-len(train_y) // settings["batch_size"])
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return model, done


def fit_baseline(data):
    """A linear model on the pixels, the simplest that could work: its test accuracy."""
    train, test = (data[f"{part}_X"] / np.float32(255) for part in ("train", "test"))
    model = RidgeClassifier(alpha=1000).fit(train.reshape(len(train), -1), data["train_y"])
    return model.score(test.reshape(len(test), -1), data["test_y"])


def report(model, data, run_dir):
    """Losses and accuracies as a dict, the baseline's beside them; pictures of the mistakes."""
    scores = {"baselines": {"linear_model_accuracy": fit_baseline(data)}}
    print(f" test accuracy {scores['baselines']['linear_model_accuracy']:.4f} of a linear model")
    for part in ("train", "val", "test"):
        X, y = data[f"{part}_X"], data[f"{part}_y"]
        scores[part] = model.evaluate(X, y, batch_size=500, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    probabilities = model.predict(X, batch_size=500, verbose=0)
    names = [name.replace("$", r"\$") for name in data["class_names"]]  # $: a formula
    counts = confusion_matrix(y, probabilities.argmax(axis=1), labels=range(len(names)))
    ConfusionMatrixDisplay(counts, display_labels=names).plot(xticks_rotation="vertical")
    plt.savefig(run_dir / "confusion_matrix.png", bbox_inches="tight")
    return scores


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--epochs", type=int, default=20, help="default: 20 (the book: 200)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/cnn_cifar10")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs that share each batch")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"cnn_cifar10{suffix}")
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    best = args.run_dir / "model.keras"
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        train_X, train_y, names = data["train_X"], data["train_y"], data["class_names"]
        settings = {"script": "cnn_cifar10", "class_names": names, "seed": args.seed}
        settings |= {"batch_size": args.batch_size, "num_gpus": args.num_gpus}
        settings["data"] = zlib.crc32(b"".join(map(bytes, (train_X, train_y, data["val_X"]))))
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(best), data, args.run_dir)
        with share_batches(args.num_gpus):
            model, done = open_run(args.run_dir, settings, train_X, train_y)
        model = model or build_network(args.num_gpus, train_X.shape[1:], len(names))
        model.make_train_function()  # what a backend refuses, it says here
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'CIFAR-10'}: {' '.join(str(error).split())[:500]}")
    model.summary()
    rows = tf.data.Dataset.from_tensor_slices((train_X, train_y))
    model.fit(
        rows.shuffle(len(rows), seed=args.seed + done).batch(args.batch_size),
        epochs=args.epochs,
        initial_epoch=done,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=create_callbacks(model, args.run_dir),
        shuffle=False,  # the rows are, anew in each epoch
    )
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch").rename(lambda n: n + 1)
    history.plot(subplots=[("loss", "val_loss"), ("accuracy", "val_accuracy")], grid=True)
    plt.savefig(args.run_dir / "learning_curves.png")
    metrics = settings | report(keras.models.load_model(best), data, args.run_dir)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_accuracy"].argmax()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
