"""Learn word vectors from film reviews by prediction: word2vec (skip-gram, negative sampling).

Book: chapter 10, "Learning word embeddings with prediction".

    python chapter10/word2vec_imdb.py --data aclImdb/    # the real reviews, as text files
    python chapter10/word2vec_imdb.py --data sample      # made-up stand-in, needs no network

No labels are used: the network guesses for pairs of words whether they stood near each other in a
review. What is left of it are the vectors, written in GloVe's text format, so that word_vectors.py
and cnn_newsgroups_glove.py can read them. Look at the nearest words before and after training.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path, PurePosixPath

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter10"
TRAINING_REVIEW = re.compile(r"(?:.*/)?train/(neg|pos)/[^/]+\.txt")
MAX_FILE_BYTES = 1_000_000
PROBES = ["good", "terrible", "actor", "war", "funny", "director", "script", "plot"]


def load_data(source, vocab_size=10000, min_count=5):
    """Return the training reviews as one long array of word ids.

    Args:
        source: "sample" for the stand-in in data/samples, or a path: a folder, or a .tar or .tar.gz
            of it, with reviews as train/{neg,pos}/<name>.txt.
        vocab_size: at most so many words, the most frequent ones.
        min_count: rarer words are left out.

    Returns:
        dict with `tokens`: int32 (n,), words outside the vocabulary are left out; `documents`:
        int32 (n,), the number of the review of each token; `vocabulary`: list of words by id;
        `counts`: int64, how often each occurs.

    Raises:
        OSError: nothing there. ValueError: no reviews in it, or too few words.
    """
    path = DATA_DIR / "samples" / "aclImdb.tar.gz" if source == "sample" else Path(source)
    files = read_files(path, TRAINING_REVIEW)
    if not files:
        raise ValueError(f"{path} holds no reviews as train/neg/*.txt and train/pos/*.txt")
    reviews = [tokenize(files[name].decode("utf-8", errors="replace")) for name in sorted(files)]
    counts = Counter(word for review in reviews for word in review)
    vocabulary = [word for word, n in counts.most_common(vocab_size) if n >= min_count]
    if len(vocabulary) < 10:
        raise ValueError(f"{path}: only {len(vocabulary)} words occur {min_count} times or more")
    ids = {word: i for i, word in enumerate(vocabulary)}
    known = [[ids[word] for word in review if word in ids] for review in reviews]
    return {
        "tokens": np.concatenate([np.array(review, dtype="int32") for review in known]),
        "documents": np.repeat(np.arange(len(known), dtype="int32"), [len(r) for r in known]),
        "vocabulary": vocabulary,
        "counts": np.array([counts[word] for word in vocabulary]),
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
        raise FileNotFoundError(f"{path} does not exist; give a folder or a .tar.gz") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no folder and no readable tar archive ({error})") from error
    return files


def tokenize(text):
    """The words of a text in lower case, apostrophes inside them kept, HTML tags dropped."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"<[^>]*>", " ", text.lower()))


def skip_gram_pairs(tokens, documents, window, rng):
    """All pairs of words that stand near each other in one review: (centres, contexts).

    As in word2vec each centre draws its own window, from 1 to `window` words to either side, so
    that near words count more. The pairs come shuffled.
    """
    reach = rng.integers(1, window + 1, len(tokens))
    centres, contexts = [], []
    for distance in range(1, window + 1):
        first, second = slice(None, -distance), slice(distance, None)
        together = documents[first] == documents[second]
        for centre, context in ((first, second), (second, first)):
            inside = together & (reach[centre] >= distance)
            centres.append(tokens[centre][inside])
            contexts.append(tokens[context][inside])
    order = rng.permutation(sum(map(len, centres)))
    return np.concatenate(centres)[order], np.concatenate(contexts)[order]


def keep_probability(counts, threshold=1e-4):
    """With which probability an occurrence of each word is kept: frequent words say little.

    Mikolov et al. (2013): sqrt(threshold / frequency), at most 1.
    """
    return np.minimum(np.sqrt(threshold * counts.sum() / counts), 1)


