"""Compare runs: a table and a picture of their validation losses and accuracies.

Book: chapter 5, the figures of TensorBoard after dropout and after L2.

    python chapter05/compare_runs.py runs/mlp_mnist runs/mlp_mnist_dropout

It reads settings.json and history.csv of each folder, also of a run that is still training. Runs
that differ in nothing but their seed are shown as one: their mean ± standard deviation.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd


def read_run(run_dir):
    """The settings without the seed, a dict; val_loss and val_accuracy by epoch, from 1."""
    settings = json.loads((run_dir / "settings.json").read_text()).items()
    settings = {key: value for key, value in settings if key != "seed" and value is not None}
    history = pd.read_csv(run_dir / "history.csv", index_col="epoch")
    if "val_cross_entropy" in history:  # the loss without a penalty: it compares with others
        history["val_loss"] = history["val_cross_entropy"]
    history = history[["val_loss", "val_accuracy"]].astype("float64").dropna()
    if history.empty:
        raise ValueError(f"{run_dir} has no finished epoch")
    return settings, history.set_index(history.index + 1)


def group_runs(runs):
    """Lists of histories of the same settings, by what differs: "mlp_mnist_l2, l2 0.01"."""

    def order(run):  # by numbers, not their text: l2 1e-05 stands before l2 0.01
        return [run[0]["script"], *(v for v in run[0].values() if isinstance(v, int | float))]

    all_settings = [settings for settings, _ in runs]
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    keys = [key for key in keys if len({str(s.get(key)) for s in all_settings}) > 1]
    groups = {}
    for settings, history in sorted(runs, key=order):
        name = ", ".join(f"{key} {settings[key]}" for key in keys if key in settings)
        groups.setdefault(name.removeprefix("script ") or settings["script"], []).append(history)
    return groups


def summarize(groups):
    """A table of text with a row for each group: mean ± standard deviation over its runs."""
    rows = {}
    for group, histories in groups.items():
        losses = [history["val_loss"] for history in histories]
        figures = pd.DataFrame({"epochs": [len(loss) for loss in losses]})
        figures["lowest val_loss"] = [loss.min() for loss in losses]
        figures["in epoch"] = [loss.idxmin() for loss in losses]
        figures["last val_loss"] = [loss.iloc[-1] for loss in losses]
        figures["best val_accuracy"] = [history["val_accuracy"].max() for history in histories]
        rows[group] = {"runs": len(histories)}
        for name, mean, deviation in zip(figures, figures.mean(), figures.std(), strict=True):
            digits = 0 if "epoch" in name else 4
            rows[group][name] = f"{mean:.{digits}f} ± {deviation:.{digits}f}".removesuffix(" ± nan")
    return pd.DataFrame.from_dict(rows, orient="index")


def plot_comparison(groups, path):
    """Each group's mean in the epochs that all its runs have, in a band of ± its deviation."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for ax, column in zip(axes, ("val_loss", "val_accuracy"), strict=True):
        for name, histories in groups.items():
            curves = pd.concat([history[column] for history in histories], axis=1, join="inner")
            mean, deviation = curves.mean(axis=1), curves.std(axis=1)
            ax.plot(mean, marker=".", label=name.replace("$", r"\$"))
            ax.fill_between(mean.index, mean - deviation, mean + deviation, alpha=0.2)
        ax.set(xlabel="epoch", title=column)
    axes[0].legend()
    fig.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="folders of runs")
    parser.add_argument("--output", type=Path, help="default: comparison.png beside the first run")
    args = parser.parse_args()
    output = args.output or args.run_dirs[0].resolve().parent / "comparison.png"
    try:
        groups = group_runs([read_run(run_dir) for run_dir in args.run_dirs])
        plot_comparison(groups, output)
    except Exception as error:
        sys.exit(f"error: {' '.join(str(error).split())[:500]}")
    print(summarize(groups).to_string())
    print(f"The picture is {output}")


if __name__ == "__main__":
    main()
