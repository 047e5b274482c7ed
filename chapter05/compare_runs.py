"""Compare the runs of chapter 5 with each other: a table and a picture of their losses.

Book: chapter 5, the figures of TensorBoard after dropout and after L2.

    python chapter05/compare_runs.py                     # every run in runs/chapter05/tb
    python chapter05/compare_runs.py runs/chapter05/tb_sample
    python chapter05/compare_runs.py RUN_DIR RUN_DIR …   # these runs, in this order

It reads the `history.csv` of each run, also of one that is still training, and writes
`comparison.png`. TensorBoard shows the same: `tensorboard --logdir runs/chapter05/tb`.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

RUNS_DIR = Path(__file__).resolve().parent.parent / "runs" / "chapter05"
COLUMNS = ["epoch", "loss", "val_loss", "val_accuracy"]


def find_runs(folders):
    """The run directories among `folders` and directly below them: those with a history.csv.

    Raises:
        OSError: a folder is not there, or there is no run in it.
    """
    runs = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} does not exist; train first: python chapter05/mlp_mnist.py"
            )
        below = [path.parent for path in folder.glob("*/history.csv")]
        # the plain network first, in the same colour every time
        found = [folder] if (folder / "history.csv").exists() else sorted(below)
        found.sort(key=lambda run: not run.name.startswith("mlp"))
        if not found:
            raise FileNotFoundError(
                f"{folder} holds no run, that is no history.csv; "
                "train first: python chapter05/mlp_mnist.py"
            )
        runs += found
    return runs


def read_history(run_dir):
    """One row per finished epoch: `epoch` (from 1), `loss`, `val_loss`, `val_accuracy`.

    The losses are cross-entropies: of an L2 run, without the penalty.

    Raises:
        ValueError: the run's history.csv is not one; the message says what is wrong.
    """
    path = run_dir / "history.csv"
    try:
        history = pd.read_csv(path)
    except ValueError as error:  # empty, not text, or rows of different lengths
        raise ValueError(f"{path} is not a readable CSV file ({error})") from error
    missing = ", ".join(column for column in COLUMNS if column not in history)
    if missing:
        raise ValueError(f"{path}: column missing: {missing} (it has {', '.join(history)})")
    if "val_cross_entropy" in history:
        history = history.assign(loss=history["cross_entropy"])
        history["val_loss"] = history["val_cross_entropy"]
    history = history[COLUMNS].apply(pd.to_numeric, errors="coerce")
    # An epoch whose backup was cut off is logged twice; a diverged one has no numbers.
    history = history.dropna().drop_duplicates("epoch", keep="last").reset_index(drop=True)
    if history.empty:
        raise ValueError(f"{path} holds no finished epoch")
    return history.assign(epoch=history["epoch"].astype(int) + 1)


def summarize(histories):
    """What the picture shows, in figures: a DataFrame with one row for each run."""
    rows = {}
    for name, history in histories.items():
        lowest, last = history.loc[history["val_loss"].idxmin()], history.iloc[-1]
        best = history.loc[history["val_accuracy"].idxmax()]
        rows[name] = {
            "epochs": len(history),
            "last loss": last["loss"],
            "last val_loss": last["val_loss"],
            "lowest val_loss": f"{lowest['val_loss']:.4f} (epoch {lowest['epoch']:.0f})",
            "best val_accuracy": f"{best['val_accuracy']:.4f} (epoch {best['epoch']:.0f})",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def plot_comparison(histories, path):
    """Training loss, validation loss and validation accuracy of all runs, as a picture."""
    fig, axes = plt.subplots(1, 3, figsize=(13, 4))
    for ax, (column, title) in zip(
        axes,
        {
            "loss": "training loss",
            "val_loss": "validation loss",
            "val_accuracy": "validation accuracy",
        }.items(),
        strict=True,
    ):
        for name, history in histories.items():
            ax.plot(history["epoch"], history[column], marker=".", label=name)
        ax.set(xlabel="epoch", title=title)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(bottom=0)
    axes[2].legend()
    fig.tight_layout()
    fig.savefig(path, dpi=80)
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="run directories, or folders of them (default: runs/chapter05/tb)",
    )
    parser.add_argument(
        "--output", type=Path, help="picture (default: comparison.png beside the first run)"
    )
    args = parser.parse_args()
    try:
        runs = find_runs(args.folders or [RUNS_DIR / "tb"])
        names = [run.resolve().name for run in runs]
        if len(set(names)) < len(names):  # the same scripts' runs from several folders
            names = [str(run) for run in runs]
        histories = {name: read_history(run) for name, run in zip(names, runs, strict=True)}
        out = args.output or runs[0].resolve().parent / "comparison.png"
        plot_comparison(histories, out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("Losses are cross-entropies, without any L2 penalty.")
    print(summarize(histories).to_string(float_format="{:.4f}".format))
    print(f"The picture is {out}")


if __name__ == "__main__":
    main()
