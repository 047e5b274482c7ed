"""Convolution by hand: the book's example in NumPy, what it saves, and what filters look like.

Book: chapter 7, "Introducing convolutions".

    python chapter07/conv_by_hand.py                   # needs no network; 20 seconds
    python chapter07/conv_by_hand.py --model runs/chapter07/cnn_cifar10/model.keras
    python chapter07/conv_by_hand.py --data my_images.npz --image 7

What to look for: two loops give the same numbers as Keras's layer; Keras's "convolution" is a
cross-correlation, and true convolution differs by a flip of the filter; 1,792 parameters do what
would take a dense layer 176,947,200; a filter finds its edge wherever it lies, but not turned.

The pictures show a trained network's filters and what they answer to one image. The network is
the one cnn_cifar10.py saved (or --model); where there is none, a small one is trained on the
sample first, which takes a few seconds.
"""

import argparse
import math
import os
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
from keras import layers

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "samples" / "cifar10.npz"
RUNS_DIR = ROOT / "runs" / "chapter07"

IMAGE = np.array([[4, 2, 1, 1], [6, 5, 2, 1], [3, 0, 3, 0], [1, 4, 6, 2]])
FILTER = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]])  # bright left of dark: a vertical edge


def cross_correlate(image, kernel):
    """Slide `kernel` over `image`, multiply what lies over each other, add up. Both 2-D.

    Returns:
        (height - h + 1, width - w + 1): one number for each place where the kernel fits.
    """
    h, w = kernel.shape
    result = np.empty((image.shape[0] - h + 1, image.shape[1] - w + 1), dtype=image.dtype)
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            window = image[row : row + h, column : column + w]
            result[row, column] = (window * kernel).sum()
    return result


def convolve(image, kernel):
    """Convolution as mathematics defines it: the kernel is turned by 180 degrees first."""
    return cross_correlate(image, kernel[::-1, ::-1])


def conv_layer(image, kernels, biases):
    """One convolutional layer on one image: all filters, all channels, bias, relu.

    Args:
        image: (height, width, channels).
        kernels: (h, w, channels, filters), as Keras stores them.
        biases: (filters,).

    Returns:
        (height - h + 1, width - w + 1, filters).
    """
    # Every window at once, without copying the image: (rows, columns, channels, h, w).
    windows = np.lib.stride_tricks.sliding_window_view(image, kernels.shape[:2], axis=(0, 1))
    return np.maximum(np.einsum("rcnhw,hwnf->rcf", windows, kernels) + biases, 0)


def show_books_example():
    """The 4x4 by 3x3 example, step by step, then by Keras."""
    print("1. The book's example: a 3x3 filter slides over a 4x4 image")
    print(f"   image  {IMAGE.tolist()}\n   filter {FILTER.tolist()}")
    for row in range(2):
        for column in range(2):
            window = IMAGE[row : row + 3, column : column + 3]
            terms = " + ".join(f"{a}*{b}" for a, b in zip(window.flat, FILTER.flat, strict=True))
            print(f"   row {row}, column {column}: {terms} = {(window * FILTER).sum()}")
    by_hand, flipped = cross_correlate(IMAGE, FILTER), convolve(IMAGE, FILTER)
    # Keras wants a batch of images with channels, and filters with channels in and out.
    keras_input = IMAGE.astype("float32")[None, :, :, None]
    keras_kernel = FILTER.astype("float32")[:, :, None, None]
    by_keras = keras.ops.convert_to_numpy(keras.ops.conv(keras_input, keras_kernel))[0, :, :, 0]
    layer = layers.Conv2D(1, kernel_size=(3, 3), use_bias=False)
    layer.build(keras_input.shape)
    layer.set_weights([keras_kernel])
    by_layer = keras.ops.convert_to_numpy(layer(keras_input))[0, :, :, 0]
    print(f"   cross-correlation by hand {by_hand.tolist()}")
    print(f"   keras.ops.conv            {by_keras.astype(int).tolist()}")
    print(f"   keras.layers.Conv2D       {by_layer.astype(int).tolist()}")
    print(f"   true convolution          {flipped.tolist()}  (the filter turned by 180 degrees)")
    print("   A network learns its filters, so it would learn them turned: no difference to it.")


