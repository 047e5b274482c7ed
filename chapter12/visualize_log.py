"""Draw the rewards of one or several trainings from the logs that FileLogger writes.

Book: chapter 12, the script that comes with its agents.

    python chapter12/visualize_log.py runs/dqn_cartpole/log.json
    python chapter12/visualize_log.py run1/log.json run2/log.json --output both.png

A thin line for each episode is mostly noise, so the thick one is the mean of the last 20. Do
several seeds tell the same story?
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd


def plot_logs(paths, output):
    """Draw reward over steps, one colour for each log."""
    fig, ax = plt.subplots(figsize=(8, 4))
    for number, path in enumerate(map(Path, paths)):
        log = pd.DataFrame(json.loads(path.read_text()))[["nb_steps", "episode_reward"]]
        mean = log["episode_reward"].rolling(20, min_periods=1).mean()
        color = f"C{number}"
        ax.plot(log["nb_steps"], log["episode_reward"], color=color, linewidth=0.5, alpha=0.3)
        ax.plot(log["nb_steps"], mean, color=color, label=path.parent.name or path.stem)
    ax.set(xlabel="steps", ylabel="reward of an episode (thick: mean of 20)")
    ax.legend()
    fig.savefig(output, bbox_inches="tight")
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="log.json of one or several runs")
    parser.add_argument("--output", type=Path, default=Path("rewards.png"), help="a picture")
    args = parser.parse_args()
    try:
        plot_logs(args.logs, args.output)
    except Exception as error:  # json, pandas and Matplotlib raise a dozen kinds
        sys.exit(f"error: {args.logs[0]}: {' '.join(str(error).split())}")
    print(f"The picture is in {args.output}")


if __name__ == "__main__":
    main()
