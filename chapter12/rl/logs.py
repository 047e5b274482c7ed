"""What a FileLogger has written, as a table and as a picture."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd


def read_log(path):
    """A table with a row for each episode."""
    columns = ["nb_steps", "episode_reward", "mean_q", "duration"]
    return pd.DataFrame(json.loads(Path(path).read_text()), columns=columns, dtype=float)


def plot_logs(paths, output):
    """Draw reward over steps, one colour for each log: of each episode, and the mean of 20."""
    ax = plt.figure(figsize=(8, 4)).gca()
    for number, path in enumerate(map(Path, paths)):
        log, color, name = read_log(path), f"C{number}", path.parent.name or path.stem
        mean = log["episode_reward"].rolling(20, min_periods=1).mean()
        ax.plot(log["nb_steps"], log["episode_reward"], color=color, linewidth=0.5, alpha=0.3)
        ax.plot(log["nb_steps"], mean, color=color, label=name.replace("$", r"\$"))
    ax.set(xlabel="steps", ylabel="reward of an episode (thick: mean of 20)")
    ax.legend()
    plt.savefig(output, bbox_inches="tight")
