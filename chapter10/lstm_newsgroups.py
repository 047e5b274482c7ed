"""Train an LSTM on the 20 newsgroups instead of the CNN: the exercise that ends the book's chapter.

Book: chapter 10, "Performance": "attempt the same problem with an LSTM".

    python chapter10/lstm_newsgroups.py                  # the real set, data/newsgroups
    python chapter10/lstm_newsgroups.py --data sample    # made-up stand-in, needs no network

The posts are the same, in the same split, as in cnn_newsgroups.py. An LSTM reads word by word,
which takes time: only the first 200 words of a post are read.

What to look for: the logistic regression on TF-IDF printed beside it. No run on the real posts has
been measured yet (chapter10/README.md).
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import time
import zipfile
from pathlib import Path, PurePosixPath

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from keras import layers
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from tqdm import tqdm

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter10"
PARTS = ("train", "val", "test")
POST = re.compile(r"(?:\./)?[^/]+/([^/.][^/]*)/([^/.][^/]*)")  # <top folder>/<class>/<file>
HEADER = re.compile(r"[!-9;-~]+:( |\n)")  # how the first line of a mail or news header begins
MAX_FILE_BYTES = 1_000_000


def load_data(source=None):
    """Return posts without their headers, as text, each with the number of its class.

    Args:
        source: None for the 20 newsgroups (Lang, 1995) in data/newsgroups, "sample" for the
            stand-in in data/samples, or a path: a folder with one folder of text files per class,
            or a .tar or .tar.gz of it.

    Returns:
        dict with `texts`: list of str; `labels`: int64 (n,); `class_names`: list of str.

    Raises:
        OSError: nothing there. ValueError: not in the format above; the message says why.
    """
    path = DATA_DIR / "newsgroups" / "20_newsgroup" if source is None else Path(source)
    if source == "sample":
        path = DATA_DIR / "samples" / "20_newsgroup.tar.gz"
    files = read_files(path, POST)
    names = sorted(files)
    groups = [POST.fullmatch(name)[1] for name in names]
    class_names, labels, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(class_names) < 2 or counts.min() < 10:
        found = ", ".join(f"{c} ({n})" for c, n in zip(class_names, counts, strict=True))
        raise ValueError(
            f"{path} has {len(class_names)} class folders: {found or 'none'}; expected two or "
            "more, each with 10 text files or more, as <folder>/<class>/<file>"
        )
    return {
        "texts": [strip_header(decode(files[name])) for name in names],
        "labels": labels.astype("int64"),
        "class_names": [str(name) for name in class_names],
    }


def read_files(path, pattern):
    """{path inside: bytes} of the files in a folder or tar archive whose path matches `pattern`.

    An archive is read packed; nothing is written, wherever its members claim to belong.
    """
    files = {}
    if path.is_dir():
        for file in tqdm(sorted(path.rglob("*")), desc="Reading", unit="file"):
            name = file.relative_to(path.parent).as_posix()
            if pattern.fullmatch(name) and file.is_file():
                files[name] = file.read_bytes()
        return files
    try:
        with tarfile.open(path) as archive:
            for member in tqdm(archive, desc="Reading", unit="file"):
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise ValueError(f"{path}: {member.name} leads out of the archive: not used")
                if not (member.isfile() and pattern.fullmatch(member.name)):
                    continue
                if member.size > MAX_FILE_BYTES:
                    raise ValueError(f"{path}: {member.name} has {member.size:,} bytes: not used")
                files[member.name] = archive.extractfile(member).read()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist. `python data/fetch.py newsgroups` brings the real set, "
            "`--data sample` works now"
        ) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no folder and no readable tar archive ({error})") from error
    return files


def decode(content):
    """Bytes as text: UTF-8, or else Latin-1, in which the newsgroups were written."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n")


def strip_header(text):
    """Drop all up to the first blank line of a post: its header names the group. That's cheating.

    A text that begins with no header field is left whole.
    """
    return text.partition("\n\n")[2] if HEADER.match(text) else text


