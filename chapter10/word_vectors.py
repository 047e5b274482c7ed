"""Look into a file of word vectors: which words are alike, and what can be computed with meanings?

Book: chapter 10, "Word embedding" and its "A quick example" (cat, dog and lizard).

    python data/fetch.py glove                                 # the real vectors, once
    python chapter10/word_vectors.py                           # 400,000 words, 100 dimensions
    python chapter10/word_vectors.py --data sample             # a stand-in, needs no network
    python chapter10/word_vectors.py --data runs/word2vec_imdb/vectors.txt
    python chapter10/word_vectors.py --words tea coffee gold --analogy man king woman

It prints cosine similarities (1: same direction, 0: nothing in common), the nearest words and an
analogy, and draws some words in the two directions in which they differ most.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

DATA = Path(__file__).resolve().parent.parent / "data"
GLOVE = DATA / "glove" / "glove.6B.100d.txt"  # python data/fetch.py glove
SAMPLE = DATA / "samples" / "glove.sample.50d.txt"
PICTURE = """cat dog lizard puppy horse snake bread cheese coffee pizza one two three seven nine
paris london berlin tokyo desktop modem windows server software"""


def load_word_vectors(path):
    """A table of word vectors, a row for each word, from a text file: words and d numbers.

    GloVe's, word2vec's and fastText's text files are alike but for the first line, where the latter
    two say how many words and numbers there are. (gensim's KeyedVectors reads them all, too.)
    """
    embeddings_index, dimension = {}, None
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            values = line.split()
            if number == 1 and len(values) == 2:
                continue
            dimension = dimension or len(values) - 1
            # The last are numbers: some words of GloVe's largest file have spaces in them.
            word, vector = " ".join(values[:-dimension]), values[-dimension:]
            try:
                embeddings_index[word] = np.array(vector, dtype="float32").reshape(dimension)
            except ValueError:
                message = f"{path}, line {number} is not a word and {dimension} numbers"
                raise ValueError(message) from None
    if not embeddings_index:
        raise ValueError("the file is empty")
    return pd.DataFrame(np.stack(list(embeddings_index.values())), index=list(embeddings_index))


def find_nearest(units, vector, leave_out, top=5):
    """The words of the table `units`, rows of length 1, that point most nearly as `vector` does."""
    cosines = units @ (vector / max(np.linalg.norm(vector), 1e-9))
    return cosines.drop(index=leave_out).nlargest(top)


def find_analogy(units, first, second, third, top=3):
    """What is to `third` as `second` is to `first`: the words nearest to second - first + third.

    The three themselves are left out: one of them is nearly always the nearest.
    """
    wanted = units.loc[second] - units.loc[first] + units.loc[third]
    return find_nearest(units, wanted, [first, second, third], top)


def plot_words(units, path):
    """A picture of those of PICTURE's words that have a vector."""
    words = units.loc[units.index.intersection(PICTURE.split())]
    if len(words) > 2:
        fig, ax = plt.subplots(figsize=(8, 6))
        for word, (x, y) in zip(words.index, PCA(2).fit_transform(words), strict=True):
            ax.scatter(x, y, s=12)
            ax.annotate(word, (x, y))
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path)
        print(f"\nThe picture is {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=GLOVE, help='"sample", or a file of word vectors')
    parser.add_argument("--words", nargs="+", default=["cat", "dog", "lizard"], help="to compare")
    parser.add_argument("--analogy", nargs=3, help="A B C: A is to B as C is to …")
    parser.add_argument("--picture", type=Path, default="runs/word_vectors.png", help="to be drawn")
    args = parser.parse_args()
    try:
        vectors = load_word_vectors(SAMPLE if args.data == "sample" else Path(args.data))
        missing = {*args.words, *(args.analogy or [])} - set(vectors.index)
        if missing:
            raise ValueError(f"no vectors for {', '.join(sorted(missing))}")
    except Exception as error:
        sys.exit(f"error: {args.data}: {' '.join(str(error).split())}")
    print(f"{len(vectors):,} words, {vectors.shape[1]} dimensions\n\nCosine similarity")
    units = pd.DataFrame(normalize(vectors), index=vectors.index)
    compared = units.loc[args.words]
    print((compared @ compared.T).round(2).to_string(), "\n\nNearest words")
    for word in args.words:
        nearest = find_nearest(units, units.loc[word], [word])
        print(f"{word}: {', '.join(f'{other} {cosine:.2f}' for other, cosine in nearest.items())}")
    if args.analogy:
        found = ", ".join(find_analogy(units, *args.analogy).index)
        print("\n{} is to {} as {} is to:".format(*args.analogy), found)
    plot_words(units, args.picture)


if __name__ == "__main__":
    main()
