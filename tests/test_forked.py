"""The tests' own way of starting scripts: a forked child does what a new Python does."""

import subprocess
import sys

import pytest
from conftest import run_python, start_python
from forked import ForkedScript, can_fork

SCRIPT = """
import atexit, os, sys
import neighbour
if "backend" in sys.argv:
    import keras
    print(keras.backend.backend(), type(keras.ops.ones(2)).__module__)
print(__name__, sys.argv[1:], os.getcwd(), os.path.basename(sys.path[0]), neighbour.__name__)
print("tests" in [os.path.basename(path) for path in sys.path], "conftest" in sys.modules)
print("to stderr", file=sys.stderr)
atexit.register(print, "at exit")
if "message" in sys.argv:
    sys.exit("error: a message")
if "two" in sys.argv:
    sys.exit(2)
if "raise" in sys.argv:
    raise ValueError("seen")
"""

pytestmark = pytest.mark.skipif(not can_fork(), reason="each script has a process of its own here")


@pytest.fixture
def script(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "neighbour.py").write_text("")
    path = tmp_path / "folder" / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("argument", ["", "message", "two", "raise"])
def test_a_forked_script_is_like_a_process_of_its_own(script, tmp_path, argument):
    forked = run_python(script, argument, "é", cwd=tmp_path)
    own = subprocess.run(
        [sys.executable, str(script), argument, "é"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "__main__" in own.stdout and "at exit" in own.stdout
    assert (forked.returncode, forked.stdout) == (own.returncode, own.stdout)
    assert forked.stderr.splitlines()[-1] == own.stderr.splitlines()[-1]
    assert ("Traceback" in forked.stderr) == ("Traceback" in own.stderr) == (argument == "raise")


def test_a_forked_script_can_have_another_backend(script, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    for backend in ("jax", "tensorflow"):
        result = run_python(script, "backend", cwd=tmp_path, env={"KERAS_BACKEND": backend})
        assert result.returncode == 0, result.stderr
        first, module = result.stdout.splitlines()[0].split()
        assert first == backend and module.startswith(backend)


def test_other_variables_take_a_process_of_its_own(tmp_path, monkeypatch):
    assert can_fork({"KERAS_BACKEND": "jax"}) and not can_fork({"KERAS_HOME": str(tmp_path)})
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert not can_fork()
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("SEEN", "by the script")  # when it runs, not when it imports
    assert can_fork()
    (tmp_path / "environment.py").write_text("import os\nprint(os.environ['SEEN'])")
    assert run_python(tmp_path / "environment.py").stdout == "by the script\n"


def test_a_forked_script_can_be_killed_and_times_out(tmp_path):
    (tmp_path / "sleep.py").write_text("import time\ntime.sleep(60)")
    process = start_python(tmp_path / "sleep.py")
    assert isinstance(process, ForkedScript) and process.poll() is None
    process.send_signal(9)
    assert process.wait(timeout=10) == -9
    with pytest.raises(subprocess.TimeoutExpired):
        run_python(tmp_path / "sleep.py", timeout=0.5)