def train_val_test_split(data):
    """Deal out 80 % of the texts to train, 10 % to val, 10 % to test, each class alike.

    Always the same, so that all networks of this chapter are scored on the same posts.
    """
    labels, rows = data["labels"], np.arange(len(data["labels"]))
    train, rest = train_test_split(rows, test_size=0.2, stratify=labels, random_state=0)
    val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
    data = dict(data)
    for part, rows in zip(PARTS, (train, val, test), strict=True):
        data[f"{part}_texts"] = [data["texts"][row] for row in rows]
        data[f"{part}_y"] = labels[rows]
    return data


def tokenize_text(data, vocab_size=20000, sequence_length=1000):
    """Add word ids to `data`: int32 `train_X`, `val_X`, `test_X` (n, sequence_length).

    The most frequent words of the *training* texts get ids from 2 on (`vocabulary`); 0 is padding,
    1 any other word. Texts are cut or padded at the end.

    Raises:
        ValueError: the training texts hold no words.
    """
    import tensorflow as tf  # has strings; on JAX, Keras refuses arrays of those with accents

    learner = layers.TextVectorization(max_tokens=vocab_size, standardize=clean_text)
    learner.adapt(np.array(data["train_texts"], dtype=object), batch_size=1024)
    vocabulary = [str(word) for word in learner.get_vocabulary(include_special_tokens=False)]
    if not vocabulary:
        raise ValueError("the training texts hold no words")
    vectorizer = build_vectorizer(vocabulary, sequence_length)
    data = {**data, "vocabulary": vocabulary}
    for part in PARTS:
        texts = np.array(data[f"{part}_texts"], dtype=object)
        chunks = np.split(texts, range(1000, len(texts), 1000))
        ids = [np.asarray(vectorizer(tf.constant(chunk))).astype("int32") for chunk in chunks]
        data[f"{part}_X"] = np.concatenate(ids)
    return data


@keras.saving.register_keras_serializable("newsgroups")
def clean_text(texts):
    """Lower case; everything but letters and digits becomes a space."""
    import tensorflow as tf

    texts = tf.strings.regex_replace(texts, r"[^\p{L}\p{N}]+", " ")
    return tf.strings.lower(texts, encoding="utf-8")


def build_vectorizer(vocabulary, sequence_length):
    """A layer from strings (n,) to word ids (n, sequence_length)."""
    return layers.TextVectorization(
        standardize=clean_text,
        vocabulary=vocabulary,
        output_sequence_length=sequence_length,
        name="vectorizer",
    )


