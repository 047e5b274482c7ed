"""Turn texts into vectors of numbers: bag of words, TF-IDF, stems, stop words, hashing.

Book: chapter 10, "Vectorizing text".

    python chapter10/vectorize_text.py                   # the book's two documents and its tables
    python chapter10/vectorize_text.py --data sample     # and what each way is worth on reviews
    python chapter10/vectorize_text.py --data aclImdb/   # the same on the real reviews, as text

Look for two things: scikit-learn's TF-IDF is not the book's (it keeps words that stand in every
document), and stemming or dropping stop words is no gain by itself: "not" is a stop word.
"""

import argparse
import functools
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from nltk.stem import PorterStemmer, SnowballStemmer, WordNetLemmatizer
from sklearn.feature_extraction.text import (
    ENGLISH_STOP_WORDS,
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "aclImdb.tar.gz"
DOCUMENTS = ["the cat sat on my face", "the dog sat on my bed"]  # the book's docA and docB


def tokenize(text):
    """The words of a text in lower case, apostrophes inside them kept, HTML tags dropped."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"<[^>]*>", " ", text.lower()))


def count_vectorize(documents):
    """How often each word of the corpus occurs in each document, as a table."""
    vectorizer = CountVectorizer(tokenizer=tokenize, token_pattern=None)
    counts = vectorizer.fit_transform(documents).toarray()
    index = [f"doc {number}" for number in range(len(documents))]
    return pd.DataFrame(counts, index=index, columns=vectorizer.get_feature_names_out())


def tf_idf(counts):
    """The book's TF-IDF of a table of counts.

    tf = count / words in the document, idf = log(documents / documents with the word): a word that
    stands in every document counts nothing. An empty document gets zeros.
    """
    tf = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    return tf * np.log(len(counts) / (counts > 0).sum(axis=0))


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


def load_data(source):
    """Labelled reviews, a fifth of them for validation, always the same.

    `source` is "sample", or a folder (or .tar.gz of it) with training reviews, in UTF-8 or Latin-1,
    as train/{neg,pos}/*.txt. Returns train_X, val_X, lists of strings; train_y, val_y, lists: 1
    for a good review.
    """
    path, texts, y = SAMPLE if source == "sample" else Path(source), [], []
    with tempfile.TemporaryDirectory() as folder:
        if not path.is_dir():
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
            tops = list(Path(folder).glob("[!.]*"))
            path = tops[0] if len(tops) == 1 else Path(folder)
        for label, name in enumerate(("neg", "pos")):
            files = sorted(path.glob(f"train/{name}/[!.]*.txt"))
            texts += [read_text(file) for file in files]
            y += [label] * len(files)
    if not 10 <= sum(y) <= len(y) - 10:
        raise ValueError("there are not ten reviews or more in train/neg and in train/pos/*.txt")
    return train_test_split(texts, y, test_size=0.2, stratify=y, random_state=0)


def read_text(file):
    """The text of a file: UTF-8 or else Latin-1."""
    content = file.read_bytes()
    if b"\0" in content:
        raise ValueError(f"{file.name} is no text, or UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def compare_vectorizers(train_X, val_X, train_y, val_y):
    """Validation accuracy of logistic regression on each kind of vector: a table."""
    words = {"tokenizer": tokenize, "token_pattern": None}
    stems = {"tokenizer": stem_tokenize, "token_pattern": None}
    content = {"tokenizer": content_tokenize, "token_pattern": None}
    vectorizers = {
        "counts": CountVectorizer(**words),
        "counts, stems": CountVectorizer(**stems),
        "counts, no stop words": CountVectorizer(**content),
        "TF-IDF": TfidfVectorizer(**words),
        "TF-IDF, stems": TfidfVectorizer(**stems),
        "TF-IDF, no stop words": TfidfVectorizer(**content),
        "TF-IDF, words and pairs": TfidfVectorizer(**words, ngram_range=(1, 2), min_df=2),
        # Bare counts, as CountVectorizer's: scaled to length 1 they would be another thing.
        "counts hashed into 1,024": HashingVectorizer(**words, n_features=2**10, norm=None),
        "counts hashed into 262,144": HashingVectorizer(**words, n_features=2**18, norm=None),
    }
    rows = []
    for name, vectorizer in vectorizers.items():
        X = vectorizer.fit_transform(train_X)
        model = LogisticRegression(solver="liblinear").fit(X, train_y)
        rows.append((name, X.shape[1], model.score(vectorizer.transform(val_X), val_y)))
    return pd.DataFrame(rows, columns=["vectors", "columns", "accuracy"])


def show_book_examples():
    """Print the chapter's tables and examples, each beside what today's library makes of it."""
    counts = count_vectorize(DOCUMENTS)
    print("Bag of words:\n", counts, sep="")
    print("\nTF-IDF by the book's formula:\n", tf_idf(counts).round(3), sep="")
    # tf is the bare count, idf = log((1 + documents) / (1 + documents with the word)) + 1, and each
    # document is scaled to length 1.
    weighted = TfidfTransformer().fit_transform(counts.to_numpy()).toarray().round(3)
    print("\nTF-IDF as scikit-learn computes it:\n", weighted, sep="")
    forms = ["cat", "cats", "cat's", "cat's'"]
    print("\nWords:     ", *forms)
    print("Porter:    ", *map(PorterStemmer().stem, forms))
    print("Snowball:  ", *map(SnowballStemmer("english").stem, forms))
    print("here:      ", *map(stem, forms))
    try:
        print("lemmas:    ", *map(WordNetLemmatizer().lemmatize, forms))
    except LookupError:
        print('lemmas:     need a dictionary; nltk.download("wordnet") fetches it')
    for sentence in ("the film was not good", "the films were good"):
        print(f"Without stop words: {sentence} ->", *content_tokenize(sentence))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of reviews')
    args = parser.parse_args()
    show_book_examples()
    if args.data:
        try:
            parts = load_data(args.data)
        except Exception as error:  # tarfile and zlib raise a dozen kinds
            sys.exit(f"error: {args.data}: {' '.join(str(error).split())}")
        print(f"\nAccuracy on {len(parts[1]):,} of {len(parts[0]) + len(parts[1]):,} reviews:")
        print(compare_vectorizers(*parts).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
