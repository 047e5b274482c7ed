"""Judge a generator by more than the eye: a classifier looks at 1,000 of its images.

Book: chapter 13, "Model evaluation", which shows images and leaves the judgement to the reader.

    python chapter13/evaluate_gan.py                            # of runs/gan_mnist
    python chapter13/evaluate_gan.py --run-dir runs/gan_mnist_sample --data sample

How sure is it of what it sees? How many of the classes are there? How far are its features of made
images from those of real ones (Fréchet distance; 0: same mean and covariance)? All this for each
generator that the run has kept. The same figures of real images are the best that can be reached;
all figures are worth what the classifier is, so its accuracy is given, too. Needs generate.py
beside it.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from generate import generate_images, make_grid
from keras import layers
from sklearn.neighbors import NearestNeighbors

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
NUMBER = 1000  # images of a kind that are compared
RELIABLE = 0.9  # accuracy from which the classifier's word counts on what is in a made image
PRESENT = 0.03  # share of the images from which a class counts as there; a tenth would be fair


def load_data(source=None, name="mnist"):
    """Labelled images: a dict with train_X, test_X, uint8 (n, side, side, channels), and labels.

    `source` is None for Keras's set `name` ("mnist" or "cifar10"), "sample" for its sample, or an
    .npz file with x_train, y_train, x_test, y_test.
    """
    if source is None:
        (train_X, train_y), (test_X, test_y) = getattr(keras.datasets, name).load_data()
    else:
        path = SAMPLES / f"{name}.npz" if source == "sample" else Path(source)
        if path.is_dir():
            raise ValueError("a folder of images has no labels: give an .npz file with them")
        with np.load(path, allow_pickle=False) as file:
            train_X, train_y = file["x_train"], file["y_train"]
            test_X, test_y = file["x_test"], file["y_test"]
    train_X, test_X = (X[..., None] if X.ndim == 3 else X for X in (train_X, test_X))
    train_y, test_y = train_y.ravel().astype("int64"), test_y.ravel().astype("int64")
    return {"train_X": train_X, "train_y": train_y, "test_X": test_X, "test_y": test_y}


def build_network(train_X, num_classes):
    """A small classifier, compiled: pixels (n, side, side, channels), 0-255, to probabilities."""
    inputs = keras.Input(train_X.shape[1:], name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dense(64, activation="relu", name="features")(x)
    outputs = layers.Dense(num_classes, activation="softmax", name="classes")(x)
    model = keras.Model(inputs, outputs, name="classifier")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_classifier(data, folder, epochs):
    """The classifier of these images in `folder`, trained if there is none; and its accuracy."""
    checksum = zlib.crc32(data["train_X"].tobytes() + data["train_y"].tobytes())
    path = folder / f"classifier_{checksum}_{epochs}.keras"  # never one of other images
    if path.exists():
        model = keras.models.load_model(path)
    else:
        keras.utils.set_random_seed(0)
        model = build_network(data["train_X"], int(data["train_y"].max()) + 1)
        model.fit(data["train_X"], data["train_y"], 128, epochs, verbose=2)
        model.save(folder / "new_classifier.keras")
        (folder / "new_classifier.keras").replace(path)  # a kill leaves none that is cut
    return model, model.evaluate(data["test_X"], data["test_y"], 500, verbose=0)[1]


def frechet_distance(features, other):
    """Fréchet distance of two sets of features (n, d), each taken as normally distributed.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) with means m and covariances C (Heusel et al., 2017).
    """
    shift = features.mean(axis=0) - other.mean(axis=0)
    first, second = np.cov(features, rowvar=False), np.cov(other, rowvar=False)
    # The trace of a matrix's root is the sum of the roots of its eigenvalues, here 0 or more.
    roots = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0))
    return float((shift**2).sum() + np.trace(first + second) - 2 * roots.sum())


def measure(classifier, images, labels, real_images):
    """What the classifier says of images, 0-255, and how far they are from real ones; a dict.

    mean_top_probability, how sure it is; right, the share with the label they should have,
    if labels is not None; histogram, the share of each class; entropy of it, 1 when all are as
    frequent; classes, how many have 3 % or more; frechet, the distance.
    """
    outputs = [classifier.get_layer("features").output, classifier.output]
    model = keras.Model(classifier.inputs, outputs)
    features, probabilities = model.predict(images, batch_size=500, verbose=0)
    real_features, _ = model.predict(real_images, batch_size=500, verbose=0)
    answers, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    shares = np.bincount(answers, minlength=classes) / len(images)
    return {
        "mean_top_probability": float(probabilities.max(axis=1).mean()),
        "right": None if labels is None else float((answers == labels).mean()),
        "entropy": float(-(shares * np.log(shares.clip(1e-9))).sum() / np.log(classes)),
        "classes": int((shares >= PRESENT).sum()),
        "frechet": frechet_distance(features, real_features),
        "histogram": shares.tolist(),
    }


def plot_nearest(images, train_X, path):
    """Images above those of train_X that are nearest to them, pixel by pixel."""
    search = NearestNeighbors(n_neighbors=1).fit(train_X.reshape(len(train_X), -1))
    rows = search.kneighbors(images.reshape(len(images), -1), return_distance=False)[:, 0]
    make_grid(np.concatenate([images, train_X[rows]]), columns=len(images)).save(path)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default="runs/gan_mnist", help="of the training")
    parser.add_argument("--data", metavar="SOURCE", help="of the training, with labels")
    parser.add_argument("--classifier-epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--seed", type=int, default=0, help="of noise and choice; default: 0")
    args = parser.parse_args()
    if args.classifier_epochs < 1 or not 0 <= args.seed < 2**32:
        parser.error("--classifier-epochs begins at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    try:
        settings = json.loads((args.run_dir / "settings.json").read_text())
        data = load_data(args.data, "cifar10" if "cifar10" in settings["script"] else "mnist")
        if zlib.crc32(data["train_X"].tobytes()) != settings["data"]:
            raise ValueError("it was trained on other images; give the --data of the training")
        paths = sorted((args.run_dir / "moments").glob("*.keras"))
        if not paths:
            raise ValueError("it has no generator yet")
        generators = {path.stem: keras.models.load_model(path, compile=False) for path in paths}
        classifier, accuracy = load_classifier(data, args.run_dir.parent, args.classifier_epochs)
    except Exception as error:  # NumPy, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.run_dir}: {' '.join(str(error).split())[:500]}")
    rng = np.random.default_rng(args.seed)
    number = min(NUMBER, len(data["test_X"]) // 2)
    # At random, since a set may be sorted by class.
    chosen = rng.permutation(len(data["test_X"]))[: 2 * number].reshape(2, number)
    (real, others), (_, labels) = data["test_X"][chosen], data["test_y"][chosen]
    rows = [{"step": "real"} | measure(classifier, others, labels, real)]
    noise = rng.normal(size=(number, 100)).astype("float32")
    for step, generator in generators.items():
        wanted = np.arange(number) % 10 if len(generator.inputs) == 2 else None
        images = generate_images(generator, noise, wanted)
        rows.append({"step": int(step)} | measure(classifier, images, wanted, real))
    print(f"The classifier is right about {accuracy:.1%} of {len(data['test_X']):,} real images.")
    if accuracy < RELIABLE:
        print("That is too little to say which classes are there.")
        for row in rows:
            row["classes"] = None
    elif rows[-1]["classes"] < 0.9 * len(rows[-1]["histogram"]):
        print(f"Mode collapse: only {rows[-1]['classes']} classes have {PRESENT:.0%} or more.")
    print(pd.DataFrame(rows).drop(columns="histogram").to_string(index=False))
    plot_nearest(images[:10], data["train_X"], args.run_dir / "nearest.png")
    evaluation = {"samples": number, "seed": args.seed, "classifier_accuracy": accuracy}
    evaluation |= {"frechet_floor": rows[0]["frechet"], "real": rows[0], "moments": rows[1:]}
    (args.run_dir / "evaluation.json").write_text(json.dumps(evaluation, indent=2))


if __name__ == "__main__":
    main()
