"""Run a script and kill it, as `kill -9` would, when it has written a file for the second time.

    python tests/killed.py "last half" SCRIPT ARGUMENTS…

"best", "last" and "line" are the best and the last model, not yet renamed, and the line of
history.csv. "half": the end of the file is still missing then; "whole": it is not.
"""

import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import keras

what, how = sys.argv[1].split()
names = {"best": ["new_model.keras"], "last": ["new.keras"]}
times = 0


def kill_after(path):
    global times
    times += Path(path).name in names.get(what, ["history.csv"])
    if times == 2:
        if how == "half":
            Path(path).write_bytes(Path(path).read_bytes()[:-9])
        os.kill(os.getpid(), signal.SIGKILL)


def save(model, path, *args, plain=keras.Model.save, **kwargs):
    plain(model, path, *args, **kwargs)
    kill_after(path)


def copy(source, target, plain=shutil.copy):
    copied = plain(source, target)
    kill_after(target)
    return copied


def on_epoch_end(logger, epoch, logs=None, plain=keras.callbacks.CSVLogger.on_epoch_end):
    plain(logger, epoch, logs)
    kill_after(logger.filename)


keras.Model.save, shutil.copy = save, copy
keras.callbacks.CSVLogger.on_epoch_end = on_epoch_end
sys.argv[:2] = []
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
