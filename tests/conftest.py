"""Shared fixtures: run a script as a user would, find the real data, read what a run wrote."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from forked import ForkedScript, can_fork

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers fill the cores; more threads are in the way
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles faster


@pytest.fixture
def run_script():
    """Run `python SCRIPT ARGS…` from the root (or `cwd`) and return the finished process."""
    return run_python


def run_python(script, *args, cwd=ROOT, env=None, timeout=600):
    """Run `python SCRIPT ARGS…`; `env` adds variables.

    Nothing is asserted here: each test checks status and messages itself.
    """
    if can_fork(env):
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / "stdout", Path(folder) / "stderr"]
            process = ForkedScript(ROOT / script, args, cwd, *files, env=env)
            try:
                process.wait(timeout)
            finally:
                process.send_signal(signal.SIGKILL)
            output = [file.read_text() for file in files]
        return subprocess.CompletedProcess(process.args, process.poll(), *output)
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start_python(script, *args, cwd=ROOT, stderr=os.devnull):
    """Start `python SCRIPT ARGS…`, stderr into a file; a test can wait for it or kill it."""
    if can_fork():
        return ForkedScript(ROOT / script, args, cwd, stderr=stderr)
    with Path(stderr).open("w") as file:
        return subprocess.Popen(
            [sys.executable, str(ROOT / script), *map(str, args)],
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )


@pytest.fixture(scope="session")
def slow_training():
    """Asked for by fixtures that train for long: each test that uses one of them is slow."""


@pytest.hookimpl(tryfirst=True)  # before pytest picks by -m
def pytest_collection_modifyitems(items):
    for item in items:
        if "slow_training" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        # What shares a training stays in one worker: a file, in contract.py a script.
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        group = parameters.get("script") if item.path.name == "contract.py" else None
        item.add_marker(pytest.mark.xdist_group(str(group or item.path.name)))


@pytest.fixture(scope="session")
def real_data_dir():
    """The folder of real data sets named by REAL_DATA_DIR; skips the test where there is none."""
    folder = os.environ.get("REAL_DATA_DIR")
    if not folder:
        pytest.skip("REAL_DATA_DIR is not set: real data sets are not at hand")
    return Path(folder)


def assert_clear_error(result, *words):
    """Exit status 2 and one message with WORDS in it: no traceback, no usage dump."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    message = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1, result.stderr
    for word in words:
        assert word.lower() in message[0].lower(), message[0]


def load_script(script):
    """Import `chapterNN/x.py` as a module of its own: chapters are not packages, names repeat."""
    path = ROOT / script
    name = f"{path.parent.name}_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))  # for the modules that the book splits off
        spec.loader.exec_module(sys.modules[name])
        sys.path.remove(str(path.parent))
    return sys.modules[name]