def show_layer():
    """64 filters over 32x32x3, NumPy against Keras, and the parameters of both ways."""
    rng = np.random.default_rng(0)
    image = rng.random((32, 32, 3), dtype="float32")
    layer = layers.Conv2D(64, kernel_size=(3, 3), activation="relu", name="conv_1")
    layer.build((None, 32, 32, 3))
    by_hand = conv_layer(image, *layer.get_weights())
    by_keras = keras.ops.convert_to_numpy(layer(image[None]))[0]
    print("\n2. A layer of 64 filters on a 32x32 colour image")
    print(f"   output {by_keras.shape}: 32 - 3 + 1 = 30 places each way, one map for each filter")
    print(f"   NumPy against Keras: largest difference {np.abs(by_hand - by_keras).max():.1e}")

    values_in, values_out = math.prod(image.shape), math.prod(by_keras.shape)
    dense = values_in * values_out
    print("   parameters of this layer")
    print(f"     weights 3 * 3 * 3 * 64 = {3 * 3 * 3 * 64:,}, biases 64, ", end="")
    print(f"together {layer.count_params():,} (Keras counts them)")
    print("   a dense layer between the same shapes")
    print(f"     in 32 * 32 * 3 = {values_in:,}, out 30 * 30 * 64 = {values_out:,}")
    print(f"     weights {values_in:,} * {values_out:,} = {dense:,}")
    print(f"     {dense * 4 / 1e6:,.0f} MB of float32, and {values_out:,} biases, which the book")
    print(f"     leaves out here: {dense / layer.count_params():,.0f} times the convolution")


def show_what_sharing_gives():
    """A shift goes through the layer; a turn does not."""
    image = np.zeros((12, 12), dtype=int)
    image[3:8, 3:6] = 9  # a bright bar
    shifted = np.roll(image, (2, 3), axis=(0, 1))
    answer = cross_correlate(image, FILTER)
    same = np.array_equal(np.roll(answer, (2, 3), axis=(0, 1)), cross_correlate(shifted, FILTER))
    edge = np.zeros((12, 12), dtype=int)
    edge[:, :6] = 9  # bright left of dark; transposed, bright above dark
    print("\n3. What sharing the filter gives")
    print(f"   a bright bar moved by (2, 3): the answer moves by (2, 3) and is the same: {same}")
    print(f"   strongest answer to an upright edge {cross_correlate(edge, FILTER).max()}, ", end="")
    print(f"to a lying one {np.abs(cross_correlate(edge.T, FILTER)).max()}")
    print("   So position does not matter, but orientation does: turned copies of an image must be")
    print("   shown in training, which is what cnn_cifar10_augmented.py does.")


def load_image(source, index):
    """Test image number `index` of an .npz with Keras's keys: uint8 (height, width, channels).

    Raises:
        OSError: no such file. ValueError: not such an .npz, or it has no image of that number.
    """
    path = SAMPLE if source in (None, "sample") else Path(source)
    try:
        with np.load(path, allow_pickle=False) as archive:  # a pickle could run anything
            images = archive["x_test"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; give an .npz file") from None
    except KeyError:
        raise ValueError(f"{path}: x_test missing; images are taken from there") from None
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz of plain arrays ({error})") from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{path}: x_test is {images.dtype} {images.shape}; "
            "expected uint8 (images, height, width, 1 or 3 channels)"
        )
    if not 0 <= index < len(images):
        raise ValueError(f"--image {index}: {path} has images 0 to {len(images) - 1}")
    return images[index]


def find_model(path, input_shape):
    """The network to look into: `path`, else what cnn_cifar10.py saved, else a small one trained.

    Raises:
        OSError: `path` does not exist. ValueError: it is no model with convolutions for such
            images.
    """
    if path is None:
        saved = [RUNS_DIR / run / "model.keras" for run in ("cnn_cifar10", "cnn_cifar10_sample")]
        path = next((file for file in saved if file.exists()), None)
        if path is None:
            print("   No trained network here (chapter07/cnn_cifar10.py saves one): training a")
            print("   small one on the sample …")
            return check_model(train_small_network(), input_shape, "The small network")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; chapter07/cnn_cifar10.py saves a model")
    try:
        model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error})") from error
    print(f"   Network: {path}")
    return check_model(model, input_shape, path)


def check_model(model, input_shape, name):
    """`model`, if it has convolutions and takes images of `input_shape`."""
    if not find_convolutions(model):
        raise ValueError(f"{name} has no Conv2D layer to show")
    if model.input_shape[1:] != input_shape:
        raise ValueError(
            f"{name} takes images of {model.input_shape[1:]}, this one is {input_shape}"
        )
    return model


def find_convolutions(model):
    """Its first two Conv2D layers."""
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)][:2]


