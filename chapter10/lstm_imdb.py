"""Train the book's small LSTM to tell good film reviews from bad ones, words learned from scratch.

Book: chapter 10, "Sentiment analysis with Keras embedding layers and LSTMs".

    python chapter10/lstm_imdb.py                          # the real set, fetched once by Keras
    python chapter10/lstm_imdb.py --data aclImdb/          # the same reviews as text files
    python chapter10/lstm_imdb.py --data sample            # made-up stand-in, needs no network
    python chapter10/lstm_imdb.py --text "Not a bad film"  # score a review with the saved model

What to look for: the validation loss is lowest after three epochs; then the network learns its
reviews by heart. Test accuracy on the real reviews 0.865 (5 epochs, seed 1, 15 minutes on one busy
CPU core); logistic regression on TF-IDF, in seconds, 0.888 (chapter10/README.md).
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
import socket
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
REVIEW = re.compile(r"(?:.*/)?(train|test)/(neg|pos)/[^/]+\.txt")
BUCKET = 50  # batches are padded to multiples of this: few lengths, so little to compile again
MAX_FILE_BYTES = 1_000_000  # the longest real review has 14,000


def load_data(vocab_size=20000, source=None):
    """Return reviews as arrays of word ids: 0 is padding, 1 any word not in the vocabulary.

    Args:
        vocab_size: number of ids, the two special ones included; the most frequent words get one.
        source: None for IMDB (Maas et al., 2011) as Keras serves it, in word indices; "sample" for
            the stand-in in data/samples; or a path: a folder, or a .tar or .tar.gz of it, with
            reviews as {train,test}/{neg,pos}/<name>.txt.

    Returns:
        dict with `train_X`, `val_X`, `test_X`: lists of int32 arrays, one per review, of any
        length; `train_y`, `val_y`, `test_y`: int64 (n,), 1 for a positive review; `vocabulary`:
        list of words in the order of their ids, from id 2. A fifth of the training reviews
        becomes the validation set.

    Raises:
        OSError: nothing there, or IMDB is not on this machine and cannot be fetched.
        ValueError: it is there, but not in the format above; the message says what is wrong.
    """
    if source is None:
        train_X, train_y, test_X, test_y, vocabulary = download_imdb(vocab_size)
    else:
        path = DATA_DIR / "samples" / "aclImdb.tar.gz" if source == "sample" else Path(source)
        texts, labels = read_reviews(path)
        train_y, test_y = labels["train"], labels["test"]
    # Fixed, so that every run agrees on which reviews are for validation.
    train, val = train_test_split(
        np.arange(len(train_y)), test_size=0.2, stratify=train_y, random_state=0
    )
    if source is not None:
        vocabulary = learn_vocabulary([texts["train"][row] for row in train], vocab_size)
        vectorizer = build_vectorizer(vocabulary)
        train_X, test_X = (texts_to_ids(vectorizer, texts[part]) for part in ("train", "test"))
    return {
        "train_X": [train_X[row] for row in train],
        "train_y": train_y[train],
        "val_X": [train_X[row] for row in val],
        "val_y": train_y[val],
        "test_X": test_X,
        "test_y": test_y,
        "vocabulary": vocabulary,
    }


def download_imdb(vocab_size):
    """IMDB from Keras's cache (~/.keras/datasets), with ids as `build_vectorizer` numbers them.

    Keras has 1 for the start of a review, 2 for an unknown word, nothing for 3, and words from 4.
    """
    socket.setdefaulttimeout(20)  # a silent network must not hold us for minutes
    try:
        train, test = keras.datasets.imdb.load_data(num_words=vocab_size + 2)
        word_index = keras.datasets.imdb.get_word_index()
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise OSError(
            f"IMDB is not on this machine and could not be fetched ({error}). With a network, this "
            "script fetches it by itself; without one, `--data sample` works now, `--data FOLDER` "
            "reads the reviews as text, and data/README.md tells how to bring files by hand"
        ) from error
    arrays = []
    for X, y in (train, test):
        ids = (np.array(review, dtype="int32") for review in X)
        arrays.append([np.maximum(review[review != 1] - 2, 1) for review in ids])
        arrays.append(np.array(y, dtype="int64"))
    vocabulary = sorted(word_index, key=word_index.get)[: vocab_size - 2]
    return *arrays, vocabulary


def read_reviews(path):
    """Read {train,test}/{neg,pos}/*.txt; returns the texts and the labels, each {part: ...}."""
    files = read_files(path, REVIEW)
    texts, labels = {"train": [], "test": []}, {"train": [], "test": []}
    for name in sorted(files):
        part, sentiment = REVIEW.fullmatch(name).groups()
        try:
            texts[part].append(files[name].decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {name} is not UTF-8 text ({error})") from None
        labels[part].append(int(sentiment == "pos"))
    for part, y in labels.items():
        counts = {name: y.count(label) for label, name in enumerate(("neg", "pos"))}
        if min(counts.values()) < 10:
            raise ValueError(
                f"{path}: {part} has {counts['neg']} negative and {counts['pos']} positive "
                f"reviews; expected 10 or more of each as {part}/neg/*.txt and {part}/pos/*.txt"
            )
    return texts, {part: np.array(y, dtype="int64") for part, y in labels.items()}


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
        raise FileNotFoundError(f"{path} does not exist; give a folder or a .tar.gz") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no folder and no readable tar archive ({error})") from error
    return files


@keras.saving.register_keras_serializable("lstm_imdb")
def clean_text(texts):
    """Lower case, HTML tags and punctuation become spaces; apostrophes in words stay (don't)."""
    import tensorflow as tf

    texts = tf.strings.regex_replace(texts, "<[^>]*>", " ")
    texts = tf.strings.regex_replace(texts, r"[^\p{L}\p{N}']+", " ")
    texts = tf.strings.regex_replace(texts, r"(^|\s)'+|'+(\s|$)", " ")
    return tf.strings.lower(texts, encoding="utf-8")


def learn_vocabulary(texts, vocab_size):
    """The most frequent words of `texts`, most frequent first; two ids stay for padding and [UNK].

    Raises:
        ValueError: there is not a single word.
    """
    vectorizer = layers.TextVectorization(max_tokens=vocab_size, standardize=clean_text)
    vectorizer.adapt(np.array(texts, dtype=object), batch_size=1024)
    vocabulary = vectorizer.get_vocabulary(include_special_tokens=False)
    if not vocabulary:
        raise ValueError("the training reviews hold no words")
    return [str(word) for word in vocabulary]


def build_vectorizer(vocabulary):
    """A layer from strings (n,) to word ids, padded with 0 at the end to the longest text."""
    return layers.TextVectorization(
        standardize=clean_text, vocabulary=vocabulary, name="vectorizer"
    )


def texts_to_ids(vectorizer, texts):
    """A list of int32 arrays of word ids, one for each text, without padding."""
    import tensorflow as tf  # has strings; on JAX, Keras refuses arrays of those with accents

    documents = []
    for start in tqdm(range(0, len(texts), 500), desc="Words to ids", unit="batch"):
        ids = np.asarray(vectorizer(tf.constant(texts[start : start + 500])))
        documents += [row[row > 0].astype("int32") for row in ids]
    return documents


def pad_sequences(documents):
    """Documents as one int32 array, padded with 0 at the end to the longest of them.

    The length is rounded up to a multiple of `BUCKET`, so that few different ones occur.
    """
    length = max(-(-max(map(len, documents)) // BUCKET), 1) * BUCKET
    return keras.utils.pad_sequences(documents, length, padding="post")


class BucketedBatches(keras.utils.PyDataset):
    """Batches of documents of like length, each padded only as far as its own longest needs.

    The book pads all reviews to the longest, 2,494 words; the average one has 230. With a `seed`
    the documents of a length and the batches are shuffled anew each epoch, and the share
    `word_dropout` of the words becomes unknown: no single word can then decide a review.
    """

    def __init__(
        self, documents, labels, batch_size, max_length=None, seed=None, epoch=0, word_dropout=0.0
    ):
        super().__init__()
        # A review ends with the verdict: of a longer one the last words are read.
        self.documents = [document[-(max_length or 0) :] for document in documents]
        self.labels, self.batch_size = labels, batch_size
        self.seed, self.epoch, self.word_dropout = seed, epoch, word_dropout
        self.lengths = np.array([len(document) for document in self.documents])
        self.arrange()

    def arrange(self):
        """Deal out the documents for this epoch."""
        rows = np.arange(len(self.documents))
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            rng.shuffle(rows)
        rows = rows[np.argsort(-(-self.lengths[rows] // BUCKET), kind="stable")]
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
        ids = pad_sequences([self.documents[row] for row in rows])
        if self.word_dropout:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            ids[(rng.random(ids.shape) < self.word_dropout) & (ids > 0)] = 1
        return ids, self.labels[rows]

    def on_epoch_end(self):
        self.epoch += 1
        self.arrange()


def build_network(
    vocab_size=20000, embedding_dim=100, dropout=0.2, recurrent_dropout=0.2, average_steps=600
):
    """The book's network, compiled: embedding, LSTM of 10 units, one sigmoid output.

    `mask_zero` makes the LSTM skip the padding, which the book leaves it to learn. Recurrent
    dropout keeps GPUs from their fast kernel (cuDNN): 0 is much faster there. Adam keeps a running
    average of the weights over about `average_steps` beside them; it is scored and used, for it
    predicts better than the weights of any one step (Polyak and Juditsky, 1992).

    Returns:
        keras.Model from word ids (n, any length) to the probability of a good review (n, 1).
    """
    inputs = keras.Input(shape=(None,), dtype="int32", name="input")
    x = layers.Embedding(vocab_size, embedding_dim, mask_zero=True, name="embedding")(inputs)
    x = layers.LSTM(10, dropout=dropout, recurrent_dropout=recurrent_dropout, name="lstm1")(x)
    output = layers.Dense(1, activation="sigmoid", name="sigmoid")(x)
    model = keras.Model(inputs=inputs, outputs=output, name="lstm_imdb")
    # clipnorm: at this learning rate a rare steep step would undo what was learned.
    optimizer = keras.optimizers.Adam(
        0.005, clipnorm=1.0, use_ema=True, ema_momentum=1 - 1 / max(average_steps, 2)
    )
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


def build_text_model(model, vocabulary):
    """`model` with the vectorizer in front: from strings (n,) to probabilities (n, 1)."""
    inputs = keras.Input(shape=(), dtype="string", name="text")
    ids = build_vectorizer(vocabulary)(inputs)
    ids = keras.ops.pad(ids, [[0, 0], [0, 1]])  # an LSTM needs a step even for an empty text
    return keras.Model(inputs, model(ids), name="text_model")


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
        best_so_far = pd.read_csv(history_path)["val_loss"].min()
    callbacks = [
        keras.callbacks.SwapEMAWeights(),  # validation scores the averaged weights
        keras.callbacks.ModelCheckpoint(
            best_path,
            monitor="val_loss",  # steadier than the accuracy, and it minds how sure a verdict is
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
    """Test accuracy of TF-IDF and logistic regression on the same words, their order ignored."""
    vectorizer = TfidfVectorizer(analyzer=lambda ids: ids.tolist(), sublinear_tf=True)
    model = LogisticRegression(C=5, max_iter=200)
    model.fit(vectorizer.fit_transform(data["train_X"]), data["train_y"])
    accuracy = model.score(vectorizer.transform(data["test_X"]), data["test_y"])
    return {"tfidf_logistic_regression_accuracy": accuracy}


def plot_history(history, path):
    """Loss and accuracy by epoch, training against validation, as a picture."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    epochs = history["epoch"] + 1
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.plot(epochs, history[metric], marker="o", label="training")
        ax.plot(epochs, history["val_" + metric], marker="o", label="validation")
        ax.axvline(epochs[history["val_loss"].idxmin()], color="grey", ls=":", label="best")
        ax.set(xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    axes[0].legend()
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def evaluate(model, data, part):
    """Loss and accuracy on one part of the data, its reviews read whole."""
    batches = BucketedBatches(data[f"{part}_X"], data[f"{part}_y"], 250)
    return model.evaluate(batches, verbose=0, return_dict=True)


def fingerprint(vocabulary):
    """A short text that is the same for the same vocabulary only."""
    return hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()


def load_saved(run_dir, name):
    """The model saved as `name` in `run_dir`, its weights averaged, and its training's settings.

    Raises:
        OSError: there is none. ValueError: it cannot be read.
    """
    path = run_dir / name
    if not path.exists():
        raise OSError(f"{path} does not exist; train first (text_model.keras needs TensorFlow)")
    try:
        model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
        if model.compiled:  # ModelCheckpoint saved the weights, and their average beside them
            model.optimizer.finalize_variable_values(model.trainable_variables)
        return model, json.loads((run_dir / "settings.json").read_text())
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error}); train again") from error


def score_text(run_dir, text):
    """Probability, after the model saved in `run_dir`, that this is a good review.

    Raises:
        OSError, ValueError: no such model, or none of the words is in its vocabulary.
    """
    model, _ = load_saved(run_dir, "text_model.keras")
    texts = np.array([text], dtype=object)
    ids = np.asarray(model.get_layer("vectorizer")(texts))
    if ids.max(initial=0) <= 1:
        raise ValueError("--text holds no word that the model knows")
    unknown = (ids == 1).sum()
    if unknown:
        print(f"{unknown} of {(ids > 0).sum()} words are not in the vocabulary.")
    return float(np.asarray(model(keras.ops.convert_to_tensor(texts)))[0, 0])


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of reviews')
    parser.add_argument("--epochs", type=positive, default=5, help="default: 5 (the book: 10)")
    parser.add_argument("--batch-size", type=positive, default=32, help="default: 32")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter10/lstm_imdb")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    parser.add_argument(
        "--max-length",
        type=positive,
        default=400,
        help="words of a training review that are read, its last (default: 400)",
    )
    parser.add_argument(
        "--word-dropout",
        type=share,
        default=0.3,
        help="share of the words that training reads as unknown (default: 0.3; the book: none)",
    )
    parser.add_argument("--text", help="score this review with the saved model; no training")
    args = parser.parse_args()
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        args.run_dir = RUNS_DIR / ("lstm_imdb_sample" if args.data == "sample" else "lstm_imdb")
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text):
    """A number from 0 to below 1, for argparse."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
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
        BucketedBatches(
            data["train_X"],
            data["train_y"],
            args.batch_size,
            args.max_length,
            args.seed,
            done,
            args.word_dropout,
        ),
        epochs=args.epochs,
        shuffle=False,  # BucketedBatches shuffles
        validation_data=BucketedBatches(data["val_X"], data["val_y"], 250),
        callbacks=create_callbacks(args.run_dir, done > 0),
    )
    seconds = None if done else round(time.perf_counter() - start, 1)
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history.reset_index(drop=True), seconds


def report(model, data):
    """Score the model and the baseline and print both; returns the scores."""
    scores = {part: evaluate(model, data, part) for part in PARTS}
    print("Baseline: TF-IDF and logistic regression …")
    scores["baselines"] = fit_baseline(data)
    for part in PARTS:
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    accuracy = scores["baselines"]["tfidf_logistic_regression_accuracy"]
    verdict = "better" if accuracy > scores["test"]["accuracy"] else "worse"
    print(f" test accuracy {accuracy:.4f} with TF-IDF + logistic regression, {verdict}")
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
        if args.text is not None:
            probability = score_text(args.run_dir, args.text)
            print(f"{probability:.3f} probability of a good review")
            return
        data = load_data(source=args.data)
        vocabulary = data["vocabulary"]
        if args.evaluate:
            model, settings = load_saved(args.run_dir, "model.keras")
            if settings["vocabulary"] != fingerprint(vocabulary):
                raise ValueError(
                    f"{args.run_dir} was trained on other reviews; give the --data of its training"
                )
        else:
            steps = len(data["train_y"]) // args.batch_size  # an epoch
            model = build_network(len(vocabulary) + 2, average_steps=steps)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = Path(args.data).name if args.data else "IMDB"
    if args.data == "sample":
        source = "sample (made-up reviews, a stand-in for IMDB)"
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in PARTS]
    lengths = np.array([len(review) for review in data["train_X"]])
    print(f"Data: {source}: {', '.join(counts)} reviews, {len(vocabulary) + 2:,} ids")
    print(
        f"Words per review: {lengths.mean():.0f} on average, {lengths.max()} at most; "
        f"{(lengths > args.max_length).mean():.1%} are cut at --max-length, "
        f"{(lengths == 0).sum()} are empty"
    )
    if args.evaluate:
        report(model, data)
        return

    model.summary()
    settings = {
        "data": str(Path(args.data).resolve()) if args.data else source,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "word_dropout": args.word_dropout,
        "vocabulary": fingerprint(vocabulary),
    }
    try:
        history, seconds = train(model, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_history(history, args.run_dir / "learning_curves.png")
    best_epoch = int(history["epoch"][history["val_loss"].idxmin()]) + 1
    print(f"\nThe best of {len(history)} epochs was number {best_epoch}:")
    best_model, _ = load_saved(args.run_dir, "model.keras")
    best_model.save(args.run_dir / "model.keras")  # with the averaged weights in their place
    metrics = {
        "script": "chapter10/lstm_imdb.py",
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
        "word_dropout": args.word_dropout,
        **report(best_model, data),
    }
    if backend == "tensorflow":  # only TensorFlow computes with strings
        text_model = build_text_model(best_model, vocabulary)
        text_model.save(args.run_dir / "text_model.keras")
        print(f'Try it: python chapter10/lstm_imdb.py --run-dir {args.run_dir} --text "..."')
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Models, metrics and the picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
