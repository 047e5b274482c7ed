"""Chapter 8, stage 1: features of the frozen backbone computed once, against once an epoch.

    python benchmarks/bench_frozen_features.py                     # 4 minutes or so on 2 cores
    python benchmarks/bench_frozen_features.py --data data/dogs-vs-cats/sorted

The book's way sends every photograph through InceptionV3 in every epoch, though the frozen network
gives the same 2,048 numbers each time. Ours computes them once and trains the new layers on them.
Both are the script's own functions, from reading the files to the last epoch's validation. By
turns; random weights by default: the speed does not depend on them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from common import ROOT, load_script, record


def train_recomputed(script, data, args):
    """Stage 1 on photographs; seconds."""
    model = script.build_model_feature_extraction("inceptionv3", args.weights, args.image_size)
    photos = script.setup_data(data["folder"] / "train", args.image_size, 30, seed=1)
    start = time.perf_counter()
    model.fit(photos, epochs=args.epochs, validation_data=data["val"], verbose=0)
    return time.perf_counter() - start


def train_cached(script, data, args):
    """Stage 1 on features, the one pass that computes them included; seconds."""
    model = script.build_model_feature_extraction("inceptionv3", args.weights, args.image_size)
    with tempfile.TemporaryDirectory() as folder:
        args.run_dir = Path(folder)
        start = time.perf_counter()
        features = script.extract_features(model, data, args.run_dir / "features.npz")
        script.train(model, data | features, args, done=0)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="sample", help="as in the script (default: sample)")
    parser.add_argument("--weights", default="none", help="as in the script (default: none)")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10, as in the book")
    parser.add_argument("--repeats", type=int, default=1, help="timed runs of each (default: 1)")
    parser.add_argument("--image-size", type=int, default=299, help="default: 299")
    args = parser.parse_args()
    args.unfreeze_after, args.batch_size, args.seed = args.epochs, 30, 1

    script = load_script(ROOT / "chapter08" / "inceptionv3_dogs_cats.py")
    data = script.load_data(args.data, args.image_size)
    contestants = {"the book's way": train_recomputed, "ours": train_cached}
    seconds = {name: [] for name in contestants}
    for _ in range(args.repeats):
        for name, train in contestants.items():
            keras.utils.set_random_seed(1)
            seconds[name].append(train(script, data, args))
            print(f"{name:20} {seconds[name][-1]:7.1f} s")
    record(f"chapter 8, InceptionV3 frozen: {args.epochs} epochs", "s", *seconds.values())


if __name__ == "__main__":
    main()
