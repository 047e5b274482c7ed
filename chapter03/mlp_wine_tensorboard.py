"""Chapter 2's multilayer perceptron on the white wines, logged for TensorBoard.

Book: chapter 3, "Creating a TensorBoard callback". New beside chapter02/mlp_wine.py is one line in
`create_callbacks`; the baseline is the median. Test MAE 0.198 ± 0.004 standard deviations.

    python chapter03/mlp_wine_tensorboard.py      # "--data sample" takes 600 of the wines
    tensorboard --logdir runs --port 6006         # in a second terminal, at any time
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

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "winequality-white.csv"


def load_data(source=None):
    """White wines (Cortez et al., 2009), split at random, always alike, 80 : 10 : 10.

    `source` is None for all 4,898, "sample" for 600, or a CSV file of numbers with `alcohol` in it.
    Returns a dict: train_X … test_X, float32 (n, 10), as measured; train_y … test_y (n,); columns.
    """
    path = {None: SAMPLE.parents[1] / "wine" / SAMPLE.name, "sample": SAMPLE}.get(source, source)
    wines = pd.read_csv(path, sep=None, engine="python", index_col=False, encoding="utf-8-sig")
    wines = wines.drop(columns="quality", errors="ignore").astype("float32")
    if len(wines) < 10 or wines.shape[1] < 2 or not (wines.abs() < 1e18).all(axis=None):
        raise ValueError("it has fewer than ten wines or two columns, or an empty or huge cell")
    order = np.random.default_rng(0).permutation(len(wines))
    ends = [round(0.8 * len(wines)), round(0.9 * len(wines))]
    data = {"columns": list(wines.columns.drop("alcohol"))}
    for name, rows in zip(("train", "val", "test"), np.split(order, ends), strict=True):
        data[f"{name}_X"] = wines[data["columns"]].to_numpy()[rows]
        data[f"{name}_y"] = wines["alcohol"].to_numpy()[rows]
    return data


def build_network(train_X, train_y):
    """The book's perceptron, compiled: (n, 10) to (n, 1), scaled as the training rows are."""
    inputs = keras.Input(shape=train_X.shape[1:], name="input")
    x = layers.Normalization(mean=train_X.mean(0), variance=train_X.var(0), name="scale")(inputs)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dense(1, activation="linear", name="final")(x)
    prediction = layers.Rescaling(train_y.std(), offset=train_y.mean(), name="alcohol")(x)
    model = keras.Model(inputs=inputs, outputs=prediction, name="mlp")
    model.compile("adam", loss="mean_absolute_error", steps_per_execution=16)  # batches a call
    return model


def create_callbacks(model, run_dir):
    """TensorBoard, a log, the last model and the best one: `model`, saved after each epoch."""

    def save(epoch, logs):  # renamed when whole: a kill leaves the files of the epoch before
        new = run_dir / "new.keras"
        model.save(new)
        if pd.read_csv(run_dir / "history.csv")["val_loss"].argmin() == epoch:
            shutil.copy(new, run_dir / "new_model.keras").replace(run_dir / "model.keras")
        new.replace(run_dir / "last.keras")

    return [
        # Weights and biases of each layer after each epoch; 0, as Keras has it, logs none.
        callbacks.TensorBoard(run_dir / "tb", histogram_freq=1),
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
    model = keras.models.load_model(last)
    model.evaluate(train_X[:1], train_y[:1], verbose=0)  # is it a network for rows like these?
    done = int(model.optimizer.iterations) // -(-len(train_y) // settings["batch_size"])
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return model, done


def fit_baseline(data):
    """The same answer for all wines, the median: its test MAE, in % alcohol."""
    return float(abs(np.median(data["train_y"]) - data["test_y"]).mean())


def report(model, data):
    """Mean absolute errors: `mae` in standard deviations, as in the book, `abv` in % alcohol."""
    deviation = data["train_y"].std(dtype="float64")
    scores = {"baselines": {"median_mae": fit_baseline(data) / deviation}}
    print(f" test MAE {scores['baselines']['median_mae']:.3f}, the median wine")
    for part in ("train", "val", "test"):
        loss = model.evaluate(data[f"{part}_X"], data[f"{part}_y"], verbose=0)
        scores[part] = {"mae": loss / deviation, "abv": loss}
        print(f"{part:>5} MAE {loss / deviation:.3f}, {loss:.3f} % alcohol")
    return scores


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument("--epochs", type=int, default=200, help="default: 200")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/mlp_wine_tensorboard")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"mlp_wine_tensorboard{suffix}")
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        train_X, train_y, columns = data["train_X"], data["train_y"], data["columns"]
        settings = {"script": "mlp_wine_tensorboard", "columns": columns, "seed": args.seed}
        settings |= {"batch_size": args.batch_size}
        settings["data"] = zlib.crc32(train_X.tobytes() + train_y.tobytes())
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["columns"] != columns:
                raise ValueError(f"{args.run_dir} was trained on other columns")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data)
        model, done = open_run(args.run_dir, settings, train_X, train_y)
        model = model or build_network(train_X, train_y)
        model.make_train_function()  # what a backend refuses, it says here
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'wine'}: {' '.join(str(error).split())[:500]}")
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
    metrics = settings | report(keras.models.load_model(args.run_dir / "model.keras"), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_loss"].argmin()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and logs are in {args.run_dir}")


if __name__ == "__main__":
    main()
