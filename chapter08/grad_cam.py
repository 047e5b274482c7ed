"""Show where in a photograph the network of inceptionv3_dogs_cats.py sees its cat or dog: Grad-CAM.

Beyond the book's chapter 8; the method is that of Selvaraju et al., arXiv 1610.02391.

    python chapter08/grad_cam.py rex.jpg tom.jpg      # runs/inceptionv3_dogs_cats/grad_cam.png

What speaks for the answer is red. A network that looks at the sofa has learned the sofa.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from classify_photo import read_pixels


def grad_cam(model, pixels):
    """The answer's probability of class 1 and a map (height, width), 0 or more, of what made it so.

    `pixels`: (side, side, 3), 0-255. The backbone's last maps are added up, each with its weight:
    the gradient of the answer's log-odds by the map's average, here by the chain rule.
    """
    outputs = [model.get_layer("avg_pool").input, model.output]
    maps, probability = keras.Model(model.input, outputs).predict_on_batch(pixels[None])
    maps, probability = np.asarray(maps)[0], float(probability[0, 0])
    kernel1, bias1 = model.get_layer("fc1").get_weights()
    kernel2, _ = model.get_layer("predictions").get_weights()
    active = maps.mean(axis=(0, 1)) @ kernel1 + bias1 > 0  # relu passes the gradient of these only
    weights = kernel1 @ (active * kernel2[:, 0])
    weights = weights if probability > 0.5 else -weights  # log-odds of the other class
    return probability, np.maximum(maps @ weights, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files")
    run_dir = Path("runs", "inceptionv3_dogs_cats")
    parser.add_argument("--run-dir", type=Path, default=run_dir, help=f"default: {run_dir}")
    args = parser.parse_args()
    size = 2.5 * len(args.photos), 5
    fig, axes = plt.subplots(2, len(args.photos), squeeze=False, figsize=size, layout="constrained")
    photo = args.run_dir  # what an error is about, until the first photograph
    try:
        names = json.loads((args.run_dir / "settings.json").read_text())["class_names"]
        model = keras.models.load_model(args.run_dir / "model.keras")
        for photo, (above, below) in zip(args.photos, axes.T, strict=True):
            pixels = read_pixels(photo, model.input_shape[1])
            probability, heat = grad_cam(model, pixels)
            title = f"{names[int(probability > 0.5)]} ({max(probability, 1 - probability):.1%})"
            above.set_title(title, parse_math=False)
            for ax in (above, below):
                ax.imshow(pixels / 255)
                ax.axis("off")
            extent = (0, len(pixels), len(pixels), 0)
            below.imshow(heat, "jet", alpha=0.5, extent=extent, interpolation="bicubic")
        fig.savefig(args.run_dir / "grad_cam.png")
    except Exception as error:  # Pillow, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {photo}: {' '.join(str(error).split())[:500]}")
    print(f"The picture is {args.run_dir / 'grad_cam.png'}")


if __name__ == "__main__":
    main()
