"""Scripts in children of one process that has imported Keras already.

`import keras` costs about 5 s of CPU time, which adds up where each test starts scripts of its own.
A fork server of the standard library imports it once for each pytest worker; every script then runs
in a fresh child of it, as `__main__`, with its own arguments, folder, output and exit status, and
can be killed like any process.

A child on another backend forgets that Keras and imports it anew. `REAL_PROCESSES=1` starts every
script with a Python of its own instead; so do tests that set environment variables which the
imports read.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PRELOAD = ["keras", "sklearn.calibration", "sklearn.ensemble", "tensorboard.summary.v2"]
BACKEND = "KERAS_BACKEND"
READ_BY_IMPORTS = ("KERAS_HOME", "TF_XLA", "XLA_FLAGS", "JAX_PLATFORM", "CUDA_", "PYTHON")
READ_BY_IMPORTS += ("HOME", "PATH")
_environment = None  # what of it the fork server was started with


def can_fork(env=None):
    """Whether a child of the fork server would find what a new Python would."""
    global _environment
    if os.environ.get("REAL_PROCESSES") or sys.platform != "linux":
        return False
    names = [name for name in os.environ if name.startswith(READ_BY_IMPORTS)]
    environment = {name: os.environ[name] for name in names}
    if _environment is None:
        multiprocessing.set_forkserver_preload(PRELOAD)
        _environment = environment
    return environment == _environment and set(env or ()) <= {BACKEND}


class ForkedScript:
    """A script in a child of the fork server, with the part of `subprocess.Popen` that tests use.

    `stdout` and `stderr` are paths of files to write; `env` may hold KERAS_BACKEND.
    """

    def __init__(self, script, arguments, cwd, stdout=os.devnull, stderr=os.devnull, env=None):
        self.args = [str(script), *map(str, arguments)]
        files = [str(stdout), str(stderr)]
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(
            target=_run_as_main, args=(self.args, str(cwd), *files, {**os.environ, **(env or {})})
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()


def _run_as_main(args, cwd, stdout, stderr, env):
    """In the child: what `python ARGS` does from here on."""
    gc.freeze()  # what is imported stays: no search through it for garbage
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    backend = env.get(BACKEND)
    os.environ.clear()
    os.environ.update(env)
    if backend and "keras" in sys.modules and sys.modules["keras"].backend.backend() != backend:
        for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
            del sys.modules[name]
    np.random.seed()  # noqa: NPY002  a fork has its parent's state, a new Python has not
    sys.argv = list(args)
    tests_only = {"", str(ROOT), str(ROOT / "tests")}
    script = Path(args[0]).resolve()
    sys.path[:] = [str(script.parent)] + [p for p in sys.path if p not in tests_only]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:  # multiprocessing ends without them
        atexit._run_exitfuncs()
