"""Turn texts into vectors of numbers: bag of words, TF-IDF, stems, stop words, hashing.

Book: chapter 10, "Vectorizing text".

    python chapter10/vectorize_text.py                   # the book's two documents and its tables
    python chapter10/vectorize_text.py --data sample     # and what each way is worth on reviews
    python chapter10/vectorize_text.py --data aclImdb/   # the same on the real reviews, as text

Look for two things: scikit-learn's TF-IDF is not the book's (it keeps words that stand in every
document), and stemming or dropping stop words is no gain by itself: "not" is a stop word. Reads its
reviews as lstm_imdb.py does.
"""

import argparse
import functools
import re
import sys

import lstm_imdb
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

DOCUMENTS = ["the cat sat on my face", "the dog sat on my bed"]  # the book's docA and docB


def tokenize(text):
    """The words of a text in lower case, apostrophes inside them kept, HTML tags dropped."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"<[^>]*>", " ", text.lower()))


def count_vectorize(documents):
    """How often each word of the corpus occurs in each document, as a table."""
    vectorizer = CountVectorizer(analyzer=tokenize)
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


def compare_vectorizers(data):
    """Validation accuracy of logistic regression on each kind of vector: a table."""
    pairs = {"tokenizer": tokenize, "token_pattern": None, "ngram_range": (1, 2)}
    counts = {"analyzer": tokenize, "norm": None}  # of length 1 they would be another thing
    vectorizers = {
        "counts": CountVectorizer(analyzer=tokenize),
        "counts, stems": CountVectorizer(analyzer=stem_tokenize),
        "counts, no stop words": CountVectorizer(analyzer=content_tokenize),
        "TF-IDF": TfidfVectorizer(analyzer=tokenize),
        "TF-IDF, stems": TfidfVectorizer(analyzer=stem_tokenize),
        "TF-IDF, no stop words": TfidfVectorizer(analyzer=content_tokenize),
        "TF-IDF, words and pairs": TfidfVectorizer(**pairs, min_df=2),
        "counts hashed into 1,024": HashingVectorizer(n_features=2**10, **counts),
        "counts hashed into 262,144": HashingVectorizer(n_features=2**18, **counts),
    }
    rows = []
    for name, vectorizer in vectorizers.items():
        X, val_X = vectorizer.fit_transform(data["train_X"]), vectorizer.transform(data["val_X"])
        model = LogisticRegression(solver="liblinear").fit(X, data["train_y"])
        rows.append((name, X.shape[1], model.score(val_X, data["val_y"])))
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
            data = lstm_imdb.load_data(args.data)
        except Exception as error:  # tarfile and zlib raise a dozen kinds
            sys.exit(f"error: {args.data}: {' '.join(str(error).split())[:500]}")
        print(f"\nAccuracy on {len(data['val_y']):,} reviews, learned on {len(data['train_y']):,}:")
        print(compare_vectorizers(data).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
