"""lstm_bitcoin.py's network with a memory that goes on from batch to batch.

Book: chapter 9, "Stateful versus stateless LSTMs".

    python chapter09/lstm_bitcoin_stateful.py                 # in streams, each minute once
    python chapter09/lstm_bitcoin_stateful.py --book-order    # as the book's listing does

A stateful layer begins row r of a batch with the memory that row r of the batch before has left:
it means something where that row goes on with the next minute (`make_streams`). The book's `fit`
shuffles, so that the memory is another window's, and nothing resets it. TensorFlow only.
"""

import argparse
import json
import sys
import zlib

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers
from lstm_bitcoin import build_network as build_stateless
from lstm_bitcoin import load_data, open_run, parse_arguments, report


def build_network(train_X, scale, batch_size=None, book_order=False):
    """The same layers; stateful and compiled, for batches of `batch_size`, where it is given.

    But in the book's order they take any number of minutes and answer after each: (n, minutes,
    inputs) to (n, minutes, 1).
    """
    if batch_size and keras.backend.backend() != "tensorflow":
        raise ValueError("stateful layers keep their memory on TensorFlow only")
    shape = (batch_size, train_X.shape[1] if book_order else None, train_X.shape[2])
    inputs = x = keras.Input(batch_shape=shape, name="input")
    for layer in build_stateless(train_X, scale).layers[1:]:
        config = layer.get_config()
        if isinstance(layer, layers.LSTM):
            config["stateful"] = batch_size is not None
            config["return_sequences"] = layer.return_sequences or not book_order
        x = layer.from_config(config)(x)
    model = keras.Model(inputs=inputs, outputs=x, name="lstm_bitcoin_stateful")
    if batch_size:
        model.compile("adam", loss="mean_squared_error", steps_per_execution=16)  # batches a call
    return model


def make_streams(X, y, batch_size, book_order=False):
    """Windows X (n, lags, inputs) and y (n,) as whole batches that a stateful network reads.

    The minutes become as many streams as a batch has rows, each minute in one of them, once: row
    r of a batch goes on where row r of the batch before ended. Returns (m, lags, inputs) and the
    changes after each minute, (m, lags, 1); the oldest minutes, fewer than one batch, are left
    out. In the book's order the windows stay what they are.
    """
    lags = 1 if book_order else X.shape[1]
    steps = len(y) // (batch_size * lags)
    X, y = X[-steps * batch_size * lags :], y[-steps * batch_size * lags :, np.newaxis]
    if steps == 0:
        raise ValueError(f"{len(y)} minutes are too few for one batch of {batch_size} streams")
    if book_order:
        return X, y

    def cut(series):
        streams = series.reshape(batch_size, steps, lags, -1)
        return streams.swapaxes(0, 1).reshape(steps * batch_size, lags, -1)

    return cut(X[:, -1]), cut(y)


def forecast(model, X):
    """Changes expected after the windows X, which follow each other: (n,), in dollars.

    A network that answers after each minute reads a day at a time, about as long as the streams it
    has learned from: over weeks its memory may run away.
    """
    if len(model.output_shape) == 2:
        return model.predict(X, batch_size=1000, verbose=0)[:, 0]
    n, lags, day = *X.shape[:2], min(1440, len(X))
    series = np.concatenate([X[0, :-1], X[:, -1]])
    starts = np.maximum(np.arange(n - day, -day, -day), 0)  # the last minute ends a day
    days = np.stack([series[start : start + lags - 1 + day] for start in starts])
    expected = np.empty(n, "float32")
    for start, answers in zip(starts, model.predict(days, verbose=0), strict=True):
        expected[start : start + day] = answers[lags - 1 :, 0]  # none from an empty memory
    return expected


def create_callbacks(model, twin, data, run_dir):
    """A log, the last `model` and the best `twin`: a stateless network that gets its weights.

    The twin reads any number of minutes. In streams 100 rows of validation would begin with an
    empty memory, and their first forecasts are bad.
    """

    def reset(epoch, logs):  # each epoch's streams begin anew
        if len(model.output_shape) == 3:
            model.get_layer("lstm1").reset_state()
            model.get_layer("lstm2").reset_state()

    def score(epoch, logs):
        twin.set_weights(model.get_weights())
        logs["val_loss"] = float(np.mean((forecast(twin, data["val_X"]) - data["val_y"]) ** 2))

    def save(epoch, logs):  # renamed when whole: a kill leaves the files of the epoch before
        new, new_twin = run_dir / "new.keras", run_dir / "new_model.keras"
        model.save(new)
        if pd.read_csv(run_dir / "history.csv")["val_loss"].argmin() == epoch:
            twin.save(new_twin)
            new_twin.replace(run_dir / "model.keras")
        new.replace(run_dir / "last.keras")

    return [
        callbacks.LambdaCallback(on_epoch_begin=reset, on_epoch_end=score),
        callbacks.CSVLogger(run_dir / "history.csv", append=(run_dir / "last.keras").exists()),
        callbacks.LambdaCallback(on_epoch_end=save),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--book-order", action="store_true", help="shuffled, never reset")
    args = parse_arguments(parser)
    best = args.run_dir / "model.keras"
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data, args.train_dates, args.test_dates, args.lags, args.inputs)
        X, y = data["train_X"], data["train_y"]
        names = ("book_order", "train_dates", "lags", "inputs", "scale", "batch_size", "seed")
        settings = {name: getattr(args, name) for name in names}
        settings |= {"script": "lstm_bitcoin_stateful"}
        settings["data"] = zlib.crc32(X.tobytes() + y.tobytes())
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["data"] != settings["data"]:
                raise ValueError(f"{args.run_dir} was trained on other minutes or inputs")
            return report(keras.models.load_model(best), data, args.run_dir, forecast)
        twin = build_network(X, args.scale, None, args.book_order)
        network = build_network(X, args.scale, args.batch_size, args.book_order)
        X, y = make_streams(X, y, args.batch_size, args.book_order)
        model, done = open_run(args.run_dir, settings, X, y)
        model = model or network
        model.make_train_function()  # what a backend refuses, it says here
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        source = args.data or "bitcoin (python data/fetch.py bitcoin)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    rows = tf.data.Dataset.from_tensor_slices((X, y))
    if args.book_order:
        rows = rows.shuffle(len(rows), seed=args.seed + done)
    model.fit(
        rows.batch(args.batch_size),
        epochs=args.epochs,
        initial_epoch=done,
        callbacks=create_callbacks(model, twin, data, args.run_dir),
        shuffle=False,
    )
    losses = pd.read_csv(args.run_dir / "history.csv")["val_loss"]
    metrics = settings | report(keras.models.load_model(best), data, args.run_dir, forecast)
    metrics |= {"epochs": len(losses), "best_epoch": int(losses.argmin()) + 1}
    metrics["test_dates"] = args.test_dates
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
