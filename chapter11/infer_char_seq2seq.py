"""Translate with the networks that train_char_seq2seq.py has saved: no training here.

Book: chapter 11, "Inference" and "Example translations".

    python chapter11/infer_char_seq2seq.py                       # ten sentences of the test set
    python chapter11/infer_char_seq2seq.py --text "Go on."       # a sentence of one's own
    python chapter11/infer_char_seq2seq.py --beam-width 5
    python chapter11/infer_char_seq2seq.py --evaluate            # the whole test set again
    python chapter11/infer_char_seq2seq.py --run-dir runs/chapter11/attention_seq2seq

In a terminal it then asks for sentences, until Ctrl-D. The decoder feeds on its own characters, one
after the other, from tab to newline. The book calls `predict` for each of them; here many
sentences go through the loop together, and the whole loop is compiled once: the same characters
come out, hundreds of times faster (benchmarks/bench_seq2seq_decoding.py).

What to look for: French words, even sentences, that nobody wrote, and meanings that slip. Beam
search keeps the `--beam-width` best beginnings at every character instead of the single best.
"""

import argparse
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
from keras import ops
from train_char_seq2seq import (
    BEAM_WIDTH,
    MODEL_FILES,
    RUNS_DIR,
    keras,
    load_data,
    pd,
    positive,
    score_translations,
    test_sentences,
    to_ids,
)

START, END = "\t", "\n"
CHUNK = 128  # sentences that go through the loop together
IMPOSSIBLE = -1e9


def create_reverse_indices(data):
    """Add `input_token_index` and `reverse_target_char_index`, {number: character}, to `data`."""
    data["input_token_index"] = {char: i for i, char in enumerate(data["input_chars"])}
    data["target_token_index"] = {char: i for i, char in enumerate(data["target_chars"])}
    data["reverse_target_char_index"] = dict(enumerate(data["target_chars"]))
    return data


def load_characters(run_dir):
    """The character tables that the training saved beside its networks.

    Raises:
        OSError: there are none. ValueError: they cannot be read.
    """
    path = run_dir / "characters.json"
    if not path.exists():
        raise OSError(f"{path} does not exist; train first: python chapter11/train_char_seq2seq.py")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if len(data["target_chars"]) != data["num_decoder_tokens"]:
            raise ValueError("its counts disagree")
        return create_reverse_indices(data)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); train again") from error


def load_models(run_dir):
    """[training model, encoder, decoder] as saved in `run_dir`.

    Raises:
        OSError: one is missing. ValueError: one cannot be read.
    """
    models = []
    for name in MODEL_FILES:
        path = run_dir / name
        if not path.exists():
            raise OSError(f"{path} does not exist; train first, to the end of the training")
        try:
            models.append(keras.models.load_model(path))  # safe mode: runs no code from the file
        except Exception as error:  # many kinds, depending on which part of the file is damaged
            raise ValueError(f"{path} cannot be loaded ({error}); train again") from error
    return models


