"""Chapter 11: peak memory of loading and training on 50,000 pairs, one-hot arrays against ours.

    python benchmarks/bench_seq2seq_memory.py                     # wants 10 GB of memory
    python benchmarks/bench_seq2seq_memory.py --data sample

The book's way: three float32 one-hot arrays, `fit(validation_split=0.2)`. Ours: the functions of
train_char_seq2seq.py. Each runs in a process of its own, on the same pairs, with the same LSTMs in
batches of 64, for `--steps` steps of training and 10 of validation. Counted is what the process
takes beyond the imported libraries, at its peak (VmHWM, so Linux only); the whole process stands
beside it.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from common import ROOT, load_script, record
from keras import layers

BATCH_SIZE = 64


def memory(field):
    """A field of /proc/self/status in MB: VmRSS is memory in use, VmHWM its highest so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("needs Linux")


def train_dense(script, data, steps):
    """One-hot float32 arrays and the network for them, as in the book's listings."""
    english, french = data["pairs"]["english"], "\t" + data["pairs"]["french"] + "\n"
    input_index = {char: i for i, char in enumerate(sorted(set("".join(english))))}
    target_index = {char: i for i, char in enumerate(sorted(set("".join(french))))}
    n, num_in, num_out = len(english), len(input_index), len(target_index)
    encoder_input = np.zeros((n, english.str.len().max(), num_in), "float32")
    decoder_input = np.zeros((n, french.str.len().max(), num_out), "float32")
    decoder_target = np.zeros(decoder_input.shape, "float32")
    for i, (source, target) in enumerate(zip(english, french, strict=True)):
        for t, char in enumerate(source):
            encoder_input[i, t, input_index[char]] = 1
        for t, char in enumerate(target):
            decoder_input[i, t, target_index[char]] = 1
            if t > 0:
                decoder_target[i, t - 1, target_index[char]] = 1
    source, target = keras.Input((None, num_in)), keras.Input((None, num_out))
    _, *states = layers.LSTM(256, return_state=True)(source)
    x = layers.LSTM(256, return_sequences=True)(target, initial_state=states)
    x = layers.Dense(num_out, activation="softmax")(x)
    model = keras.Model([source, target], x)
    model.compile(optimizer="rmsprop", loss="categorical_crossentropy")
    model.fit(
        [encoder_input, decoder_input],
        decoder_target,
        batch_size=BATCH_SIZE,
        validation_split=0.2,
        steps_per_epoch=steps,
        validation_steps=10,
        verbose=0,
    )


def train_ours(script, data, steps):
    """The script's own network and batches."""
    sizes = [len(data[name]) + 1 for name in ("input_tokens", "target_tokens")]
    script.build_model(256, *sizes).fit(
        script.make_batches(data, "train", BATCH_SIZE, seed=1),
        validation_data=script.make_batches(data, "val", BATCH_SIZE),
        steps_per_epoch=steps,
        validation_steps=10,
        shuffle=False,
        verbose=0,
    )


def measure(way, args):
    """Load and train in this process; returns MB of the libraries and at the peak."""
    script = load_script(ROOT / "chapter11" / "train_char_seq2seq.py")
    keras.utils.set_random_seed(1)
    keras.ops.zeros(1)  # the backend starts up
    before = memory("VmRSS")
    data = script.load_data(args.data, args.num_samples)
    {"dense": train_dense, "ours": train_ours}[way](script, data, args.steps)
    return {"pairs": len(data["pairs"]), "before": before, "peak": memory("VmHWM")}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a file of pairs')
    parser.add_argument("--num-samples", type=int, default=50000, help="default: 50000")
    parser.add_argument("--steps", type=int, default=40, help="default: 40")
    parser.add_argument("--measure", choices=("dense", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data is None and not (ROOT / "data" / "fra-eng" / "fra.txt").exists():
        sys.argv += ["--data", "sample"]
        print(
            "The real pairs are not here (python data/fetch.py fra-eng): the sample's 1,500 pairs"
        )
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    grown = {}
    for way in ("dense", "ours"):
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        grown[way] = result["peak"] - result["before"]
        print(
            f"{way:6} {result['pairs']:,} pairs: {grown[way]:8.0f} MB for loading and training, "
            f"{result['peak']:.0f} MB with the libraries"
        )
    print(f"ratio {grown['dense'] / grown['ours']:.1f}")
    record(
        f"chapter 11, memory for {result['pairs']:,} pairs", "MB", [grown["dense"]], [grown["ours"]]
    )


if __name__ == "__main__":
    main()
