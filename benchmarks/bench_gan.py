"""Chapter 13: steps per second, the book's loop against one compiled step, in one run.

    python benchmarks/bench_gan.py                    # about 2 minutes on 2 cores
    python benchmarks/bench_gan.py --steps 10         # quick look

The book's loop: `predict` for the generated images, `train_on_batch` of the discriminator with the
real ones and with the generated ones, `train_on_batch` of the stacked model; the discriminator is
frozen before and thawed after the last, so that both networks train. Ours: gan_mnist.py's `GAN`
through `fit`, in which the discriminator makes one update from both half-batches. Networks, images
(MNIST's size) and batch size are the same. Both are warmed up; then they take turns.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chapter13"))

import gan_mnist
import keras
import numpy as np
import tensorflow as tf
from common import record
from tqdm import tqdm


def create_optimizer():
    return keras.optimizers.Adam(learning_rate=0.0002, beta_1=0.5)


class BookLoop:
    """The chapter's training loop, made to train on Keras 3."""

    def __init__(self, images, batch_size):
        self.images, self.half = images / np.float32(127.5) - 1, batch_size // 2
        self.rng = np.random.default_rng(0)
        self.generator = gan_mnist.build_generator()
        self.discriminator = gan_mnist.build_discriminator()
        self.discriminator.compile(create_optimizer(), "binary_crossentropy", metrics=["accuracy"])
        self.discriminator.trainable = False
        noise = keras.Input((100,))
        self.stacked = keras.Model(noise, self.discriminator(self.generator(noise)))
        self.stacked.compile(create_optimizer(), "binary_crossentropy")

    def run(self, steps):
        """Make `steps` steps."""
        for _ in range(steps):
            noise = self.rng.normal(0, 1, (self.half, 100))
            fake_images = self.generator.predict(noise, verbose=0)
            real_images = self.images[self.rng.integers(0, len(self.images), self.half)]
            self.discriminator.trainable = True
            self.discriminator.train_on_batch(real_images, np.ones((self.half, 1)))
            self.discriminator.train_on_batch(fake_images, np.zeros((self.half, 1)))
            self.discriminator.trainable = False
            noise = self.rng.normal(0, 1, (2 * self.half, 100))
            self.stacked.train_on_batch(noise, np.ones((2 * self.half, 1)))


class OurLoop:
    """gan_mnist.py's way."""

    def __init__(self, images, batch_size):
        rows = tf.data.Dataset.from_tensor_slices(images)
        self.batches = rows.shuffle(len(images), 0).batch(batch_size // 2)
        self.gan = gan_mnist.GAN(gan_mnist.build_generator(), gan_mnist.build_discriminator())
        self.gan.compile(create_optimizer())

    def run(self, steps):
        """Make `steps` steps."""
        self.gan.fit(self.batches.take(steps), shuffle=False, verbose=0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="in a turn (default: 100)")
    parser.add_argument("--turns", type=int, default=3, help="default: 3")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    args = parser.parse_args()
    keras.utils.set_random_seed(1)
    number = args.steps * args.batch_size
    images = np.random.default_rng(0).integers(0, 256, (number, 28, 28, 1)).astype("uint8")
    loops = {
        "the book's loop": BookLoop(images, args.batch_size),
        "ours, through fit": OurLoop(images, args.batch_size),
    }
    speeds = {name: [] for name in loops}
    for loop in loops.values():
        loop.run(5)
    for _ in tqdm(range(args.turns), desc="Turns"):
        for name, loop in loops.items():
            start = time.perf_counter()
            loop.run(args.steps)
            speeds[name].append(args.steps / (time.perf_counter() - start))
    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, batch "
        f"size {args.batch_size}; steps per second, median of {args.turns} (lowest to highest)"
    )
    for name, values in speeds.items():
        print(
            f"{name:24} {statistics.median(values):6.1f} ({min(values):.1f} to {max(values):.1f})"
        )
    book, ours = (statistics.median(values) for values in speeds.values())
    print(f"ratio {ours / book:.2f}")
    record("chapter 13, GAN: training", "steps/s", *speeds.values())


if __name__ == "__main__":
    main()
