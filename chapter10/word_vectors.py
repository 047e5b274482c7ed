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
from cnn_newsgroups_glove import GLOVE, GLOVE_SAMPLE, load_word_vectors
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

PICTURE = """cat dog lizard puppy horse snake bread cheese coffee pizza one two three seven nine
paris london berlin tokyo desktop modem windows server software"""


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
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a file of word vectors')
    parser.add_argument("--words", nargs="+", default=["cat", "dog", "lizard"], help="to compare")
    parser.add_argument("--analogy", nargs=3, help="A B C: A is to B as C is to …")
    parser.add_argument("--picture", type=Path, default="runs/word_vectors.png", help="to be drawn")
    args = parser.parse_args()
    try:
        path = {None: GLOVE, "sample": GLOVE_SAMPLE}.get(args.data, args.data)
        index = load_word_vectors(Path(path))
        missing = {*args.words, *(args.analogy or [])} - set(index)
        if missing:
            raise ValueError(f"no vectors for {', '.join(sorted(missing))}")
        units = pd.DataFrame(normalize(list(index.values())), index=list(index))
    except Exception as error:
        source = args.data or "GloVe (python data/fetch.py glove)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    print(f"{units.shape[0]:,} words, {units.shape[1]} dimensions\n\nCosine similarity")
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
