"""The same translation by a transformer, in pieces of words: nothing in it is recurrent.

Book: chapter 11, "Characters versus words", which it leaves to the reader. The pairs, and all else
that is like it, come from train_char_seq2seq.py: to copy this script, copy that one, too.

    python chapter11/train_transformer_seq2seq.py                   # the first 50,000 pairs
    python chapter11/train_transformer_seq2seq.py --data sample     # a stand-in, needs no network
    python chapter11/train_transformer_seq2seq.py --vocab-size 50000 --run-dir runs/words    # whole
    python chapter11/infer_char_seq2seq.py runs/train_transformer_seq2seq

Pieces are learned by byte pair encoding: frequent words are whole, rare ones in parts, so that no
word is unknown. The network is Vaswani et al.'s (2017), small: each place of a sentence looks at
all places of the English one and at those of the French one before it, all of them at once.
BLEU 37.8 (seed 1, 41 minutes on one CPU core); looking up the nearest sentence 16.1.
"""

import argparse
import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import pandas as pd
import tensorflow as tf
import train_char_seq2seq
from keras import layers, ops
from train_char_seq2seq import create_callbacks, open_run

WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s+")


def load_data(source=None, num_samples=50000, vocab_size=4000):
    """What train_char_seq2seq.py reads, the same parts; input_tokens, target_tokens are pieces.

    They are those of the training sentences of both languages together.
    """
    data = train_char_seq2seq.load_data(source, num_samples)
    train = data["pairs"][data["pairs"]["part"] == "train"]
    # A tab begins each translation, so that the decoder has an input, and a line feed ends it.
    pieces = ["\t", "\n", *learn_pieces([*train["english"], *train["french"]], vocab_size)]
    return data | {"input_tokens": pieces, "target_tokens": pieces}


def build_model(num_tokens, steps=1000, dim=256, heads=4, blocks=2, dropout=0.3):
    """A small transformer, compiled.

    Pieces (n, length) and the translation so far (n, length), as numbers, to the probabilities of
    its next piece at each place. 0 is padding. `steps`: batches in an epoch.
    """
    pieces = layers.Embedding(num_tokens, dim, name="pieces")
    positions = layers.Embedding(100, dim, name="positions")

    def embed(ids):
        places = ops.minimum(ops.cumsum(ops.ones_like(ids), axis=1), 100) - 1
        return layers.Dropout(dropout)(layers.Add()([pieces(ids), positions(places)]))

    def add(x, change):
        return layers.Add()([x, layers.Dropout(dropout)(change)])

    def attend(x, memory=None, **mask):
        query = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(heads, dim // heads)
        return add(x, attention(query, query if memory is None else memory, **mask))

    def think(x):
        hidden = layers.Dense(2 * dim, activation="relu")(layers.LayerNormalization()(x))
        return add(x, layers.Dense(dim)(hidden))

    encoder_input = keras.Input((None,), dtype="int32", name="encoder_input")
    english = ops.expand_dims(ops.not_equal(encoder_input, 0), axis=1)  # and no padding
    x = embed(encoder_input)
    for _ in range(blocks):
        x = think(attend(x, attention_mask=english))
    memory = layers.LayerNormalization(name="memory")(x)

    decoder_input = keras.Input((None,), dtype="int32", name="decoder_input")
    x = embed(decoder_input)
    for _ in range(blocks):
        x = attend(x, use_causal_mask=True)  # only what is before it
        x = think(attend(x, memory, attention_mask=english))
    x = layers.LayerNormalization(name="decoder_output")(x)
    output = layers.Dense(num_tokens, activation="softmax", name="softmax_output")(x)

    model = keras.Model([encoder_input, decoder_input], output, name="transformer_seq2seq")
    rate = keras.optimizers.schedules.ExponentialDecay(0.001, steps, decay_rate=0.85)
    model.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        weighted_metrics=["accuracy"],
    )
    return model


