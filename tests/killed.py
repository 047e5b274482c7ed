"""Run a script and kill it, as `kill -9` would, at a chosen point of its second epoch's saving.

    python tests/killed.py "last half" SCRIPT ARGUMENTS…

"best", "line" and "last" are new_model.keras, the line of history.csv and new_last.keras; "half":
while it is being written, "whole": once it is written (the models: before they are renamed).
"""

import os
import runpy
import signal
import sys
from pathlib import Path

import keras

point, script = sys.argv[1], sys.argv[2]
what, how = point.split()
epoch = 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def save(model, path, *args, plain=keras.Model.save, **kwargs):
    plain(model, path, *args, **kwargs)
    name = {"best": "new_model.keras", "last": "new_last.keras"}.get(what)
    if epoch == 1 and Path(path).name == name:
        if how == "half":
            Path(path).write_bytes(Path(path).read_bytes()[:2000])
        die()


def on_epoch_end(logger, number, logs=None, plain=keras.callbacks.CSVLogger.on_epoch_end):
    global epoch
    plain(logger, number, logs)
    if number == 1 and what == "line":
        if how == "half":
            path = Path(logger.filename)
            path.write_text(path.read_text()[:-9])
        die()
    if what == "last":
        epoch = number


def on_epoch_begin(logger, number, logs=None):
    global epoch
    epoch = number


keras.Model.save = save
keras.callbacks.CSVLogger.on_epoch_end = on_epoch_end
keras.callbacks.CSVLogger.on_epoch_begin = on_epoch_begin
sys.argv = [script, *sys.argv[3:]]
sys.path.insert(0, str(Path(script).parent))
runpy.run_path(script, run_name="__main__")
