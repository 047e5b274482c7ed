"""Try the chapter's claim that accuracy grows with the logarithm of the number of photographs.

Book: chapter 8, "More data is always beneficial".

    python chapter08/how_much_data.py                                   # after data_setup.py
    python chapter08/how_much_data.py --random-baseline                 # and without pretraining
    python chapter08/how_much_data.py --data sample --weights none      # no network at all

The features of all photographs are computed once (the same cache as inceptionv3_dogs_cats.py); then
the book's two new layers are trained on 50, 100, 200, … of them, several draws each, always for the
same number of steps, and scored on the validation photographs. What to look for in the picture: how
far apart two draws of the same size lie (one draw proves little); whether a straight line over log
n fits; and that it cannot go on for ever, since accuracy ends at 1.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
import pandas as pd
from inceptionv3_dogs_cats import (
    IMAGE_SIZE,
    RUNS_DIR,
    Batches,
    build_model_feature_extraction,
    color_histograms,
    compile_for,
    describe,
    extract_features,
    hash_weights,
    load_data,
    positive,
    save_figure,
    split_model,
)
from keras import layers
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

SMALLEST = 50


def choose_sizes(total, smallest=SMALLEST):
    """50, 100, 200, … and all of them."""
    sizes = []
    while smallest < total:
        sizes.append(smallest)
        smallest *= 2
    return [*sizes, total]


def draw(y, size, rng):
    """`size` rows drawn at random without repeats, both classes alike as far as they reach."""
    rows = [rng.permutation(np.flatnonzero(y == label)) for label in (0, 1)]
    first = min(max(size // 2, size - len(rows[1])), len(rows[0]))
    return np.concatenate([rows[0][:first], rows[1][: size - first]])


def score_head(X, y, val_X, val_y, steps, batch_size, seed):
    """Validation accuracy of the book's two layers after `steps` steps on features `X`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape=X.shape[1:])
    x = layers.Dense(1024, activation="relu")(inputs)
    head = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    compile_for(head, keras.optimizers.Adam(learning_rate=0.001))
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(len(y)) for _ in range(steps * batch_size // len(y) + 1)]
    )
    batches = Batches(X, y, batch_size)
    batches.order = rows[: steps * batch_size]  # one long epoch: small sets are seen many times
    head.fit(batches, verbose=0, shuffle=False)
    scores = head.evaluate(Batches(val_X, val_y, 500), verbose=0, return_dict=True)
    keras.backend.clear_session()  # or each draw's graph stays in memory
    return scores["accuracy"]


