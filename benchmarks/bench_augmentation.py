"""Chapter 7's augmentation: what an epoch costs without it, by layers, and the book's way.

    python benchmarks/bench_augmentation.py           # about 2 minutes on 2 cores

Three ways to train the same network on the same images at the same batch size, by turns, after a
warm-up epoch: plain; with the script's `create_datagen`, layers that change a whole batch while
the one before trains; with the book's `ImageDataGenerator`, which changes image by image with SciPy
(kept by TensorFlow as `tf.keras.preprocessing.image`, deprecated). The same turns, shifts and flips
in both. Below: the changes alone, without training.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import ROOT, load_script, record

BATCH_SIZE = 32
TRIP = 16  # batches: `steps_per_execution` of the script


class TimeTrips(keras.callbacks.Callback):
    """Seconds of each trip from Python to TensorFlow, the first of the epoch left out.

    Their median does not move when other programs hold up this one for a moment.
    """

    def on_train_begin(self, logs=None):
        self.seconds, self.last = [], None

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.last:
            self.seconds.append(now - self.last)
        self.last = now


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5_120, help="per epoch (default: 5120)")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs each (default: 5)")
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    script = load_script(ROOT / "chapter07" / "cnn_cifar10_augmented.py")
    data = script.load_data("sample")  # the speed does not depend on what the images show
    chosen = np.resize(np.arange(len(data["train_X"])), args.images)
    X, y = data["train_X"][chosen], data["train_y"][chosen]

    host = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=20, width_shift_range=0.02, height_shift_range=0.02, horizontal_flip=True
    )
    plain, for_host, ours = (script.build_network() for _ in range(3))
    datagen = script.create_datagen()
    rows = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), seed=1).batch(BATCH_SIZE)
    changed = rows.map(lambda X, y: (datagen(X, training=True), y)).prefetch(2)

    per_trip = 50_000 / (TRIP * BATCH_SIZE)

    def change_by_layers():
        for _ in changed:
            pass

    def change_on_host():
        batches = host.flow(X, y, batch_size=BATCH_SIZE)
        for index in range(len(batches)):
            batches[index]

    contestants = {
        "plain": (plain, rows),
        "layers (ours)": (ours, changed),
        "host (the book's)": (for_host, host.flow(X, y, batch_size=BATCH_SIZE)),
    }
    alone = {"layers, changes alone": change_by_layers, "host, changes alone": change_on_host}
    seconds = {name: [] for name in [*contestants, *alone]}
    for turn in range(args.repeats + 1):
        for name, (model, batches) in contestants.items():
            trips = TimeTrips()
            model.fit(batches, shuffle=False, verbose=0, callbacks=[trips])
            if turn > 0:  # the first epoch compiles
                seconds[name] += [trip * per_trip for trip in trips.seconds]
        for name, run in alone.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                seconds[name].append((time.perf_counter() - start) * 50_000 / len(X))

    print(f"Keras {keras.__version__} on {keras.backend.backend()}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} cores, batch size {BATCH_SIZE}, {args.images} images")
    print("seconds for 50,000 images, median (first to third quartile) of", end=" ")
    print(f"{len(seconds['plain'])} trips of {TRIP} batches")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        low, _, high = statistics.quantiles(values, n=4)
        print(f"{name:25} {median[name]:6.1f} ({low:.1f} to {high:.1f})")
    for top, bottom in (
        ("layers (ours)", "plain"),
        ("host (the book's)", "plain"),
        ("host (the book's)", "layers (ours)"),
        ("host, changes alone", "layers, changes alone"),
    ):
        print(f"{top + ' / ' + bottom:50} {median[top] / median[bottom]:6.2f}")
    record(
        "chapter 7, CNN: training on changed images",
        "s for 50,000",
        seconds["host (the book's)"],
        seconds["layers (ours)"],
    )


if __name__ == "__main__":
    main()
