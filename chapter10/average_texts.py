"""Classify texts by a weighted average of their words' vectors, the simplest network for them.

Book: chapter 10, "Getting from words to documents", which describes it. (Its other idea, doc2vec,
is Doc2Vec in the package gensim.) Reads its data as cnn_newsgroups.py and lstm_imdb.py do.

    python chapter10/average_texts.py newsgroups
    python chapter10/average_texts.py newsgroups --strip-quotes --run-dir runs/average_stripped
    python chapter10/average_texts.py imdb --ngrams 2 --vocab-size 200000
    python chapter10/average_texts.py newsgroups --data sample    # made-up posts, needs no network

What to look for: its lead over logistic regression on TF-IDF of the same words; and how much of a
newsgroup's score stands in quotes and signatures, which name people rather than a subject.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import cnn_newsgroups
import keras
import lstm_imdb
import numpy as np
from keras import layers, ops
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

QUOTE = re.compile(r"^[>|]|^In article|(writes|wrote|says|said):|writes in")


def strip_quotes(text):
    """A post without the lines it quotes and without its last paragraph, as a rule a signature."""
    lines = [line for line in text.strip().split("\n") if not QUOTE.search(line)]
    text = "\n".join(lines).strip()
    return text.rpartition("\n\n")[0] or text


def build_network(texts, num_classes=20, ngrams=1, vocab_size=50000, embedding_dim=100):
    """Average of word vectors, softmax, compiled: strings (n,) to probabilities (n, num_classes).

    The words, with `ngrams` 2 pairs of neighbours as well, are learned from `texts`.
    """
    vectorizer = layers.TextVectorization(vocab_size, ngrams=ngrams, name="vectorizer")
    vectorizer.adapt(texts)
    text = keras.Input(shape=(), dtype="string", name="text")
    words = vectorizer(text)[:, :4000]  # of each text no more
    known = ops.expand_dims(ops.cast(words > 1, "float32"), axis=2)  # 0 is padding, 1 unknown
    kept = layers.Dropout(0.5, name="word_dropout")(known)  # half of the words are left out
    # How much each word counts is learned as well; at first all count alike, exp(0).
    weights = kept * ops.exp(layers.Embedding(vocab_size, 1, "zeros", name="weights")(words))
    vectors = layers.Embedding(vocab_size, embedding_dim, name="embedding")(words) * weights
    # A text may have no known word: without the maximum its average would be no number.
    x = ops.sum(vectors, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
    x = layers.Dropout(0.5, name="dropout")(x)
    output = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs=text, outputs=output, name="average_texts")
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit_baseline(data, ngrams=1, vocab_size=50000):
    """TF-IDF and logistic regression, hard to beat on texts: its answers to test_X, (n,)."""
    words = TfidfVectorizer(max_features=vocab_size, ngram_range=(1, ngrams), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=200))
    return model.fit(data["train_X"], data["train_y"]).predict(data["test_X"])


def report(model, data, baseline):
    """Accuracies as a dict: the network's, and its lead over the `baseline`'s answers (n,)."""
    y, scores = data["test_y"], {}
    for part in ("train", "val", "test"):
        batches = cnn_newsgroups.batch_by_length(data[f"{part}_X"], data[f"{part}_y"], 100)
        scores[part] = model.evaluate(batches, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f}")
    guesses = model.predict(data["test_X"], batch_size=50, verbose=0).argmax(axis=1)
    lead = (guesses == y).astype(int) - (baseline == y)  # text by text: 1, 0 or -1
    error, accuracy = lead.std(ddof=1) / len(y) ** 0.5, (baseline == y).mean()
    print(f" test accuracy {accuracy:.4f} of TF-IDF; lead {lead.mean():+.4f} ± {error:.4f}")
    lead = {"mean": lead.mean(), "error": error}
    return scores | {"lead": lead, "baselines": {"tfidf_accuracy": accuracy}}


def count_copies(data):
    """How many test texts stand in training too; how many of them under other classes only."""
    texts, pairs = set(data["train_X"]), set(zip(data["train_X"], data["train_y"], strict=True))
    test = list(zip(data["test_X"], data["test_y"], strict=True))
    copies = [pair for pair in test if pair[0] in texts]
    return {"all": len(copies), "of_other_classes": sum(pair not in pairs for pair in copies)}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=["newsgroups", "imdb"], help="which texts")
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or a folder or tar of texts')
    parser.add_argument("--strip-quotes", action="store_true", help="and signatures of posts")
    parser.add_argument("--ngrams", type=int, default=1, help="2: words and pairs; default: 1")
    parser.add_argument("--vocab-size", type=int, default=50000, help="default: 50000")
    parser.add_argument("--epochs", type=int, default=10, help="at most; default: 10")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="new; default: runs/average_<set>")
    args = parser.parse_args()
    if min(args.ngrams, args.epochs, args.vocab_size - 2) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--ngrams and --epochs begin at 1, --vocab-size at 3, --seed at 0")
    if args.strip_quotes and args.set == "imdb":
        parser.error("--strip-quotes is for newsgroups")
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"average_{args.set}{suffix}")
    return args


def main():
    args = parse_arguments()
    size = {"ngrams": args.ngrams, "vocab_size": args.vocab_size}
    try:
        if keras.backend.backend() != "tensorflow":
            raise ValueError("a network that takes strings needs the TensorFlow backend")
        keras.utils.set_random_seed(args.seed)
        data = (cnn_newsgroups if args.set == "newsgroups" else lstm_imdb).load_data(args.data)
        for part in ("train_X", "val_X", "test_X") if args.strip_quotes else ():
            data[part] = np.array([strip_quotes(text) for text in data[part]], dtype=object)
        model = build_network(data["train_X"], len(data["class_names"]), **size)
        args.run_dir.mkdir(parents=True, exist_ok=True)
        if any(args.run_dir.iterdir()):
            raise ValueError(f"{args.run_dir} holds files; give another --run-dir")
        baseline = fit_baseline(data, **size)
    except Exception as error:  # tarfile, zlib and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or args.set}: {' '.join(str(error).split())[:500]}")
    patience = keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)
    history = model.fit(
        cnn_newsgroups.batch_by_length(data["train_X"], data["train_y"], 128, seed=args.seed),
        epochs=args.epochs,
        validation_data=cnn_newsgroups.batch_by_length(data["val_X"], data["val_y"], 100),
        callbacks=[patience],
        shuffle=False,  # the batches are, anew in each epoch
    ).history
    model.save(args.run_dir / "model.keras")
    metrics = {"script": "average_texts", "set": args.set, "strip_quotes": args.strip_quotes}
    metrics |= size | {"seed": args.seed, "epochs": len(history["loss"])}
    metrics |= report(model, data, baseline) | {"copies": count_copies(data)}
    print("Test texts that stand in training, too:", metrics["copies"])
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model and metrics are in {args.run_dir}")


if __name__ == "__main__":
    main()
