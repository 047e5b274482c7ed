"""Chapter 11: seconds to translate 200 sentences, `predict` per character against ours, in one run.

    python benchmarks/bench_seq2seq_decoding.py                  # about 8 minutes on 2 cores
    python benchmarks/bench_seq2seq_decoding.py --sentences 20

The book's way: one sentence after the other, one call of `decoder_model.predict` for each
character. Ours: infer_char_seq2seq.py's compiled loop, all sentences together. Both use the same
saved networks (train first; without a trained run, untrained ones on the sample) and must find the
same characters. Ours is timed after one warm-up, which compiles; the book's loop has warmed up
after a few characters.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "chapter11"))

import infer_char_seq2seq as infer
import keras
import numpy as np
import train_char_seq2seq as train
from common import record
from tqdm import tqdm


def decode_as_the_book(text, data, encoder_model, decoder_model):
    """Greedy decoding of one sentence, a `predict` per character."""
    ids = train.to_ids([text], data["input_token_index"])
    state_h, state_c, *memory = encoder_model.predict(ids, verbose=0)
    last = np.array([[data["target_token_index"]["\t"]]])
    decoded = ""
    while len(decoded) < data["max_decoder_seq_length"]:
        outputs = decoder_model.predict([last, state_h, state_c, *memory], verbose=0)
        probabilities, state_h, state_c = outputs[:3]
        last = probabilities[:, -1].argmax(axis=-1)[:, None]
        char = data["reverse_target_char_index"][int(last[0, 0])]
        if char == "\n":
            break
        decoded += char
    return decoded.strip("\t")


def load_networks(run_dir):
    """(data, encoder, decoder, test sentences, what they are)."""
    if (run_dir / train.MODEL_FILES[2]).exists():
        data = infer.load_characters(run_dir)
        _, encoder_model, decoder_model = infer.load_models(run_dir)
        args = argparse.Namespace(run_dir=run_dir, data=None)
        return data, encoder_model, decoder_model, infer.load_test_set(args), f"{run_dir}"
    data = infer.create_reverse_indices(train.load_data("sample"))
    sizes = data["num_encoder_tokens"], data["num_decoder_tokens"]
    _, encoder_model, decoder_model = train.build_models(256, *sizes)
    return (
        data,
        encoder_model,
        decoder_model,
        train.test_sentences(data),
        "untrained, on the sample",
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=200, help="default: 200")
    parser.add_argument(
        "--book-sentences", type=int, help="so many one by one, scaled up (default: all)"
    )
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=train.RUNS_DIR / "char_seq2seq",
        help="where the networks are",
    )
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    data, encoder_model, decoder_model, test, what = load_networks(args.run_dir)
    texts = list(test["english"].sample(args.sentences, random_state=1, replace=len(test) < 200))
    decode = infer.compile_decoder(encoder_model, decoder_model, data)
    beam = infer.compile_decoder(encoder_model, decoder_model, data, train.BEAM_WIDTH)
    for loop in (decode, beam):
        infer.translate(texts, data, loop)
    decode_as_the_book(texts[0], data, encoder_model, decoder_model)

    one_by_one, books, seconds, beam_seconds = [], [], [], []
    for share in tqdm(np.array_split(texts[: args.book_sentences], args.turns), desc="Turns"):
        start = time.perf_counter()
        one_by_one += [
            decode_as_the_book(str(text), data, encoder_model, decoder_model) for text in share
        ]
        books.append((time.perf_counter() - start) / len(share) * len(texts))
        for loop, times in ((decode, seconds), (beam, beam_seconds)):
            start = time.perf_counter()
            translations = infer.translate(texts, data, loop)
            times.append(time.perf_counter() - start)
            if loop is decode:
                greedy = translations

    length = statistics.mean(map(len, one_by_one)) + 1
    same = sum(a == b for a, b in zip(one_by_one, greedy, strict=False))
    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"{len(texts)} sentences, {length:.1f} characters each, networks: {what}"
    )
    print(f"seconds for all of them, median (lowest to highest) of {args.turns} turns")
    for name, times in (
        ("predict per character", books),
        ("ours, greedy", seconds),
        (f"ours, beam of {train.BEAM_WIDTH}", beam_seconds),
    ):
        median = statistics.median(times)
        print(f"{name:22} {median:9.3f} ({min(times):.3f} to {max(times):.3f})")
    print(f"ratio, greedy          {statistics.median(books) / statistics.median(seconds):9.0f}")
    record(f"chapter 11, translating {len(texts)} sentences", "s", books, seconds)
    print(f"the same text for {same} of {len(one_by_one)} sentences")


if __name__ == "__main__":
    main()
