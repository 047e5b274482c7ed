"""Find the layers of a saved network whose units are copies of each other.

Book: chapter 3, "Visualizing a broken network": what its histograms show, in numbers.

    python chapter03/find_copies.py runs/dnn_wine_broken runs/dnn_wine_tensorboard

Units that start equal get equal gradients and stay equal, so a layer of 32 is worth one unit. Where
it says so, look at the layer's kernel_initializer: it must be random.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np


def unit_spread(model):
    """How far the units of each layer differ: {layer name: (units, spread, random start)}.

    The spread is the standard deviation of a weight from unit to unit, averaged, 0 for copies. The
    random start is that of Keras, after Glorot: the square root of 2 / (inputs + units).
    """
    spread = {}
    for layer in model.layers:
        kernel = np.asarray(getattr(layer, "kernel", [[0]]))  # (…, inputs, units): Dense, Conv2D
        *size, inputs, units = kernel.shape
        if units > 1:
            start = np.sqrt(2 / ((inputs + units) * np.prod(size)))
            spread[layer.name] = units, kernel.std(axis=-1).mean(), start
    return spread


def find_copies(model):
    """Names of the layers whose units differ by less than a hundredth of a random start."""
    return [name for name, (_, spread, start) in unit_spread(model).items() if spread < start / 100]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders or .keras files")
    for run in parser.parse_args().runs:
        try:
            model = keras.models.load_model(run / "model.keras" if run.is_dir() else run)
        except Exception as error:  # zlib, h5py and Keras raise a dozen kinds
            sys.exit(f"error: {run}: {' '.join(str(error).split())[:500]}")
        print(f"{run}\n{'layer':>12} {'units':>6} {'spread':>8} {'random start':>13}")
        for name, (units, spread, start) in unit_spread(model).items():
            print(f"{name:>12} {units:6} {spread:8.5f} {start:13.5f}")
        copies = ", ".join(find_copies(model))
        print(f"The units are copies of each other in {copies}" if copies else "No copies")


if __name__ == "__main__":
    main()