def compile_decoder(encoder_model, decoder_model, data, beam_width=1):
    """The decoding loop for batches, compiled: character numbers of English to those of French.

    At every step each sentence has `beam_width` beginnings. All their continuations by one
    character compete, and the most probable `beam_width` go on; with a width of 1 that is greedy
    search, the book's. In the end the beginning with the best mean log probability per character
    wins: the plain sum would favour short ones.

    It serves the network with attention just as well: whatever the encoder returns behind its two
    states is handed to the decoder unchanged at every step.

    Returns:
        function of ids (n, length) to ids (n, `max_decoder_seq_length`), filled up with END.
    """
    width, num_tokens = beam_width, data["num_decoder_tokens"]
    max_length = data["max_decoder_seq_length"]
    start, end = data["target_token_index"][START], data["target_token_index"][END]
    # A finished sentence goes on with END for ever, at no cost.
    only_end = np.full(num_tokens, IMPOSSIBLE, "float32")
    only_end[end] = 0

    def decode(ids):
        n = ops.shape(ids)[0]

        def of_parents(values, parents):  # (n * width, …) reordered within each sentence
            rows = ops.reshape(ops.arange(n)[:, None] * width + parents, (-1,))
            return ops.take(values, rows, axis=0)

        state_h, state_c, *memory = [
            ops.repeat(state, width, axis=0) for state in encoder_model(ids, training=False)
        ]

        def unfinished(step, last, score, *_):
            return ops.logical_or(step == 0, ops.any(last != end))

        def extend(step, last, score, texts, state_h, state_c):
            outputs = decoder_model([last, state_h, state_c, *memory], training=False)
            chances = ops.log(ops.maximum(outputs[0][:, 0], 1e-30))
            chances = ops.where(last == end, only_end, chances)
            chances = ops.reshape(score[:, :, None] + ops.reshape(chances, (n, width, -1)), (n, -1))
            score, chosen = ops.top_k(chances, width)
            chosen = ops.cast(chosen, "int32")
            parents, last = chosen // num_tokens, ops.reshape(chosen % num_tokens, (-1, 1))
            texts = ops.where(ops.arange(max_length) == step, last, of_parents(texts, parents))
            states = [of_parents(state, parents) for state in outputs[1:3]]
            return step + 1, last, score, texts, *states

        first = np.full((1, width), IMPOSSIBLE, "float32")  # all beams start equal: only one counts
        first[0, 0] = 0
        loop_vars = (
            ops.convert_to_tensor(0, "int32"),
            ops.full((n * width, 1), start, "int32"),
            ops.repeat(ops.convert_to_tensor(first), n, axis=0),
            ops.full((n * width, max_length), end, "int32"),
            state_h,
            state_c,
        )
        _, _, score, texts, *_ = ops.while_loop(
            unfinished, extend, loop_vars, maximum_iterations=max_length
        )
        texts = ops.reshape(texts, (n, width, max_length))
        lengths = ops.sum(ops.cast(texts != end, "float32"), axis=-1) + 1
        lengths = ops.minimum(lengths, float(max_length))  # cut off: no END to count
        best = ops.argmax(score / lengths, axis=-1)
        return ops.take_along_axis(texts, best[:, None, None], axis=1)[:, 0]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The signature makes one compiled loop serve batches of every shape.
        return tf.function(decode, input_signature=[tf.TensorSpec((None, None), "int32")])
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(decode)
    return decode


def decode_sequence(input_seq, data, decode):
    """Translations, list of str, of sentences given as character numbers (n, length).

    The book's function of this name takes one sentence and the two models; here `decode` is what
    `compile_decoder` has made of them.
    """
    reverse = data["reverse_target_char_index"]
    found = ops.convert_to_numpy(decode(input_seq))
    return ["".join(reverse[i] for i in ids).split(END)[0].strip(START) for ids in found]


def translate(texts, data, decode):
    """Translate any number of sentences; characters the network never trained on are left out."""
    texts = [drop_unknown(text, data)[0] for text in texts]
    order = np.argsort([len(text) for text in texts], kind="stable")
    translations = [""] * len(texts)
    for start in range(0, len(texts), CHUNK):
        rows = order[start : start + CHUNK]
        ids = to_ids([texts[row] for row in rows], data["input_token_index"])
        # Lengths in multiples of 8: each new shape may be compiled anew.
        padding = ((0, 0), (0, -ids.shape[1] % 8))
        ids = np.pad(ids, padding, constant_values=data["num_encoder_tokens"]).astype("int32")
        for row, text in zip(rows, decode_sequence(ids, data, decode), strict=True):
            translations[row] = text if texts[row] else ""
    return translations


def drop_unknown(text, data):
    """(the text in NFC without the characters that were in no training sentence, those)."""
    text = unicodedata.normalize("NFC", text.strip())
    unknown = (set(text) - set(data["input_chars"])) | (set(text) & set(data["untrained_chars"]))
    return "".join(char for char in text if char not in unknown), sorted(unknown)


