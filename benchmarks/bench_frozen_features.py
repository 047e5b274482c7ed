"""Chapter 8, stage 1: features of the frozen backbone computed once, against once an epoch.

    python benchmarks/bench_frozen_features.py                     # 4 minutes or so on 2 cores
    python benchmarks/bench_frozen_features.py --data data/dogs-vs-cats --photographs 400

The book's way sends every photograph through InceptionV3 in every epoch, though the frozen network
gives the same 2,048 numbers each time. Ours computes them once and trains the new layers on them.
Both are the script's own functions, from reading the files to the last epoch's validation; the same
photographs in the same order, the same first weights. By turns, after a warm-up of each, which
builds the graphs. Random weights by default: the speed does not depend on them.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from common import ROOT, load_script, record

BATCH_SIZE = 30


def take(data, part, count):
    """Cut a part to `count` photographs, as many of each class."""
    rows = [i for pair in zip(*split_by_label(data[f"{part}_y"]), strict=False) for i in pair]
    rows = rows[:count]
    data[f"{part}_X"] = [data[f"{part}_X"][i] for i in rows]
    data[f"{part}_sha256"] = [data[f"{part}_sha256"][i] for i in rows]
    data[f"{part}_y"] = data[f"{part}_y"][rows]


def split_by_label(y):
    """The rows of each class."""
    return [[i for i, label in enumerate(y) if label == wanted] for wanted in (0, 1)]


def train(script, models, start_weights, data, epochs, cached, image_size):
    """Stage 1 from the first weights on; returns seconds and the best validation accuracy."""
    model, extractor, head = models
    model.set_weights(start_weights)
    fitted = head if cached else model
    fitted.optimizer.build(fitted.trainable_variables)
    for variable in fitted.optimizer.variables:  # Adam's averages and step count, from 0 on
        if variable is not fitted.optimizer.learning_rate:
            variable.assign(keras.ops.zeros_like(variable))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # an empty cache: computing counts
        batches = {}
        for part, seed in (("train", 1), ("val", None)):
            X = data[f"{part}_X"]
            if cached:
                X = script.extract_features(extractor, data, part, Path(folder), BATCH_SIZE)
            batches[part] = script.Batches(X, data[f"{part}_y"], BATCH_SIZE, image_size, seed)
        history = fitted.fit(
            batches["train"],
            epochs=epochs,
            validation_data=batches["val"],
            shuffle=False,
            verbose=0,
        )
    return time.perf_counter() - start, max(history.history["val_accuracy"])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="sample", help="as in the script (default: sample)")
    parser.add_argument("--weights", default="none", help="as in the script (default: none)")
    parser.add_argument(
        "--photographs", type=int, default=90, help="to train on, a third more to validate"
    )
    parser.add_argument("--epochs", type=int, default=10, help="default: 10, as in the book")
    parser.add_argument("--repeats", type=int, default=1, help="timed runs of each (default: 1)")
    parser.add_argument("--image-size", type=int, default=299, help="default: 299")
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    script = load_script(ROOT / "chapter08" / "inceptionv3_dogs_cats.py")
    with tempfile.TemporaryDirectory() as folder:
        data = script.load_data(args.data, Path(folder))
        take(data, "train", args.photographs)
        take(data, "val", args.photographs // 3)
        model = script.build_model_feature_extraction(args.weights, args.image_size)
        models = (model, *script.split_model(model))
        weights = model.get_weights()
        contestants = {"recomputed (the book's way)": False, "computed once (ours)": True}
        seconds = {name: [] for name in contestants}
        accuracy = {}
        warm_up = dict(data)
        take(warm_up, "train", 2 * BATCH_SIZE)
        for cached in contestants.values():
            train(script, models, weights, warm_up, 1, cached, args.image_size)
        for _ in range(args.repeats):
            for name, cached in contestants.items():
                spent, accuracy[name] = train(
                    script, models, weights, data, args.epochs, cached, args.image_size
                )
                seconds[name].append(spent)

    counts = f"{len(data['train_y'])} + {len(data['val_y'])} photographs"
    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, ", end=""
    )
    print(f"{counts}, {args.epochs} epochs, median (lowest to highest) of {args.repeats}")
    for name, values in seconds.items():
        spread = f"({min(values):.1f} to {max(values):.1f})"
        print(
            f"{name:28} {statistics.median(values):7.1f} s {spread}, "
            f"best validation accuracy {accuracy[name]:.4f}"
        )
    book, ours = (statistics.median(values) for values in seconds.values())
    print(f"{'ratio':28} {book / ours:7.2f}")
    record(f"chapter 8, InceptionV3 frozen: {args.epochs} epochs", "s", *seconds.values())


if __name__ == "__main__":
    main()