def train_small_network(epochs=5):
    """The book's two convolutional blocks with a short end, trained on the sample's 2,000 images.

    Enough for filters that look for something; cnn_cifar10.py trains the whole network.
    """
    with np.load(SAMPLE, allow_pickle=False) as archive:
        images, labels = archive["x_train"], archive["y_train"]
    inputs = keras.Input(shape=images.shape[1:])
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(64, kernel_size=(3, 3), activation="relu", name="conv_1")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(32, kernel_size=(3, 3), activation="relu", name="conv_2")(x)
    x = layers.GlobalMaxPooling2D()(x)
    outputs = layers.Dense(10, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    history = model.fit(images, labels, epochs=epochs, verbose=0).history["accuracy"]
    print(f"   {epochs} epochs, accuracy on its training images {history[-1]:.2f} (chance 0.10)")
    return model


def plot_books_filter(image, path):
    """The book's filter on a photograph, upright and lying, as a picture."""
    grey = image.mean(axis=2)
    answers = {
        "the book's filter:\nbright left of dark": cross_correlate(grey, FILTER),
        "its transpose:\nbright above dark": cross_correlate(grey, FILTER.T),
    }
    fig, axes = plt.subplots(1, 3, figsize=(8, 3.2))
    for ax in axes:
        ax.axis("off")
    axes[0].imshow(image.squeeze(), cmap="gray")
    axes[0].set_title("image", fontsize=10)
    for ax, (title, answer) in zip(axes[1:], answers.items(), strict=True):
        limit = np.abs(answer).max()  # white is 0, blue above, red below
        ax.imshow(answer, cmap="RdBu", vmin=-limit, vmax=limit)
        ax.set_title(title, fontsize=10)
    save_figure(fig, path)


def plot_filters(layer, path):
    """Each filter of the first convolution as a small colour image."""
    kernels = layer.get_weights()[0]  # (h, w, channels, filters)
    limit = np.abs(kernels).max()
    fig, axes = plt.subplots(4, 16, figsize=(10, 2.9))
    for index, ax in enumerate(axes.flat):
        ax.axis("off")
        if index < kernels.shape[3]:  # grey is 0, the same scale for all
            ax.imshow((kernels[..., index].squeeze() / limit + 1) / 2, cmap="gray", vmin=0, vmax=1)
    fig.suptitle(f"{layer.name}: its first {min(64, kernels.shape[3])} filters", fontsize=11)
    save_figure(fig, path)


def plot_feature_maps(model, image, path):
    """One image and the 16 feature maps of each of the first two convolutions that vary most."""
    convolutions = find_convolutions(model)
    look_inside = keras.Model(model.inputs, [layer.output for layer in convolutions])
    maps = keras.tree.flatten(look_inside.predict(image[None], verbose=0))
    fig, axes = plt.subplots(2 * len(maps), 9, figsize=(10, 2.5 * len(maps)))
    for ax in axes.flat:
        ax.axis("off")
    axes[0, 0].imshow(image.squeeze(), cmap="gray")
    axes[0, 0].set_title("image", fontsize=9)
    for block, (layer, answer) in enumerate(zip(convolutions, maps, strict=True)):
        answer = answer[0]
        liveliest = np.argsort(-answer.std(axis=(0, 1)))[:16]  # many are black for one image
        places = axes[2 * block : 2 * block + 2, 1:]
        places[0, 0].set_title(f"{layer.name}, {answer.shape}", fontsize=9, loc="left")
        for ax, number in zip(places.flat, liveliest, strict=False):
            ax.imshow(answer[..., number], cmap="gray")
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" (default) or an .npz file')
    parser.add_argument("--image", type=int, default=0, help="which test image (default: 0)")
    parser.add_argument("--model", type=Path, help="a saved network (default: cnn_cifar10.py's)")
    parser.add_argument(
        "--run-dir", type=Path, default=RUNS_DIR / "conv_by_hand", help="where pictures go"
    )
    return parser.parse_args()


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(1)
    try:
        image = load_image(args.data, args.image)
        show_books_example()
        show_layer()
        show_what_sharing_gives()
        print("\n4. Filters and feature maps of a trained network")
        model = find_model(args.model, image.shape)
        args.run_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    plot_books_filter(image, args.run_dir / "books_filter.png")
    plot_filters(find_convolutions(model)[0], args.run_dir / "filters.png")
    plot_feature_maps(model, image, args.run_dir / "feature_maps.png")
    print(f"   Pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