class PairBatches(keras.utils.PyDataset):
    """Batches of one true context word and `negatives` random ones for each centre word.

    The random words come with probability proportional to count to the power of 3/4. Frequent
    words are thinned out and the windows drawn anew for each epoch.
    """

    def __init__(self, data, batch_size, window, negatives, seed):
        super().__init__()
        self.data, self.batch_size = data, batch_size
        self.window, self.negatives = window, negatives
        self.rng = np.random.default_rng(seed)
        weights = data["counts"] ** 0.75
        self.limits = np.cumsum(weights / weights.sum())
        self.on_epoch_end()
        # Each epoch draws its own pairs, a few more or less; Keras wants as many batches each time.
        self.steps = -(-len(self.centres) // batch_size)

    def on_epoch_end(self):
        tokens, documents = self.data["tokens"], self.data["documents"]
        kept = self.rng.random(len(tokens)) < keep_probability(self.data["counts"])[tokens]
        self.centres, self.contexts = skip_gram_pairs(
            tokens[kept], documents[kept], self.window, self.rng
        )

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        first = index * self.batch_size
        rows = np.arange(first, first + self.batch_size) % len(self.centres)
        centres, contexts = self.centres[rows], self.contexts[rows]
        noise = self.rng.random((len(centres), self.negatives))
        noise = np.searchsorted(self.limits, noise).clip(max=len(self.limits) - 1)
        candidates = np.column_stack([contexts, noise]).astype("int32")
        labels = np.zeros(candidates.shape, dtype="float32")
        labels[:, 0] = 1
        return {"centre": centres, "candidates": candidates}, labels


def build_network(vocab_size, dimension=100, negatives=5, learning_rate=0.003):
    """Skip-gram with negative sampling, compiled.

    The book describes a softmax over the whole vocabulary; asking only for the true context word
    and a few random ones is what makes word2vec affordable. The weights of the layer "vectors" are
    the word vectors.

    Returns:
        keras.Model from {"centre": (n,), "candidates": (n, 1 + negatives)} to logits of the
        candidates' having stood near the centre.
    """
    centre = keras.Input(shape=(), dtype="int32", name="centre")
    candidates = keras.Input(shape=(1 + negatives,), dtype="int32", name="candidates")
    vector = layers.Embedding(vocab_size, dimension, name="vectors")(centre)
    context = layers.Embedding(vocab_size, dimension, name="contexts")(candidates)
    logits = layers.Dot(axes=(2, 1), name="dot")([context, vector])
    model = keras.Model({"centre": centre, "candidates": candidates}, logits, name="word2vec")
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


def nearest_words(vectors, vocabulary, word, top=6):
    """The words whose vectors point most nearly in the direction of the word's."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[vocabulary.index(word)]))
    return [vocabulary[row] for row in order[1 : top + 1]]


def save_vectors(path, vocabulary, vectors):
    """Write GloVe's text format: a word and its numbers on each line. Nothing is left half done."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for word, vector in zip(vocabulary, vectors, strict=True):
            file.write(f"{word} {' '.join(f'{number:.5f}' for number in vector)}\n")
    part.replace(path)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="SOURCE", required=True, help='"sample", or a folder or tar of reviews'
    )
    parser.add_argument("--epochs", type=positive, default=3, help="default: 3")
    parser.add_argument("--batch-size", type=positive, default=4096, help="default: 4096")
    parser.add_argument("--dimension", type=positive, default=100, help="default: 100")
    parser.add_argument("--window", type=positive, default=5, help="default: 5 words either side")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter10/word2vec_imdb")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args()
    if args.run_dir is None:
        name = "word2vec_imdb_sample" if args.data == "sample" else "word2vec_imdb"
        args.run_dir = RUNS_DIR / name
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    if device.startswith("cpu"):
        device += f" ({os.cpu_count()} cores)"
    print(f"Keras {keras.__version__} on {backend}, device: {device}")
    try:
        data = load_data(args.data)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    vocabulary = data["vocabulary"]
    batches = PairBatches(data, args.batch_size, args.window, negatives=5, seed=args.seed)
    source = Path(args.data).name
    if args.data == "sample":
        source = "sample (made-up reviews, a stand-in for IMDB)"
    print(
        f"Data: {source}: {len(data['tokens']):,} words, {len(vocabulary):,} different ones, "
        f"about {len(batches.centres):,} pairs an epoch"
    )
    model = build_network(len(vocabulary), args.dimension)
    probes = [word for word in PROBES if word in vocabulary]

    def neighbours():
        vectors = model.get_layer("vectors").get_weights()[0]
        return {word: nearest_words(vectors, vocabulary, word) for word in probes}

    before = neighbours()
    start = time.perf_counter()
    try:
        history = model.fit(batches, epochs=args.epochs, shuffle=False).history
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; nothing was written.")
    seconds = round(time.perf_counter() - start, 1)
    after = neighbours()
    for word in probes:
        print(f"{word}\n  before: {', '.join(before[word])}\n  after:  {', '.join(after[word])}")
    args.run_dir.mkdir(parents=True, exist_ok=True)
    vectors = model.get_layer("vectors").get_weights()[0]
    save_vectors(args.run_dir / "vectors.txt", vocabulary, vectors)
    metrics = {
        "script": "chapter10/word2vec_imdb.py",
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "epochs": args.epochs,
        "seconds": seconds,
        "parameters": model.count_params(),
        "train": {"loss_by_epoch": history["loss"]},
        "nearest_before": before,
        "nearest_after": after,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"{args.run_dir / 'vectors.txt'} has {len(vocabulary):,} vectors of {args.dimension}")


if __name__ == "__main__":
    main()
