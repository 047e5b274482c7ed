"""Train an LSTM on the 20 newsgroups instead of the CNN: the exercise that ends the book's chapter.

Book: chapter 10, "Performance": "attempt the same problem with an LSTM". The posts, and all else
that is not the network, come from cnn_newsgroups.py: to copy this script, copy that one, too.

    python chapter10/lstm_newsgroups.py                   # the average of the LSTM's outputs
    python chapter10/lstm_newsgroups.py --pooling last --run-dir runs/lstm_last
    python chapter10/lstm_newsgroups.py --data sample     # made-up posts, needs no network
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import keras
import pandas as pd
from cnn_newsgroups import batch_by_length, create_callbacks, load_data, open_run, report
from keras import layers, ops


def build_model(texts, num_classes=20, pooling="average", vocab_size=20000, length=400):
    """An LSTM of 64 units, compiled: texts, strings (n,), to class probabilities (n, num_classes).

    Its vocabulary is learned from `texts`, of each the first `length` words. The LSTM's outputs
    after each word are averaged, or with `pooling` "last" only the one after the last is used.
    """
    vectorizer = layers.TextVectorization(vocab_size, name="vectorizer")
    vectorizer.adapt(texts)
    text = keras.Input(shape=(), dtype="string", name="text")
    # One unknown word in front, so that no text is empty: the average of nothing is no number.
    words = ops.pad(vectorizer(text)[:, :length], ((0, 0), (1, 0)), constant_values=1)
    x = layers.Embedding(vocab_size, 100, mask_zero=True, name="embedding")(words)
    x = layers.SpatialDropout1D(0.2, name="dropout_1")(x)
    x = layers.LSTM(64, return_sequences=pooling == "average", name="lstm")(x)
    if pooling == "average":
        x = layers.GlobalAveragePooling1D(name="average")(x)  # without the padding: mask_zero
    x = layers.Dropout(0.2, name="dropout_2")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs=text, outputs=output, name="lstm_newsgroups")
    optimizer = keras.optimizers.Adam(0.003, clipnorm=1.0)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of texts')
    parser.add_argument("--pooling", choices=["average", "last"], default="average", help="outputs")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/lstm_newsgroups")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"lstm_newsgroups{suffix}")
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    try:
        if keras.backend.backend() != "tensorflow":
            raise ValueError("a network that takes strings needs the TensorFlow backend")
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        train_X, train_y, names = data["train_X"], data["train_y"], data["class_names"]
        settings = {"script": "lstm_newsgroups", "class_names": names, "seed": args.seed}
        checksum = zlib.crc32("\0".join(train_X).encode() + train_y.tobytes())
        settings |= {"batch_size": args.batch_size, "pooling": args.pooling, "data": checksum}
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data)
        batches = batch_by_length(train_X, train_y, args.batch_size)
        model, done = open_run(args.run_dir, settings, batches)
        model = model or build_model(train_X, len(names), args.pooling)
    except Exception as error:  # tarfile, zlib, h5py and Keras raise a dozen kinds
        source = args.data or "newsgroups (python data/fetch.py newsgroups)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    model.summary()
    model.fit(
        batch_by_length(train_X, train_y, args.batch_size, seed=args.seed + done),
        epochs=args.epochs,
        initial_epoch=done,
        validation_data=batch_by_length(data["val_X"], data["val_y"], 250),
        callbacks=create_callbacks(model, args.run_dir),
        shuffle=False,  # the batches are, anew in each epoch
    )
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch")
    metrics = settings | report(keras.models.load_model(args.run_dir / "model.keras"), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_accuracy"].argmax()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model and metrics are in {args.run_dir}")


if __name__ == "__main__":
    main()
