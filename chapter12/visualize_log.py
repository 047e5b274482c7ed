"""Draw the rewards of one or several trainings from the logs that FileLogger writes.

Book: chapter 12, the script that comes with its agents.

    python chapter12/visualize_log.py runs/chapter12/dqn_cartpole/log.json
    python chapter12/visualize_log.py run1/log.json run2/log.json --output both.png

A thin line for each episode is mostly noise, so the thick one is the mean of the last 20. What to
look for: whether several seeds tell the same story.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt
import pandas as pd

SMOOTH = 20  # episodes


def read_log(path):
    """The log as a DataFrame with one row per episode.

    Raises:
        OSError: there is none. ValueError: it is no log of FileLogger.
    """
    if not Path(path).is_file():
        raise OSError(f"{path} does not exist; an agent with a FileLogger writes one")
    try:
        log = pd.DataFrame(json.loads(Path(path).read_text()))
        return log[["episode", "episode_reward", "nb_steps"]].astype(float)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a log of FileLogger ({error}); expected JSON with lists of equal "
            "length under episode, episode_reward and nb_steps"
        ) from error


def plot_logs(paths, output):
    """Draw reward over steps, one colour for each log."""
    fig, ax = plt.subplots(figsize=(8, 4))
    for number, path in enumerate(paths):
        log, color = read_log(path), f"C{number}"
        name = Path(path).parent.name or Path(path).stem
        mean = log["episode_reward"].rolling(SMOOTH, min_periods=1).mean()
        ax.plot(log["nb_steps"], log["episode_reward"], color=color, linewidth=0.5, alpha=0.3)
        ax.plot(log["nb_steps"], mean, color=color, linewidth=2, label=name)
    ax.set(xlabel="steps", ylabel=f"reward of an episode (thick: mean of {SMOOTH})")
    ax.grid(alpha=0.3)
    ax.legend()
    fig.savefig(output, dpi=100, bbox_inches="tight")
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="+", type=Path, help="log.json of one or several runs")
    parser.add_argument("--output", type=Path, default=Path("rewards.png"), help="a .png file")
    args = parser.parse_args()
    try:
        plot_logs(args.logs, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"The picture is in {args.output}")


if __name__ == "__main__":
    main()
