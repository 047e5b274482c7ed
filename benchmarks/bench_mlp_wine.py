"""Chapter 2's networks: wines per second in training, the book's way against ours, in one run.

    python benchmarks/bench_mlp_wine.py            # about a minute on 2 cores

The book's way: float64 arrays, `fit` as it comes. Ours: the scripts' own `build_network` on float32
arrays, 16 batches per trip from Python. Beside them the same compiled by XLA. All train the same
network on the same wines at the same batch size, by turns, after a warm-up; best epochs, logs and
backups are left out, since the book keeps none.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from common import ROOT, load_script, record

BATCH_SIZE = 32


def recompile(network, **settings):
    """The same layers with random weights of their own, compiled otherwise."""
    model = keras.models.clone_model(network)
    model.compile(optimizer="adam", loss="mean_absolute_error", **settings)
    return model


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
        data = script.load_data()
        ours = script.build_network()
        contestants = {
            "the book's way": (recompile(ours), "float64"),
            "ours": (ours, "float32"),
            "ours with XLA": (recompile(ours, steps_per_execution=16, jit_compile=True), "float32"),
        }
        speeds = {contestant: [] for contestant in contestants}
        for turn in range(args.repeats + 1):
            for contestant, (model, dtype) in contestants.items():
                X, y, val_X, val_y = (
                    data[key].astype(dtype) for key in ("train_X", "train_y", "val_X", "val_y")
                )
                start = time.perf_counter()
                model.fit(
                    X,
                    y,
                    batch_size=BATCH_SIZE,
                    epochs=args.epochs,
                    validation_data=(val_X, val_y),
                    verbose=0,
                )
                if turn > 0:  # the first time compiles
                    wines = args.epochs * len(X)
                    speeds[contestant].append(wines / (time.perf_counter() - start))
        print(name)
        for contestant, values in speeds.items():
            median = statistics.median(values)
            ratio = median / statistics.median(speeds["the book's way"])
            spread = f"({min(values):.0f} to {max(values):.0f})"
            print(f"  {contestant:15} {median:7.0f} wines/s {spread:20} {ratio:5.2f} times")
        record(f"chapter 2, {name}: training", "wines/s", speeds["the book's way"], speeds["ours"])


if __name__ == "__main__":
    main()
