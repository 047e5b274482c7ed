"""Look into a file of word vectors: which words are alike, and what can be computed with meanings?

Book: chapter 10, "Word embedding" and its "A quick example" (cat, dog and lizard).

    python chapter10/word_vectors.py                           # data/glove/glove.6B.100d.txt
    python chapter10/word_vectors.py --data glove.6B.50d.txt   # any file in GloVe's text format
    python chapter10/word_vectors.py --data sample             # made-up stand-in, no network
    python chapter10/word_vectors.py --words tea coffee gold --nearest paris

It prints cosine similarities (1: same direction, 0: nothing in common), the nearest words of some
words, analogies ("man is to king as woman to ...") and draws some words in two dimensions.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.decomposition import PCA
from tqdm import tqdm

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter10"
WORDS = ["cat", "dog", "lizard"]  # the book's
NEAREST = ["cat", "hockey", "three", "church"]
ANALOGIES = [
    ("man", "king", "woman"),
    ("france", "paris", "germany"),
    ("good", "better", "bad"),
    ("walk", "walked", "call"),
]
GROUPS = {
    "animals": ["cat", "dog", "lizard", "puppy", "kitten", "horse", "snake", "crocodile", "bird"],
    "food": ["bread", "soup", "cheese", "wine", "coffee", "pizza", "rice", "fruit", "beer"],
    "numbers": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "cities": ["paris", "london", "berlin", "rome", "madrid", "tokyo", "vienna", "moscow"],
    "computing": ["desktop", "floppy", "modem", "windows", "server", "pixel", "software", "disk"],
}


def load_word_vectors(path):
    """Read a text file of word vectors: a word and its numbers on each line, split by spaces.

    Returns:
        dict from word to float32 array; all arrays have one length, that of the first line.

    Raises:
        OSError: nothing there. ValueError: a line is damaged; the message names it.
    """
    vectors, dimension = {}, None
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(tqdm(lines, desc="Word vectors", unit="word"), start=1):
                word, *numbers = line.rstrip("\r\n").split(" ")
                try:
                    vector = np.array(numbers, dtype="float32")
                except ValueError:
                    vector = np.array([np.nan])
                dimension = dimension or len(vector)
                complete = line.endswith("\n") and len(vector) == dimension
                if not (word and complete and np.isfinite(vector).all()):
                    raise ValueError(
                        f"{path}, line {number} is damaged or cut off: expected a word and "
                        f"{dimension} numbers, split by single spaces; found {line[:40]!r} …"
                    )
                vectors[word] = vector
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist. `python data/fetch.py glove` brings the real vectors, "
            "`--data sample` works now"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error})") from None
    if not vectors:
        raise ValueError(f"{path} is empty")
    return vectors


class WordVectors:
    """Words with their vectors scaled to length 1, so that a dot product is a cosine."""

    def __init__(self, vectors):
        self.words = list(vectors)
        self.rows = {word: row for row, word in enumerate(self.words)}
        matrix = np.stack(list(vectors.values()))
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        self.matrix = matrix / np.where(lengths == 0, 1, lengths)  # a zero vector stays zero

    def __getitem__(self, word):
        """The vector of a word.

        Raises:
            ValueError: the file has none.
        """
        if word not in self.rows:
            raise ValueError(f"{word!r} has no vector in this file")
        return self.matrix[self.rows[word]]

    def similarity(self, first, second):
        """Cosine of the angle between the vectors of two words, -1 to 1."""
        return float(self[first] @ self[second])

    def nearest(self, word, top=5):
        """The words most like `word`: [(word, cosine)], the nearest first."""
        return self._search(self[word], {word}, top)

    def analogy(self, first, second, third, top=3):
        """What is to `third` as `second` is to `first`: [(word, cosine)], the best first.

        The vector sought is second - first + third; the three words themselves are left out,
        since one of them is nearly always the nearest.
        """
        wanted = self[second] - self[first] + self[third]
        return self._search(wanted / np.linalg.norm(wanted), {first, second, third}, top)

    def _search(self, vector, excluded, top):
        cosines = self.matrix @ vector
        found = []
        for row in np.argsort(-cosines)[: top + len(excluded)]:
            if self.words[row] not in excluded:
                found.append((self.words[row], float(cosines[row])))
        return found[:top]


def plot_words(vectors, groups, path):
    """The words of {group: words} that have vectors, in the two directions they differ most in."""
    groups = {name: [w for w in words if w in vectors.rows] for name, words in groups.items()}
    words = [word for group in groups.values() for word in group]
    if len(words) < 3:
        return
    points = dict(
        zip(words, PCA(2, random_state=0).fit_transform([vectors[w] for w in words]), strict=True)
    )
    fig, ax = plt.subplots(figsize=(8, 6))
    for name, group in groups.items():
        if not group:
            continue
        x, y = np.array([points[word] for word in group]).T
        marks = ax.scatter(x, y, s=12, label=name)
        for word in group:
            ax.annotate(word, points[word], fontsize=9, color=marks.get_facecolor()[0])
    ax.set(xlabel="first principal component", ylabel="second principal component")
    ax.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a file of word vectors')
    parser.add_argument("--words", nargs="+", help="words to compare with one another")
    parser.add_argument("--nearest", nargs="+", metavar="WORD", help="words to find the nearest of")
    parser.add_argument("--analogy", nargs=3, metavar="WORD", help="A B C: A is to B as C to …")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter10/word_vectors")
    args = parser.parse_args()
    if args.run_dir is None:
        name = "word_vectors_sample" if args.data == "sample" else "word_vectors"
        args.run_dir = RUNS_DIR / name
    return args


def main():
    args = parse_arguments()
    path = DATA_DIR / "glove" / "glove.6B.100d.txt" if args.data is None else Path(args.data)
    if args.data == "sample":
        path = DATA_DIR / "samples" / "glove.sample.50d.txt"
    try:
        vectors = WordVectors(load_word_vectors(path))
        known = lambda *words: all(word in vectors.rows for word in words)  # noqa: E731
        # Of the examples of this file only those that the vectors know; of the reader's, all.
        words = args.words or [word for word in WORDS if known(word)]
        nearest = args.nearest or [word for word in NEAREST if known(word)]
        analogies = [args.analogy] if args.analogy else [a for a in ANALOGIES if known(*a)]
        print(f"{path.name}: {len(vectors.words):,} words, {vectors.matrix.shape[1]} dimensions")
        if args.data == "sample":
            print("(a stand-in: random directions, shared in part by the words of a topic)")
        print("\nCosine similarity")
        print(" " * 12 + "".join(f"{word:>12}" for word in words))
        for first in words:
            row = "".join(f"{vectors.similarity(first, second):12.2f}" for second in words)
            print(f"{first:12}{row}")
        print("\nNearest words")
        for word in nearest:
            found = ", ".join(f"{w} {cosine:.2f}" for w, cosine in vectors.nearest(word))
            print(f"{word:12}{found}")
        print("\nAnalogies" if analogies else "")
        for first, second, third in analogies:
            found = ", ".join(f"{w} {c:.2f}" for w, c in vectors.analogy(first, second, third))
            print(f"{first} is to {second} as {third} is to: {found}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    plot_words(vectors, GROUPS, args.run_dir / "words.png")
    print(f"\nThe picture is {args.run_dir / 'words.png'}")


if __name__ == "__main__":
    main()
