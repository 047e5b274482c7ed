"""Compare searches at the same number of epochs: a table and a picture.

Book: chapter 6, "Hyperband".

    python chapter06/compare_searches.py runs/hyperband_seed* runs/random_search_seed*
    python chapter06/compare_searches.py chapter06/results/*.jsonl     # those of the README
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

JUDGED = {"loss": "after its last epoch", "lowest_loss": "after its best epoch"}


def read_search(path):
    """The evaluations of a finished search, of a run folder or a .jsonl file, as a DataFrame.

    Added are `spent`, the epochs so far, and the best so far of each column of JUDGED.
    """
    table = pd.read_json(path / "evaluations.jsonl" if path.is_dir() else path, lines=True)
    if "trained" not in table:
        raise ValueError(f"{path} is no search of hyperband_mnist.py or hyperband_keras_tuner.py")
    table["spent"] = table["trained"].cumsum()
    for column in JUDGED:
        table[f"best {column}"] = table[column].cummin().ffill()
    return table


def compare(searches):
    """The budget, the epochs of the shortest search, and the best losses at it, a row each."""
    budget = min(table["spent"].iloc[-1] for table in searches)
    return budget, pd.concat([table[table["spent"] <= budget].tail(1) for table in searches])


def plot_searches(searches, path):
    """The best loss so far against the epochs spent: a line for each search."""
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(11, 4.2), layout="constrained")
    colors = {}
    for table in searches:
        kind = table["search"][0]
        label = None if kind in colors else kind
        color = colors.setdefault(kind, f"C{len(colors)}")
        for ax, column in zip(axes, JUDGED, strict=True):
            ax.step(table["spent"], table[f"best {column}"], color, where="post", label=label)
            ax.set(title=f"judged {JUDGED[column]}", xlabel="epochs", yscale="log")
    axes[0].set_ylabel("best validation loss so far")
    axes[0].legend()
    fig.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("searches", type=Path, nargs="+", help="run folders, or .jsonl files")
    parser.add_argument("--output", type=Path, default="runs/searches.png", help="the picture")
    args = parser.parse_args()
    try:
        searches = [read_search(path) for path in args.searches]
        budget, best = compare(searches)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        plot_searches(searches, args.output)
    except Exception as error:  # pandas raises a dozen kinds
        sys.exit(f"error: {args.searches[0]} …: {' '.join(str(error).split())[:500]}")
    print(f"Best validation loss after {budget} epochs; `lowest_loss`: of trainings' best epochs")
    losses = best.groupby("search", sort=False)[[f"best {column}" for column in JUDGED]]
    print(losses.agg(["mean", "std", "count"]).round(4).T)


if __name__ == "__main__":
    main()
