"""Train the book's generative adversarial network (GAN): it learns to write digits.

Book: chapter 13, "Generating MNIST images using a Keras GAN".

    python chapter13/gan_mnist.py                   # the real set (11 MB, fetched once)
    python chapter13/gan_mnist.py --data sample     # 4,000 of its digits, needs no network
    python chapter13/gan_mnist.py --data faces/     # your own images, made grey, 28 x 28
    python chapter13/gan_mnist.py --ema 0.999 --run-dir runs/gan_ema    # averaged over its steps

The generator turns 100 random numbers into an image; the discriminator says how probably an image
is a real one. Each learns from the other. evaluate_gan.py judges what comes of it.
"""

import argparse
import json
import os
import sys
import zlib
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import callbacks, layers, ops

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "mnist.npz"
MOMENTS = (1, 50, 200)  # steps after which the book shows its generator; then every epoch


def load_data(source=None):
    """A dict with `train_X`: images, uint8 (n, side, side, channels), 0-255. A GAN takes no labels.

    `source` is None for MNIST (LeCun, Cortes and Burges), "sample", an .npz file with `x_train`,
    or a folder of .jpg, .png, .bmp and .gif files: the middle square of each, made 28 x 28, grey.
    """
    if source is None:
        (train_X, _), _ = keras.datasets.mnist.load_data()
    elif Path(source).is_dir():
        images = keras.utils.image_dataset_from_directory(
            source,
            labels=None,
            image_size=(28, 28),
            interpolation="area",
            crop_to_aspect_ratio=True,
            shuffle=False,
        )
        images = images.map(tf.image.rgb_to_grayscale).as_numpy_iterator()
        train_X = np.concatenate(list(images)).round().astype("uint8")
    else:
        with np.load(SAMPLE if source == "sample" else source, allow_pickle=False) as file:
            train_X = file["x_train"]
    train_X = train_X[..., None] if train_X.ndim == 3 else train_X
    side = train_X.shape[1]  # which the generator reaches by doubling a quarter of it twice
    if train_X.dtype != np.uint8 or train_X.ndim != 4 or train_X.shape[2] != side or side % 4:
        raise ValueError("not uint8 (n, side, side) or (n, side, side, channels), side 4, 8, 12 …")
    return {"train_X": train_X}


