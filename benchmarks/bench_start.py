"""Chapter 7: seconds from the start of Python to the first trained batch, and where they go.

    python benchmarks/bench_start.py            # about 2 minutes on 2 cores

Ours: `chapter07/cnn_cifar10.py --data sample` as a reader starts it, up to its first trip into
TensorFlow, which is 16 batches. The book's way: the same images as scaled float32, one-hot labels,
the same layers, `fit` as it comes, up to its first batch, with nothing checked or written. Each is
a fresh process, by turns, after one of each that warms up the disk. Beside them the bare import.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import BOOK, ROOT, load_script, record

CHAPTER = ROOT / "chapter07" / "cnn_cifar10.py"


def stop_at_first_batch():
    """A callback that ends the process when the first trip into TensorFlow is done."""
    import keras

    class FirstBatch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print("\nfirst batch", flush=True)
            os._exit(0)

    return FirstBatch()


def start_ours():
    """The chapter's script, with one callback more."""
    script = load_script(CHAPTER)
    create_callbacks = script.create_callbacks
    script.create_callbacks = lambda *args, **options: [
        *create_callbacks(*args, **options),
        stop_at_first_batch(),
    ]
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [str(CHAPTER), "--data", "sample", "--run-dir", f"{folder}/run"]
        script.main()


def start_book():
    """As short as it can be written."""
    import keras
    import numpy as np
    from keras import layers

    with np.load(ROOT / "data" / "samples" / "cifar10.npz") as file:
        X = file["x_train"].astype("float32") / 255
        y = keras.utils.to_categorical(file["y_train"], 10)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(64, 3, activation="relu")(inputs)
    x = layers.MaxPooling2D()(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Flatten()(layers.MaxPooling2D()(layers.BatchNormalization()(x)))
    x = layers.Dropout(0.2)(layers.Dense(512, activation="relu")(x))
    x = layers.Dropout(0.2)(layers.Dense(256, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, y, batch_size=32, verbose=0, callbacks=[stop_at_first_batch()])


def start_nothing():
    """Only what every script must wait for."""
    import keras

    keras.ops.zeros(1)
    print("\nfirst batch", flush=True)


SIDES = {BOOK: start_book, "ours": start_ours, "import keras alone": start_nothing}


def measure(side):
    """Seconds of one start."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--side", side],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = process.communicate()
    if process.returncode or "first batch" not in output:
        sys.exit(f"error: {side}: {errors.strip()[-500:]}")
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed starts each (default: 5)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return SIDES[args.side]()
    seconds = {side: [] for side in SIDES}
    for turn in range(args.repeats + 1):
        for side in SIDES:
            spent = measure(side)
            if turn > 0:
                seconds[side].append(spent)
    print(f"{os.cpu_count()} cores, seconds, median (lowest to highest) of {args.repeats} starts")
    for side, values in seconds.items():
        low, median, high = min(values), statistics.median(values), max(values)
        print(f"{side:20} {median:6.2f} ({low:.2f} to {high:.2f})")
    ratio = statistics.median(seconds[BOOK]) / statistics.median(seconds["ours"])
    print(f"{'ratio':20} {ratio:6.2f}")
    record("chapter 7, CNN: from start to first batch", "s", seconds[BOOK], seconds["ours"])


if __name__ == "__main__":
    main()
