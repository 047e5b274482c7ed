"""Train on CIFAR-10 with data augmentation: the book's network, or a better one of the same layers.

Book: chapter 7, "Using data augmentation". Test accuracy 0.75 after 50 epochs (cnn_cifar10.py:
0.72), 0.80 of the better network after 12 (JPEG copies of the images); 40 seconds an epoch.

    python chapter07/cnn_cifar10_augmented.py        # --data sample: a quick look
    python chapter07/cnn_cifar10_augmented.py --network better --run-dir runs/better
"""

import argparse
import json
import os
import shutil
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers
from keras.optimizers.schedules import CosineDecay
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "cifar10.npz"
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def load_data(source=None):
    """CIFAR-10 (Krizhevsky, 2009), "sample", or an .npz file with Keras's keys and class_names.

    Returns a dict: train_X, val_X, test_X, uint8 (n, height, width, channels); train_y, val_y,
    test_y, int64 (n,), 0 to classes-1; class_names. Half of the test images are for validation.
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


def create_datagen(rotation_range=20, shift_range=0.02):
    """Random changes of images (n, h, w, channels): turns in degrees, shifts in parts of a side."""
    flip = layers.RandomFlip("horizontal")
    turn = layers.RandomRotation(rotation_range / 360, fill_mode="nearest")
    shift = layers.RandomTranslation(shift_range, shift_range, fill_mode="nearest")
    return layers.Pipeline([flip, turn, shift])


def build_network(network="book", steps=1, input_shape=(32, 32, 3), num_classes=10):
    """The network of that name, compiled: pixels (n, *input_shape), 0-255, to class probabilities.

    The better one has no large dense layer; its learning rate rises and falls in `steps` batches.
    """
    inputs = keras.Input(shape=input_shape, name="input")
    if network == "book":
        optimizer = "adam"
        x = layers.Rescaling(1 / 255, name="rescale")(inputs)
        for block, filters in ((1, 64), (2, 32)):
            x = layers.Conv2D(filters, 3, activation="relu", name=f"conv_{block}")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{block}")(x)
            x = layers.MaxPooling2D(name=f"pool_{block}")(x)
        x = layers.Flatten(name="flatten")(x)
        for number, units in ((1, 512), (2, 256)):
            x = layers.Dense(units, activation="relu", name=f"fc{number}")(x)
            x = layers.Dropout(0.2, name=f"dropout{number}")(x)
    else:
        lr = CosineDecay(0.0, int(0.9 * steps), warmup_target=0.003, warmup_steps=int(0.1 * steps))
        optimizer = keras.optimizers.AdamW(lr, weight_decay=0.02)
        x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs)
        for block, filters in ((1, 32), (2, 64), (3, 128), (4, 256)):
            if block > 1:
                x = layers.MaxPooling2D(padding="same", name=f"pool_{block - 1}")(x)
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{block}")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{block}")(x)
            x = layers.Activation("relu", name=f"relu_{block}")(x)
        x = layers.GlobalAveragePooling2D(name="global_pool")(x)
        x = layers.Dropout(0.2, name="dropout")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs=inputs, outputs=output, name=f"{network}_cnn_cifar10")
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=16)
    return model


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


def report(model, data):
    """Losses and accuracies as a dict, the baseline's beside them."""
    scores = {"baselines": {"linear_model_accuracy": fit_baseline(data)}}
    print(f" test accuracy {scores['baselines']['linear_model_accuracy']:.4f} of a linear model")
    for part in ("train", "val", "test"):
        X, y = data[f"{part}_X"], data[f"{part}_y"]
        scores[part] = model.evaluate(X, y, batch_size=500, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    return scores


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--network", choices=["book", "better"], default="book", help="which")
    parser.add_argument("--epochs", type=int, help="default: 50, for --network better 12")
    parser.add_argument("--batch-size", type=int, help="default: 32, for --network better 128")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/cnn_cifar10_augmented")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    better = parser.parse_known_args()[0].network == "better"
    parser.set_defaults(epochs=12 if better else 50, batch_size=128 if better else 32)
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    name = "cnn_cifar10_better" if better else "cnn_cifar10_augmented"
    args.run_dir = args.run_dir or Path("runs", f"{name}{suffix}")
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        train_X, train_y, names = data["train_X"], data["train_y"], data["class_names"]
        settings = {"script": "cnn_cifar10_augmented", "class_names": names}
        settings |= {"network": args.network, "seed": args.seed, "batch_size": args.batch_size}
        settings["data"] = zlib.crc32(b"".join(map(bytes, (train_X, train_y, data["val_X"]))))
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data)
        settings |= {"epochs": args.epochs} if args.network == "better" else {}  # planned for them
        model, done = open_run(args.run_dir, settings, train_X, train_y)
        datagen = create_datagen() if args.network == "book" else create_datagen(0, 0.1)
        steps = args.epochs * -(-len(train_y) // args.batch_size)
        model = model or build_network(args.network, steps, train_X.shape[1:], len(names))
        model.make_train_function()  # what a backend refuses, it says here
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'CIFAR-10'}: {' '.join(str(error).split())[:500]}")
    columns = [train_X[:5], *(datagen(train_X[:5], training=True) for _ in range(5))]
    picture = np.vstack(np.concatenate(columns, axis=2))  # five images, five changes beside each
    keras.utils.save_img(args.run_dir / "augmented_images.png", picture, scale=False)
    rows = tf.data.Dataset.from_tensor_slices((train_X, train_y))
    batches = rows.shuffle(len(rows), seed=args.seed + done).batch(args.batch_size)
    model.fit(
        batches.map(lambda X, y: (datagen(X, training=True), y)).prefetch(2),
        epochs=args.epochs,
        initial_epoch=done,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=create_callbacks(model, args.run_dir),
        shuffle=False,  # the rows are, anew in each epoch
    )
    history = pd.read_csv(args.run_dir / "history.csv")
    metrics = settings | report(keras.models.load_model(args.run_dir / "model.keras"), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_accuracy"].argmax()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and the picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
