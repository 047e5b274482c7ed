"""Chapter 7 on several hosts: two processes on this machine train as one would."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no JAX (make cluster)"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """68 bright and dark images to train on: two batches of 32, and a rest."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    X = (rng.integers(0, 100, (100, 12, 12, 3)) + 100 * y[:, None, None, None]).astype("uint8")
    path = tmp_path_factory.mktemp("hosts") / "small.npz"
    names = ["dark", "bright"]
    np.savez(path, x_train=X[:68], y_train=y[:68], x_test=X[68:], y_test=y[68:], class_names=names)
    return path


def start(run_dir, data, *hosts):
    """Start a host for each of `hosts`, its further options as one string."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, ROOT / "chapter07/cnn_cifar10_hosts.py", "--coordinator", address]
    command += ["--num-hosts", len(hosts), "--data", data, "--run-dir", run_dir, "--host-index"]
    return [
        subprocess.Popen(
            [*map(str, command), str(index), *options.split()],
            env={**os.environ, "KERAS_BACKEND": "jax"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, options in enumerate(hosts)
    ]


def finish(hosts, status=0):
    """Wait for all; returns what each printed."""
    outputs = [host.communicate(timeout=240)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [status] * len(hosts), "\n\n".join(outputs)
    return outputs


def test_two_hosts_train_as_one_and_survive_a_kill(data, tmp_path):
    """The losses of one host, to rounding; a lost host ends the other; host 0 alone has files."""
    two, one = tmp_path / "two", tmp_path / "one"
    hosts = start(two, data, "--epochs 5000", "--epochs 5000")
    deadline = time.monotonic() + 180
    while not (two / "last.keras").exists():
        assert time.monotonic() < deadline and hosts[0].poll() is None, finish(hosts)
        time.sleep(0.05)
    hosts[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    output = hosts[0].communicate(timeout=120)[0]
    assert time.monotonic() - killed < 30 and hosts[0].returncode == 1
    assert "error: another host is lost" in output.splitlines()[-1] and "Traceback" not in output
    history = pd.read_csv(two / "history.csv")
    assert f"loss: {history['loss'][0]:.4f} - val" in hosts[1].communicate()[0]  # its own line

    finish(start(one, data, "--epochs 1"))
    alone = pd.read_csv(one / "history.csv")
    np.testing.assert_allclose(history[:1], alone, rtol=1e-4)

    epochs = f"--epochs {len(history) + 1}"
    outputs = finish(start(two, data, epochs, epochs))
    assert "Epoch 1/" not in outputs[0] + outputs[1]
    history = pd.read_csv(two / "history.csv")
    assert list(history["epoch"]) == list(range(len(history)))
    assert history["loss"].iloc[-1] < 0.3 * history["loss"][0]  # on both hosts it had learned
    assert {"model.keras", "metrics.json"} <= {path.name for path in two.iterdir()}


def test_hosts_with_other_options_do_not_train_together(data, tmp_path):
    for output in finish(start(tmp_path / "run", data, "--seed 1", "--seed 2"), status=1):
        assert "error: not all hosts have the same data and options" in output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
