"""Scripts in children of one process that has imported Keras already.

`import keras` costs about 5 s of CPU time, and the suite starts scripts more than a hundred times:
on two cores a third of its time. A fork server of the standard library imports it once for each
pytest worker; every script then runs in a fresh child of it, as `__main__`, with its own arguments,
folder, output and exit status, and can be killed like any process.

`REAL_PROCESSES=1` starts every script with a Python of its own instead; so do tests that set
environment variables, which the imports may read.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRELOAD = ["keras", "matplotlib.pyplot", "pandas", "sklearn.model_selection"]
_environment = None  # that of the fork server, from its start on


def can_fork():
    """Whether a child of the fork server would see the environment that a new Python would."""
    global _environment
    if os.environ.get("REAL_PROCESSES") or not hasattr(os, "fork"):
        return False
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    if _environment is None:
        multiprocessing.set_forkserver_preload(PRELOAD)
        _environment = environment
    return environment == _environment


class ForkedScript:
    """A script in a child of the fork server, with the part of `subprocess.Popen` that tests use.

    `stdout` and `stderr` are paths of files to write, or None for nowhere.
    """

    def __init__(self, script, arguments, cwd, stdout=None, stderr=None):
        self.args = [str(script), *map(str, arguments)]
        files = [str(file or os.devnull) for file in (stdout, stderr)]
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run_as_main, args=(self.args, str(cwd), *files))
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


def _run_as_main(args, cwd, stdout, stderr):
    """In the child: what `python ARGS` does from here on."""
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    sys.argv = list(args)
    tests_only = {"", str(ROOT), str(ROOT / "tests")}
    script = Path(args[0]).resolve()
    sys.path[:] = [str(script.parent)] + [p for p in sys.path if p not in tests_only]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:  # multiprocessing ends without them
        atexit._run_exitfuncs()
