"""Train the same 1D CNN on the newsgroups, on word vectors that GloVe learned from 6 billion words.

Book: chapter 10, "Document classification with and without GloVe" (here: with). As in the book only
the embedding differs: the posts, and all else that is not the network, come from cnn_newsgroups.py.
To copy this script, copy that one, too.

    python data/fetch.py newsgroups glove                   # the real sets, once
    python chapter10/cnn_newsgroups_glove.py                # the vectors stay, as in the book
    python chapter10/cnn_newsgroups_glove.py --fine-tune --dropout 0.5 --batch-size 32 \\
        --epochs 30 --run-dir runs/tuned
    python chapter10/cnn_newsgroups_glove.py --data sample --vectors sample    # no network

What to look for: how many words have no vector, and whether it helps to train the vectors further.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from cnn_newsgroups import batch_by_length, create_callbacks, load_data, open_run, report
from keras import layers, ops

GLOVE = Path(__file__).resolve().parent.parent / "data" / "glove" / "glove.6B.100d.txt"
GLOVE_SAMPLE = GLOVE.parent.parent / "samples" / "glove.sample.50d.txt"


def load_word_vectors(path):
    """A dict of word vectors, float32 (d,), from a text file: a word and d numbers in each line.

    word2vec's and fastText's files are like GloVe's but for a first line with two counts.
    """
    embeddings_index, dimension = {}, None
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            values = line.split()
            if number == 1 and len(values) == 2:
                continue
            dimension = dimension or len(values) - 1
            word = " ".join(values[:-dimension])  # in GloVe's largest file some have spaces
            try:
                coefs = np.array(values[-dimension:], dtype="float32").reshape(dimension)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            embeddings_index[word] = coefs
    return embeddings_index


def embedding_index_to_matrix(embeddings_index, vocabulary, fill=False):
    """The vectors of the words of `vocabulary`, float32 (words, d), the weights of an embedding.

    A word that has none gets zeros, as in the book, or with `fill` random numbers as large as the
    others', so that training can tell such words apart.
    """
    known = np.array([word in embeddings_index for word in vocabulary])
    if not known.any():
        raise ValueError("not one word of the texts has a vector")
    print(f"{1 - known.mean():.1%} of the vocabulary has no vector")
    found = np.stack([embeddings_index[word] for word in np.array(vocabulary)[known]])
    scale = found.std() if fill else 0
    matrix = np.random.default_rng(0).normal(0, scale, (len(vocabulary), found.shape[1]))
    matrix[known] = found
    matrix[0] = 0  # padding
    return matrix.astype("float32")


def build_model(texts, embeddings_index, num_classes=20, fine_tune=False, dropout=0.0):
    """The book's network, compiled: texts, strings (n,), to class probabilities (n, num_classes).

    Its 20,000 words are learned from `texts`. Of each text the first 1,000 words are read. With
    `fine_tune` the word vectors are trained, too. `dropout` is that of the last convolution's
    output; half as much of the word vectors is left out.
    """
    vectorizer = layers.TextVectorization(20000, name="vectorizer")
    vectorizer.adapt(texts)
    matrix = embedding_index_to_matrix(embeddings_index, vectorizer.get_vocabulary(), fine_tune)
    text = keras.Input(shape=(), dtype="string", name="text")
    # At least one window of all convolutions (174 words) sees only padding: more changes nothing.
    words = ops.pad(vectorizer(text)[:, :1000], ((0, 0), (0, 174)))
    options = {"weights": [matrix], "trainable": fine_tune}
    x = layers.Embedding(*matrix.shape, **options, name="embedding")(words)
    x = layers.SpatialDropout1D(dropout / 2, name="embedding_dropout")(x)  # whole dimensions
    x = layers.Conv1D(128, 5, activation="relu", name="conv_1")(x)
    x = layers.MaxPooling1D(5, name="pool_1")(x)
    x = layers.Conv1D(128, 5, activation="relu", name="conv_2")(x)
    x = layers.MaxPooling1D(5, name="pool_2")(x)
    x = layers.Conv1D(128, 5, activation="relu", name="conv_3")(x)
    x = layers.GlobalMaxPooling1D(name="global_pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs=text, outputs=output, name="cnn_newsgroups_glove")
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of texts')
    parser.add_argument("--vectors", default=GLOVE, help='"sample", or a file of word vectors')
    parser.add_argument("--fine-tune", action="store_true", help="train the word vectors, too")
    parser.add_argument("--dropout", type=float, default=0.0, help="default: 0, as in the book")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--batch-size", type=int, default=128, help="default: 128")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/cnn_newsgroups_glove")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"cnn_newsgroups_glove{suffix}")
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    if not 0 <= args.dropout < 1:
        parser.error("--dropout is from 0 to below 1")
    args.vectors = GLOVE_SAMPLE if args.vectors == "sample" else Path(args.vectors)
    return args


def main():
    args = parse_arguments()
    try:
        if keras.backend.backend() != "tensorflow":
            raise ValueError("a network that takes strings needs the TensorFlow backend")
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        train_X, train_y, names = data["train_X"], data["train_y"], data["class_names"]
        settings = {"script": "cnn_newsgroups_glove", "class_names": names, "seed": args.seed}
        checksum = zlib.crc32("\0".join(train_X).encode() + train_y.tobytes())
        settings["data"] = checksum
        settings |= {name: getattr(args, name) for name in ("batch_size", "fine_tune", "dropout")}
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data)
        settings["vectors"] = zlib.crc32(args.vectors.read_bytes())
        index = load_word_vectors(args.vectors)
        batches = batch_by_length(train_X, train_y, args.batch_size)
        model, done = open_run(args.run_dir, settings, batches)
        size = (len(names), args.fine_tune, args.dropout)
        model = model or build_model(train_X, index, *size)
    except Exception as error:  # tarfile, zlib, h5py and Keras raise a dozen kinds
        source = args.data or "newsgroups and GloVe (python data/fetch.py newsgroups glove)"
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
