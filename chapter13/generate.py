"""New images from a trained generator, and a walk between two of them.

Book: chapter 13, "Model evaluation".

    python chapter13/generate.py                           # runs/chapter13/gan_mnist
    python chapter13/generate.py --run-dir runs/chapter13/gan_cifar10 --count 100
    python chapter13/generate.py --walk 5                  # through 5 images, as a film

The walk goes from one noise vector to the next in small steps. What to look for: digits that change
into one another through shapes that are nearly digits, too. A generator that had learned its
training images by heart would jump.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from evaluate_gan import generate_images, load_generator
from gan_mnist import RUNS_DIR, make_grid, positive, save_gif

STEPS = 12  # pictures from one noise vector of the walk to the next


def walk_noise(corners, steps=STEPS):
    """Noise vectors from each of `corners` (n, dim) to the next, and back to the first.

    Along the sphere on which normally distributed vectors of many dimensions lie: in the middle of
    the straight line between two of them they would be shorter than any that training has seen.
    """
    noise = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        cosine = start @ end / np.linalg.norm(start) / np.linalg.norm(end)
        angle = np.arccos(np.clip(cosine, -1, 1))
        for t in np.arange(steps) / steps:
            noise.append(
                (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
            )
    return np.array(noise, dtype="float32")


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run-dir", type=Path, default=RUNS_DIR / "gan_mnist", help="of the training"
    )
    parser.add_argument("--count", type=positive, default=25, help="images (default: 25)")
    parser.add_argument(
        "--walk", type=positive, metavar="N", help="walk through N images, 2 or more"
    )
    parser.add_argument(
        "--output", type=Path, help="default: generated.png or walk.gif in --run-dir"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    args = parser.parse_args()
    if args.walk == 1:
        parser.error("--walk needs 2 images or more")
    if args.output is None:
        args.output = args.run_dir / ("walk.gif" if args.walk else "generated.png")
    suffix = ".gif" if args.walk else ".png"
    if args.output.suffix != suffix:
        parser.error(f"--output must end in {suffix}")
    return args


def main():
    args = parse_arguments()
    try:
        generator = load_generator(args.run_dir / "generator.keras")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    if args.walk:
        corners = np.random.default_rng(args.seed).normal(
            size=(args.walk, generator.input_shape[1])
        )
        images = generator.predict(walk_noise(corners), batch_size=250, verbose=0)
        grids = [make_grid(image[None], columns=1, zoom=6) for image in images]
        save_gif(grids, args.output, frames=len(grids))
    else:
        make_grid(generate_images(generator, args.count, args.seed)).save(args.output)
    print(f"The images are in {args.output}")


if __name__ == "__main__":
    main()
