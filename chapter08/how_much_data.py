"""Try the chapter's claim that accuracy grows with the logarithm of the number of photographs.

Book: chapter 8, "More data is always beneficial".

    python chapter08/how_much_data.py runs/inceptionv3_dogs_cats      # after the training
    python chapter08/how_much_data.py runs/pretrained runs/random     # two curves

The training has left the frozen backbone's features of all photographs in its run folder. Those to
train and to validate are cut into --folds parts; each part in turn is what logistic regressions on
the others, and on smaller draws of them, are scored on. The test photographs stay out of it.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SMALLEST = 50


def measure(run_dir, folds, seed):
    """Accuracy by photographs trained on: a DataFrame, a row for 50, 100 … all, a column a fold."""
    with np.load(run_dir / "features.npz", allow_pickle=False) as file:
        X, y = (np.concatenate([file[f"train_{name}"], file[f"val_{name}"]]) for name in "Xy")
    total = len(y) - -(-len(y) // folds)  # the largest part's rest
    if np.bincount(y).min() < folds or total <= SMALLEST:
        raise ValueError(f"too few photographs in {run_dir} for --folds {folds}")
    sizes = [*(SMALLEST * 2**i for i in range(30) if SMALLEST * 2**i < total), total]
    # The features of random weights are tiny before they are scaled.
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    options = {"train_sizes": sizes, "cv": parts, "shuffle": True, "random_state": seed}
    return pd.DataFrame(learning_curve(head, X.astype("float64"), y, **options)[2], index=sizes)


def fit_line(table):
    """Slope of accuracy over log2 n, mean and standard deviation of the folds."""
    slopes = np.polyfit(np.log2(table.index), table, 1)[0]
    return {"gain_per_doubling": slopes.mean(), "std": slopes.std(ddof=1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", nargs="+", type=Path, help="of inceptionv3_dogs_cats.py")
    parser.add_argument("--folds", type=int, default=5, help="default: 5")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--output", type=Path, default="runs/how_much_data", help="a new folder")
    args = parser.parse_args()
    try:
        if args.output.exists() and any(args.output.iterdir()):
            raise ValueError(f"{args.output} holds files; give another --output")
        tables = {str(run): measure(run, args.folds, args.seed) for run in args.run_dirs}
        args.output.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # NumPy and zipfile raise a dozen kinds
        sys.exit(f"error: {' '.join(str(error).split())[:500]}")
    metrics = {"seed": args.seed, "folds": args.folds, "lines": {}, "val": {}}
    for name, table in tables.items():
        means = table.agg(["mean", "std"], axis=1).round(4)
        line = metrics["lines"][name] = fit_line(table)
        metrics["val"][name] = means.to_dict("index")
        print(f"{name}\n{means}")
        print("accuracy {:+.4f} ± {:.4f} per doubling".format(*line.values()))
        means["mean"].plot(yerr=means["std"], marker="o", capsize=4, logx=True, label=name)
    (args.output / "metrics.json").write_text(json.dumps(metrics, indent=2))
    plt.gca().set(xlabel="training photographs", ylabel="accuracy, mean ± standard deviation")
    plt.xticks(table.index, table.index)
    plt.minorticks_off()
    plt.legend()
    plt.savefig(args.output / "how_much_data.png")
    print(f"Metrics and picture are in {args.output}")


if __name__ == "__main__":
    main()
