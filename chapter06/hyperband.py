"""Hyperband: train many configurations briefly, the best of them for longer, one or two in full.

Book: chapter 6, "Hyperband". The algorithm: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar,
"Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", arXiv 1603.06560.

    from hyperband import Hyperband
    hb = Hyperband(data, get_params, try_params)
    results = hb.run()

Nothing here knows what is trained: `hyperband_mnist.py` hands in the two functions for MNIST.
"""

import inspect
import json
import math
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm


class Trial(NamedTuple):
    """What `try_params` gets as its fourth argument."""

    seed: int  # of this evaluation, the same in every run of a search with the same seed
    epochs_done: int  # how many iterations this configuration was trained for before
    checkpoint: Path  # if any were: what was saved here then; save here what is to go on


class Job(NamedTuple):
    """One evaluation: a configuration of a bracket, trained up to the epochs of a rung."""

    bracket: int
    config: int
    rung: int
    epochs: int
    epochs_done: int
    seed: int
    params: dict

    @property
    def key(self):
        return self.bracket, self.config, self.rung


def create_brackets(max_iter, eta):
    """The table of the paper: {s: [(configurations, iterations), … one pair per rung]}.

    In whole numbers throughout: `int(log(243, 3))` is 4, since the logarithm comes out a hair
    below 5. The first rung has floor((s_max + 1) / (s + 1)) * eta^s configurations, as in the
    paper's Table 1 and its authors' code; the formula printed in the paper's Algorithm 1 rounds
    later, and up (docs/differences.md).
    """
    s_max = 0
    while eta ** (s_max + 1) <= max_iter:
        s_max += 1
    table = {}
    for s in range(s_max, -1, -1):
        n = (s_max + 1) // (s + 1) * eta**s
        table[s] = [(n // eta**i, max_iter * eta**i // eta**s) for i in range(s + 1)]
    return table


def evaluate(try_params, data, job, weights, with_trial):
    """Run one evaluation in a folder of its own: here, or in a worker on another machine.

    Returns:
        (what try_params returned, what it saved in `trial.checkpoint` or None, seconds).
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.keras"  # Keras insists on the suffix
        if weights is not None:
            checkpoint.write_bytes(weights)
        arguments = [data, job.epochs, job.params]
        if with_trial:
            arguments.append(Trial(job.seed, job.epochs_done, checkpoint))
        metrics = try_params(*arguments)
        saved = checkpoint.read_bytes() if checkpoint.exists() else None
    return metrics, saved, time.perf_counter() - start


class LocalEngine:
    """One evaluation at a time, in this process."""

    slots = 1

    def submit(self, job, *arguments):
        self.job, self.arguments = job, arguments

    def collect(self):
        try_params, data, weights, with_trial = self.arguments
        return self.job, evaluate(try_params, data, self.job, weights, with_trial)


class RayEngine:
    """As many evaluations at a time as there are workers: processes here or on a Ray cluster.

    Weights travel through Ray, so the machines need no common disk. A worker that dies in the
    middle of an evaluation costs that evaluation: Ray starts it again in another worker.
    """

    def __init__(self, workers=2, address=None):
        """Start Ray on this machine, or join the cluster whose head is at `address` (host:port).

        Raises:
            OSError: Ray is not installed, or no cluster answers.
        """
        self.ray = start_ray(workers, address)
        resources = self.ray.cluster_resources()
        self.slots = int(resources.get("CPU", 1)) if address else workers
        gpus = min(1, resources.get("GPU", 0) / self.slots)  # GPUs are shared by the workers
        # Retries are for dead workers; an exception in try_params ends the search at once.
        self.remote = self.ray.remote(evaluate).options(num_cpus=1, num_gpus=gpus, max_retries=3)
        self.running, self.data = {}, None

    def submit(self, job, try_params, data, weights, with_trial):
        if self.data is None:  # sent once, then shared
            self.data = self.ray.put(data)
            for name in {__name__, try_params.__module__} - {"__main__"}:
                # Other machines do not have these files.
                self.ray.cloudpickle.register_pickle_by_value(sys.modules[name])
        handle = self.remote.remote(try_params, self.data, job, weights, with_trial)
        self.running[handle] = job

    def collect(self):
        (handle, *_), _ = self.ray.wait(list(self.running))
        return self.running.pop(handle), self.ray.get(handle)


def start_ray(workers, address=None):
    """Import and start Ray, reachable from this machine only, or join the cluster at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker per core: more threads only collide
    if address is None:  # Ray listens on every interface of a Linux machine unless told so
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    else:
        host, _, port = address.rpartition(":")
        try:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise OSError(f"no Ray cluster answers at {address!r} ({error})") from error
    try:
        import ray
    except ImportError as error:
        raise OSError(
            "Ray is not installed; `make cluster` or `pip install -r requirements-cluster.txt` "
            "brings it, and `--engine local` works without"
        ) from error
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        ray.init("local", num_cpus=workers, include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address, **quiet)
        except Exception as error:  # many kinds: another version of Ray or Python, no such cluster
            raise OSError(f"the Ray cluster at {address} cannot be joined ({error})") from error
    return ray


class Hyperband:
    """A search over the hyperparameters that `get_params` draws.

    Args:
        data: handed to `try_params` as it is.
        get_params: draws one configuration as a dict of JSON values. It is called with a
            numpy.random.Generator, or without arguments as in the book, `np.random` seeded.
        try_params: `try_params(data, num_iters, hyperparameters, trial)` trains a configuration up
            to `num_iters` iterations and returns a dict with `loss` and whatever else is to be
            kept. `trial` (a Trial) says how many were done before and where the weights are. With
            the book's three arguments, every rung starts over.
        max_iter: iterations (here: epochs) that the best configurations get; R in the paper.
        eta: one configuration in `eta` goes on from each rung; a whole number, 2 or more.
        seed: the same seed draws the same configurations and hands out the same seeds.
        run_dir: folder for `evaluations.jsonl`, from which a killed search goes on, the weights of
            survivors, and `best.keras`, what the best evaluation saved. None: nothing is kept.
        from_scratch: train the survivors of a rung from the beginning, as the book does.
        random_search: instead of the brackets, this many configurations with `max_iter` each.
        settings: anything else on which results depend; a search with others is not resumed.
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
        from_scratch=False,
        random_search=None,
        settings=None,
    ):
        for name, value, least in (("max_iter", max_iter, 1), ("eta", eta, 2), ("seed", seed, 0)):
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value}; expected a whole number, {least} or more")
        self.data, self.get_params, self.try_params = data, get_params, try_params
        self.with_trial = len(inspect.signature(try_params).parameters) > 3
        self.from_scratch = from_scratch or not self.with_trial
        self.seed = int(seed)
        if random_search:
            self.table = {0: [(random_search, max_iter)]}
        else:
            self.table = create_brackets(max_iter, eta)
        self.settings = {
            "max_iter": int(max_iter),
            "eta": int(eta),
            "seed": self.seed,
            "from_scratch": self.from_scratch,
            "random_search": random_search,
            **(settings or {}),
        }
        self.budget = sum(
            n * self._cost(rungs, i)
            for rungs in self.table.values()
            for i, (n, _) in enumerate(rungs)
        )
        self.done, self.drawn, self.temporary = {}, {}, None
        if run_dir is None:
            self.temporary = tempfile.TemporaryDirectory()
            run_dir = self.temporary.name
        self.run_dir = Path(run_dir)
        self.log = self.run_dir / "evaluations.jsonl"
        self._read_log()

    def run(self, engine=None):
        """Do what is left of the search.

        Returns:
            one dict per evaluation, best first: `bracket`, `config`, `rung`, `epochs` (trained up
            to), `trained` (in this evaluation), `spent` (budget so far), `params`, `seconds`, and
            what `try_params` returned. A `loss` that is no number becomes None, and comes last.
        """
        engine = engine or LocalEngine()
        (self.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        if not self.log.exists():
            self._append(self.settings)
        running = set()
        spent = sum(entry["trained"] for entry in self.done.values())
        with tqdm(total=self.budget, initial=spent, unit="epoch", desc="budget") as bar:
            while True:
                for job in self._list_ready(running)[: engine.slots - len(running)]:
                    running.add(job.key)
                    weights = self._read_weights(job)
                    engine.submit(job, self.try_params, self.data, weights, self.with_trial)
                if not running:
                    break
                job, outcome = engine.collect()
                running.remove(job.key)
                entry = self._record(job, *outcome)
                bar.update(entry["trained"])
                bar.set_postfix_str(f"{self.budget - bar.n} left, best {self._best_loss():.4f}")
                bar.write(describe(entry))
        shutil.rmtree(self.run_dir / "checkpoints", ignore_errors=True)
        return self.results()

    def results(self):
        """The finished evaluations, best first, as `run` returns them."""
        spent, entries = 0, []
        for entry in self.done.values():  # in the order in which they finished
            spent += entry["trained"]
            entries.append({**entry, "spent": spent})
        return sorted(entries, key=rank)

    def _cost(self, rungs, i):
        """Iterations that one configuration costs on rung i."""
        return rungs[i][1] - (0 if self.from_scratch or i == 0 else rungs[i - 1][1])

    def _list_ready(self, running):
        """The evaluations that can start now, in the paper's order."""
        ready = []
        for s, rungs in self.table.items():
            configs = range(rungs[0][0])
            for i in range(len(rungs)):
                waiting = [c for c in configs if (s, c, i) not in self.done]
                ready += [self._create_job(s, c, i) for c in waiting if (s, c, i) not in running]
                if waiting:
                    break
                if i + 1 < len(rungs):
                    configs = self._survivors(s, configs, i)
        return ready

    def _survivors(self, s, configs, i):
        """The best of a finished rung, the paper's top_k; the weights of the others go."""
        ranked = sorted((self.done[s, c, i] for c in configs), key=rank)
        for entry in ranked[self.table[s][i + 1][0] :]:
            self._path(s, entry["config"], i).unlink(missing_ok=True)
        return sorted(entry["config"] for entry in ranked[: self.table[s][i + 1][0]])

    def _create_job(self, s, c, i):
        """The evaluation of configuration c on rung i of bracket s; the same in every run."""
        rungs = self.table[s]
        if (s, c) not in self.drawn:
            seed = int(np.random.SeedSequence([self.seed, s, c]).generate_state(1)[0])
            if inspect.signature(self.get_params).parameters:
                params = self.get_params(np.random.default_rng(seed))
            else:  # the book's get_params draws from the global generators
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                params = self.get_params()
            self.drawn[s, c] = json.loads(json.dumps(params, default=lambda number: number.item()))
        epochs = rungs[i][1]
        seed = int(np.random.SeedSequence([self.seed, s, c, i]).generate_state(1)[0] % 2**31)
        return Job(s, c, i, epochs, epochs - self._cost(rungs, i), seed, self.drawn[s, c])

    def _path(self, s, c, i):
        return self.run_dir / "checkpoints" / f"{s}-{c}-{i}"

    def _read_weights(self, job):
        """What the evaluation one rung below saved, None where training begins."""
        if not job.epochs_done:
            return None
        path = self._path(job.bracket, job.config, job.rung - 1)
        if not path.exists():
            raise OSError(
                f"{path}, a survivor's weights, is gone, or try_params never saved its "
                "checkpoint; delete the run directory to start over"
            )
        return path.read_bytes()

    def _best_loss(self):
        return min(
            (e["loss"] for e in self.done.values() if e["loss"] is not None), default=math.nan
        )

    def _record(self, job, metrics, saved, seconds):
        """Keep the weights first, then the line in the log: what is in the log is finished."""
        loss = float(metrics["loss"])
        entry = {
            "bracket": job.bracket,
            "config": job.config,
            "rung": job.rung,
            "epochs": job.epochs,
            "trained": job.epochs - job.epochs_done,
            "params": job.params,
            **metrics,
            "loss": loss if math.isfinite(loss) else None,
            "seconds": round(seconds, 2),
        }
        if saved is not None:
            if not self.from_scratch and job.rung + 1 < len(self.table[job.bracket]):
                replace_file(self._path(*job.key), saved)
            if math.isfinite(loss) and not self._best_loss() <= loss:
                replace_file(self.run_dir / "best.keras", saved)
        self._append(entry)
        self.done[job.key] = entry
        self._path(job.bracket, job.config, job.rung - 1).unlink(missing_ok=True)
        return entry

    def _append(self, entry):
        line = json.dumps(entry, default=lambda number: number.item())
        with self.log.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_log(self):
        """Take up the finished evaluations of an earlier run of this search, if there are any."""
        if not self.log.exists():
            return
        lines = self.log.read_text(errors="replace").splitlines()
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise ValueError(f"{self.log}, line {number} is damaged ({error})") from None
        if not entries:
            self.log.unlink()
            return
        if entries[0] != self.settings:
            found = entries[0] if isinstance(entries[0], dict) else {}
            differing = [
                f"{name} {found.get(name)!r} there, {value!r} here"
                for name, value in self.settings.items()
                if found.get(name) != value
            ]
            raise ValueError(
                f"{self.log} belongs to another search ({'; '.join(differing) or 'line 1'}); "
                "give another run directory, or delete this one"
            )
        for number, entry in enumerate(entries[1:], 2):
            try:
                self._check(entry)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ValueError(
                    f"{self.log}, line {number} is not an evaluation of this search "
                    f"({type(error).__name__}: {error})"
                ) from None
            self.done[entry["bracket"], entry["config"], entry["rung"]] = entry
        # Whole lines only, so that the next one does not continue a half-written one.
        whole = "".join(json.dumps(entry) + "\n" for entry in entries)
        if whole != self.log.read_text(errors="replace"):
            replace_file(self.log, whole.encode())
        if self.done:
            print(f"Resuming the search in {self.run_dir} after {len(self.done)} evaluations.")

    def _check(self, entry):
        """Whether this search could have written the entry."""
        job = self._create_job(entry["bracket"], entry["config"], entry["rung"])
        for name, value in (("epochs", job.epochs), ("params", job.params)):
            if entry[name] != value:
                raise ValueError(f"{name} is {entry[name]}, but this search has {value}")
        if entry["loss"] is not None:
            float(entry["loss"])
        entry["trained"] + 0, entry["seconds"] + 0


def rank(entry):
    """Sorting key: lowest loss first, diverged last, ties by origin and so alike in every run."""
    loss = entry["loss"]
    return loss is None, loss or 0, -entry["bracket"], entry["config"], entry["rung"]


def describe(entry):
    """One line on an evaluation."""
    loss = "diverged" if entry["loss"] is None else f"loss {entry['loss']:.4f}"
    params = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in entry["params"].items()
    )
    return (
        f"bracket {entry['bracket']} rung {entry['rung']} configuration {entry['config']:>2}: "
        f"{loss} at epoch {entry['epochs']} ({params}; {entry['seconds']:.1f} s)"
    )


def replace_file(path, content):
    """Write a file so that a kill leaves the old one or the new one, never half of it."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)
