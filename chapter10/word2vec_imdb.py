"""Learn word vectors from film reviews by prediction: word2vec (skip-gram, negative sampling).

Book: chapter 10, "Learning word embeddings with prediction".

    python chapter10/word2vec_imdb.py                    # the real reviews (17 MB, fetched once)
    python chapter10/word2vec_imdb.py --data aclImdb/    # the same as text files
    python chapter10/word2vec_imdb.py --data sample      # made-up stand-in, needs no network
    python chapter10/word_vectors.py --data runs/word2vec_imdb/vectors.txt --words good war actor

No labels are used: the network guesses for pairs of words whether they stood near each other in a
review. What is left of it are the vectors, in GloVe's text format, for word_vectors.py and
cnn_newsgroups_glove.py. Look at the nearest words that they give.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import keras
import lstm_imdb
import numpy as np
from keras import layers


def load_data(source=None, vocab_size=10000, min_count=5):
    """The training reviews as one long array of word ids; words that are too rare are left out.

    `source` is that of lstm_imdb.py.

    Returns a dict: tokens, int32 (n,); documents, int32 (n,), the number of the review of each
    token; vocabulary, a list of words by id; counts, int64, how often each occurs.
    """
    (texts, _), _ = lstm_imdb.read_reviews(source)
    reviews = [text.split(" ") if source is None else tokenize(text) for text in texts]
    counts = Counter(word for review in reviews for word in review)
    vocabulary = [word for word, n in counts.most_common(vocab_size) if n >= min_count]
    if len(vocabulary) < 10:
        raise ValueError("fewer than ten words occur five times or more")
    ids = {word: i for i, word in enumerate(vocabulary)}
    known = [[ids[word] for word in review if word in ids] for review in reviews]
    return {
        "tokens": np.concatenate([np.array(review, dtype="int32") for review in known]),
        "documents": np.repeat(np.arange(len(known), dtype="int32"), [len(r) for r in known]),
        "vocabulary": vocabulary,
        "counts": np.array([counts[word] for word in vocabulary]),
    }


def tokenize(text):
    """The words of a text in lower case, apostrophes inside them kept, HTML tags dropped."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"<[^>]*>", " ", text.lower()))


def build_network(vocab_size, dimension=100, negatives=5):
    """Skip-gram with negative sampling, compiled; the weights of "vectors" are the word vectors.

    From {"centre": (n,), "candidates": (n, 1 + negatives)}, word ids, to logits (n, 1 + negatives)
    of the candidates' standing near the centre: of the true neighbour and a few random words, not
    of the whole vocabulary as in the book (Mikolov et al., 2013).
    """
    centre = keras.Input(shape=(), dtype="int32", name="centre")
    candidates = keras.Input(shape=(1 + negatives,), dtype="int32", name="candidates")
    vector = layers.Embedding(vocab_size, dimension, name="vectors")(centre)
    context = layers.Embedding(vocab_size, dimension, name="contexts")(candidates)
    logits = layers.Dot(axes=(2, 1), name="dot")([context, vector])
    model = keras.Model({"centre": centre, "candidates": candidates}, logits, name="word2vec")
    optimizer = keras.optimizers.Adam(0.003)
    model.compile(optimizer, loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def keep_probability(counts, threshold=1e-4):
    """Of each occurrence of a word: frequent words say little. sqrt(threshold / frequency)."""
    return np.minimum(np.sqrt(threshold * counts.sum() / counts), 1)


def skip_gram_pairs(tokens, documents, window, rng):
    """All pairs of words that stand near each other in one review, shuffled: (centres, contexts).

    As in word2vec each centre draws its own window, from 1 to `window` words to either side, so
    that near words count more.
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


def generate_batches(data, batch_size, rng, window=5, negatives=5):
    """Batches for `fit` without end: each pass thins frequent words out and draws windows anew.

    The random words come with probability proportional to count to the power of 3/4.
    """
    shares = data["counts"] ** 0.75 / (data["counts"] ** 0.75).sum()
    while True:
        kept = rng.random(len(data["tokens"])) < keep_probability(data["counts"])[data["tokens"]]
        centres, contexts = skip_gram_pairs(
            data["tokens"][kept], data["documents"][kept], window, rng
        )
        for first in range(0, len(centres), batch_size):
            centre = centres[first : first + batch_size]
            noise = rng.choice(len(shares), (len(centre), negatives), p=shares)
            context = contexts[first : first + batch_size, None]
            candidates = np.concatenate([context, noise], axis=1).astype("int32")
            labels = np.zeros(candidates.shape, dtype="float32")
            labels[:, 0] = 1
            yield {"centre": centre, "candidates": candidates}, labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of reviews')
    parser.add_argument("--epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--batch-size", type=int, default=4096, help="default: 4096")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--output", type=Path, help="default: runs/word2vec_imdb/vectors.txt")
    args = parser.parse_args()
    if min(args.epochs, args.batch_size) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    output = args.output or Path("runs", f"word2vec_imdb{suffix}", "vectors.txt")
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data)
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists():
            raise ValueError(f"{output} exists; give another --output")
    except Exception as error:  # tarfile and zlib raise a dozen kinds
        sys.exit(f"error: {args.data or 'IMDB'}: {' '.join(str(error).split())[:500]}")
    vocabulary, rng = data["vocabulary"], np.random.default_rng(args.seed)
    model = build_network(len(vocabulary))
    # A word has window + 1 neighbours on average; at the ends of a review fewer.
    pairs = 6 * (keep_probability(data["counts"]) * data["counts"]).sum()
    steps = int(pairs // args.batch_size) + 1
    batches = generate_batches(data, args.batch_size, rng)
    model.fit(batches, epochs=args.epochs, steps_per_epoch=steps, shuffle=False)
    vectors = model.get_layer("vectors").get_weights()[0]
    with output.open("x", encoding="utf-8", newline="\n") as file:
        for word, vector in zip(vocabulary, vectors, strict=True):
            file.write(f"{word} {' '.join(f'{number:.5f}' for number in vector)}\n")
    print(f"{len(vocabulary):,} vectors are in {output}")


if __name__ == "__main__":
    main()
