"""Say for photographs of yours which of the two classes each shows, and how sure the network is.

Book: chapter 8, "Transfer learning in Keras".

    python chapter08/classify_photo.py rex.jpg scan.png      # by runs/inceptionv3_dogs_cats
    python chapter08/classify_photo.py photos/*.jpg --run-dir runs/mine

Any format that Pillow reads; a file that is no photograph is named and skipped. What a network of
two classes cannot say is "neither": a bicycle will be a cat or a dog, perhaps with 99 %.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from data_setup import read_photo


def read_pixels(file, side):
    """A photograph's pixels, float32 (side, side, 3), 0-255, squeezed as those of the training."""
    return tf.image.resize(np.asarray(read_photo(file)), (side, side)).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files")
    run_dir = Path("runs", "inceptionv3_dogs_cats")
    parser.add_argument("--run-dir", type=Path, default=run_dir, help=f"default: {run_dir}")
    args = parser.parse_args()
    try:
        class_names = json.loads((args.run_dir / "settings.json").read_text())["class_names"]
        model = keras.models.load_model(args.run_dir / "model.keras")
    except Exception as error:  # h5py, zipfile and Keras raise a dozen kinds
        sys.exit(f"error: {args.run_dir}: {' '.join(str(error).split())[:500]}")
    status = 0
    for photo in args.photos:
        try:
            pixels = read_pixels(photo, model.input_shape[1])
        except Exception as error:  # Pillow raises a dozen kinds, too
            print(f"skipped: {photo}: {error}", file=sys.stderr)
            status = 1
            continue
        p = float(model.predict_on_batch(pixels[None])[0, 0])  # of the second class
        print(f"{photo}: {class_names[int(p > 0.5)]} ({max(p, 1 - p):.1%})")
    sys.exit(status)


if __name__ == "__main__":
    main()
