"""Train the book's 1D CNN: from which of 20 newsgroups is a post? Word vectors learned on the way.

Book: chapter 10, "Document classification with and without GloVe" (here: without).

    python chapter10/cnn_newsgroups.py
    python chapter10/cnn_newsgroups.py --data sample      # made-up posts, needs no network
    python chapter10/cnn_newsgroups.py --data my_texts/   # yours: a folder of text files per class
"""

import argparse
import json
import os
import re
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

NEWSGROUPS = Path(__file__).resolve().parent.parent / "data" / "newsgroups" / "20_newsgroup"
SAMPLE = NEWSGROUPS.parent.parent / "samples" / "20_newsgroup.tar.gz"
# A post's header, which names its group: to read it would be cheating. Other texts stay whole.
HEADER = re.compile(r"\A([\w-]+:.*\n|[ \t].*\n)*(From|Newsgroups): .*\n(.+\n)*\n")


def load_data(source=None):
    """Posts without their headers, split 80 : 10 : 10, each class alike, always the same.

    `source` is None for the 20 newsgroups (Lang, 1995), "sample", or a folder (or a tar of it) with
    a folder of text files, in UTF-8 or Latin-1, for each class. Returns a dict: train_X, val_X,
    test_X, strings (n,); train_y, val_y, test_y, int64 (n,), 0 to classes-1; class_names.
    """
    path = {None: NEWSGROUPS, "sample": SAMPLE}.get(source, source)
    with tempfile.TemporaryDirectory() as folder:
        if not Path(path).is_dir():
            shutil.unpack_archive(path, folder, "tar", filter="data")
            tops = list(Path(folder).glob("[!.]*"))
            path = tops[0] if len(tops) == 1 else folder
        files = sorted(Path(path).glob("[!.]*/[!.]*"))
        X = np.array([HEADER.sub("", read_text(file)) for file in files], dtype=object)
    names = [file.parent.name for file in files]
    class_names, y, counts = np.unique(names, return_inverse=True, return_counts=True)
    if len(counts) < 2 or min(counts) < 10:
        raise ValueError("it needs two folders (classes) or more, of 10 text files or more each")
    train_X, X, train_y, y = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    halves = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    data = {"train_X": train_X, "train_y": train_y, "class_names": class_names.tolist()}
    return data | dict(zip(("val_X", "test_X", "val_y", "test_y"), halves, strict=True))


def read_text(file):
    """The text of a file: UTF-8 or else Latin-1, as some of the posts are."""
    content = file.read_bytes().replace(b"\r\n", b"\n")
    if b"\0" in content:
        raise ValueError(f"{file.name} is no text, or UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def build_model(texts, num_classes=20, vocab_size=20000, embedding_dim=100, length=1000):
    """The book's network, compiled: texts, strings (n,), to class probabilities (n, num_classes).

    Its vocabulary is learned from `texts`. Of each text the first `length` words are read.
    """
    vectorizer = layers.TextVectorization(vocab_size, name="vectorizer")
    vectorizer.adapt(texts)
    text = keras.Input(shape=(), dtype="string", name="text")
    # At least one window of all convolutions (174 words) sees only padding: more changes nothing.
    words = ops.pad(vectorizer(text)[:, :length], ((0, 0), (0, 174)))
    x = layers.Embedding(vocab_size, embedding_dim, name="embedding")(words)
    x = layers.Conv1D(128, 5, activation="relu", name="conv_1")(x)
    x = layers.MaxPooling1D(5, name="pool_1")(x)
    x = layers.Conv1D(128, 5, activation="relu", name="conv_2")(x)
    x = layers.MaxPooling1D(5, name="pool_2")(x)
    x = layers.Conv1D(128, 5, activation="relu", name="conv_3")(x)
    x = layers.GlobalMaxPooling1D(name="global_pool")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs=text, outputs=output, name="cnn_newsgroups")
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batch_by_length(X, y, batch_size, seed=None):
    """Batches of texts of like length: little is padding. With a `seed` in each epoch others."""
    ends = [250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000]  # characters
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
    keras.utils.set_random_seed((settings["seed"] + len(lines)) % 2**32)  # not epoch 1's again
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
    model = LogisticRegression(C=10, max_iter=200)
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
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of texts')
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--batch-size", type=int, default=128, help="default: 128")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/cnn_newsgroups")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"cnn_newsgroups{suffix}")
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
        settings = {"script": "cnn_newsgroups", "class_names": names, "seed": args.seed}
        checksum = zlib.crc32("\0".join(train_X).encode() + train_y.tobytes())
        settings |= {"batch_size": args.batch_size, "data": checksum}
        if args.evaluate:
            if json.loads((args.run_dir / "settings.json").read_text())["class_names"] != names:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(keras.models.load_model(args.run_dir / "model.keras"), data)
        batches = batch_by_length(train_X, train_y, args.batch_size)
        model, done = open_run(args.run_dir, settings, batches)
        model = model or build_model(train_X, len(names))
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
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch").rename(lambda n: n + 1)
    history.plot(subplots=[("loss", "val_loss"), ("accuracy", "val_accuracy")], grid=True)
    plt.savefig(args.run_dir / "learning_curves.png")
    metrics = settings | report(keras.models.load_model(args.run_dir / "model.keras"), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_accuracy"].argmax()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and curves are in {args.run_dir}")


if __name__ == "__main__":
    main()
