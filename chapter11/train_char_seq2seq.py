"""Train the book's sequence-to-sequence network: English in, French out, one character at a time.

Book: chapter 11, "Machine translation", up to "Training"; and "Attention", which it describes.

    python data/fetch.py fra-eng                             # the real pairs, once
    python chapter11/train_char_seq2seq.py                   # the first 50,000
    python chapter11/train_char_seq2seq.py --attention --run-dir runs/attention
    python chapter11/train_char_seq2seq.py --data sample     # a stand-in, needs no network
    python chapter11/train_char_seq2seq.py --data deu.txt    # any pair of manythings.org/anki
    python chapter11/infer_char_seq2seq.py runs/train_char_seq2seq    # translates

One LSTM reads the English sentence; its last state is all that a second LSTM gets to know of it.
That one writes the French sentence: in training with the right answer so far as its input (teacher
forcing), afterwards with its own. What to look for: most characters are right, and most
translations wrong, since in use one early mistake spoils the rest.

So a sentence must pass through two vectors of 256 numbers. With attention the decoder compares its
output with the encoder's at each English character (a dot product: Luong et al., 2015); the softmax
of these scores says how much of each goes into the next French character (attention.png).
"""

import argparse
import json
import os
import shutil
import sys
import unicodedata
import zlib
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DATA = Path(__file__).resolve().parent.parent / "data"
PAIRS = DATA / "fra-eng" / "fra.txt"  # python data/fetch.py fra-eng
SAMPLE = DATA / "samples" / "fra.txt"


def load_data(source=None, num_samples=50000):
    """The first `num_samples` different pairs, split about 80 : 10 : 10, always the same.

    `source` is None for Tatoeba's pairs in data/fra-eng (manythings.org/anki), "sample", or a UTF-8
    file of lines: English, tab, translation; further columns are left out. Returns a dict: pairs, a
    DataFrame of english, french and part (train, val or test); input_tokens and target_tokens, of
    which those for training consist.
    """
    path = Path({None: PAIRS, "sample": SAMPLE}.get(source, source))
    # NFC: an é is one character, however it was typed.
    text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    lines = [line.split("\t") for line in text.split("\n") if line.strip()]
    pairs = dict.fromkeys(tuple(column.strip() for column in [*line, ""][:2]) for line in lines)
    pairs = pd.DataFrame(list(pairs), columns=["english", "french"])[:num_samples].fillna("")
    wrong = pairs[(pairs == "").any(axis=1)]
    if len(wrong):
        raise ValueError(f"a line is not English, a tab, a translation: {wrong.iloc[0].to_dict()}")
    # Pairs that share a sentence, at any remove, go to one part: nothing tested was trained on.
    english, french = (pd.factorize(pairs[name])[0] for name in pairs)
    nodes = len(pairs)
    edges = coo_array((np.ones(nodes), (english, nodes + french)), shape=(2 * nodes, 2 * nodes))
    groups = connected_components(edges)[1][english]
    part = np.random.default_rng(0).choice(3, size=2 * nodes, p=[0.8, 0.1, 0.1])[groups]
    pairs["part"] = np.array(["train", "val", "test"])[part]
    if pairs["part"].nunique() < 3:
        raise ValueError("too few of its sentences do not share a translation")
    train = pairs[pairs["part"] == "train"]
    data = {"pairs": pairs, "input_tokens": sorted(set("".join(train["english"])))}
    # A tab begins each translation, so that the decoder has an input, and a line feed ends it.
    data["target_tokens"] = sorted({"\t", "\n"}.union(*train["french"]))
    return data


def vectorize(texts, tokens):
    """Texts as numbers of their characters, from 1 on, (n, each its own length)."""
    index = {char: i for i, char in enumerate(tokens, start=1)}
    return tf.ragged.constant([[index[c] for c in text if c in index] for text in texts], "int32")


