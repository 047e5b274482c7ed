"""Convolution and pooling by hand: the book's examples in NumPy and in Keras, and real filters.

Book: chapter 7, "Introducing convolutions".

    python chapter07/conv_by_hand.py     # --model runs/cnn_cifar10_better/model.keras: its filters

What to look for: a few lines of NumPy give the numbers of Keras's layers; 1,792 parameters do what
takes a dense layer 176,947,200; a filter finds its edge wherever it lies, but not turned.
"""

import argparse
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "cifar10.npz"
IMAGE = np.array([[4, 2, 1, 1], [6, 5, 2, 1], [3, 0, 3, 0], [1, 4, 6, 2]])
FILTER = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]])  # bright left of dark: a vertical edge


def cross_correlate(image, kernel):
    """Slide `kernel` over `image`, multiply what lies over each other, add up. Both 2-D.

    Returns (height - h + 1, width - w + 1), a number for each place where the kernel fits.
    """
    h, w = kernel.shape
    result = np.empty((image.shape[0] - h + 1, image.shape[1] - w + 1), dtype=image.dtype)
    for row, column in np.ndindex(result.shape):
        window = image[row : row + h, column : column + w]
        result[row, column] = (window * kernel).sum()
    return result


def convolve(image, kernel):
    """Convolution as mathematics defines it: the kernel is turned by 180 degrees first."""
    return cross_correlate(image, kernel[::-1, ::-1])


def conv_layer(image, kernels, biases):
    """A layer of filters on one image, over all its channels, with bias and relu.

    (height, width, channels), (h, w, channels, filters), (filters,) to (…, …, filters).
    """
    # Every window at once, without copying the image: (rows, columns, channels, h, w).
    windows = np.lib.stride_tricks.sliding_window_view(image, kernels.shape[:2], axis=(0, 1))
    return np.maximum(np.einsum("rcnhw,hwnf->rcf", windows, kernels) + biases, 0)


def max_pool(image, size=2):
    """The largest number of each section of `size` x `size`; a rest at the border is left out."""
    rows, columns = image.shape[0] // size, image.shape[1] // size
    sections = image[: rows * size, : columns * size].reshape(rows, size, columns, size)
    return sections.max(axis=(1, 3))


