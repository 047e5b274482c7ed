"""Chapter 7 on several hosts: the shares of a batch, and two processes on this machine."""

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
from conftest import ROOT, assert_clear_error, load_script

SCRIPT = "chapter07/cnn_cifar10.py"
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed (make cluster)"
)


@pytest.fixture(scope="module")
def hosts():
    return load_script("chapter07/many_hosts.py")


# --- each host's share ------------------------------------------------------------------------


@pytest.mark.parametrize("num_hosts", [1, 2, 3])
def test_shares_make_up_the_batch(hosts, num_hosts):
    """All hosts' shares together are the batch that one host alone would see, in its order."""
    X, y = np.arange(50)[:, None], np.arange(50) * 10
    alone = hosts.HostShare(X, y, 12, 1, 0, seed=1, multiple=6)
    shares = [hosts.HostShare(X, y, 12, num_hosts, i, seed=1, multiple=6) for i in range(num_hosts)]
    seen = []
    for epoch in range(2):
        assert len(alone) == 4  # 48 images: 50 cut to a multiple of 6
        assert all(len(share) == 4 for share in shares)
        for index in range(4):
            parts = [share[index] for share in shares]
            assert {len(part[0]) for part in parts} == {12 // num_hosts}
            np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), alone[index][0])
            np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), alone[index][1])
        seen.append(np.concatenate([alone[index][0] for index in range(4)]).ravel())
        assert len(set(seen[epoch])) == 48
        for share in [alone, *shares]:
            share.on_epoch_end()
    assert not np.array_equal(*seen), "every epoch in the same order"


def test_order_goes_on_where_it_was(hosts):
    """A share that starts at epoch 3 has the order that one from epoch 0 comes to."""
    X = np.arange(20)[:, None]
    first, later = (hosts.HostShare(X, X, 5, 2, 1, seed=7, epoch=epoch) for epoch in (0, 3))
    for _ in range(3):
        first.on_epoch_end()
    np.testing.assert_array_equal(first[0][0], later[0][0])
    plain = hosts.HostShare(X, X, 5, 1, 0)  # validation: no seed, no shuffling
    plain.on_epoch_end()
    np.testing.assert_array_equal(plain[0][0].ravel(), [0, 1, 2, 3, 4])


# --- the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-hosts", "2"], "belong together"),
        (["--host-index", "0", "--coordinator", "localhost:1"], "belong together"),
        (["--coordinator", "h:1", "--num-hosts", "2", "--host-index", "2"], "from 0 to 1"),
        (
            ["--coordinator", "h:1", "--num-hosts", "2", "--host-index", "0", "--evaluate"],
            "no --evaluate",
        ),
    ],
)
def test_options_that_do_not_fit(options, words, monkeypatch, capsys):
    cnn = load_script(SCRIPT)
    monkeypatch.setattr(sys, "argv", ["cnn_cifar10.py", *options])
    with pytest.raises(SystemExit) as exit_info:
        cnn.parse_arguments()
    assert exit_info.value.code == 2 and words in capsys.readouterr().err


def test_other_backends_are_refused(run_script, tmp_path):
    options = ["--coordinator", "127.0.0.1:1", "--num-hosts", "2", "--host-index", "0"]
    options += ["--data", "sample", "--run-dir", tmp_path / "run"]
    result = run_script(SCRIPT, *options, env={"KERAS_BACKEND": "tensorflow"})
    assert_clear_error(result, "JAX", "KERAS_BACKEND=jax")
    assert not (tmp_path / "run").exists()


def test_nobody_there(monkeypatch, hosts):
    monkeypatch.setattr(hosts.keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(hosts, "WAIT_SECONDS", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=f"no answer from 127.0.0.1:{port}.*firewall"):
        hosts.join_hosts(f"127.0.0.1:{port}", 2, 1)
    for address in ("9876", "host", "host:", ":9876"):
        with pytest.raises(ValueError, match="expected HOST:PORT"):
            hosts.join_hosts(address, 2, 0)


# --- two processes ----------------------------------------------------------------------------


def start_hosts(num_hosts, data, run_dir, epochs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / SCRIPT), "--data", str(data), "--epochs", str(epochs)]
    command += ["--coordinator", f"127.0.0.1:{port}", "--num-hosts", str(num_hosts)]
    command += ["--run-dir", str(run_dir), "--host-index"]
    return [
        subprocess.Popen(
            [*command, str(index)],
            env={**os.environ, "KERAS_BACKEND": "jax"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(num_hosts)
    ]


def finish(hosts):
    """Wait for all; returns what each printed."""
    outputs = [host.communicate(timeout=240)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0] * len(hosts), "\n\n".join(outputs)
    return outputs


@needs_jax
@pytest.mark.slow
def test_two_hosts_train_like_one_and_survive_a_kill(tmp_path):
    """The losses of both hosts, of one alone; a killed host ends the other; both go on."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 64)
    X = (rng.integers(0, 100, (128, 12, 12, 3)) + 100 * y[:, None, None, None]).astype("uint8")
    data = tmp_path / "small.npz"
    np.savez(data, x_train=X[:64], y_train=y[:64], x_test=X[64:], y_test=y[64:])

    two = tmp_path / "two"
    hosts = start_hosts(2, data, two, epochs=2000)
    deadline = time.monotonic() + 180
    while not (two / "backup" / "training_metadata.json.bkp").exists():  # two finished epochs
        assert time.monotonic() < deadline and hosts[0].poll() is None, finish(hosts)
        time.sleep(0.05)
    hosts[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    output = hosts[0].communicate(timeout=120)[0]
    assert time.monotonic() - killed < 120
    assert hosts[0].returncode not in (0, None)
    assert "another host is lost" in output or "another task died" in output, output
    hosts[1].communicate()
    assert not (two / "metrics.json").exists()

    # Both logged the same, and as much as one host alone does in its first two epochs.
    first, second = (pd.read_csv(two / name) for name in ("history.csv", "history_1.csv"))
    rows = min(len(first), len(second))
    assert rows >= 1
    pd.testing.assert_frame_equal(first[:rows], second[:rows])
    one = tmp_path / "one"
    finish(start_hosts(1, data, one, epochs=1))
    alone = pd.read_csv(one / "history.csv")
    np.testing.assert_allclose(first["loss"][0], alone["loss"][0], rtol=1e-5)
    np.testing.assert_allclose(first["val_loss"][0], alone["val_loss"][0], rtol=1e-4)

    # Host 1 has no backup of its own, and gets the weights from host 0.
    done = len(first)
    outputs = finish(start_hosts(2, data, two, epochs=done + 2))
    assert "Resuming" in outputs[0] and f"Epoch {done + 2}/{done + 2}" in outputs[1]
    assert "Epoch 1/" not in outputs[0] and "Epoch 1/" not in outputs[1]
    first, second = (pd.read_csv(two / name) for name in ("history.csv", "history_1.csv"))
    pd.testing.assert_frame_equal(
        first.tail(len(second)).reset_index(drop=True), second.reset_index(drop=True)
    )
    assert first["loss"].iloc[-1] < first["loss"].iloc[0]
    assert (two / "metrics.json").exists() and (two / "model.keras").exists()