def score_logistic(X, y, val_X, val_y, *_):
    """Validation accuracy of logistic regression, for the colour histograms."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return model.fit(X, y).score(val_X, val_y)


def measure(sources, data, args):
    """A row for every source of features, size and draw: DataFrame of name, n, draw, accuracy."""
    y, val_y = data["train_y"], data["val_y"]
    jobs = [
        (name, size, number)
        for name in sources
        for size in choose_sizes(len(y))
        for number in range(args.draws)
    ]
    rows = []
    for name, size, number in tqdm(jobs, "Heads", unit="head"):
        X, val_X = sources[name]
        seed = args.seed * 1000 + number
        chosen = np.sort(draw(y, size, np.random.default_rng(seed)))
        score = score_logistic if name == "colour histograms" else score_head
        accuracy = score(
            *(np.asarray(X[chosen]), y[chosen], val_X, val_y, args.steps, args.batch_size, seed)
        )
        rows.append({"features": name, "n": size, "draw": number, "accuracy": accuracy})
    return pd.DataFrame(rows)


def fit_line(table):
    """Least squares of accuracy on log2 n over all draws: dict of slope, intercept, r_squared."""
    x, accuracy = np.log2(table["n"]), table["accuracy"]
    slope, intercept = np.polyfit(x, accuracy, 1)
    residual = ((accuracy - slope * x - intercept) ** 2).sum()
    total = ((accuracy - accuracy.mean()) ** 2).sum()
    return {
        "gain_per_doubling": float(slope),
        "intercept": float(intercept),
        "r_squared": float(1 - residual / total) if total else None,
    }


def plot_lines(table, lines, path):
    """Accuracy against log n: each draw, their mean and standard deviation, the fitted line."""
    fig, ax = plt.subplots(figsize=(7, 4.5))
    for number, (name, rows) in enumerate(table.groupby("features", sort=False)):
        color, groups = f"C{number}", rows.groupby("n")["accuracy"]
        ax.plot(rows["n"], rows["accuracy"], ".", color=color, alpha=0.3)
        ax.errorbar(
            *(groups.mean().index, groups.mean(), groups.std()),
            fmt="o",
            color=color,
            capsize=4,
            label=name,
        )
        n = np.array([rows["n"].min(), rows["n"].max()])
        line = lines[name]
        ax.plot(n, line["intercept"] + line["gain_per_doubling"] * np.log2(n), "--", color=color)
    ax.set(xlabel="training photographs", ylabel="validation accuracy", xscale="log")
    sizes = sorted(table["n"].unique())
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(title="mean ± standard deviation of the draws")
    save_figure(fig, path)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="SOURCE", help='"sample", or a folder with train, val and test'
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|PATH|none",
        help="of InceptionV3: from Keras, a .h5 file, or random",
    )
    parser.add_argument(
        "--random-baseline", action="store_true", help="a curve without pretraining"
    )
    parser.add_argument("--draws", type=positive, default=5, help="of each size (default: 5)")
    parser.add_argument("--steps", type=positive, default=500, help="of each head (default: 500)")
    parser.add_argument("--batch-size", type=positive, default=30, help="default: 30")
    parser.add_argument(
        "--image-size", type=int, default=IMAGE_SIZE, help="side in pixels, 75 or more"
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=RUNS_DIR / "features",
        help="for the frozen network's features",
    )
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter08/how_much_data")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args()
    if args.image_size < 75:
        parser.error("--image-size must be 75 or more for InceptionV3")
    if args.run_dir is None:
        args.run_dir = RUNS_DIR / ("how_much_data" + "_sample" * (args.data == "sample"))
    return args


def main():
    args = parse_arguments()
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # about unused EXIF
    logging.getLogger("tensorflow").setLevel("ERROR")  # not a word about each head's own graph
    keras.utils.set_random_seed(args.seed)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    start = time.perf_counter()
    weights = args.weights if args.weights in ("imagenet", "none") else Path(args.weights).name
    try:
        models = {"random weights" if weights == "none" else "pretrained": args.weights}
        models |= {"random weights": "none"} if args.random_baseline else {}
        extractors, digests = {}, {}
        for name, which in models.items():
            keras.utils.set_random_seed(args.seed)  # the random weights of inceptionv3_dogs_cats.py
            model = build_model_feature_extraction(which, args.image_size)
            extractors[name] = split_model(model)[0]
            digests[name] = hash_weights(model.get_layer("inception_v3"))
        data = load_data(args.data, args.run_dir)
        if len(data["train_y"]) <= SMALLEST:
            raise ValueError(f"needs more than {SMALLEST} training photographs")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = describe(data, args.data)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    sources = {}
    try:
        for name, extractor in extractors.items():
            X = [
                extract_features(extractor, data, part, args.cache_dir) for part in ("train", "val")
            ]
            if name == "random weights":  # tiny numbers, from which a head hardly learns
                scaler = StandardScaler().fit(X[0])
                X = [scaler.transform(rows) for rows in X]
            sources[name] = X
        sources["colour histograms"] = [color_histograms(data[f"{p}_X"]) for p in ("train", "val")]
        table = measure(sources, data, args)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the features found so far are kept.")
    lines = {name: fit_line(rows) for name, rows in table.groupby("features", sort=False)}
    table.to_csv(args.run_dir / "accuracy.csv", index=False)
    plot_lines(table, lines, args.run_dir / "how_much_data.png")
    summary = table.groupby(["features", "n"], sort=False)["accuracy"].agg(["mean", "std"])
    print("\n" + summary.round(4).to_string())
    for name, line in lines.items():
        fit = line["r_squared"]
        print(
            f"{name}: {line['gain_per_doubling']:+.4f} accuracy per doubling of the photographs"
            + (f", R² of the line {fit:.2f}" if fit is not None else "")
        )
    metrics = {
        "script": "chapter08/how_much_data.py",
        "data": source,
        "weights": weights,
        "weights_sha256": digests,
        "seed": args.seed,
        "draws": args.draws,
        "steps": args.steps,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            keras.backend.backend(): importlib.metadata.version(keras.backend.backend()),
        },
        "device": keras.distribution.list_devices()[0],
        "seconds": round(time.perf_counter() - start, 1),
        "val": {
            name: {
                str(n): {"mean": row["mean"], "std": row["std"] if args.draws > 1 else None}
                for (_, n), row in summary.loc[[name]].iterrows()
            }
            for name in lines
        },
        "lines": lines,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Table, metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
