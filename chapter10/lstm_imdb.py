"""Train the book's small LSTM to tell good film reviews from bad ones, word vectors included.

Book: chapter 10, "Sentiment analysis with Keras embedding layers and LSTMs".

    python chapter10/lstm_imdb.py                         # the real set (17 MB, fetched once)
    python chapter10/lstm_imdb.py --data aclImdb/         # the same as text files
    python chapter10/lstm_imdb.py --data sample           # made-up reviews, needs no network
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers, ops
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "aclImdb.tar.gz"


def load_data(source=None):
    """Film reviews; a fifth of the training reviews becomes the validation set, always the same.

    `source` is None for IMDB (Maas et al., 2011) as Keras serves it, "sample", or a folder (or a
    tar of it) with {train,test}/{neg,pos}/*.txt in UTF-8. Returns a dict: train_X, val_X, test_X,
    strings (n,); train_y, val_y, test_y, int64 (n,), 1 for a good review; class_names.
    """
    (X, y), (test_X, test_y) = read_reviews(source)
    parts = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    data = dict(zip(("train_X", "val_X", "train_y", "val_y"), parts, strict=True))
    return data | {"test_X": test_X, "test_y": test_y, "class_names": ["neg", "pos"]}


def read_reviews(source=None):
    """Texts, strings (n,), and labels (n,) of the training reviews; those of the test reviews."""
    if source is None:
        return [turn_into_words(part) for part in keras.datasets.imdb.load_data()]
    path, parts = SAMPLE if source == "sample" else Path(source), []
    with tempfile.TemporaryDirectory() as folder:
        if not path.is_dir():
            shutil.unpack_archive(path, folder, "tar", filter="data")
            path = Path(folder)
        for part in ("train", "test"):
            neg, pos = (sorted(path.rglob(f"{part}/{name}/[!.]*.txt")) for name in ("neg", "pos"))
            texts = [file.read_text("utf-8-sig").replace("<br />", " ") for file in neg + pos]
            if min(len(neg), len(pos)) < 10 or "\0" in "".join(texts):  # zeros: UTF-16
                raise ValueError(f"{part}/{{neg,pos}}/*.txt are not ten or more in UTF-8")
            y = np.repeat([0, 1], [len(neg), len(pos)])
            parts.append((np.array(texts, dtype=object), y))
    return parts


def turn_into_words(part):
    """Keras's reviews are word numbers; words begin at 4: strings (n,), labels (n,)."""
    words = {number + 3: word for word, number in keras.datasets.imdb.get_word_index().items()}
    texts = [" ".join(words[number] for number in review if number > 3) for review in part[0]]
    return np.array(texts, dtype=object), part[1].astype("int64")


def build_network(texts, steps, vocab_size=20000, embedding_dim=100, word_dropout=0.3):
    """The book's network, compiled: reviews, strings (n,), to probabilities of a good one (n, 1).

    Its vocabulary is learned from `texts`. While training, the share `word_dropout` of the words is
    left out, so that no single word can decide. The learning rate falls over each epoch of `steps`.
    """
    vectorizer = layers.TextVectorization(vocab_size, name="vectorizer")
    vectorizer.adapt(texts)
    text = keras.Input(shape=(), dtype="string", name="text")
    # One unknown word in front, so that no text is empty: an LSTM needs one.
    words = ops.pad(vectorizer(text), ((0, 0), (1, 0)), constant_values=1)
    # mask_zero: it skips the padding, which the book leaves it to learn.
    x = layers.Embedding(vocab_size, embedding_dim, mask_zero=True, name="embedding")(words)
    x = layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(x)
    x = layers.LSTM(10, dropout=0.2, recurrent_dropout=0.2, name="lstm1")(x)
    output = layers.Dense(1, activation="sigmoid", name="sigmoid")(x)
    model = keras.Model(inputs=text, outputs=output, name="lstm_imdb")
    rate = keras.optimizers.schedules.ExponentialDecay(0.005, steps, decay_rate=0.6)
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
    model.compile(optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


def batch_by_length(X, y, batch_size, seed=None):
    """Batches of texts of like length: little is padding. With a `seed` in each epoch others."""
    ends = [400, 600, 800, 1000, 1250, 1500, 2000, 3000, 5000, 8000]  # characters
    rows = tf.data.Dataset.from_tensor_slices((X, y))
    rows = rows if seed is None else rows.shuffle(len(y), seed=seed)
    batches = rows.bucket_by_sequence_length(
        lambda text, _: tf.strings.length(text), ends, [batch_size] * (len(ends) + 1)
    )
    return batches.apply(tf.data.experimental.assert_cardinality(sum(1 for _ in batches)))


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


def open_run(run_dir, settings, batches):
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
    model.evaluate(batches.take(1), verbose=0)  # is it a network for rows like these?
    done = int(model.optimizer.iterations) // len(batches)
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return model, done


def fit_baseline(data):
    """Test accuracy of logistic regression on TF-IDF, hard to beat on texts."""
    vectorizer = TfidfVectorizer(max_features=20000, sublinear_tf=True)
    model = LogisticRegression(C=5, max_iter=200)
    model.fit(vectorizer.fit_transform(data["train_X"]), data["train_y"])
    return model.score(vectorizer.transform(data["test_X"]), data["test_y"])


def report(model, data):
    """Losses and accuracies as a dict, the baseline's beside them."""
    scores = {"baselines": {"tfidf_accuracy": fit_baseline(data)}}
    print(f" test accuracy {scores['baselines']['tfidf_accuracy']:.4f} of TF-IDF and regression")
    for part in ("train", "val", "test"):
        batches = batch_by_length(data[f"{part}_X"], data[f"{part}_y"], 250)
        scores[part] = model.evaluate(batches, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    return scores


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of reviews')
    parser.add_argument("--epochs", type=int, default=5, help="default: 5 (the book: 10)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/lstm_imdb")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"lstm_imdb{suffix}")
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
        # A review ends with its verdict: of a long one the last words will do to learn from.
        train_X = np.array([" ".join(x.split()[-400:]) for x in data["train_X"]], dtype=object)
        train_y, names = data["train_y"], data["class_names"]
        settings = {"script": "lstm_imdb", "class_names": names, "seed": args.seed}
        checksum = zlib.crc32("\0".join(train_X).encode() + train_y.tobytes())
        settings |= {"batch_size": args.batch_size, "data": checksum}
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data)
        batches = batch_by_length(train_X, train_y, args.batch_size)
        model, done = open_run(args.run_dir, settings, batches)
        model = model or build_network(train_X, len(batches))
    except Exception as error:  # tarfile, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'IMDB'}: {' '.join(str(error).split())[:500]}")
    model.summary()
    model.fit(
        batch_by_length(train_X, train_y, args.batch_size, seed=args.seed + done),
        epochs=args.epochs,
        initial_epoch=done,
        validation_data=batch_by_length(data["val_X"], data["val_y"], 250),
        callbacks=create_callbacks(model, args.run_dir),
        shuffle=False,  # the batches are, anew in each epoch
    )
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch").rename(lambda n: n + 1)
    history.plot(subplots=[("loss", "val_loss"), ("accuracy", "val_accuracy")], grid=True)
    plt.savefig(args.run_dir / "learning_curves.png")
    metrics = settings | report(keras.models.load_model(args.run_dir / "model.keras"), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_accuracy"].argmax()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
