"""Draw the rewards of one or several trainings from the logs that FileLogger writes.

Book: chapter 12, the script that comes with its agents.

    python chapter12/visualize_log.py runs/dqn_cartpole/log.json
    python chapter12/visualize_log.py run1/log.json run2/log.json --output both.png

A thin line for each episode is mostly noise, so the thick one is the mean of the last 20. Do
several seeds tell the same story?
"""

import argparse
import sys
from pathlib import Path

from rl.logs import plot_logs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="log.json of one or several runs")
    parser.add_argument("--output", type=Path, help="default: comparison.png beside the first")
    args = parser.parse_args()
    output = args.output or args.logs[0].with_name("comparison.png")
    try:
        plot_logs(args.logs, output)
    except Exception as error:  # json, pandas and Matplotlib raise a dozen kinds
        sys.exit(f"error: {args.logs[0]}: {' '.join(str(error).split())[:500]}")
    print(f"The picture is in {output}")


if __name__ == "__main__":
    main()
