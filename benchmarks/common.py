"""What the benchmarks share: a chapter's script by its path, and the rows of the table."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = "the book's way"


def load_script(path):
    """Import a chapter's script by its path, with the modules beside it within reach."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def time_fit(model, *args, **options):
    """Seconds from the begin of the first epoch of a `fit` to the end of the last.

    Not of the whole call: after its last epoch the thread by which tf.data tunes itself now and
    then holds `fit` up until it wakes: for seconds.
    """
    import keras

    times = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
    )
    model.fit(*args, callbacks=[clock], verbose=0, **options)
    return times[-1] - times[0]


def record(what, unit, other, ours, against=BOOK):
    """Leave a row for the table of `run_all.py`, which names the file; alone, do nothing.

    Args:
        what: what is timed, such as "chapter 7, CNN: training".
        unit: of both lists; where it ends in "/s", more is better, else less is.
        other, ours: measurements in one run, by turns.
        against: whose way `other` is.
    """
    if path := os.environ.get("BENCHMARK_ROWS"):
        row = {"what": what, "unit": unit, "against": against}
        row |= {"other": list(map(float, other)), "ours": list(map(float, ours))}
        with Path(path).open("a") as file:
            file.write(json.dumps(row) + "\n")
