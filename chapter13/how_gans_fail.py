"""Make a GAN fail on purpose, in the two ways that the chapter describes, where one can look on.

Book: chapter 13, "How GANs can fail". Needs gan_mnist.py beside it, and the TensorFlow backend.

    python chapter13/how_gans_fail.py

The data are points in the plane, in eight heaps on a circle, so that no classifier is needed to say
which of them a generator makes: its points near a heap count for it. "Mode collapse": most points
are near heaps, but of no more than four. "Off the data": most are not even near.

First the learning rates: trainings that differ in nothing else. Then the loss: once a discriminator
is far ahead, most points get less and less gradient from log(1 - D), the loss that saturates, but
not from -log D, the book's (label 1 for made images).
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from gan_mnist import GAN
from keras import layers

ANGLES = 2 * np.pi * np.arange(8) / 8
CENTRES = 0.7 * np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])  # of heaps 0.05 wide
TRAININGS = {  # learning rates of generator and discriminator
    "healthy": (0.001, 0.003),
    "fast discriminator": (0.001, 0.012),
    "slow discriminator": (0.001, 0.0003),
    "slow generator": (0.00001, 0.003),
    "both slow": (0.00001, 0.00003),
    "rather slow generator": (0.0002, 0.002),
}


def load_data(number=20000):
    """Points, float32 (number, 2), around the centres in turn."""
    noise = np.random.default_rng(0).normal(scale=0.05, size=(number, 2))
    return (CENTRES[np.arange(number) % 8] + noise).astype("float32")


def build_networks():
    """A generator, noise (n, 100) to points (n, 2), and a discriminator of points."""
    noise, point = keras.Input((100,)), keras.Input((2,))
    x, y = noise, point
    for _ in range(2):
        x = layers.Dense(128, activation="relu")(x)
        y = layers.LeakyReLU(negative_slope=0.2)(layers.Dense(128)(y))
    generator = keras.Model(noise, layers.Dense(2)(x))
    return generator, keras.Model(point, layers.Dense(1, activation="sigmoid")(y))


class PlaneGAN(GAN):
    """GAN with an optimizer, and so a learning rate, for each network, and a choice of the loss."""

    def __init__(self, g_rate, d_rate, saturating=False):
        super().__init__(*build_networks())
        self.saturating = saturating
        self.optimizers = [keras.optimizers.Adam(rate, beta_1=0.5) for rate in (g_rate, d_rate)]
        self.optimizers[0].build(self.generator.trainable_variables)
        self.optimizers[1].build(self.discriminator.trainable_variables)
        self.compile(steps_per_execution=20)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred)
        if self.saturating:  # log(1 - D) in the place of -log D
            opinion = tf.clip_by_value(y_pred[2], 1e-7, 1 - 1e-7)  # as Keras does in -log D
            loss += tf.reduce_mean(tf.math.log(opinion) + tf.math.log(1 - opinion))
        return loss

    def train_step(self, points):
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(None, None, self(points))
        networks = (self.generator, self.discriminator)
        for network, optimizer in zip(networks, self.optimizers, strict=True):
            variables = network.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
        return {"d_accuracy": self.d_accuracy.result(), "g_loss": self.g_loss.result()}


def train(gan, points, steps, seed):
    """Train for so many steps of 512; the discriminator's accuracy in them."""
    rows = tf.data.Dataset.from_tensor_slices(points * 127.5 + 127.5)  # a GAN expects pixels
    rows = rows.shuffle(len(points), seed).repeat().batch(256).take(steps)
    return gan.fit(rows, verbose=0, shuffle=False).history["d_accuracy"][-1]


def measure(points):
    """Of points (n, 2): the share near a heap, the heaps with 3 % or more, and a verdict."""
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=2)
    near = distances.min(axis=1) < 0.15
    heaps = np.bincount(distances.argmin(axis=1)[near], minlength=8) / len(points)
    found = int((heaps > 0.03).sum())
    verdict = "off the data" if near.mean() < 0.5 else "healthy" if found > 4 else "mode collapse"
    return {"near": float(near.mean()), "heaps": found, "verdict": verdict}


