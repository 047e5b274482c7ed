"""Chapter 2's networks: wines per second in training, the book's way against ours, in one run.

    python benchmarks/bench_mlp_wine.py            # about a minute on 2 cores

The book's way: arrays, scaled beforehand, `fit` as it comes. Ours: the scripts' own `build_network`
on the wines as measured, shuffled by `tf.data` anew in each epoch, 16 batches per trip from Python.
Beside them the same compiled by XLA. All train the same network on the same wines at the same batch
size, by turns, after a warm-up; models and logs are left out, since the book keeps none.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from common import ROOT, load_script, record, time_fit

BATCH_SIZE = 32


def book_network(ours):
    """The same layers without the two that scale, compiled as the book does."""
    inputs = keras.Input(ours.input_shape[1:])
    x = inputs
    for layer in ours.layers[2:-1]:
        x = layer.__class__.from_config(layer.get_config())(x)
    model = keras.Model(inputs, x)
    model.compile(optimizer="adam", loss="mean_absolute_error")
    return model


def with_xla(ours):
    """A copy of our network, compiled by XLA."""
    model = keras.models.clone_model(ours)
    model.compile("adam", "mean_absolute_error", steps_per_execution=16, jit_compile=True)
    return model


def prepare(script, epochs):
    """The contestants: name → a function that trains and returns seconds; and wines an epoch."""
    data = script.load_data()
    X, y = data["train_X"], data["train_y"]
    ours = script.build_network(X, y)
    book, xla = book_network(ours), with_xla(ours)
    scaled, val_scaled = (
        (
            (data[f"{part}_X"] - X.mean(axis=0)) / X.std(axis=0),
            (data[f"{part}_y"] - y.mean()) / y.std(),
        )
        for part in ("train", "val")
    )
    rows = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), seed=1).batch(BATCH_SIZE)
    settings = {"epochs": epochs, "validation_data": (data["val_X"], data["val_y"])}
    book_settings = settings | {"validation_data": val_scaled, "batch_size": BATCH_SIZE}
    return {
        "the book's way": lambda: time_fit(book, *scaled, **book_settings),
        "ours": lambda: time_fit(ours, rows, shuffle=False, **settings),
        "ours with XLA": lambda: time_fit(xla, rows, shuffle=False, **settings),
    }, len(X)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5, help="per measurement (default: 5)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements each (default: 5)")
    args = parser.parse_args()

    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, "
        f"batch size {BATCH_SIZE}, median (lowest to highest) of {args.repeats}"
    )
    for name in ("mlp_wine", "dnn_wine"):
        keras.utils.set_random_seed(1)
        script = load_script(ROOT / "chapter02" / f"{name}.py")
        contestants, wines = prepare(script, args.epochs)
        speeds = {contestant: [] for contestant in contestants}
        for turn in range(args.repeats + 1):
            for contestant, run_epochs in contestants.items():
                seconds = run_epochs()
                if turn > 0:  # the first time compiles
                    speeds[contestant].append(args.epochs * wines / seconds)
        print(name)
        for contestant, values in speeds.items():
            median = statistics.median(values)
            ratio = median / statistics.median(speeds["the book's way"])
            spread = f"({min(values):.0f} to {max(values):.0f})"
            print(f"  {contestant:15} {median:7.0f} wines/s {spread:20} {ratio:5.2f} times")
        record(f"chapter 2, {name}: training", "wines/s", speeds["the book's way"], speeds["ours"])


if __name__ == "__main__":
    main()
