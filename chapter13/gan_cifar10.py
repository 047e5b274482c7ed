"""Train the book's generative adversarial network on small colour photographs.

Book: chapter 13, "Generating CIFAR-10 images using a Keras GAN".

    python chapter13/gan_cifar10.py                        # the real set (170 MB, fetched once)
    python chapter13/gan_cifar10.py --data sample          # stand-in, needs no network
    python chapter13/gan_cifar10.py --data my_images/      # square images of your own

The networks are those of gan_mnist.py for images of 32x32 pixels in three colours; so are the
training and the files that it leaves. What to look for: after an epoch patches of sky, grass and
fur, after several of them shapes that one would like to recognize. Needs the TensorFlow backend;
evaluate_gan.py judges the result.
"""

from pathlib import Path

import gan_mnist
import keras

SCRIPT = "chapter13/gan_cifar10.py"
IMAGE_SHAPE = (32, 32, 3)


def load_data(source=None):
    """Return CIFAR-10's photographs, or images from elsewhere.

    Args:
        source: None for CIFAR-10 as Keras serves it (Krizhevsky, 2009), "sample" for the stand-in
            in data/samples, or a path, as in gan_mnist.py.

    Returns:
        dict as `gan_mnist.load_data` returns it.

    Raises:
        OSError, ValueError: as there.
    """
    if source is None:
        return gan_mnist.check_images(
            gan_mnist.download(keras.datasets.cifar10, "CIFAR-10"), "CIFAR-10"
        )
    path = gan_mnist.DATA_DIR / "samples" / "cifar10.npz" if source == "sample" else Path(source)
    return gan_mnist.read_images(path)


def build_generator():
    """The book's generator, which starts from 8 x 8 instead of 7 x 7."""
    return gan_mnist.build_generator(IMAGE_SHAPE)


def build_discriminator():
    """The book's discriminator, which needs no zero padding here."""
    return gan_mnist.build_discriminator(IMAGE_SHAPE)


def main():
    args = gan_mnist.parse_arguments(__doc__, "gan_cifar10", epochs=6)
    gan_mnist.run(args, load_data, SCRIPT, "CIFAR-10")


if __name__ == "__main__":
    main()