def build_generator(noise_shape=(100,), img_shape=(28, 28, 1), dropout=0.0):
    """The book's generator: noise (n, 100) to images (n, *img_shape), -1 to 1."""
    quarter = img_shape[0] // 4
    inputs = keras.Input(noise_shape, name="noise")
    x = layers.Dense(128 * quarter * quarter, activation="relu")(inputs)
    x = layers.Reshape((quarter, quarter, 128))(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    for filters in (128, 64):  # twice as high, twice as wide
        x = layers.UpSampling2D()(x)
        x = layers.Conv2D(filters, kernel_size=3, padding="same", activation="relu")(x)
        x = layers.BatchNormalization(momentum=0.8)(x)
        x = layers.Dropout(dropout)(x)  # a safe choice of the chapter
    x = layers.Conv2D(img_shape[2], kernel_size=3, padding="same")(x)
    outputs = layers.Activation("tanh", name="image")(x)
    return keras.Model(inputs, outputs, name="generator")


def build_discriminator(img_shape=(28, 28, 1), spectral_norm=False):
    """The book's discriminator: images (n, *img_shape), -1 to 1, to how probably real, (n, 1)."""
    # Spectral normalization (Miyato et al., 2018): no layer's output grows faster than its input.
    limit = layers.SpectralNormalization if spectral_norm else lambda layer: layer
    inputs = keras.Input(img_shape, name="image")
    x = limit(layers.Conv2D(32, kernel_size=3, strides=2, padding="same"))(inputs)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.Dropout(0.25)(x)
    x = limit(layers.Conv2D(64, kernel_size=3, strides=2, padding="same"))(x)
    x = layers.ZeroPadding2D(padding=((0, 1), (0, 1)))(x)  # 7 x 7 becomes 8 x 8
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = limit(layers.Conv2D(128, kernel_size=3, strides=2, padding="same"))(x)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = limit(layers.Conv2D(256, kernel_size=3, strides=1, padding="same"))(x)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    outputs = limit(layers.Dense(1, activation="sigmoid"))(x)
    return keras.Model(inputs, outputs, name="discriminator")


class GAN(keras.Model):
    """Both networks, and the losses by which one `fit` trains both, on each backend of Keras.

    soft_labels: real images count as 0.7 to 1, generated ones as 0 to 0.3, instead of 1 and 0.
    ema: momentum of `averaged`, a generator whose weights are running averages; 0: there is none.
    """

    def __init__(self, generator, discriminator, soft_labels=False, ema=0.0):
        super().__init__(name="gan")
        self.generator, self.discriminator = generator, discriminator
        self.averaged = keras.models.clone_model(generator) if ema else generator
        self.averaged.trainable = not ema
        self.soft_labels, self.ema = soft_labels, ema
        self.random = keras.random.SeedGenerator()
        self.steps = self.add_weight(name="steps", initializer="zeros", trainable=False)
        self.d_loss, self.g_loss = keras.metrics.Mean("d_loss"), keras.metrics.Mean("g_loss")
        self.d_accuracy = keras.metrics.BinaryAccuracy("d_accuracy")
        self.built = True

    def get_config(self):
        names = ("generator", "discriminator", "soft_labels", "ema")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))

    def call(self, images):
        """Probabilities of "real" for half a batch of images, as many made ones, and a batch."""
        half_batch = ops.shape(images)[0]
        real_images = ops.cast(images, "float32") / 127.5 - 1
        noise = keras.random.normal((2 * half_batch, 100), seed=self.random)
        fake_images = self.generator(noise, training=True)
        # Apart, since batch normalization would mix the two. No gradient reaches the generator.
        real = self.discriminator(real_images, training=True)
        fake = self.discriminator(ops.stop_gradient(fake_images[:half_batch]), training=True)
        # The book's stacked model: its discriminator learns nothing, and normalizes as above.
        frozen = [ops.stop_gradient(w) for w in self.discriminator.trainable_variables]
        frozen = frozen, self.discriminator.non_trainable_variables
        stack, _ = self.discriminator.stateless_call(*frozen, fake_images, training=True)
        self.average()
        return real, fake, stack

    def average(self):
        """Count the step; move the weights of `averaged` a little towards the generator's."""
        self.steps.assign_add(1)
        if self.ema:
            share = ops.maximum(1 - self.ema, 9 / (9 + self.steps))  # more in the beginning
            for mean, weight in zip(self.averaged.weights, self.generator.weights, strict=True):
                mean.assign(mean + share * (weight - mean))

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        """The discriminator's loss and the generator's, each with gradients for its own network."""
        real, fake, stack = y_pred
        real_labels, fake_labels = ops.ones_like(real), ops.zeros_like(fake)
        self.d_accuracy.update_state(real_labels, real)
        self.d_accuracy.update_state(fake_labels, fake)
        if self.soft_labels:
            real_labels -= keras.random.uniform(ops.shape(real), 0, 0.3, seed=self.random)
            fake_labels += keras.random.uniform(ops.shape(fake), 0, 0.3, seed=self.random)
        loss = keras.losses.BinaryCrossentropy()
        d_loss = 0.5 * (loss(real_labels, real) + loss(fake_labels, fake))
        g_loss = loss(ops.ones_like(stack), stack)
        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return d_loss + g_loss


def save_imgs(generator, path):
    """Write a grid of 5 x 5 images, made from the same noise each time."""
    noise = np.random.default_rng(0).normal(size=(25, 100)).astype("float32")
    inputs = noise if len(generator.inputs) == 1 else [noise, np.arange(25) % 10]  # by order
    images = (np.asarray(generator(inputs)) * 127.5 + 127.5).repeat(3, axis=1).repeat(3, axis=2)
    grid = np.vstack([np.hstack(row) for row in np.split(images, 5)])
    keras.utils.array_to_img(grid, scale=False).save(path)


class SaveImages(callbacks.Callback):
    """A grid every 50 steps, as in the book; the generator at MOMENTS and after each epoch."""

    def __init__(self, run_dir, step):
        super().__init__()
        self.step, self.images, self.moments = step, run_dir / "images", run_dir / "moments"
        self.images.mkdir(exist_ok=True)
        self.moments.mkdir(exist_ok=True)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step == 1 or self.step % 50 == 0:
            save_imgs(self.model.averaged, self.images / f"{self.step:06}.png")
        if self.step in MOMENTS or batch + 1 == self.params["steps"]:
            self.model.averaged.save(self.moments / f"{self.step:06}.keras")


