"""Try the chapter's claim that accuracy grows with the logarithm of the number of photographs.

Book: chapter 8, "More data is always beneficial".

    python chapter08/how_much_data.py runs/inceptionv3_dogs_cats      # after the training
    python chapter08/how_much_data.py runs/pretrained runs/random     # two curves

The training has left the frozen backbone's features of all photographs in its run folder. Those to
train and to validate are cut into --folds parts; each part in turn is what the others, and smaller
draws of them, are scored on. So the figures of one size, also the full one, come from different
photographs. The test photographs stay out of it.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers
from sklearn.model_selection import StratifiedKFold, train_test_split

SMALLEST = 50


def choose_sizes(total):
    """50, 100, 200 and so on, and all of them."""
    return [*(SMALLEST * 2**i for i in range(30) if SMALLEST * 2**i < total), total]


def score_head(train_X, train_y, val_X, val_y, steps):
    """Accuracy on `val_X` of the book's two new layers after `steps` batches of 30 of `train_X`.

    Features, (n, channels), are scaled first: those of random weights are tiny.
    """
    mean, deviation = train_X.mean(axis=0, dtype="float64"), train_X.std(axis=0, dtype="float64")
    deviation[deviation == 0] = 1
    train_X, val_X = (((X - mean) / deviation).astype("float32") for X in (train_X, val_X))
    inputs = keras.Input(train_X.shape[1:])
    x = layers.Dense(1024, activation="relu")(inputs)
    head = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    head.compile("adam", loss="binary_crossentropy", metrics=["accuracy"], steps_per_execution=20)
    rows = tf.data.Dataset.from_tensor_slices((train_X, train_y))
    rows = rows.shuffle(len(rows), seed=1).repeat().batch(30)
    head.fit(rows, steps_per_epoch=steps, verbose=0, shuffle=False)
    accuracy = head.evaluate(val_X, val_y, batch_size=500, verbose=0, return_dict=True)["accuracy"]
    keras.backend.clear_session()  # or each head's graph stays in memory
    return accuracy


def measure(X, y, folds, steps, seed):
    """A DataFrame of fold, n, accuracy: a head for every part and every number of photographs."""
    table = []
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, y)
    for fold, (train, val) in enumerate(splits):
        for n in choose_sizes(len(y) - -(-len(y) // folds)):  # the smallest fold's rest
            draw = {"train_size": n, "stratify": y[train], "random_state": seed}
            rows = train_test_split(train, **draw)[0] if n < len(train) - 1 else train
            keras.utils.set_random_seed(seed + fold)
            accuracy = score_head(X[rows], y[rows], X[val], y[val], steps)
            table.append({"fold": fold, "n": n, "accuracy": accuracy})
            print(f"part {fold + 1} of {folds}, {n:5} photographs: {accuracy:.4f}")
    return pd.DataFrame(table)


def fit_line(table):
    """Slope of accuracy over log2 n: mean and standard deviation of the folds, and R² of all."""
    table = table.assign(x=np.log2(table["n"]))
    slopes = [np.polyfit(rows["x"], rows["accuracy"], 1)[0] for _, rows in table.groupby("fold")]
    r = np.corrcoef(table["x"], table["accuracy"])[0, 1]
    return {"gain_per_doubling": np.mean(slopes), "std": np.std(slopes, ddof=1), "r_squared": r**2}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", nargs="+", type=Path, help="of inceptionv3_dogs_cats.py")
    parser.add_argument("--folds", type=int, default=5, help="default: 5")
    parser.add_argument("--steps", type=int, default=500, help="batches, default: 500")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--output", type=Path, default="runs/how_much_data", help="a new folder")
    args = parser.parse_args()
    if args.folds < 2 or args.steps < 1 or not 0 <= args.seed < 2**31:
        parser.error("--folds begins at 2, --steps at 1, --seed at 0")
    try:
        runs = {}
        for run_dir in args.run_dirs:
            with np.load(run_dir / "features.npz", allow_pickle=False) as file:
                X, y = (np.concatenate([file[f"train_{a}"], file[f"val_{a}"]]) for a in "Xy")
            if np.bincount(y).min() < args.folds or len(y) * (1 - 1 / args.folds) <= SMALLEST:
                raise ValueError(f"too few photographs in {run_dir} for --folds {args.folds}")
            runs[str(run_dir)] = X, y
        args.output.mkdir(parents=True, exist_ok=True)
        if any(args.output.iterdir()):
            raise ValueError(f"{args.output} holds files; give another --output")
    except Exception as error:  # NumPy and zipfile raise a dozen kinds
        sys.exit(f"error: {' '.join(str(error).split())[:500]}")
    tables, lines = [], {}
    for name, (X, y) in runs.items():
        print(name)
        tables.append(measure(X, y, args.folds, args.steps, args.seed).assign(run=name))
        lines[name] = fit_line(tables[-1])
        print("accuracy {:+.4f} ± {:.4f} per doubling, R² {:.2f}".format(*lines[name].values()))
    table = pd.concat(tables)
    table.to_csv(args.output / "accuracy.csv", index=False)
    means = table.groupby(["run", "n"])["accuracy"].agg(["mean", "std"]).round(4)
    print(means)
    metrics = {"seed": args.seed, "folds": args.folds, "steps": args.steps, "lines": lines}
    metrics["val"] = {name: means.loc[name].to_dict("index") for name in lines}
    (args.output / "metrics.json").write_text(json.dumps(metrics, indent=2))
    curves = means.rename(lambda name: name.replace("$", r"\$"), level="run").unstack("run")
    curves["mean"].plot(yerr=curves["std"], marker="o", capsize=4, logx=True)
    plt.gca().set(xlabel="training photographs", ylabel="accuracy, mean ± standard deviation")
    plt.savefig(args.output / "how_much_data.png")
    print(f"Table, metrics and picture are in {args.output}")


if __name__ == "__main__":
    main()
