"""Run a script and kill it, as `kill -9` would, at a chosen point of its second epoch's saving.

    python tests/killed.py "last half" SCRIPT ARGUMENTS…

"line", "last" and "best" are the line of history.csv, new.keras and its copy new_model.keras;
"half": while it is being written, "whole": once it is (the models: before they are renamed).
"""

import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import keras

point, script = sys.argv[1], sys.argv[2]
what, how = point.split()
epoch = 0


def die_writing(path, part):
    """Kill the process where `path`, just written, is the file and the second epoch the moment."""
    if epoch == 1 and what == part:
        if how == "half":
            path.write_bytes(path.read_bytes()[:-9])
        os.kill(os.getpid(), signal.SIGKILL)


def on_epoch_end(logger, number, logs=None, plain=keras.callbacks.CSVLogger.on_epoch_end):
    global epoch
    epoch = number
    plain(logger, number, logs)
    die_writing(Path(logger.filename), "line")


def save(model, path, plain=keras.Model.save):
    plain(model, path)
    die_writing(path, "last")


def copy(source, target, plain=shutil.copy):
    plain(source, target)
    die_writing(target, "best")
    return target


keras.callbacks.CSVLogger.on_epoch_end = on_epoch_end
keras.Model.save = save
shutil.copy = copy
sys.argv = [script, *sys.argv[3:]]
sys.path.insert(0, str(Path(script).parent))
runpy.run_path(script, run_name="__main__")
