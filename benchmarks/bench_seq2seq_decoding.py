"""Chapter 11: seconds to translate 200 sentences, `predict` per character against ours, in one run.

    python benchmarks/bench_seq2seq_decoding.py                  # about 8 minutes on 2 cores
    python benchmarks/bench_seq2seq_decoding.py --sentences 20

The book's way: one sentence after the other, one call of `decoder_model.predict` for each
character. Ours: infer_char_seq2seq.py's `translate`, sentences of one length together. Both use the
same saved network (train first; without a trained run, an untrained one on the sample) and must
find the same characters. Ours is timed after one warm-up, which compiles; the book's loop has
warmed up after a few characters.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import pandas as pd
from common import ROOT, load_script, record
from tqdm import tqdm

infer = load_script(ROOT / "chapter11" / "infer_char_seq2seq.py")


def decode_as_the_book(text, data, encoder_model, decoder_model):
    """Greedy decoding of one sentence, a `predict` per character."""
    index = data["input_token_index"]
    ids = np.array([[index[char] for char in text if char in index]])
    states = encoder_model.predict(ids, verbose=0)
    last = np.array([[data["target_tokens"].index("\t") + 1]])
    decoded = ""
    while len(decoded) < 2 * ids.shape[1] + 49:
        probabilities, *new_states = decoder_model.predict([last, *states], verbose=0)
        states[: len(new_states)] = new_states
        last = probabilities[:, -1].argmax(axis=-1)[:, None]
        char = data["reverse_target_token_index"][int(last[0, 0])]
        if char == "\n":
            break
        decoded += char
    return decoded.strip()


def load_networks(run_dir):
    """(data, encoder, decoder, test sentences) of a run of LSTMs."""
    data = infer.create_reverse_indices(json.loads((run_dir / "settings.json").read_text()))
    pairs = pd.read_csv(run_dir / "pairs.csv", keep_default_na=False)
    test = pairs["english"][pairs["part"] == "test"].drop_duplicates()
    return data, *infer.load_models(run_dir)[1:], test


def make_untrained_run(run_dir):
    """What a run on the sample begins with."""
    train = load_script(ROOT / "chapter11" / "train_char_seq2seq.py")
    data = train.load_data("sample")
    tokens = {name: data[name] for name in ("input_tokens", "target_tokens")}
    train.build_model(256, *(len(names) + 1 for names in tokens.values())).save(
        run_dir / "model.keras"
    )
    data["pairs"].to_csv(run_dir / "pairs.csv", index=False)
    (run_dir / "settings.json").write_text(json.dumps(tokens))


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
        default="runs/train_char_seq2seq",
        help="where the network is",
    )
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    what = str(args.run_dir)
    if not (args.run_dir / "model.keras").exists():
        args.run_dir, what = Path(tempfile.mkdtemp()), "untrained, on the sample"
        make_untrained_run(args.run_dir)
    data, encoder_model, decoder_model, test = load_networks(args.run_dir)
    texts = test.sample(args.sentences, random_state=1, replace=len(test) < args.sentences)
    texts = texts.tolist()
    infer.translate(texts, data, encoder_model, decoder_model)
    decode_as_the_book(texts[0], data, encoder_model, decoder_model)

    one_by_one, books, seconds = [], [], []
    for share in tqdm(np.array_split(texts[: args.book_sentences], args.turns), desc="Turns"):
        start = time.perf_counter()
        one_by_one += [
            decode_as_the_book(str(text), data, encoder_model, decoder_model) for text in share
        ]
        books.append((time.perf_counter() - start) / len(share) * len(texts))
        start = time.perf_counter()
        translations = infer.translate(texts, data, encoder_model, decoder_model)
        seconds.append(time.perf_counter() - start)

    length = statistics.mean(map(len, one_by_one)) + 1
    same = sum(a == b for a, b in zip(one_by_one, translations, strict=False))
    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"{len(texts)} sentences, {length:.1f} characters each, networks: {what}"
    )
    print(f"seconds for all of them, median (lowest to highest) of {args.turns} turns")
    for name, times in (("predict per character", books), ("ours", seconds)):
        median = statistics.median(times)
        print(f"{name:22} {median:9.3f} ({min(times):.3f} to {max(times):.3f})")
    print(f"ratio                  {statistics.median(books) / statistics.median(seconds):9.0f}")
    record(f"chapter 11, translating {len(texts)} sentences", "s", books, seconds)
    print(f"the same text for {same} of {len(one_by_one)} sentences")


if __name__ == "__main__":
    main()