def answer(text, data, decode):
    """Translate one sentence and print it, with a word on what the network cannot know."""
    known, unknown = drop_unknown(text, data)
    if unknown:
        print(f"Skipped, never seen in training: {' '.join(map(repr, unknown))}")
    if not known:
        print("Nothing is left to translate.")
        return
    longest = data["max_encoder_seq_length"]
    if len(known) > longest:
        print(f"{len(known)} characters; no training sentence has more than {longest}.")
    print(f"Input sentence:   {known}")
    print(f"Decoded sentence: {translate([text], data, decode)[0]}")


def load_test_set(args):
    """The test sentences of the training in `args.run_dir`, as `test_sentences` returns them.

    Raises:
        OSError, ValueError: the pairs are not there, or are no longer those of the training.
    """
    try:
        settings = json.loads((args.run_dir / "settings.json").read_text())
        source, num_samples = args.data or settings["data"], settings["num_samples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{args.run_dir / 'settings.json'} is unreadable ({error})") from error
    return test_sentences(load_data(source, num_samples))


def show_samples(test, data, decode, count):
    """Print some test sentences, drawn at random, with a right translation and the network's."""
    chosen = test.sample(min(count, len(test)), random_state=0)
    decoded = translate(chosen["english"], data, decode)
    for english, right, text in zip(chosen["english"], chosen["references"], decoded, strict=True):
        print(f"-\nInput sentence:      {english}\nCorrect translation: {' | '.join(right)}")
        print(f"Decoded sentence:    {text}")


def evaluate(test, data, decode, run_dir, beam_width):
    """Score the whole test set, and compare with what the training process wrote down."""
    translations = translate(test["english"], data, decode)
    scores = score_translations(translations, test["references"])
    print(f"-\n{len(test):,} test sentences: BLEU {scores['bleu']:.2f}, ", end="")
    print(f"chrF {scores['chrf']:.2f}, exact match {scores['exact_match']:.1f} %")
    column, path = {1: "greedy", BEAM_WIDTH: "beam"}.get(beam_width), run_dir / "translations.tsv"
    if column and path.exists():
        saved = pd.read_csv(path, sep="\t", keep_default_na=False)
        saved = dict(zip(saved["english"], saved[column], strict=True))
        same = sum(
            saved.get(english) == text
            for english, text in zip(test["english"], translations, strict=True)
        )
        print(f"{same:,} of {len(test):,} are letter for letter those of the training process")


def ask(data, decode):
    """Translate what is typed, line by line, until the end of input."""
    print("\nAn English sentence, and Enter; Ctrl-D ends.")
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print("\nAu revoir.")
            return
        if text.strip():
            answer(text, data, decode)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help="the pairs, if they lie elsewhere now")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter11/char_seq2seq")
    parser.add_argument("--text", nargs="+", metavar="SENTENCE", help="sentences to translate")
    parser.add_argument("--beam-width", type=positive, default=1, help="default: 1, greedy")
    parser.add_argument("--samples", type=positive, default=10, help="test sentences shown")
    parser.add_argument("--evaluate", action="store_true", help="score the whole test set")
    args = parser.parse_args()
    if args.run_dir is None:
        name = "char_seq2seq_sample" if args.data == "sample" else "char_seq2seq"
        args.run_dir = RUNS_DIR / name
    try:
        data = load_characters(args.run_dir)
        _, encoder_model, decoder_model = load_models(args.run_dir)
        test = None if args.text else load_test_set(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    decode = compile_decoder(encoder_model, decoder_model, data, args.beam_width)
    if args.text:
        for text in args.text:
            answer(text, data, decode)
        return
    show_samples(test, data, decode, args.samples)
    if args.evaluate:
        evaluate(test, data, decode, args.run_dir, args.beam_width)
    if sys.stdin.isatty():
        ask(data, decode)


if __name__ == "__main__":
    main()
