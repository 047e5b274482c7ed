"""Turn texts into vectors of numbers: bag of words, TF-IDF, stemming, stop words, hashing.

Book: chapter 10, "Vectorizing text".

    python chapter10/vectorize_text.py                   # the book's two documents and its tables
    python chapter10/vectorize_text.py --data sample     # and what each way is worth on reviews
    python chapter10/vectorize_text.py --data aclImdb/   # the same on the real reviews, as text

Look for two things: scikit-learn's TF-IDF is not the book's (it keeps words that stand in every
document), and stemming or dropping stop words is no gain by itself: "not" is a stop word.
"""

import argparse
import functools
import importlib.metadata
import json
import math
import platform
import re
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from nltk.stem import PorterStemmer, SnowballStemmer
from sklearn.feature_extraction.text import (
    ENGLISH_STOP_WORDS,
    CountVectorizer,
    HashingVectorizer,
    TfidfVectorizer,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter10"
DOCUMENTS = ["the cat sat on my face", "the dog sat on my bed"]  # the book's docA and docB
TRAINING_REVIEW = re.compile(r"(?:.*/)?train/(neg|pos)/[^/]+\.txt")
MAX_FILE_BYTES = 1_000_000


def tokenize(text):
    """The words of a text in lower case, apostrophes inside them kept, HTML tags dropped."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"<[^>]*>", " ", text.lower()))


def count_vectorize(documents):
    """How often each word of the corpus occurs in each document, as a table."""
    counts = [Counter(tokenize(document)) for document in documents]
    words = sorted(set().union(*counts))
    return pd.DataFrame(
        [[count[word] for word in words] for count in counts],
        index=[f"doc {number}" for number in range(len(documents))],
        columns=words,
    )


def tf_idf(counts):
    """The book's TF-IDF of a table of counts.

    tf = count / words in the document, idf = log(documents / documents with the word): a word that
    stands in every document counts nothing. An empty document gets zeros.
    """
    tf = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    idf = np.log(len(counts) / (counts > 0).sum(axis=0))
    return tf * idf


def sklearn_tf_idf(counts):
    """scikit-learn's TF-IDF of a table of counts, by hand; `TfidfVectorizer` gives the same.

    tf is the bare count, idf = log((1 + documents) / (1 + documents with the word)) + 1, and each
    document is scaled to length 1.
    """
    idf = np.log((1 + len(counts)) / (1 + (counts > 0).sum(axis=0))) + 1
    weighted = counts * idf
    return weighted.div(np.sqrt((weighted**2).sum(axis=1)).replace(0, 1), axis=0)


@functools.cache
def stem(word):
    """Porter's stem of a word; of a possessive, that of its owner (cat's -> cat)."""
    return PorterStemmer().stem(re.sub(r"'s?$|'s'$", "", word))


def stem_tokenize(text):
    """The stems of the words of a text."""
    return [stem(word) for word in tokenize(text)]


def content_tokenize(text):
    """The words of a text without scikit-learn's 318 English stop words."""
    return [word for word in tokenize(text) if word not in ENGLISH_STOP_WORDS]


def hash_collisions(words, n_features):
    """How many of the words share their column with another one after hashing."""
    vectorizer = HashingVectorizer(n_features=n_features, analyzer=lambda word: [word], norm=None)
    columns = Counter(vectorizer.transform(words).indices.tolist())
    return sum(count for count in columns.values() if count > 1)