class TrimmedBatches(keras.utils.PyDataset):
    """Batches of texts of like length, padded only as far as padding can change the result.

    `mask_zero` makes the LSTM skip padding: less of it changes no result and takes less time. An
    empty text keeps `margin` zeros, since there must be a step to skip. With a `seed`
    the texts of a length and the batches are shuffled anew each epoch.
    """

    def __init__(self, X, y, batch_size, margin=1, seed=None, epoch=0):
        super().__init__()
        self.X, self.y, self.batch_size = X, y, batch_size
        self.seed, self.epoch = seed, epoch
        lengths = (X > 0).sum(axis=1) + margin
        # Rounded up, so that few different lengths occur: each may have to be compiled.
        self.lengths = np.clip(-(-lengths // 50) * 50, 1, X.shape[1])
        self.arrange()

    def arrange(self):
        """Deal out the texts for this epoch."""
        rows = np.arange(len(self.y))
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            rng.shuffle(rows)
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        cuts = range(self.batch_size, len(rows), self.batch_size)
        shortest, *others, longest = [[], *np.split(rows, cuts)][-max(len(cuts) + 1, 2) :]
        if self.seed is not None:
            others = [others[i] for i in rng.permutation(len(others))]
        # Keras looks at the first two batches to learn whether their lengths differ.
        self.batches = [batch for batch in (longest, shortest, *others) if len(batch)]

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        rows = self.batches[index]
        return self.X[rows, : self.lengths[rows].max()], self.y[rows]

    def on_epoch_end(self):
        self.epoch += 1
        self.arrange()


def build_model(vocab_size=20000, embedding_dim=100, units=64, dropout=0.2, num_classes=20):
    """Embedding, one LSTM and a softmax, compiled; `mask_zero` makes the LSTM skip the padding.

    Returns:
        keras.Model from word ids (n, any length) to class probabilities (n, num_classes).
    """
    inputs = keras.Input(shape=(None,), dtype="int32", name="input")
    x = layers.Embedding(vocab_size, embedding_dim, mask_zero=True, name="embedding")(inputs)
    x = layers.LSTM(units, dropout=dropout, name="lstm")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs=inputs, outputs=output, name="newsgroups")
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def build_text_model(model, vocabulary, sequence_length):
    """`model` with the vectorizer in front: from strings (n,) to class probabilities."""
    inputs = keras.Input(shape=(), dtype="string", name="text")
    outputs = model(build_vectorizer(vocabulary, sequence_length)(inputs))
    return keras.Model(inputs, outputs, name="text_model")


def create_callbacks(run_dir, resuming=False):
    """Callbacks that keep the best epoch, log each epoch, and let a killed run go on.

    Args:
        run_dir: pathlib.Path of an existing folder.
        resuming: whether to go on with the logs of an interrupted run.
    """
    best_path, history_path = run_dir / "model.keras", run_dir / "history.csv"
    best_so_far = None
    # Without the threshold the first epoch after a restart would replace a better one. A file
    # half-written when the run was killed does not count.
    if resuming and history_path.exists() and zipfile.is_zipfile(best_path):
        best_so_far = pd.read_csv(history_path)["val_accuracy"].max()
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            best_path,
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            initial_value_threshold=best_so_far,
        ),
        keras.callbacks.CSVLogger(history_path, append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]
    if importlib.util.find_spec("tensorflow"):  # it writes TensorBoard's files on every backend
        callbacks.insert(0, keras.callbacks.TensorBoard(run_dir / "tb"))
    return callbacks


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
    """Epochs that an unfinished training of the same settings in `run_dir` has done, or 0.

    A backup of other data or another seed is set aside: going on from it would mix two runs.
    """
    settings_path = run_dir / "settings.json"
    epochs = finished_epochs(run_dir / "backup")
    if epochs:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            print(f"Resuming the interrupted run in {run_dir} after epoch {epochs}.")
            return epochs
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    for folder in ("backup", "tb"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)
    for name in ("model.keras", "text_model.keras"):  # of the settings about to be replaced
        (run_dir / name).unlink(missing_ok=True)
    settings_path.write_text(json.dumps(settings, indent=2))
    return 0


def fit_baseline(data):
    """Test accuracy of TF-IDF and logistic regression on the same texts: hard to beat."""
    print("Baseline: TF-IDF and logistic regression …")
    vectorizer = TfidfVectorizer(max_features=len(data["vocabulary"]), sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=200)
    model.fit(vectorizer.fit_transform(data["train_texts"]), data["train_y"])
    accuracy = model.score(vectorizer.transform(data["test_texts"]), data["test_y"])
    return {"tfidf_logistic_regression_accuracy": accuracy}


def plot_history(history, path):
    """Loss and accuracy by epoch, training against validation, as a picture."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    epochs = history["epoch"] + 1
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.plot(epochs, history[metric], marker="o", label="training")
        ax.plot(epochs, history["val_" + metric], marker="o", label="validation")
        ax.axvline(epochs[history["val_accuracy"].idxmax()], color="grey", ls=":", label="best")
        ax.set(xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    axes[0].legend()
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def fingerprint(data):
    """A short text that is the same for the same vocabulary and classes only."""
    names = "\n".join([*data["class_names"], *data["vocabulary"]])
    return hashlib.sha256(names.encode()).hexdigest()


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
        settings = json.loads((run_dir / "settings.json").read_text())
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error}); train again") from error
    if settings["fingerprint"] != fingerprint(data):
        raise ValueError(f"{path} was trained on other texts; give the --data it was trained on")
    return model


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of texts')
    parser.add_argument("--epochs", type=positive, default=10, help="default: 10")
    parser.add_argument("--batch-size", type=positive, default=128, help="default: 128")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter10/lstm_newsgroups")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    parser.add_argument(
        "--max-length", type=positive, default=200, help="words read of a post (default: 200)"
    )
    args = parser.parse_args()
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        args.run_dir = RUNS_DIR / (
            "lstm_newsgroups_sample" if args.data == "sample" else "lstm_newsgroups"
        )
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def train(model, data, args, settings):
    """Fit `model`, going on from an interrupted run; the best epoch is left in the run directory.

    Returns:
        (history, seconds): DataFrame with one row per epoch; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    done = interrupted_run(args.run_dir, settings)
    start = time.perf_counter()
    model.fit(
        TrimmedBatches(
            data["train_X"], data["train_y"], args.batch_size, seed=args.seed, epoch=done
        ),
        epochs=args.epochs,
        shuffle=False,  # TrimmedBatches shuffles
        validation_data=TrimmedBatches(data["val_X"], data["val_y"], 250),
        callbacks=create_callbacks(args.run_dir, done > 0),
    )
    seconds = None if done else round(time.perf_counter() - start, 1)
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history.reset_index(drop=True), seconds


