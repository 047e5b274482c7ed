"""Convolution and pooling by hand: the book's examples in NumPy and in Keras, and real filters.

Book: chapter 7, "Introducing convolutions".

    python chapter07/conv_by_hand.py                   # needs no network; 15 seconds
    python chapter07/conv_by_hand.py --model runs/cnn_cifar10_augmented/model.keras

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
    print(
        f"   dense layer: {image.size:,} * {by_hand.size:,} = {image.size * by_hand.size:,} weights"
    )


def show_sharing():
    image = np.zeros((12, 12), dtype=int)
    image[3:8, 3:6] = 9  # a bright bar
    moved = cross_correlate(np.roll(image, (2, 3), axis=(0, 1)), FILTER)
    same = np.array_equal(np.roll(cross_correlate(image, FILTER), (2, 3), axis=(0, 1)), moved)
    edge = np.repeat([[9] * 6 + [0] * 6], 12, axis=0)  # bright left of dark
    print("\n3. What sharing the filter gives")
    print(f"   a bright bar moved by (2, 3): the answer moves by (2, 3) and is the same: {same}")
    print(f"   strongest answer to an upright edge {cross_correlate(edge, FILTER).max()}, ", end="")
    print(f"to a lying one {np.abs(cross_correlate(edge.T, FILTER)).max()}")
    print("   So position does not matter, but orientation does: cnn_cifar10_augmented.py turns.")


def show_pooling():
    valid, same = (layers.MaxPooling2D((2, 2), padding=padding) for padding in ("valid", "same"))
    odd = -np.arange(1, 26).reshape(5, 5)
    print("\n4. Max pooling: the largest number of each 2x2 section of the book's image")
    print(f"   by hand                   {max_pool(IMAGE).tolist()}")
    print(f"   keras.layers.MaxPooling2D {run_layer(valid, IMAGE).tolist()}")
    print(f'   5x5 becomes {run_layer(valid, odd).shape}, with padding="same" ', end="")
    print(f"{run_layer(same, odd).shape}: half, rounded up")
    print(
        f"   the last of -1 to -25: {run_layer(same, odd)[-1, -1]}, for padding adds no zeros here"
    )


def show_padding():
    layer = layers.Conv2D(1, kernel_size=(3, 3), padding="same", use_bias=False)
    nines = np.full((4, 4), 9)
    print('\n5. padding="same": zeros around the image, so that 4x4 stays 4x4')
    print(f"   by hand             {cross_correlate(pad_same(IMAGE, FILTER), FILTER).tolist()}")
    print(f"   keras.layers.Conv2D {run_layer(layer, IMAGE, FILTER).tolist()}")
    print(f"   image of nines      {cross_correlate(pad_same(nines, FILTER), FILTER).tolist()}")
    print("   There is no edge among nines: the filter answers to the border.")


def plot_filters(layer, path):
    """Each filter of a layer as a small image, all on one scale; grey is 0."""
    kernels = layer.get_weights()[0]  # (h, w, channels, filters)
    kernels = (kernels / np.abs(kernels).max() + 1) / 2
    fig, axes = plt.subplots(-(-kernels.shape[3] // 16), 16, figsize=(10, 2.9), squeeze=False)
    for index, ax in enumerate(axes.flat):
        ax.axis("off")
        if index < kernels.shape[3]:
            ax.imshow(kernels[..., index], cmap="gray", vmin=0, vmax=1)
    fig.savefig(path)


def plot_feature_maps(model, convolutions, image, path):
    """An image, and the 15 feature maps of each of some layers that vary most."""
    look_inside = keras.Model(model.inputs, [layer.output for layer in convolutions])
    answers = keras.tree.flatten(look_inside.predict(image[None], verbose=0))
    fig, axes = plt.subplots(2 * len(answers), 8, figsize=(10, 2.6 * len(answers)))
    for index, (layer, answer) in enumerate(zip(convolutions, answers, strict=True)):
        liveliest = np.argsort(-answer[0].std(axis=(0, 1)))  # many are black for one image
        pictures = [image, *np.moveaxis(answer[0][..., liveliest], 2, 0)]
        for ax, picture in zip(axes[2 * index : 2 * index + 2].flat, pictures, strict=False):
            ax.imshow(picture, cmap="gray")
            ax.axis("off")
        axes[2 * index, 1].set_title(f"{layer.name}, {answer.shape[1:]}", loc="left")
    fig.savefig(path)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained network (default: cnn_cifar10.py's)")
    parser.add_argument("--data", default=SAMPLE, help="an .npz, for its first test image")
    parser.add_argument("--run-dir", type=Path, default="runs/conv_by_hand", help="for pictures")
    return parser.parse_args()


def main():
    args = parse_arguments()
    show_books_example()
    show_layer()
    show_sharing()
    show_pooling()
    show_padding()
    print("\n6. Filters and feature maps of a trained network")
    saved = [Path("runs", run, "model.keras") for run in ("cnn_cifar10", "cnn_cifar10_sample")]
    path = args.model or next(filter(Path.exists, saved), None)
    if path is None:
        return print("   none yet: train one with `python chapter07/cnn_cifar10.py --data sample`")
    try:
        model = keras.models.load_model(path)
        convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)][:2]
        if not convolutions:
            raise ValueError("it has no Conv2D layer")
        with np.load(args.data, allow_pickle=False) as file:
            image = file["x_test"][0]
        args.run_dir.mkdir(parents=True, exist_ok=True)
        plot_filters(convolutions[0], args.run_dir / "filters.png")
        plot_feature_maps(model, convolutions, image, args.run_dir / "feature_maps.png")
    except Exception as error:  # NumPy, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {path}: {' '.join(str(error).split())}")
    print(f"   Pictures of {path} are in {args.run_dir}")


if __name__ == "__main__":
    main()