def load_data(source):
    """Return labelled reviews as text: the training reviews, of which a fifth is for validation.

    Args:
        source: "sample" for the stand-in in data/samples, or a path: a folder, or a .tar or .tar.gz
            of it, with reviews as train/{neg,pos}/<name>.txt.

    Returns:
        dict with `train_texts`, `val_texts`: lists of str; `train_y`, `val_y`: int64 (n,), 1 for a
        positive review.

    Raises:
        OSError: nothing there. ValueError: not in the format above; the message says why.
    """
    path = DATA_DIR / "samples" / "aclImdb.tar.gz" if source == "sample" else Path(source)
    files = read_files(path, TRAINING_REVIEW)
    names = sorted(files)
    y = np.array([TRAINING_REVIEW.fullmatch(name)[1] == "pos" for name in names], dtype="int64")
    if min((y == 0).sum(), (y == 1).sum()) < 10:
        raise ValueError(
            f"{path} has {(y == 0).sum()} negative and {(y == 1).sum()} positive reviews; "
            "expected 10 or more of each as train/neg/*.txt and train/pos/*.txt"
        )
    texts = [files[name].decode("utf-8", errors="replace") for name in names]
    train, val = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    return {
        "train_texts": [texts[row] for row in train],
        "train_y": y[train],
        "val_texts": [texts[row] for row in val],
        "val_y": y[val],
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


def compare_vectorizers(data):
    """Validation accuracy of logistic regression on each kind of vector: a table."""
    words = {"tokenizer": tokenize, "token_pattern": None, "lowercase": False}
    stems = {**words, "tokenizer": stem_tokenize}
    content = {**words, "tokenizer": content_tokenize}
    vectorizers = {
        "counts": CountVectorizer(**words),
        "counts, stems": CountVectorizer(**stems),
        "counts, no stop words": CountVectorizer(**content),
        "TF-IDF": TfidfVectorizer(**words),
        "TF-IDF, stems": TfidfVectorizer(**stems),
        "TF-IDF, no stop words": TfidfVectorizer(**content),
        "TF-IDF, words and pairs": TfidfVectorizer(**words, ngram_range=(1, 2), min_df=2),
        "hashing, 1,024 columns": HashingVectorizer(**words, n_features=2**10),
        "hashing, 262,144 columns": HashingVectorizer(**words, n_features=2**18),
    }
    rows = []
    for name, vectorizer in tqdm(vectorizers.items(), desc="Vectorizers", unit="model"):
        start = time.perf_counter()
        train_X = vectorizer.fit_transform(data["train_texts"])
        model = LogisticRegression(solver="liblinear").fit(train_X, data["train_y"])
        accuracy = model.score(vectorizer.transform(data["val_texts"]), data["val_y"])
        seconds = round(time.perf_counter() - start, 1)
        share = train_X.nnz / (train_X.shape[0] * train_X.shape[1])
        rows.append((name, train_X.shape[1], f"{share:.2%}", accuracy, seconds))
    return pd.DataFrame(rows, columns=["vectors", "columns", "not zero", "accuracy", "seconds"])


def show_book_examples():
    """Print the chapter's tables and examples, each beside what today's library makes of it."""
    counts = count_vectorize(DOCUMENTS)
    print("The corpus:", *(repr(document) for document in DOCUMENTS))
    print("\nBag of words:\n", counts, sep="")
    print("\nTF-IDF by the book's formula:\n", tf_idf(counts).round(3), sep="")
    print(f"  cat: 1/6 * log(2/1) = {math.log(2) / 6:.4f}")
    print("\nTF-IDF as scikit-learn computes it:\n", sklearn_tf_idf(counts).round(3), sep="")
    print("  Words of every document keep some weight; each row has length 1.")

    forms = ["cat", "cats", "cat's", "cat's'"]
    porter, snowball = PorterStemmer(), SnowballStemmer("english")
    print("\nStems:           ", *(f"{form:>10}" for form in forms))
    print("Porter           ", *(f"{porter.stem(form):>10}" for form in forms))
    print("Snowball         ", *(f"{snowball.stem(form):>10}" for form in forms))
    print("here             ", *(f"{stem(form):>10}" for form in forms))
    for sentence in ("the film was not good", "the films were good"):
        kept = " ".join(content_tokenize(sentence))
        print(f"Without stop words: {sentence!r} -> {kept!r}")
    words = [f"word{number}" for number in range(20000)]
    for bits in (10, 14, 18):
        share = hash_collisions(words, 2**bits) / len(words)
        print(f"Hashed into {2**bits:,} columns, {share:.0%} of 20,000 words share theirs")


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of reviews')
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter10/vectorize_text")
    args = parser.parse_args()
    if args.run_dir is None:
        name = "vectorize_text_sample" if args.data == "sample" else "vectorize_text"
        args.run_dir = RUNS_DIR / name
    return args


def main():
    args = parse_arguments()
    show_book_examples()
    if args.data is None:
        return
    try:
        data = load_data(args.data)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    start = time.perf_counter()
    table = compare_vectorizers(data)
    print(
        f"\nLogistic regression on {len(data['train_y']):,} reviews, accuracy on "
        f"{len(data['val_y']):,} validation reviews:"
    )
    if args.data == "sample":
        print("(made-up reviews: a stand-in for IMDB)")
    print(table.to_string(index=False, float_format="{:.4g}".format))
    accuracies = {
        f"{name}_accuracy": value for name, value in table[["vectors", "accuracy"]].values
    }
    metrics = {
        "script": "chapter10/vectorize_text.py",
        "data": "sample (a stand-in)" if args.data == "sample" else Path(args.data).name,
        "versions": {
            "python": platform.python_version(),
            "scikit-learn": importlib.metadata.version("scikit-learn"),
        },
        "device": "cpu",
        "seconds": round(time.perf_counter() - start, 1),
        "val": accuracies,
    }
    args.run_dir.mkdir(parents=True, exist_ok=True)
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
