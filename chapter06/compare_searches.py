"""Compare Hyperband with random search: the best validation loss against the epochs spent.

Book: chapter 6, "Hyperband".

    python chapter06/hyperband_mnist.py --seed 1 --run-dir runs/hyperband-1
    python chapter06/hyperband_mnist.py --seed 11 --random-search 26 --run-dir runs/random-11
    python chapter06/compare_searches.py runs/hyperband-* runs/random-*

It reads `evaluations.jsonl` of each run directory, prints one table and draws one picture.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

COLORS = {"Hyperband": "tab:blue", "random search": "tab:orange"}


def read_search(run_dir):
    """The settings of a search and its evaluations, in the order in which they finished.

    Raises:
        OSError: there is none. ValueError: the file is damaged.
    """
    path = run_dir / "evaluations.jsonl"
    if not path.exists():
        raise OSError(f"{path} does not exist; hyperband_mnist.py writes it into its run directory")
    entries = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            entries.append(json.loads(line))
            if number > 1:
                _ = entries[-1]["loss"], entries[-1]["losses"], entries[-1]["trained"] + 0
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number} is not an evaluation ({error!r})") from None
    if len(entries) < 2 or "random_search" not in entries[0]:
        raise ValueError(f"{path} holds no evaluations yet")
    return entries[0], entries[1:]


def best_so_far(entries, every_epoch=False):
    """Epochs spent and the lowest validation loss until then, as two arrays.

    Args:
        entries: evaluations in the order in which they finished.
        every_epoch: look at the loss after each epoch, not only at the end of each evaluation.
    """
    spent, losses, total = [], [], 0
    for entry in entries:
        values = entry["losses"] if every_epoch else [entry["loss"]]
        total += entry["trained"]
        spent += [total - len(values) + 1 + i for i in range(len(values))]
        losses += [np.inf if value is None else value for value in values]
    return np.array(spent), np.fmin.accumulate(losses)


def compare(searches, every_epoch=False):
    """Hyperband's best losses beside those of random search at the same budget.

    Args:
        searches: pairs (settings, entries) as `read_search` returns them.
        every_epoch: see `best_so_far`.

    Returns:
        dict: `budget`; `hyperband` and `random`: the best loss of each search at that budget;
        `needed`: the epochs that each random search needed for Hyperband's mean, or None.

    Raises:
        ValueError: a random search had judged nothing when Hyperband was done.
    """
    curves = {True: [], False: []}
    for settings, entries in searches:
        random = settings["random_search"] is not None
        curves[random].append(best_so_far(entries, every_epoch))
    budget = max(spent[-1] for spent, _ in curves[False])
    hyperband = [losses[-1] for _, losses in curves[False]]
    random, needed = [], []
    for spent, losses in curves[True]:
        if spent[0] > budget:
            raise ValueError(
                f"nothing to compare: Hyperband was done after {budget} epochs, random search had "
                f"its first result after {spent[0]}; give both the same --max-iter"
            )
        random.append(losses[spent <= budget][-1])
        reached = spent[losses <= np.mean(hyperband)]
        needed.append(int(reached[0]) if len(reached) else None)
    return {"budget": int(budget), "hyperband": hyperband, "random": random, "needed": needed}


def print_table(comparison, title, longest):
    """The comparison as rows of a Markdown table."""
    cells = [
        f"{np.mean(losses):.4f} ± {np.std(losses, ddof=min(1, len(losses) - 1)):.4f}"
        f" ({', '.join(f'{loss:.4f}' for loss in losses)})"
        for losses in (comparison["hyperband"], comparison["random"])
    ]
    needed = ", ".join(f"{n}" if n else f"not in {longest}" for n in comparison["needed"])
    print(f"| {title} | {cells[0]} | {cells[1]} | {needed} |")


def plot_comparison(searches, path):
    """Best validation loss so far against the epochs spent: one line for each search."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True, sharey=True)
    for ax, every_epoch in zip(axes, (False, True), strict=True):
        for settings, entries in searches:
            name = "Hyperband" if settings["random_search"] is None else "random search"
            known = ax.get_legend_handles_labels()[1]
            spent, losses = best_so_far(entries, every_epoch)
            ax.step(
                spent,
                losses,
                where="post",
                color=COLORS[name],
                label=None if name in known else name,
            )
            ax.plot(spent[-1], losses[-1], "o", color=COLORS[name])
        ax.set(title="after each epoch" if every_epoch else "at the end of each training")
        ax.set(xlabel="epochs spent by the search", yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("best validation loss so far")
    axes[0].legend(title="one line for each seed")
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run_dirs",
        type=Path,
        nargs="+",
        metavar="RUN_DIR",
        help="of searches that ended, both kinds",
    )
    parser.add_argument("--output", type=Path, default=Path("comparison.png"), help="the picture")
    args = parser.parse_args()
    try:
        searches = [read_search(run_dir) for run_dir in args.run_dirs]
        if len({settings["random_search"] is None for settings, _ in searches}) < 2:
            raise ValueError("give the run directories of both: of Hyperband and of random search")
        comparison = compare(searches)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    longest = max(best_so_far(entries)[0][-1] for _, entries in searches)
    print(f"Best validation loss after {comparison['budget']} epochs, mean ± standard deviation\n")
    print(
        "| judged | Hyperband | random search | epochs random search needs for Hyperband's mean |"
    )
    print("|---|---|---|---|")
    print_table(comparison, "at the end of each training", longest)
    print_table(compare(searches, every_epoch=True), "after each epoch", longest)
    plot_comparison(searches, args.output)


if __name__ == "__main__":
    main()
