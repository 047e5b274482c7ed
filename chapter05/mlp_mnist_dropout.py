"""Train the book's perceptron with dropout on MNIST: half of each hidden layer is off at random.

Book: chapter 5, "Controlling variance with dropout". What is new beside mlp_mnist.py is in
`build_network`.

    python chapter05/mlp_mnist_dropout.py                # the real set (11 MB, fetched once)
    python chapter05/mlp_mnist_dropout.py --data sample  # 5,000 of its digits, needs no network
    python chapter05/compare_runs.py runs/mlp_mnist runs/mlp_mnist_dropout

What to expect: test accuracy 0.9817 ± 0.0013 in ten minutes on a CPU core, a validation loss that
stays low; with --dropout 0.3 --batch-size 256 0.9839 ± 0.0018 (seeds 1 to 3) in four; logistic
regression 0.9223.
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
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "mnist.npz"


def load_data(source=None):
    """Digits with their classes; 5,000 of the training digits become the validation set.

    `source` is None for MNIST (LeCun, Cortes and Burges), "sample", or an .npz file with Keras's
    keys x_train, y_train, x_test, y_test and, where the classes have names, class_names.
    Returns a dict: train_X, val_X, test_X, uint8 (n, height * width); train_y, val_y, test_y,
    int64 (n,), 0 to classes-1; class_names.
    """
    if source is None:
        (train_X, train_y), (test_X, test_y) = keras.datasets.mnist.load_data()
        class_names = range(10)
    else:
        with np.load(SAMPLE if source == "sample" else source, allow_pickle=False) as file:
            train_X, train_y = file["x_train"], file["y_train"]
            test_X, test_y = file["x_test"], file["y_test"]
            class_names = file.get("class_names", np.unique(train_y))
    for X, y in ((train_X, train_y), (test_X, test_y)):
        if X.dtype != np.uint8 or X.ndim != 3 or X.shape != (y.size, *train_X.shape[1:]):
            raise ValueError(f"not uint8 (n, height, width), (n,): {X.dtype} {X.shape}, {y.shape}")
    train_y, test_y = train_y.ravel().astype("int64"), test_y.ravel().astype("int64")
    if set(train_y) != set(range(len(class_names))) or not set() < set(test_y) <= set(train_y):
        raise ValueError(f"labels are not 0 to {len(class_names) - 1}, one for each of class_names")
    data = {"class_names": [str(name) for name in class_names]}
    data |= {"test_X": test_X.reshape(len(test_X), -1), "test_y": test_y}
    # The book takes the last 5,000: of a file sorted by label, digits of one kind.
    rows, size = train_X.reshape(len(train_X), -1), min(5000, len(train_y) // 12)
    parts = train_test_split(rows, train_y, test_size=size, stratify=train_y, random_state=0)
    return data | dict(zip(("train_X", "val_X", "train_y", "val_y"), parts, strict=True))


def build_network(input_features=784, num_classes=10, dropout=0.5):
    """The network of mlp_mnist.py with dropout after each hidden layer, compiled.

    Pixels (n, input_features), 0-255, to class probabilities. `dropout` is the part of a layer that
    is off; in use, nothing is.
    """
    inputs = keras.Input(shape=(input_features,), name="input")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    x = layers.Dense(512, activation="relu", name="hidden1")(x)
    x = layers.Dropout(dropout, name="dropout1")(x)
    x = layers.Dense(256, activation="relu", name="hidden2")(x)
    x = layers.Dropout(dropout, name="dropout2")(x)
    x = layers.Dense(128, activation="relu", name="hidden3")(x)
    x = layers.Dropout(dropout, name="dropout3")(x)
    prediction = layers.Dense(num_classes, activation="softmax", name="output")(x)

    model = keras.Model(inputs=inputs, outputs=prediction, name="mlp_mnist_dropout")
    model.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",  # of labels as they are, not one-hot encoded
        metrics=["accuracy"],
        # Batches a trip from Python. XLA (mlp_mnist.py) draws the masks too slowly on a CPU.
        steps_per_execution=16,
    )
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
    """Logistic regression on pixels, the simplest model that could work: its answers to test_X."""
    train, test = (data[f"{part}_X"] / np.float32(255) for part in ("train", "test"))
    return LogisticRegression(tol=0.001).fit(train, data["train_y"]).predict(test)


def report(model, data):
    """Losses and accuracies as a dict, the baseline's beside them; how sure the network is."""
    scores = {}
    for part in ("train", "val", "test"):
        X, y = data[f"{part}_X"], data[f"{part}_y"]
        score = scores[part] = model.evaluate(X, y, batch_size=500, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {score['accuracy']:.4f}, log loss {score['loss']:.4f}")
    y_softmax = model.predict(X, batch_size=500, verbose=0)
    right, sureness = y_softmax.argmax(axis=-1) == y, y_softmax.max(axis=-1)
    more = pd.Series((fit_baseline(data) == y) * 1.0 - right)
    baseline = {"logistic_regression_accuracy": right.mean() + more.mean()}
    baseline |= {"more": more.mean(), "error": more.sem()}
    print(" test accuracy {:.4f} of a linear model, {:+.4f} ± {:.4f}".format(*baseline.values()))
    print(f"Its answers to test_X have a mean probability of {sureness.mean():.4f}.")
    return scores | {"baselines": baseline, "sureness": float(sureness.mean())}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--dropout", type=float, default=0.5, help="default: 0.5, as in the book")
    parser.add_argument("--epochs", type=int, default=50, help="default: 50")
    parser.add_argument("--batch-size", type=int, default=30, help="default: 30")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/mlp_mnist_dropout")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"mlp_mnist_dropout{suffix}")
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    if not 0 <= args.dropout < 1:
        parser.error("--dropout is from 0 to below 1")
    return args


def main():
    args = parse_arguments()
    best = args.run_dir / "model.keras"
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        train_X, train_y, names = data["train_X"], data["train_y"], data["class_names"]
        settings = {"script": "mlp_mnist_dropout", "class_names": names, "seed": args.seed}
        settings |= {"batch_size": args.batch_size, "dropout": args.dropout}
        settings["data"] = zlib.crc32(train_X.tobytes() + train_y.tobytes())
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(best), data)
        model, done = open_run(args.run_dir, settings, train_X, train_y)
        model = model or build_network(train_X.shape[1], len(names), args.dropout)
        model.make_train_function()  # what a backend refuses, it says here
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'MNIST'}: {' '.join(str(error).split())[:500]}")
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
    history = pd.read_csv(args.run_dir / "history.csv")
    metrics = settings | report(keras.models.load_model(best), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_accuracy"].argmax()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model and metrics are in {args.run_dir}")


if __name__ == "__main__":
    main()