def measure_gradients(gan, noise):
    """Lengths of the gradients of both losses at made points, and what D says of them: medians."""
    made = gan.generator(noise)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(made)
        opinion = tf.clip_by_value(gan.discriminator(made), 1e-7, 1 - 1e-7)
        losses = {"log(1 - D)": tf.math.log(1 - opinion), "-log D": -tf.math.log(opinion)}
    figures = {"D": float(np.median(opinion))}
    for name, loss in losses.items():
        figures[name] = float(np.median(np.linalg.norm(tape.gradient(loss, made), axis=1)))
    return figures


def show_rates(points, noise, steps, seed, run_dir):
    """Train once for each of TRAININGS; their measures, and a picture of their points."""
    fig, axes = plt.subplots(2, 3, figsize=(9, 6), sharex=True, sharey=True, layout="constrained")
    results = {}
    for ax, (name, rates) in zip(axes.flat, TRAININGS.items(), strict=True):
        keras.utils.set_random_seed(seed)
        gan = PlaneGAN(*rates)
        accuracy = train(gan, points, steps, seed)
        made = gan.generator.predict(noise, verbose=0)
        results[name] = {"g_rate": rates[0], "d_rate": rates[1], "d_accuracy": accuracy}
        results[name] |= measure(made)
        ax.scatter(*points[:500].T, s=2, color="lightgrey")
        ax.scatter(*made.T, s=2)
        ax.set(title=f"{name}\n{results[name]['verdict']}", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    print(pd.DataFrame(results).T.to_string())
    fig.savefig(run_dir / "points.png")
    return results


def show_losses(points, noise, steps, seed, run_dir):
    """Gradients the further the discriminator is ahead, then trainings that begin from there."""
    gradients, results = [], {}
    for saturating in (True, False):
        keras.utils.set_random_seed(seed)
        gan = PlaneGAN(0.0, 0.003, saturating)  # the generator does not move yet
        for ahead in (20, 100, 200, 400, 800):
            train(gan, points, ahead - int(gan.steps), seed)
            gradients.append({"ahead": ahead} | measure_gradients(gan, noise))
        gan.optimizers[0].learning_rate = 0.001
        train(gan, points, steps, seed)
        made = gan.generator.predict(noise, verbose=0)
        results["log(1 - D)" if saturating else "-log D"] = measure(made)
    table = pd.DataFrame(gradients[:5]).set_index("ahead")
    ax = table.plot(logy=True, marker="o", grid=True, ylabel="D; gradients (median point)")
    ax.set_xlabel("steps that the discriminator is ahead")
    plt.savefig(run_dir / "gradients.png")
    print(table, results, sep="\n")
    return {"gradients": gradients[:5], "from_there": results}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="of a training; default: 4000")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, default="runs/how_gans_fail", help="a new folder")
    args = parser.parse_args()
    if args.steps < 1 or not 0 <= args.seed < 2**32:
        parser.error("--steps begins at 1, --seed at 0")
    try:
        if keras.backend.backend() != "tensorflow":
            raise ValueError("needs the TensorFlow backend: unset KERAS_BACKEND")
        args.run_dir.mkdir(parents=True, exist_ok=True)
        if any(args.run_dir.iterdir()):
            raise ValueError("it holds files; give another --run-dir")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {args.run_dir}: {error}")
    points = load_data()
    noise = np.random.default_rng(0).normal(size=(1000, 100)).astype("float32")
    usual = (points, noise, args.steps, args.seed, args.run_dir)
    metrics = {"script": "how_gans_fail", "seed": args.seed, "steps": args.steps}
    metrics |= {"rates": show_rates(*usual), "losses": show_losses(*usual)}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Figures and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