def describe(data):
    """Print sizes, the share of words that have no id, and posts that are not what they seem."""
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in PARTS]
    print(f"{', '.join(counts)} texts in {len(data['class_names'])} classes")
    lengths = (data["train_X"] > 0).sum(axis=1)
    print(
        f"Words per text: {lengths.mean():.0f} on average, half have {np.median(lengths):.0f} or "
        f"fewer; {(lengths == data['train_X'].shape[1]).mean():.1%} are cut, "
        f"{(lengths == 0).sum()} are empty"
    )
    seen = set(data["train_texts"])
    copies = sum(text in seen for text in data["test_texts"])
    print(f"{copies} of the test texts stand word for word in the training set, too")


def out_of_vocabulary(data):
    """Share of the words of the test texts that are not in the vocabulary."""
    ids = data["test_X"]
    return float((ids == 1).sum() / max((ids > 0).sum(), 1))


def report(model, data):
    """Score the model and the baseline and print both; returns the scores."""
    scores = {}
    for part in PARTS:
        batches = TrimmedBatches(data[f"{part}_X"], data[f"{part}_y"], 250)
        scores[part] = model.evaluate(batches, verbose=0, return_dict=True)
    scores["test"]["out_of_vocabulary"] = out_of_vocabulary(data)
    scores["baselines"] = fit_baseline(data)
    for part in PARTS:
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    accuracy = scores["baselines"]["tfidf_logistic_regression_accuracy"]
    verdict = "better" if accuracy > scores["test"]["accuracy"] else "worse"
    print(f" test accuracy {accuracy:.4f} with TF-IDF + logistic regression, {verdict}")
    print(f"{scores['test']['out_of_vocabulary']:.1%} of the test words are not in the vocabulary")
    return scores


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    if device.startswith("cpu"):
        device += f" ({os.cpu_count()} cores)"
    print(f"Keras {keras.__version__} on {backend}, device: {device}")

    try:
        data = train_val_test_split(load_data(args.data))
        data = tokenize_text(data, sequence_length=args.max_length)
        if args.evaluate:
            model = load_best_model(args.run_dir, data)
        else:
            model = build_model(
                len(data["vocabulary"]) + 2,
                num_classes=len(data["class_names"]),
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = Path(args.data).name if args.data else "20 newsgroups"
    if args.data == "sample":
        source = "sample (made-up posts, a stand-in for 20 newsgroups)"
    print(f"Data: {source}: ", end="")
    describe(data)
    if args.evaluate:
        report(model, data)
        return

    model.summary()
    settings = {
        "data": str(Path(args.data).resolve()) if args.data else source,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "class_names": data["class_names"],
        "fingerprint": fingerprint(data),
    }
    try:
        history, seconds = train(model, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_history(history, args.run_dir / "learning_curves.png")
    best_epoch = int(history["epoch"][history["val_accuracy"].idxmax()]) + 1
    print(f"\nThe best of {len(history)} epochs was number {best_epoch}:")
    best_model = load_best_model(args.run_dir, data)
    metrics = {
        "script": "chapter10/lstm_newsgroups.py",
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "seconds": seconds,
        "parameters": model.count_params(),
        "max_length": args.max_length,
        **report(best_model, data),
    }
    if backend == "tensorflow":  # only TensorFlow computes with strings
        text_model = build_text_model(best_model, data["vocabulary"], data["train_X"].shape[1])
        text_model.save(args.run_dir / "text_model.keras")
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Models, metrics and the picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
