"""Run every benchmark and put one table of them into the README: `make bench`.

    python benchmarks/run_all.py                  # about 40 minutes on 2 cores without other work
    python benchmarks/run_all.py bench_gan        # some of them: the others' rows stay as they are
    python benchmarks/run_all.py --table          # the README's table again from results.json

Every file runs in a process of its own, one after the other. What it measured goes into
`benchmarks/results.json` at once, the table into README.md at the end. Without PyTorch or JAX a
file is left out and named, without its real data set it uses the sample and says so in its row.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import geometric_mean, median

from common import BOOK, ROOT

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
README = ROOT / "README.md"
MARKS = "<!-- benchmarks -->", "<!-- end of benchmarks -->"

# Shorter than on its own, where a run takes 8 minutes.
OPTIONS = {"bench_seq2seq_decoding": ["--book-sentences", "50"]}
NEEDS = {"bench_pytorch": "torch", "bench_hosts": "jax"}
TORCH = {"bench_pytorch", "bench_dqn"}  # whose figures depend on PyTorch's version


def run_benchmark(path, rows_file):
    """Run one file; its rows, or the reason why there are none."""
    missing = NEEDS.get(path.stem)
    if missing and importlib.util.find_spec(missing) is None:
        return [], f"{missing} is not installed (pip install -r requirements-bench.txt)"
    rows_file.unlink(missing_ok=True)
    result = subprocess.run(
        [sys.executable, str(path), *OPTIONS.get(path.stem, [])],
        env={**os.environ, "BENCHMARK_ROWS": str(rows_file)},
        check=False,
    )
    if result.returncode:
        return [], f"exit code {result.returncode}, message above"
    return [json.loads(line) for line in rows_file.read_text().splitlines()], ""


def ratio(row):
    """How many times better ours is: the medians' ratio, whichever way is better."""
    other, ours = median(row["other"]), median(row["ours"])
    return ours / other if row["unit"].endswith("/s") else other / ours


def show_ratio(value):
    """Two decimals for small ones, none for large ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def show(values):
    """Median (lowest to highest), three figures."""

    def short(value):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    text = short(median(values))
    return f"{text} ({short(min(values))}–{short(max(values))})" if len(values) > 1 else text


def summary(rows):
    """The means in a sentence or two."""
    book = [row for row in rows if row["against"] == BOOK and row["unit"] != "MB"]
    ratios = sorted(map(ratio, book))
    text = (
        f"Geometric mean of the {len(ratios)} ratios of time to the book's way: "
        f"{geometric_mean(ratios):.1f}"
    )
    if len(ratios) > 1:
        text += f"; without the largest, {geometric_mean(ratios[:-1]):.1f}"
    return text + "."


def make_table(results):
    """The README's table, as Markdown."""
    machine = results["machine"]
    minutes = sum(results["minutes"].values())
    lines = [
        f"`make bench` on {machine['cores']} CPU cores ({machine['processor']}), no GPU, "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + f", {minutes:.0f} minutes in all: median (lowest to highest), both sides of a row by "
        "turns in one run. Ratio: how many times better ours is.",
        "",
        "| what | unit | against | theirs | ours | ratio |",
        "|---|---|---|---|---|---|",
    ]
    # Chapter by chapter; within one, the book's way before the peers.
    rows = [row for found in results["rows"].values() for row in found]
    rows.sort(key=lambda row: (row["against"] != BOOK, chapter(row)))
    for row in rows:
        cells = [row["what"], row["unit"], row["against"], show(row["other"]), show(row["ours"])]
        lines.append("| " + " | ".join([*cells, show_ratio(ratio(row))]) + " |")
    return "\n".join([*lines, "", summary(rows)])


def chapter(row):
    return int(row["what"].split()[1].rstrip(","))


def write_readme(table):
    """Put the table between the README's marks."""
    before, rest = README.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    README.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


def describe_machine():
    """What the figures depend on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    versions = {"Python": platform.python_version()}
    for name, package in (("Keras", "keras"), ("TensorFlow", "tensorflow"), ("PyTorch", "torch")):
        if importlib.util.find_spec(package):
            versions[name] = importlib.metadata.version(package)
    return {"processor": processor, "cores": os.cpu_count(), "versions": versions}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as bench_gan (default: all)")
    parser.add_argument("--table", action="store_true", help="only write the README's table again")
    args = parser.parse_args()
    if args.table:
        write_readme(make_table(json.loads(RESULTS.read_text())))
        return 0
    files = sorted(FOLDER.glob("bench_*.py"))
    known = {path.stem: path for path in files}
    if unknown := [name for name in args.names if name.removesuffix(".py") not in known]:
        sys.exit(f"error: no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}")
    chosen = [known[name.removesuffix(".py")] for name in args.names] or files
    results, left_out = {"machine": describe_machine(), "rows": {}, "minutes": {}}, {}
    if args.names:
        earlier = json.loads(RESULTS.read_text())
        if {path.stem for path in chosen} >= TORCH:  # all of those anew
            earlier["machine"]["versions"]["PyTorch"] = results["machine"]["versions"]["PyTorch"]
        if earlier["machine"] != results["machine"]:  # one table, one machine
            sys.exit("error: results.json is of another machine or other versions: run all of them")
        results = earlier
    with tempfile.TemporaryDirectory() as folder:
        for path in chosen:
            print(f"== {path.name}", flush=True)
            start = time.perf_counter()
            rows, reason = run_benchmark(path, Path(folder) / "rows")
            minutes = (time.perf_counter() - start) / 60
            print(f"   {minutes:.1f} minutes {reason}", flush=True)
            if reason:
                left_out[path.name] = reason
                continue
            results["rows"][path.stem], results["minutes"][path.stem] = rows, round(minutes, 2)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    table = make_table(results)
    if left_out:
        print("The README's table stays as it is.")
    else:
        write_readme(table)
    print(table)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    return int(any("exit code" in reason for reason in left_out.values()))


if __name__ == "__main__":
    sys.exit(main())
