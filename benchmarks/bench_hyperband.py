"""Chapter 6: Hyperband of hyperband.py against KerasTuner's, epochs trained a second, in one run.

    python benchmarks/bench_hyperband.py          # about 3 minutes on 2 cores

Both scripts search the same space on 500 digits of the sample, by turns, each with its own
candidates; reading, importing and the report of either are left out. What an epoch costs is mostly
a candidate's batch size and the compilation of its network, so each search has other seeds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import ROOT, record

SEARCHES = {"KerasTuner": "hyperband_keras_tuner", "ours": "hyperband_mnist"}


def work(name, max_iter, seed):
    """Search in this process; epochs a second from the first training to the last."""
    sys.path.insert(0, str(ROOT / "chapter06"))
    import hyperband

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [name, "--data", "sample", "--train-images", "500", "--seed", str(seed)]
        sys.argv += ["--max-iter", str(max_iter), "--run-dir", f"{folder}/run"]
        if name == "hyperband_mnist":
            import hyperband_mnist as script

            search = hyperband.Hyperband.run
            owner, attribute = hyperband.Hyperband, "run"
        else:
            import hyperband_keras_tuner as script

            search = script.keras_tuner.Hyperband.search
            owner, attribute = script.keras_tuner.Hyperband, "search"
        seconds = []

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = search(*args, **kwargs)
            seconds.append(time.perf_counter() - start)
            return result

        setattr(owner, attribute, timed)
        script.main()
        lines = Path(folder, "run", "evaluations.jsonl").read_text().splitlines()
        epochs = sum(json.loads(line)["trained"] for line in lines)
    print("\n" + json.dumps(epochs / seconds[0]))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-iter", type=int, default=9, help="default: 9")
    parser.add_argument("--repeats", type=int, default=3, help="searches of each (default: 3)")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work[0], args.max_iter, int(args.work[1]))
    speeds = {side: [] for side in SEARCHES}
    for seed in range(1, args.repeats + 1):
        for side, name in SEARCHES.items():
            command = [sys.executable, __file__, "--max-iter", str(args.max_iter)]
            command += ["--work", name, str(seed)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                sys.exit(f"error: {side}: {result.stderr.splitlines()[-1]}")
            speeds[side].append(json.loads(result.stdout.splitlines()[-1]))
    for side, values in speeds.items():
        low, median, high = min(values), statistics.median(values), max(values)
        print(f"{side}: {median:.2f} epochs/s ({low:.2f} to {high:.2f})")
    what = f"chapter 6, Hyperband, 500 digits, R = {args.max_iter}"
    record(what, "epochs/s", speeds["KerasTuner"], speeds["ours"], "KerasTuner")


if __name__ == "__main__":
    main()