def one_hot(num_tokens, name, mask_zero=False):
    """A layer that makes numbers one-hot; in memory they stay numbers."""
    return layers.Embedding(
        num_tokens, num_tokens, "identity", mask_zero=mask_zero, trainable=False, name=name
    )


def build_model(lstm_units, num_encoder_tokens, num_decoder_tokens, steps=1000, attention=False):
    """The book's network for training, compiled; infer_char_seq2seq.py makes the two others of it.

    Characters (n, length) and the translation so far (n, length), as numbers, to the probabilities
    of its next character at each place. 0 is padding. `steps`: batches in an epoch. `attention`
    comes between the decoder's LSTM and its softmax.
    """
    encoder_input = keras.Input((None,), dtype="int32", name="encoder_input")
    # Masked: no attention goes to padding, and the state is that after the last character.
    x = one_hot(num_encoder_tokens, "encoder_one_hot", mask_zero=True)(encoder_input)
    encoder_lstm = layers.LSTM(
        lstm_units, return_sequences=attention, return_state=True, name="encoder_lstm"
    )
    encoder_outputs, *encoder_states = encoder_lstm(x)

    decoder_input = keras.Input((None,), dtype="int32", name="decoder_input")
    x = one_hot(num_decoder_tokens, "decoder_one_hot")(decoder_input)
    decoder_lstm = layers.LSTM(
        lstm_units, return_sequences=True, return_state=True, name="decoder_lstm"
    )
    x, *_ = decoder_lstm(x, initial_state=encoder_states)
    if attention:
        attend = layers.Attention(name="attention")
        context, _ = attend([x, encoder_outputs], return_attention_scores=True)
        x = layers.Concatenate(name="join")([context, x])
        x = layers.Dense(lstm_units, activation="tanh", name="combine")(x)
    output = layers.Dense(num_decoder_tokens, activation="softmax", name="softmax_output")(x)

    model = keras.Model([encoder_input, decoder_input], output, name="char_seq2seq")
    rate = keras.optimizers.schedules.ExponentialDecay(0.005, steps, decay_rate=0.9)
    model.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        weighted_metrics=["accuracy"],
    )
    return model


def make_batches(data, part, batch_size, seed=None):
    """Pairs of like length in a batch: little is padding. With a `seed` in each epoch others."""
    pairs = data["pairs"][data["pairs"]["part"] == part]
    english = vectorize(pairs["english"], data["input_tokens"])
    french = vectorize("\t" + pairs["french"] + "\n", data["target_tokens"])
    rows = tf.data.Dataset.from_tensor_slices((english, french))
    rows = rows if seed is None else rows.shuffle(len(pairs), seed=seed)
    ends = list(range(10, 80, 6))
    batches = rows.map(lambda *row: row).bucket_by_sequence_length(
        lambda english, french: tf.size(french), ends, [batch_size] * (len(ends) + 1)
    )

    def shift(english, french):  # the decoder's answer is its input, a character later
        real = tf.cast(french[:, 1:] != 0, "float32")
        # Keras averages over a sentence first: times the length, all characters count alike.
        weights = real * tf.cast(tf.shape(real)[1], "float32")
        return (english, french[:, :-1]), french[:, 1:], weights

    number = sum(1 for _ in batches)
    return batches.map(shift).apply(tf.data.experimental.assert_cardinality(number))


def create_callbacks(model, run_dir):
    """TensorBoard, a log, the last model and the best one: `model`, saved after each epoch."""

    def save(epoch, logs):  # renamed when whole: a kill leaves the files of the epoch before
        new = run_dir / "new.keras"
        model.save(new)
        if pd.read_csv(run_dir / "history.csv")["val_loss"].argmin() == epoch:
            shutil.copy(new, run_dir / "new_model.keras").replace(run_dir / "model.keras")
        new.replace(run_dir / "last.keras")

    return [
        callbacks.TensorBoard(run_dir / "tb"),
        callbacks.CSVLogger(run_dir / "history.csv", append=(run_dir / "last.keras").exists()),
        callbacks.LambdaCallback(on_epoch_end=save),
    ]


