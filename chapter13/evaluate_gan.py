"""Judge a generator by more than the eye.

Book: chapter 13, "Model evaluation", which shows images and leaves the judgement to the reader.

    python chapter13/evaluate_gan.py                       # runs/chapter13/gan_mnist
    python chapter13/evaluate_gan.py --run-dir runs/chapter13/gan_mnist_sample
    python chapter13/evaluate_gan.py --run-dir runs/chapter13/gan_cifar10

A small classifier, trained once on the same labelled images, looks at 1,000 generated ones:
how sure it is of its answers (are they digits at all?), how they spread over the classes (a
generator that has collapsed makes few kinds), and how far its features of generated images are from
those of held-out real images (Fréchet distance: 0 for the same mean and covariance). The distance
between two sets of real images of the same number is the floor. The nearest training images show
whether the generator copies. All this for the generator at each saved moment of the training.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import gan_cifar10
import gan_mnist
import keras
import numpy as np
import pandas as pd
from gan_mnist import make_grid, plt, positive, scale
from keras import layers
from sklearn.neighbors import NearestNeighbors

SAMPLES = 1000  # generated images that are judged
FEATURES = 64
SURE = 0.9  # probability from which the classifier counts as sure
RARE = 0.03  # share of the samples below which a class counts as missing; a tenth would be fair


def build_classifier(image_shape, num_classes):
    """A small CNN, compiled; the layer named "features" has 64 units.

    Returns:
        keras.Model from images (n, *image_shape), -1 to 1, to class probabilities.
    """
    inputs = keras.Input(image_shape, name="image")
    x = inputs
    for number, filters in enumerate((32, 64), start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(name=f"pool{number}")(x)
    x = layers.Dropout(0.3, name="dropout")(layers.Flatten(name="flatten")(x))
    x = layers.Dense(FEATURES, activation="relu", name="features")(x)
    outputs = layers.Dense(num_classes, activation="softmax", name="softmax")(x)
    model = keras.Model(inputs, outputs, name="classifier")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_classifier(data, path, epochs):
    """The classifier in `path`, or a new one, trained on the labelled images and saved there.

    Returns:
        (model, accuracy on the held-out images)
    """
    if path.exists():
        try:
            model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
        except Exception as error:  # many kinds, depending on which part of the file is damaged
            raise ValueError(f"{path} cannot be loaded ({error}); delete it") from error
        if model.input_shape[1:] != data["train_X"].shape[1:]:
            raise ValueError(f"{path} is for images {model.input_shape[1:]}; delete it")
    else:
        keras.utils.set_random_seed(0)
        model = build_classifier(data["train_X"].shape[1:], int(data["train_y"].max()) + 1)
        print(f"Training the classifier for {epochs} epochs …")
        model.fit(scale(data["train_X"]), data["train_y"], 128, epochs, verbose=2)
        model.save(path)
    accuracy = model.evaluate(scale(data["test_X"]), data["test_y"], 500, verbose=0)[1]
    return model, accuracy


def frechet_distance(features, other):
    """Fréchet distance of two sets of features (n, d), each taken as normally distributed.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) with means m and covariances C (Heusel et al., 2017).
    """
    means = [x.mean(axis=0) for x in (features, other)]
    covariances = [np.cov(x, rowvar=False) for x in (features, other)]
    # The trace of a matrix's root is the sum of the roots of its eigenvalues, here 0 or more.
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    return float(
        np.sum((means[0] - means[1]) ** 2)
        + np.trace(covariances[0] + covariances[1])
        - 2 * np.sqrt(eigenvalues).sum()
    )


class Judge:
    """Measures of generated images, by a classifier and real images that it has not seen.

    Args:
        classifier: see `build_classifier`. real: (2n, *image_shape), -1 to 1; one half is what
            generated images are compared with, the other gives the floor.
    """

    def __init__(self, classifier, real):
        self.model = keras.Model(
            classifier.inputs, [classifier.get_layer("features").output, classifier.output]
        )
        features = self.model.predict(real, batch_size=500, verbose=0)[0]
        half = len(real) // 2
        self.features = features[:half]
        self.floor = frechet_distance(features[:half], features[half:])

    def measure(self, images):
        """How good images (n, *image_shape), -1 to 1, are.

        Returns:
            dict: `mean_top_probability`; `sure`, the share above 0.9; `histogram`, shares of the
            classes; `entropy` of it, 1 when all classes are as frequent; `classes`, how many have
            3 % or more; `frechet`, the distance to the real images; `collapsed`, whether more
            than a tenth of the classes are missing.
        """
        features, probabilities = self.model.predict(images, batch_size=500, verbose=0)
        top = probabilities.max(axis=1)
        number = probabilities.shape[1]
        histogram = np.bincount(probabilities.argmax(axis=1), minlength=number) / len(images)
        present = histogram[histogram > 0]
        classes = int((histogram >= RARE).sum())
        return {
            "mean_top_probability": float(top.mean()),
            "sure": float((top > SURE).mean()),
            "histogram": histogram.tolist(),
            "entropy": float(-(present * np.log(present)).sum() / np.log(number)),
            "classes": classes,
            "frechet": frechet_distance(self.features, features),
            "collapsed": classes < 0.9 * number,
        }


def generate_images(generator, number, seed):
    """`number` images from normally distributed noise, -1 to 1."""
    noise = np.random.default_rng(seed).normal(size=(number, generator.input_shape[1]))
    return generator.predict(noise.astype("float32"), batch_size=250, verbose=0)


def load_generator(path):
    """A saved generator.

    Raises:
        OSError: there is none. ValueError: it is no generator.
    """
    if not path.exists():
        raise OSError(f"{path} does not exist; train first (gan_mnist.py, gan_cifar10.py)")
    try:
        model = keras.models.load_model(path, compile=False)  # safe mode
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error}); train again") from error
    if len(model.input_shape) != 2 or len(model.output_shape) != 4:
        raise ValueError(
            f"{path} turns {model.input_shape} into {model.output_shape}; a generator turns "
            "(None, noise) into (None, side, side, channels)"
        )
    return model


def plot_nearest(images, train_images, path):
    """Generated images above their nearest training images (Euclidean distance of the pixels)."""
    flat = train_images.reshape(len(train_images), -1)
    search = NearestNeighbors(n_neighbors=1).fit(flat)
    rows = search.kneighbors(images.reshape(len(images), -1), return_distance=False)[:, 0]
    make_grid(np.concatenate([images, train_images[rows]]), columns=len(images)).save(path)


def plot_measures(rows, floor, path):
    """Fréchet distance and spread over the classes by moment, as a picture."""
    fig, axes = plt.subplots(1, 3, figsize=(14, 4))
    steps = [row["step"] for row in rows]
    axes[0].plot(steps, [row["frechet"] for row in rows], marker="o", label="generated")
    axes[0].axhline(floor, color="grey", linestyle=":", label="real against real")
    axes[0].set(ylabel="Fréchet distance to real images", yscale="log")
    axes[0].legend()
    axes[1].plot(steps, [row["mean_top_probability"] for row in rows], marker="o", label="sureness")
    axes[1].plot(steps, [row["entropy"] for row in rows], marker="o", label="entropy of classes")
    axes[1].set(ylim=(0, 1.05))
    axes[1].legend()
    for ax in axes[:2]:
        ax.set(xlabel="step", xscale="log")
        ax.grid(alpha=0.3)
    last = rows[-1]["histogram"]
    axes[2].bar(range(len(last)), last)
    axes[2].axhline(RARE, color="grey", linestyle=":")
    axes[2].set(xlabel="class", ylabel="share of the samples, last moment", xticks=range(len(last)))
    fig.savefig(path, dpi=70, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run-dir", type=Path, default=gan_mnist.RUNS_DIR / "gan_mnist", help="of the training"
    )
    parser.add_argument("--data", metavar="SOURCE", help="default: that of the training")
    parser.add_argument("--classifier-epochs", type=positive, default=3, help="default: 3")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    return parser.parse_args()


def load_run(run_dir, source):
    """The labelled images that the run in `run_dir` was trained on.

    Raises:
        OSError: no run there. ValueError: not enough labelled images.
    """
    try:
        name = json.loads((run_dir / "metrics.json").read_text())["script"]
        settings = json.loads((run_dir / "settings.json").read_text())
    except (OSError, ValueError, KeyError):
        raise OSError(f"{run_dir} holds no finished training; train first") from None
    script = gan_cifar10 if "cifar10" in name else gan_mnist
    data = script.load_data(settings["data"] if source is None else source)
    missing = [key for key in ("train_y", "test_X", "test_y") if key not in data]
    if missing:
        raise ValueError(f"the images have no {', '.join(missing)}: nothing to judge by")
    if len(data["test_X"]) < 200:
        raise ValueError(f"{len(data['test_X'])} held-out images; 200 or more are needed")
    return data


def main():
    args = parse_arguments()
    try:
        data = load_run(args.run_dir, args.data)
        final = load_generator(args.run_dir / "generator.keras")
        if final.output_shape[1:] != data["train_X"].shape[1:]:
            raise ValueError(
                f"the generator makes images {final.output_shape[1:]}, the data has "
                f"{data['train_X'].shape[1:]}; give the --data of its training"
            )
        classifier, accuracy = load_classifier(
            data, args.run_dir / "classifier.keras", args.classifier_epochs
        )
        moments = {
            int(path.stem.removeprefix("step_")): load_generator(path)
            for path in sorted((args.run_dir / "moments").glob("step_*.keras"))
        }
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    real = scale(data["test_X"][: 2 * SAMPLES])
    judge = Judge(classifier, real)
    print(f"Classifier: accuracy {accuracy:.4f} on {len(data['test_X']):,} held-out images")
    of_real = judge.measure(real[len(real) // 2 :])
    rows = []
    for step, generator in moments.items():
        images = generate_images(generator, SAMPLES, args.seed)
        rows.append({"step": step, **judge.measure(images)})
    table = pd.DataFrame([*rows, {"step": "real", **of_real}]).drop(columns="histogram")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print("Classes of the last moment:", np.round(rows[-1]["histogram"], 3))
    if rows[-1]["collapsed"]:
        print(f"Mode collapse: {rows[-1]['classes']} classes have {RARE:.0%} or more.")
    plot_measures(rows, judge.floor, args.run_dir / "measures.png")
    plot_nearest(
        generate_images(final, 10, args.seed), scale(data["train_X"]), args.run_dir / "nearest.png"
    )
    evaluation = {
        "samples": SAMPLES,
        "seed": args.seed,
        "classifier_accuracy": accuracy,
        "frechet_floor": judge.floor,
        "real": of_real,
        "moments": rows,
    }
    path = args.run_dir / "evaluation.json"
    path.write_text(json.dumps(evaluation, indent=2) + "\n")
    print(f"Measures and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