def create_callbacks(gan, run_dir, step=0):
    """Grids, TensorBoard, a log, the last model; `step`: steps done, when a run goes on."""

    def save(epoch, logs):  # renamed when whole: a kill leaves the file of the epoch before
        gan.save(run_dir / "new.keras")
        (run_dir / "new.keras").replace(run_dir / "last.keras")

    return [
        SaveImages(run_dir, step),
        callbacks.TensorBoard(run_dir / "tb", update_freq=50),
        callbacks.CSVLogger(run_dir / "history.csv", append=step > 0),
        callbacks.LambdaCallback(on_epoch_end=save),
    ]


def open_run(run_dir, settings, train_X, kind=GAN):
    """The last GAN and the epochs done of the same run in `run_dir`, if any."""
    run_dir.mkdir(parents=True, exist_ok=True)
    noted, log, last = (run_dir / name for name in ("settings.json", "history.csv", "last.keras"))
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    if not last.exists():
        return None, 0
    lines = log.read_bytes().splitlines(keepends=True)
    # New random numbers from here on, not those of the first epoch again.
    keras.utils.set_random_seed((settings["seed"] + len(lines)) % 2**32)
    gan = keras.models.load_model(last, custom_objects={kind.__name__: kind})
    done = int(gan.steps) // (len(train_X) // settings["batch_size"])
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return gan, done


def report(gan, run_dir):
    """The last epoch's figures as a dict; the generator, its training as a film, the losses."""
    gan.averaged.save(run_dir / "generator.keras")
    grids = sorted((run_dir / "images").glob("*.png"))
    chosen = np.unique(np.linspace(0, len(grids) - 1, 60).astype(int))
    film = [keras.utils.load_img(grids[i]) for i in chosen]
    film[0].save(run_dir / "training.gif", save_all=True, append_images=film[1:], loop=0)
    log = pd.read_csv(run_dir / "history.csv")[["d_loss", "g_loss", "d_accuracy"]]
    log.rename(lambda n: n + 1).plot(subplots=[("d_loss", "g_loss")], grid=True, marker=".")
    plt.savefig(run_dir / "losses.png")
    return {"epochs": len(log)} | log.iloc[-1].to_dict()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", an .npz file or a folder')
    parser.add_argument("--epochs", type=int, default=4, help="default: 4")
    parser.add_argument("--batch-size", type=int, default=32, help="half real; default: 32")
    parser.add_argument("--soft-labels", action="store_true", help="instead of 1 and 0")
    parser.add_argument("--dropout", type=float, default=0.0, help="in the generator, as 0.25")
    parser.add_argument("--spectral-norm", action="store_true", help="in the discriminator")
    parser.add_argument("--ema", type=float, default=0.0, help="momentum, as 0.999")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/gan_mnist")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"gan_mnist{suffix}")
    usable = args.epochs >= 1 and args.batch_size >= 2 and 0 <= args.seed < 2**32
    if not usable or not 0 <= args.dropout < 1 or not 0 <= args.ema < 1:
        parser.error("--epochs begins at 1, --batch-size at 2, the others at 0; rates are below 1")
    return args


def main():
    args = parse_arguments()
    try:
        keras.utils.set_random_seed(args.seed)
        train_X = load_data(args.data)["train_X"]
        settings = {"script": "gan_mnist", "data": zlib.crc32(train_X.tobytes())}
        for name in ("batch_size", "dropout", "spectral_norm", "soft_labels", "ema", "seed"):
            settings[name] = getattr(args, name)
        if len(train_X) < args.batch_size:
            raise ValueError(f"{len(train_X)} images are less than a batch")
        gan, done = open_run(args.run_dir, settings, train_X)
        if gan is None:
            generator = build_generator(img_shape=train_X.shape[1:], dropout=args.dropout)
            discriminator = build_discriminator(train_X.shape[1:], args.spectral_norm)
            gan = GAN(generator, discriminator, args.soft_labels, args.ema)
            gan.compile(keras.optimizers.Adam(learning_rate=0.0002, beta_1=0.5))
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'MNIST'}: {' '.join(str(error).split())[:500]}")
    gan.summary(expand_nested=True)
    images = tf.data.Dataset.from_tensor_slices(train_X).shuffle(len(train_X), args.seed + done)
    steps = len(train_X) // args.batch_size  # as in the book: each takes half a batch of images
    gan.fit(
        images.batch(args.batch_size // 2).take(steps),
        epochs=args.epochs,
        initial_epoch=done,
        callbacks=create_callbacks(gan, args.run_dir, done * steps),
        shuffle=False,  # they are, anew in each epoch
    )
    metrics = settings | report(gan, args.run_dir)
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Generator, grids and metrics are in {args.run_dir}")


if __name__ == "__main__":
    main()