def open_run(run_dir, settings, batches):
    """The last model of the same run in `run_dir` and the epochs done; None and 0 of a new one."""
    run_dir.mkdir(parents=True, exist_ok=True)
    noted, log, last = (run_dir / name for name in ("settings.json", "history.csv", "last.keras"))
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    if not last.exists():
        return None, 0
    lines = log.read_bytes().splitlines(keepends=True)
    keras.utils.set_random_seed((settings["seed"] + len(lines)) % 2**32)  # not epoch 1's again
    model = keras.models.load_model(last)
    model.evaluate(batches.take(1), verbose=0)  # is it a network for rows like these?
    done = int(model.optimizer.iterations) // len(batches)
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return model, done


def report(model, data, run_dir):
    """Losses and accuracies per character, each given the right ones before it, as a dict."""
    scores = {}
    for part in ("train", "val", "test"):
        batches = make_batches(data, part, 256)
        scores[part] = model.evaluate(batches, verbose=0, return_dict=True)
        print(f"{part:>5} accuracy {scores[part]['accuracy']:.4f} per character")
    if any(layer.name == "attention" for layer in model.layers):
        plot_attention(model, data, run_dir / "attention.png")
    return scores


def plot_attention(model, data, path):
    """How much each English character counts for each French one, for the longest test sentence."""
    test = data["pairs"][data["pairs"]["part"] == "test"]
    english, french, _ = test.loc[test["english"].str.len().idxmax()]
    english = [char for char in english if char in data["input_tokens"]]
    french = [char for char in "\t" + french if char in data["target_tokens"]]
    texts = [vectorize([english], data["input_tokens"]), vectorize([french], data["target_tokens"])]
    attention = keras.Model(model.inputs, model.get_layer("attention").output[1])
    weights = attention.predict_on_batch([ids.to_tensor().numpy() for ids in texts])[0]
    plt.figure(figsize=(8, 8))
    plt.imshow(weights, cmap="Greys")
    plt.xticks(range(len(english)), english)
    plt.yticks(range(len(french)), [*french[1:], "end"])
    plt.savefig(path)
    plt.close()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a file of pairs')
    parser.add_argument("--attention", action="store_true", help="look back at every character")
    parser.add_argument("--num-samples", type=int, default=50000, help="pairs; default: 50000")
    parser.add_argument("--epochs", type=int, default=20, help="default: 20 (the book: 100)")
    parser.add_argument("--batch-size", type=int, default=128, help="default: 128")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/train_char_seq2seq")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"train_char_seq2seq{suffix}")
    if min(args.num_samples, args.epochs, args.batch_size) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--seed begins at 0, the other numbers at 1")
    return args


def main():
    args = parse_arguments()
    best = args.run_dir / "model.keras"
    try:
        keras.utils.set_random_seed(args.seed)
        data = load_data(args.data, args.num_samples)
        checksum = zlib.crc32(data["pairs"].to_csv().encode())
        settings = {"script": "train_char_seq2seq", "data": checksum}
        settings |= {"seed": args.seed, "batch_size": args.batch_size, "attention": args.attention}
        tokens = {name: data[name] for name in ("input_tokens", "target_tokens")}
        if args.evaluate:
            there = json.loads((args.run_dir / "settings.json").read_text())
            if there | tokens | {"data": checksum} != there:
                raise ValueError(f"{best} was trained on other pairs, perhaps on some of these")
            return report(keras.models.load_model(best), data, args.run_dir)
        batches = make_batches(data, "train", args.batch_size)
        model, done = open_run(args.run_dir, settings | tokens, batches)
        sizes = [len(names) + 1 for names in tokens.values()]  # 0 is padding
        model = model or build_model(256, *sizes, len(batches), args.attention)
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
    metrics = settings | report(keras.models.load_model(best), data, args.run_dir)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_loss"].argmin()) + 1}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and curves are in {args.run_dir}")


if __name__ == "__main__":
    main()
