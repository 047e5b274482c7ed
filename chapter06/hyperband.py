"""Hyperband: train many configurations briefly, the best of them for longer, a few in full.

Book: chapter 6, "Hyperband". The algorithm: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar,
"Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", arXiv 1603.06560.

    from hyperband import Hyperband
    hb = Hyperband(data, get_params, try_params)
    results = hb.run()

Nothing here knows what is trained: hyperband_mnist.py hands in the two functions for MNIST.
"""

import inspect
import json
import math
import random
import tempfile
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Trial(NamedTuple):
    """What `try_params` is told beyond the book, where one of its parameters is named `trial`."""

    seed: int  # of this evaluation, the same whenever the search is run
    epochs_done: int  # by this configuration one rung below; 0 on its first
    start: Path  # what was saved there, to go on from
    save_to: Path  # where to save what the next rung goes on from


def create_brackets(max_iter, eta):
    """{s: [(configurations, iterations), … one pair for each rung]}: the paper's Algorithm 1.

    In whole numbers throughout: int(log(243, 3)) is 4, since the logarithm comes out just below 5.
    """
    s_max = 0
    while eta ** (s_max + 1) <= max_iter:
        s_max += 1
    brackets = {}
    for s in range(s_max, -1, -1):
        n = -(-(s_max + 1) * eta**s // (s + 1))  # rounded up
        brackets[s] = [(n // eta**i, max_iter * eta**i // eta**s) for i in range(s + 1)]
    return brackets


def evaluate(job):
    """Train one configuration, here or in a worker: its key, `try_params`' answer, seconds."""
    key, try_params, *arguments, trial = job
    start = time.perf_counter()
    answer = try_params(*arguments, trial=trial) if trial else try_params(*arguments)
    return key, answer, time.perf_counter() - start


class Hyperband:
    """A search over the hyperparameters that `get_params` draws.

    data: handed to `try_params` as it is.
    get_params: draws a configuration, a dict, from a numpy Generator where it has a parameter
        named `rng`, else, as in the book, from the global generators, which are seeded.
    try_params: `try_params(data, num_iters, hyperparameters)` trains a configuration for so many
        iterations and returns a dict of its `loss` (of a list the first item) and whatever else is
        to be kept. With a parameter named `trial`, survivors can go on where they stopped.
    max_iter: iterations (here: epochs) of the longest training; R in the paper.
    eta: one configuration in `eta` goes on from each rung, 2 or more.
    run_dir: folder for `evaluations.jsonl`, with which a search that was cut off goes on.
    random_search: instead of the brackets, this many configurations with `max_iter` each.
    settings: what else the outcome depends on; a search with others is not gone on with.
    """

    def __init__(
        self,
        data,
        get_params,
        try_params,
        max_iter=81,
        eta=3,
        seed=1,
        run_dir=None,
        random_search=None,
        settings=None,
    ):
        if min(max_iter, eta - 1) < 1 or max_iter % 1 or eta % 1:
            raise ValueError("max_iter and eta are whole numbers from 1 and from 2")
        self.data, self.get_params, self.try_params, self.seed = data, get_params, try_params, seed
        self.name, self.brackets = "Hyperband", create_brackets(max_iter, eta)
        if random_search:
            self.name, self.brackets = "random search", {0: [(random_search, max_iter)]}
        self.goes_on = "trial" in inspect.signature(try_params).parameters
        self.configurations = self._draw(sum(rungs[0][0] for rungs in self.brackets.values()))
        self.temporary = None if run_dir else tempfile.TemporaryDirectory()
        self.run_dir = Path(run_dir or self.temporary.name).absolute()  # workers may be elsewhere
        drawn = zlib.crc32(json.dumps(self.configurations, default=plain).encode())
        self.settings = {"max_iter": max_iter, "eta": eta, "seed": seed, **(settings or {})}
        self.settings |= {"random_search": random_search, "configurations": drawn}
        lines = open_run(self.run_dir, self.settings)
        self.finished = {(entry["config"], entry["rung"]): entry for entry in lines}

    def run(self, map_jobs=map):
        """Do what is left of the search; returns the evaluations, a list of dicts, best first.

        map_jobs: `map`, or what does the same with several workers (`imap_unordered` of a pool).
        A `loss` that is no finite number becomes None and comes last.
        """
        numbers = iter(range(len(self.configurations)))
        for s, rungs in self.brackets.items():
            going = [next(numbers) for _ in range(rungs[0][0])]
            for i, kept in enumerate([*(n for n, _ in rungs[1:]), 0]):
                jobs = [self._create_job(s, c, i) for c in going if (c, i) not in self.finished]
                for key, answer, seconds in map_jobs(evaluate, jobs):
                    self._record(s, key, answer, seconds)
                ranked = sorted((self.finished[c, i] for c in going), key=rank)
                going = [entry["config"] for entry in ranked[:kept]]
                for loser in ranked[kept:]:
                    self._path(loser["config"], i).unlink(missing_ok=True)
        return sorted(self.finished.values(), key=rank)

    def _draw(self, count):
        """`count` configurations, none twice while the space has others."""
        stream = [self.seed, len(self.name)]  # random search draws others than Hyperband
        random.seed(str(stream))
        np.random.seed(stream)  # noqa: NPY002
        takes_rng = "rng" in inspect.signature(self.get_params).parameters
        options = {"rng": np.random.default_rng(stream)} if takes_rng else {}
        drawn = {}
        for _ in range(100 * count):
            params = self.get_params(**options)
            drawn.setdefault(repr(params), params)
            if len(drawn) == count:
                break
        return (list(drawn.values()) * count)[:count]

    def _path(self, c, i):
        return self.run_dir / f"survivor-{c}-{i}.keras"

    def _create_job(self, s, c, i):
        """Configuration `c` on rung `i` of bracket `s`, as `evaluate` takes it."""
        rungs, params, trial = self.brackets[s], dict(self.configurations[c]), None
        if self.goes_on:
            seed = zlib.crc32(f"{self.seed} {self.name} {c} {i}".encode())
            done = rungs[i - 1][1] if i else 0
            trial = Trial(seed, done, self._path(c, i - 1), self._path(c, i))
        return (c, i), self.try_params, self.data, rungs[i][1], params, trial

    def _record(self, s, key, answer, seconds):
        """Add a line to the log, then remove the weights that this evaluation has gone on from."""
        (c, i), rungs = key, self.brackets[s]
        loss, epochs = float(np.ravel(answer["loss"])[0]), rungs[i][1]
        before = rungs[i - 1][1] if i and self.goes_on else 0
        entry = {"search": self.name, "bracket": s, "config": c, "rung": i, "epochs": epochs}
        entry |= {"trained": epochs - before, "params": self.configurations[c], **answer}
        entry |= {"loss": loss if math.isfinite(loss) else None, "seconds": round(seconds, 2)}
        line = json.dumps(entry, default=plain)
        with (self.run_dir / "evaluations.jsonl").open("a") as file:
            file.write(line + "\n")
        self.finished[key] = entry = json.loads(line)  # as it is when the search goes on
        self._path(c, i - 1).unlink(missing_ok=True)
        print(f"{len(self.finished)}: loss {loss:.4f} after {epochs} epochs: {entry['params']}")


def open_run(run_dir, settings):
    """Take `run_dir` for this search, or go on with the same search in it: its finished lines."""
    noted, log = run_dir / "settings.json", run_dir / "evaluations.jsonl"
    run_dir.mkdir(parents=True, exist_ok=True)
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    with log.open("ab+") as file:
        file.seek(0)
        lines = [line for line in file if line.endswith(b"\n")]
        file.truncate(sum(map(len, lines)))  # a kill may have cut the last one off
    return [json.loads(line) for line in lines]


def plain(value):
    """For JSON: NumPy's arrays and numbers as lists and numbers, other objects by their kind."""
    return value.tolist() if hasattr(value, "tolist") else type(value).__name__


def rank(entry):
    """Sorting key: lowest loss first, diverged last, ties by number and so alike in every run."""
    return entry["loss"] is None, entry["loss"] or 0, entry["config"], entry["rung"]
