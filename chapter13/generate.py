"""New images from a trained generator, or a walk between some of them, as a film.

Book: chapter 13, "Model evaluation".

    python chapter13/generate.py                                # of runs/gan_mnist
    python chapter13/generate.py --run-dir runs/gan_cifar10 --count 100
    python chapter13/generate.py --count 5 --walk               # from each of 5 to the next
    python chapter13/generate.py --run-dir runs/gan_mnist_conditional --order 2018
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np


def generate_images(generator, noise, labels=None):
    """Images, uint8 (n, side, side, channels), from noise (n, 100) and, by order, labels (n,)."""
    inputs = noise if labels is None else [noise, labels]
    return (generator.predict(inputs, 250, verbose=0) * 127.5 + 127.5).round().astype("uint8")


def make_grid(images, columns=5, zoom=3):
    """One picture (PIL) of images (n, side, side, channels), row by row; white where none is."""
    white = [(0, -len(images) % columns), (1, 1), (1, 1), (0, 0)]
    images = np.pad(images, white, constant_values=255)
    rows = [np.hstack(row) for row in np.split(images, len(images) // columns)]
    return keras.utils.array_to_img(np.vstack(rows).repeat(zoom, 0).repeat(zoom, 1), scale=False)


def walk(corners, steps=12):
    """Noise from each of `corners` (n, 100) to the next, and back to the first: (n * steps, 100).

    Along the sphere near which normally distributed vectors lie; a straight line leaves it.
    """
    noise = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        angle = np.arccos(start @ end / np.linalg.norm(start) / np.linalg.norm(end))
        for t in np.arange(steps) / steps:
            shares = np.sin([(1 - t) * angle, t * angle]) / np.sin(angle)
            noise.append(shares @ [start, end])
    return np.float32(noise)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default="runs/gan_mnist", help="of a trained one")
    parser.add_argument("--count", type=int, default=25, help="images; default: 25")
    parser.add_argument("--order", default="", help="digits for a conditional generator, as 2018")
    parser.add_argument("--walk", action="store_true", help="a film from one image to the next")
    parser.add_argument("--output", type=Path, help="default: in --run-dir")
    parser.add_argument("--seed", type=int, default=0, help="of the noise; default: 0")
    args = parser.parse_args()
    if args.count < 1 or args.seed < 0 or not (args.order + "0").isdecimal():
        parser.error("--count begins at 1, --seed at 0; --order is digits")
    args.output = args.output or args.run_dir / ("walk.gif" if args.walk else "generated.png")
    try:
        generator = keras.models.load_model(args.run_dir / "generator.keras", compile=False)
        labels = np.array([int(digit) for digit in args.order]) if args.order else None
        count = len(args.order) or args.count
        if (labels is None) == (len(generator.inputs) == 2):
            raise ValueError("a conditional generator, and it alone, needs --order")
        if args.walk and count < 2:
            raise ValueError("a walk needs two images or more")
        noise = np.random.default_rng(args.seed).normal(size=(count, 100)).astype("float32")
        if args.walk:
            labels = labels.repeat(12) if args.order else None
            images = generate_images(generator, walk(noise), labels)
            film = [make_grid(image[None], columns=1, zoom=6) for image in images]
            film[0].save(args.output, save_all=True, append_images=film[1:], loop=0)
        else:
            make_grid(generate_images(generator, noise, labels)).save(args.output)
    except Exception as error:  # Keras, h5py and Pillow raise a dozen kinds
        sys.exit(f"error: {args.run_dir}: {' '.join(str(error).split())[:500]}")
    print(f"The images are in {args.output}")


if __name__ == "__main__":
    main()
