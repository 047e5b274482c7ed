"""Train a conditional GAN on MNIST: it writes the digit that it is asked for.

Goes beyond the book, whose chapter 13 names the conditional GAN as a next step. Needs gan_mnist.py
beside it: the networks are the book's, with the label as a second input.

    python chapter13/gan_mnist_conditional.py                  # the real set
    python chapter13/gan_mnist_conditional.py --data sample    # 4,000 of its digits, no network
    python chapter13/generate.py --run-dir runs/gan_mnist_conditional --order 2018

Both networks get the label as ten numbers of which one is 1 (Mirza and Osindero, 2014): the
generator beside its noise, the discriminator as ten more channels of the image.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import gan_mnist
import keras
import numpy as np
import tensorflow as tf
from gan_mnist import GAN, create_callbacks, open_run, report
from keras import layers, ops


def load_data(source=None):
    """A dict: `train_X`, uint8 (n, side, side, 1), and their labels `train_y`, int64 (n,), 0 to 9.

    `source` is None for MNIST, "sample", or an .npz file with `x_train` and `y_train`.
    """
    data = gan_mnist.load_data(source)
    if source is None:
        (_, train_y), _ = keras.datasets.mnist.load_data()
    else:
        path = gan_mnist.SAMPLE if source == "sample" else source
        with np.load(path, allow_pickle=False) as file:
            train_y = file["y_train"]
    train_y = train_y.ravel().astype("int64")
    if len(train_y) != len(data["train_X"]) or not set(train_y) <= set(range(10)):
        raise ValueError("labels must be 0 to 9, one for each image")
    return data | {"train_y": train_y}


def build_generator(img_shape=(28, 28, 1)):
    """Noise (n, 100) and labels (n,) to images (n, *img_shape), -1 to 1."""
    noise, label = keras.Input((100,), name="noise"), keras.Input((), dtype="int32", name="label")
    x = layers.Concatenate()([noise, ops.one_hot(label, 10)])
    image = gan_mnist.build_generator((110,), img_shape)(x)
    return keras.Model([noise, label], image, name="generator")


def build_discriminator(img_shape=(28, 28, 1)):
    """Images (n, *img_shape), -1 to 1, and labels (n,) to probabilities (n, 1) of "real"."""
    height, width, channels = img_shape
    image, label = keras.Input(img_shape), keras.Input((), dtype="int32", name="label")
    planes = layers.Reshape((1, 1, 10))(ops.one_hot(label, 10))
    planes = layers.UpSampling2D((height, width))(planes)  # the label's is 1 everywhere
    book = gan_mnist.build_discriminator((height, width, channels + 10))
    outputs = book(layers.Concatenate()([image, planes]))
    return keras.Model([image, label], outputs, name="discriminator")


class ConditionalGAN(GAN):
    """As GAN, with labels: both networks see which digit an image is, or is meant to be."""

    def call(self, batch):
        """Probabilities of "real" for half a batch of images, as many made ones, and a batch."""
        images, labels = batch
        real_images = ops.cast(images, "float32") / 127.5 - 1
        half_batch = ops.shape(images)[0]
        noise = keras.random.normal((2 * half_batch, 100), seed=self.random)
        wanted = ops.concatenate([labels, labels])  # as often as among the real ones
        fake_images = self.generator([noise, wanted], training=True)
        real = self.discriminator([real_images, labels], training=True)
        made = ops.stop_gradient(fake_images[:half_batch])
        fake = self.discriminator([made, labels], training=True)
        frozen = [ops.stop_gradient(w) for w in self.discriminator.trainable_variables]
        frozen = frozen, self.discriminator.non_trainable_variables
        stack, _ = self.discriminator.stateless_call(*frozen, [fake_images, wanted], training=True)
        self.average()
        return real, fake, stack


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--epochs", type=int, default=4, help="default: 4")
    parser.add_argument("--batch-size", type=int, default=32, help="half real; default: 32")
    parser.add_argument("--ema", type=float, default=0.0, help="momentum, as 0.999")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/gan_mnist_conditional")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"gan_mnist_conditional{suffix}")
    usable = args.epochs >= 1 and args.batch_size >= 2 and 0 <= args.seed < 2**32
    if not usable or not 0 <= args.ema < 1:
        parser.error("--epochs begins at 1, --batch-size at 2, the others at 0; --ema is below 1")
    return args


def main():
    args = parse_arguments()
    try:
        keras.utils.set_random_seed(args.seed)
        train_X, train_y = load_data(args.data).values()
        settings = {"script": "gan_mnist_conditional", "data": zlib.crc32(train_X.tobytes())}
        settings["labels"] = zlib.crc32(train_y.tobytes())
        for name in ("batch_size", "ema", "seed"):
            settings[name] = getattr(args, name)
        if len(train_X) < args.batch_size:
            raise ValueError(f"{len(train_X)} images are less than a batch")
        gan, done = open_run(args.run_dir, settings, train_X, ConditionalGAN)
        if gan is None:
            generator = build_generator(train_X.shape[1:])
            discriminator = build_discriminator(train_X.shape[1:])
            gan = ConditionalGAN(generator, discriminator, ema=args.ema)
            gan.compile(keras.optimizers.Adam(learning_rate=0.0002, beta_1=0.5))
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.data or 'MNIST'}: {' '.join(str(error).split())[:500]}")
    rows = tf.data.Dataset.from_tensor_slices(((train_X, train_y),))
    steps = len(train_X) // args.batch_size
    gan.fit(
        rows.shuffle(len(train_X), args.seed + done).batch(args.batch_size // 2).take(steps),
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