def pad_same(image, kernel):
    """Zeros around `image`, so that as many numbers come out of `kernel` as went in."""
    return np.pad(image, [((size - 1) // 2, size // 2) for size in kernel.shape])


def run_layer(layer, image, *weights):
    """What a Keras layer with these `weights` makes of a single 2-D `image`."""
    batch = image.astype("float32")[None, :, :, None]  # Keras wants (images, rows, columns, 1)
    layer.build(batch.shape)
    layer.set_weights([weight[:, :, None, None] for weight in weights])
    return keras.ops.convert_to_numpy(layer(batch))[0, :, :, 0].astype(int)


def show_books_example():
    print("1. The book's example: a 3x3 filter slides over a 4x4 image")
    for row, column in np.ndindex(2, 2):
        window = IMAGE[row : row + 3, column : column + 3]
        terms = " + ".join(f"{a}*{b}" for a, b in zip(window.flat, FILTER.flat, strict=True))
        print(f"   row {row}, column {column}: {terms} = {(window * FILTER).sum()}")
    by_keras = run_layer(layers.Conv2D(1, kernel_size=(3, 3), use_bias=False), IMAGE, FILTER)
    print(f"   cross-correlation by hand {cross_correlate(IMAGE, FILTER).tolist()}")
    print(f"   keras.layers.Conv2D       {by_keras.tolist()}")
    print(f"   true convolution          {convolve(IMAGE, FILTER).tolist()}")
    print("   A network learns its filters, so it would learn them turned: no difference to it.")


def show_layer():
    image = np.random.default_rng(0).random((32, 32, 3), dtype="float32")
    layer = layers.Conv2D(64, kernel_size=(3, 3), activation="relu", name="conv_1")
    by_keras = keras.ops.convert_to_numpy(layer(image[None]))[0]
    by_hand = conv_layer(image, *layer.get_weights())
    print("\n2. A layer of 64 filters on a 32x32 colour image")
    print(f"   output {by_keras.shape}: 32 - 3 + 1 = 30 places each way, one map for each filter")
    print(f"   NumPy against Keras: largest difference {np.abs(by_hand - by_keras).max():.1e}")
    print(f"   this layer: 3 * 3 * 3 * 64 weights + 64 biases = {layer.count_params():,}")
    dense = image.size * by_hand.size
    print(f"   a dense layer: {image.size:,} * {by_hand.size:,} = {dense:,} weights")


def show_sharing():
    bar = np.zeros((12, 12), dtype=int)
    bar[3:8, 3:6] = 9
    moved = cross_correlate(np.roll(bar, (2, 3), axis=(0, 1)), FILTER)
    same = np.array_equal(np.roll(cross_correlate(bar, FILTER), (2, 3), axis=(0, 1)), moved)
    edge = np.repeat([[9] * 6 + [0] * 6], 12, axis=0)  # bright left of dark
    answers = (abs(cross_correlate(image, FILTER)).max() for image in (edge, edge.T))
    print("\n3. What sharing the filter gives")
    print(f"   a bright bar moved by (2, 3): the answer moves by (2, 3) and is the same: {same}")
    print("   strongest answer to an upright edge {}, to a lying one {}".format(*answers))
    print("   So position does not matter, but orientation does: cnn_cifar10_augmented.py turns.")


def show_pooling_and_padding():
    by_keras = run_layer(layers.MaxPooling2D((2, 2)), IMAGE)
    print("\n4. Max pooling: the largest number of each 2x2 section of the book's image")
    print(f"   by hand {max_pool(IMAGE).tolist()}, keras.layers.MaxPooling2D {by_keras.tolist()}")
    layer = layers.Conv2D(1, kernel_size=(3, 3), padding="same", use_bias=False)
    print('\n5. padding="same": zeros around the image, so that 4x4 stays 4x4')
    print(f"   by hand             {cross_correlate(pad_same(IMAGE, FILTER), FILTER).tolist()}")
    print(f"   keras.layers.Conv2D {run_layer(layer, IMAGE, FILTER).tolist()}")


def draw(pictures, columns, path):
    """Draw small pictures, (h, w) or (h, w, 3), in rows of `columns`."""
    rows = -(-len(pictures) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(10, 10 * rows / columns), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture in zip(axes.flat, pictures, strict=False):
        ax.imshow(picture, cmap="gray")
    fig.savefig(path)


def draw_network(model, image, run_dir):
    """The filters of the first layer, grey is 0; what two layers make of `image`, 15 maps each."""
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)][:2]
    if not convolutions:
        raise ValueError("it has no Conv2D layer")
    kernels = convolutions[0].get_weights()[0]  # (h, w, channels, filters)
    filters = np.moveaxis((kernels / abs(kernels).max() + 1) / 2, 3, 0)
    draw(filters, 16, run_dir / "filters.png")
    look_inside = keras.Model(model.inputs, [layer.output for layer in convolutions])
    pictures = []
    for (maps,) in keras.tree.flatten(look_inside.predict(image[None], verbose=0)):
        liveliest = np.argsort(-maps.std(axis=(0, 1)))[:15]  # many are black for one image
        pictures += [image, *np.moveaxis(maps[..., liveliest], 2, 0)]
    draw(pictures, 8, run_dir / "feature_maps.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained network (default: cnn_cifar10.py's)")
    parser.add_argument("--data", default=SAMPLE, help="an .npz file, for its first test image")
    parser.add_argument("--run-dir", type=Path, default="runs/conv_by_hand", help="for pictures")
    args = parser.parse_args()
    show_books_example()
    show_layer()
    show_sharing()
    show_pooling_and_padding()
    print("\n6. Filters and feature maps of a trained network")
    saved = [Path("runs", run, "model.keras") for run in ("cnn_cifar10", "cnn_cifar10_sample")]
    path = args.model or next(filter(Path.exists, saved), None)
    if path is None:
        return print("   none yet: train one with `python chapter07/cnn_cifar10.py --data sample`")
    try:
        model = keras.models.load_model(path)
        args.run_dir.mkdir(parents=True, exist_ok=True)
        draw_network(model, np.load(args.data)["x_test"][0], args.run_dir)
    except Exception as error:  # NumPy, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {path}: {' '.join(str(error).split())[:500]}")
    print(f"   Pictures of {path} are in {args.run_dir}")


if __name__ == "__main__":
    main()