def learn_pieces(texts, size):
    """Byte pair encoding (Sennrich et al., 2016): characters, and what grows of them.

    The most frequent pairs of neighbours become pieces, never across words, until there are `size`.
    """
    counts = Counter(word for text in texts for word in WORD.findall(text))
    words = {word: list(word) for word in counts}
    pieces = dict.fromkeys(sorted(set("".join(words))))
    while len(pieces) < size:
        pairs = Counter()
        for word, parts in words.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += counts[word]
        number = min(1 + len(pieces) // 100, size - len(pieces))  # one by one takes minutes
        best = dict(pairs.most_common(number))
        if not best:
            break
        pieces |= dict.fromkeys(left + right for left, right in best)
        for parts in words.values():
            for i in reversed(range(len(parts) - 1)):
                if tuple(parts[i : i + 2]) in best:
                    parts[i : i + 2] = ["".join(parts[i : i + 2])]
    return list(pieces)


def vectorize(texts, pieces):
    """Texts as numbers of their pieces, always the longest that fits, from 1 on, one row each."""
    index = {piece: i for i, piece in enumerate(pieces, start=1)}
    pattern = re.compile("|".join(map(re.escape, sorted(pieces, key=len, reverse=True))))
    return tf.ragged.constant(
        [[index[p] for p in pattern.findall(text)] for text in texts], "int32"
    )


def make_batches(data, part, batch_size, seed=None):
    """Pairs of like length in a batch: little is padding. With a `seed` in each epoch others."""
    pairs = data["pairs"][data["pairs"]["part"] == part]
    english = vectorize(pairs["english"], data["input_tokens"])
    french = vectorize("\t" + pairs["french"] + "\n", data["target_tokens"])
    rows = tf.data.Dataset.from_tensor_slices((english, french))
    rows = rows if seed is None else rows.shuffle(len(pairs), seed=seed)
    ends = list(range(6, 30, 3))
    batches = rows.map(lambda *row: row).bucket_by_sequence_length(
        lambda english, french: tf.size(french), ends, [batch_size] * (len(ends) + 1)
    )

    def shift(english, french):  # the decoder's answer is its input, a piece later
        real = tf.cast(french[:, 1:] != 0, "float32")
        # Keras averages over a sentence first: times the length, all pieces count alike.
        weights = real * tf.cast(tf.shape(real)[1], "float32")
        return (english, french[:, :-1]), french[:, 1:], weights

    number = sum(1 for _ in batches)
    return batches.map(shift).apply(tf.data.experimental.assert_cardinality(number))


def report(model, data):
    """Losses and accuracies per piece, each given the right ones before it, as a dict."""
    scores = {}
    for part in ("train", "val", "test"):
        batches = make_batches(data, part, 256)
        scores[part] = model.evaluate(batches, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f} per piece")
    return scores


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a file of pairs')
    parser.add_argument("--num-samples", type=int, default=50000, help="pairs; default: 50000")
    parser.add_argument("--vocab-size", type=int, default=4000, help="pieces; default: 4000")
    parser.add_argument("--epochs", type=int, default=15, help="default: 15")
    parser.add_argument("--batch-size", type=int, default=128, help="default: 128")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/train_transformer_seq2seq")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"train_transformer_seq2seq{suffix}")
    numbers = args.num_samples, args.vocab_size, args.epochs, args.batch_size
    if min(numbers) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--seed begins at 0, the other numbers at 1")
    return args


def main():
    args = parse_arguments()
    best = args.run_dir / "model.keras"
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data, args.num_samples, args.vocab_size)
        checksum = zlib.crc32(data["pairs"].to_csv().encode())
        settings = {"script": "train_transformer_seq2seq", "data": checksum}
        settings |= {"seed": args.seed, "batch_size": args.batch_size}
        tokens = {name: data[name] for name in ("input_tokens", "target_tokens")}
        if args.evaluate:
            there = json.loads((args.run_dir / "settings.json").read_text())
            if there | tokens | {"data": checksum} != there:
                raise ValueError(f"{best} was trained on other pairs, perhaps on some of these")
            return report(keras.models.load_model(best), data)
        batches = make_batches(data, "train", args.batch_size)
        model, done = open_run(args.run_dir, settings | tokens, batches)
        model = model or build_model(len(data["input_tokens"]) + 1, len(batches))  # 0 is padding
        model.make_train_function()  # what a backend refuses, it says here
        data["pairs"].to_csv(args.run_dir / "pairs.csv", index=False)  # for the translations
    except Exception as error:  # zlib, h5py and Keras raise a dozen kinds
        source = args.data or "fra-eng (python data/fetch.py fra-eng)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    model.summary()
    model.fit(
        make_batches(data, "train", args.batch_size, seed=args.seed + done),
        epochs=args.epochs,
        initial_epoch=done,
        validation_data=make_batches(data, "val", 256),
        callbacks=create_callbacks(model, args.run_dir),
        shuffle=False,  # the batches are, anew in each epoch
    )
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch").rename(lambda n: n + 1)
    history.plot(subplots=[("loss", "val_loss"), ("accuracy", "val_accuracy")], grid=True)
    plt.savefig(args.run_dir / "learning_curves.png")
    metrics = settings | report(keras.models.load_model(best), data)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_loss"].argmin()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and curves are in {args.run_dir}")


if __name__ == "__main__":
    main()
