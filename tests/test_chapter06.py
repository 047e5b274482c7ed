"""Chapter 6: random search and Hyperband: brackets, survivors, resume after a kill, Ray."""

import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, load_script, start_python
from PIL import Image

SEARCH, HYPERBAND = "chapter06/random_search_mnist.py", "chapter06/hyperband_mnist.py"
SCRIPTS = (SEARCH, HYPERBAND)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed (requirements-cluster.txt)",
)


@pytest.fixture(scope="module")
def hyperband():
    return load_script("chapter06/hyperband.py")


@pytest.fixture(scope="module")
def compare():
    return load_script("chapter06/compare_searches.py")


def load(script):
    """A chapter's script, which may import `hyperband` from its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "chapter06"))
        return load_script(script)


def tiny_set(train=96, test=20, size=6, classes=2):
    """Arrays of an .npz whose classes differ in brightness."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", train), ("test", test)):
        y = np.arange(n) % classes
        x = rng.integers(0, 100, (n, size, size)) + 150 * y[:, None, None] // classes
        arrays |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y.astype("uint8")}
    return arrays


@pytest.fixture
def tiny_npz(tmp_path):
    np.savez(tmp_path / "tiny.npz", **tiny_set())
    return tmp_path / "tiny.npz"


# A search that trains nothing: the loss falls with the iterations, at a pace that depends on `x`,
# so that the best after one iteration are not the best in the end.
def get_params(rng):
    return {"x": rng.random(), "name": rng.choice(["a", "b"])}


def loss_of(params, iterations):
    return 1 / (1 + iterations * params["x"]) + 0.3 * params["x"]


class Recorder:
    """A `try_params` that notes its calls; the checkpoint holds the iterations it has had."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, data, num_iters, hyperparameters, trial):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        had = json.loads(trial.checkpoint.read_text())["had"] if trial.epochs_done else 0
        assert had == trial.epochs_done
        trial.checkpoint.write_text(json.dumps({"had": num_iters, "x": hyperparameters["x"]}))
        self.calls.append((hyperparameters["x"], num_iters, trial.epochs_done, trial.seed))
        return {
            "loss": loss_of(hyperparameters, num_iters),
            "data": data,
            "count": np.int32(num_iters),
        }


def ranking(results):
    """All of the results but the time, and the order in which evaluations finished."""
    return [{k: v for k, v in e.items() if k not in ("seconds", "spent", "pid")} for e in results]


def test_brackets_are_the_papers(hyperband):
    """Table 1 of arXiv 1603.06560: R = 81, eta = 3."""
    assert hyperband.create_brackets(81, 3) == {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        3: [(27, 3), (9, 9), (3, 27), (1, 81)],
        2: [(9, 9), (3, 27), (1, 81)],
        1: [(6, 27), (2, 81)],
        0: [(5, 81)],
    }


@pytest.mark.parametrize("eta", [2, 3, 4, 5])
@pytest.mark.parametrize("power", range(11))
def test_number_of_rungs_at_powers_of_eta(hyperband, eta, power):
    """int(log(243, 3)) is 4: right at a power, one less just below it."""
    table = hyperband.create_brackets(eta**power, eta)
    assert list(table) == list(range(power, -1, -1))
    assert table[power] == [(eta ** (power - i), eta**i) for i in range(power + 1)]
    assert all(rungs[-1][1] == eta**power for rungs in table.values())
    if power and eta**power - 1 >= 1:
        below = hyperband.create_brackets(eta**power - 1, eta)
        assert len(below) == power
        assert all(r >= 1 and n >= 1 for rungs in below.values() for n, r in rungs)


def test_rungs_of_243_and_729(hyperband):
    assert int(math.log(243, 3)) == 4  # the trap
    for max_iter, rungs in ((243, 6), (729, 7)):
        table = hyperband.create_brackets(max_iter, 3)
        assert len(table) == rungs and len(table[rungs - 1]) == rungs
        assert table[rungs - 1][0] == (max_iter, 1) and table[0] == [(rungs, max_iter)]


def test_best_of_each_rung_go_on(hyperband):
    """Every rung has the paper's size, and holds the best of the rung before."""
    try_params = Recorder()
    search = hyperband.Hyperband("digits", get_params, try_params, max_iter=27)
    results = search.run()
    losses = {(e["bracket"], e["rung"], e["config"]): e["loss"] for e in results}
    for s, rungs in search.table.items():
        for i, (n, epochs) in enumerate(rungs):
            configs = {c for b, r, c in losses if (b, r) == (s, i)}
            assert len(configs) == n
            if i > 0:
                before = {c: v for (b, r, c), v in losses.items() if (b, r) == (s, i - 1)}
                assert configs == set(sorted(before, key=before.get)[:n])
            assert {e["epochs"] for e in results if (e["bracket"], e["rung"]) == (s, i)} == {epochs}
    assert [e["loss"] for e in results] == sorted(e["loss"] for e in results)
    assert all(e["data"] == "digits" for e in results)


def test_survivors_go_on_from_their_weights(hyperband, tmp_path):
    """Each iteration is trained once (Recorder checks the checkpoint), and the best is kept."""
    try_params = Recorder()
    search = hyperband.Hyperband(None, get_params, try_params, max_iter=27, run_dir=tmp_path)
    results = search.run()
    trained = {}
    for x, iterations, done, _ in try_params.calls:
        assert trained.get(x, 0) == done
        trained[x] = iterations
    assert sum(trained.values()) == search.budget == 342  # 405 from scratch
    best = json.loads((tmp_path / "best.keras").read_text())
    assert best == {"had": results[0]["epochs"], "x": results[0]["params"]["x"]}
    assert not (tmp_path / "checkpoints").exists()


def test_no_more_weights_on_disk_than_are_needed(hyperband, tmp_path):
    def try_params(data, num_iters, hyperparameters, trial):
        held = [path.name for path in (tmp_path / "checkpoints").iterdir()]
        configs = [name.rpartition("-")[0] for name in held]
        assert len(set(configs)) == len(configs), held  # one rung each
        if num_iters > 1:  # the first rung of nine is over: its three best, no more
            assert len([name for name in held if name.startswith("2-")]) <= 3
        trial.checkpoint.write_text("weights")
        return {"loss": hyperparameters["x"]}

    hyperband.Hyperband(None, get_params, try_params, max_iter=9, run_dir=tmp_path).run()


def test_from_scratch(hyperband):
    try_params = Recorder()
    search = hyperband.Hyperband(None, get_params, try_params, max_iter=27, from_scratch=True)
    results = search.run()
    assert {done for _, _, done, _ in try_params.calls} == {0}
    assert sum(iterations for _, iterations, _, _ in try_params.calls) == search.budget == 405
    assert max(e["spent"] for e in results) == 405


def test_the_books_own_functions(hyperband):
    """No generator, no trial, numpy values: as printed in the book; the seed still decides."""

    def book_get_params():
        batches = np.random.choice([5, 10, 100])  # noqa: NPY002
        dropout = np.random.choice(np.linspace(0.1, 0.5, 10))  # noqa: NPY002
        return {"batch_size": batches, "keep_prob": dropout}

    def book_try_params(data, num_iters, hyperparameters):
        assert type(hyperparameters["batch_size"]) is int
        return {"loss": np.float32(hyperparameters["keep_prob"] / num_iters)}

    runs = []
    for seed in (1, 1, 2):
        search = hyperband.Hyperband({}, book_get_params, book_try_params, max_iter=9, seed=seed)
        assert search.from_scratch
        runs.append(ranking(search.run()))
    assert runs[0] == runs[1] != runs[2]


def test_random_search_trains_each_configuration_in_full(hyperband):
    try_params = Recorder()
    search = hyperband.Hyperband(None, get_params, try_params, max_iter=27, random_search=5)
    assert len(search.run()) == 5 and search.budget == 5 * 27
    assert {iterations for _, iterations, _, _ in try_params.calls} == {27}


@pytest.mark.parametrize("stop_at", [0, 1, 8, 9, 12, 13, 19])
def test_interrupted_search_repeats_nothing(hyperband, tmp_path, stop_at):
    """Stopped at any point, the two halves together are the uninterrupted search."""
    whole, first, second = Recorder(), Recorder(stop_at), Recorder()
    arguments = {"max_iter": 9, "seed": 3}
    expected = hyperband.Hyperband(
        None, get_params, whole, run_dir=tmp_path / "whole", **arguments
    ).run()
    run_dir = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        hyperband.Hyperband(None, get_params, first, run_dir=run_dir, **arguments).run()
    results = hyperband.Hyperband(None, get_params, second, run_dir=run_dir, **arguments).run()
    assert first.calls + second.calls == whole.calls  # the seeds of the evaluations, too
    assert ranking(results) == ranking(expected)
    assert (run_dir / "best.keras").read_text() == (tmp_path / "whole" / "best.keras").read_text()

    third = Recorder()  # a finished search does nothing more
    results = hyperband.Hyperband(None, get_params, third, run_dir=run_dir, **arguments).run()
    assert third.calls == [] and ranking(results) == ranking(expected)


FAKE_SEARCH = """
import json, os, sys, time
from pathlib import Path
from hyperband import Hyperband, RayEngine
folder, sleep = Path(sys.argv[1]), float(sys.argv[2])
def get_params(rng):
    return {"x": rng.random()}
def try_params(data, num_iters, hyperparameters, trial):
    had = trial.checkpoint.read_text() if trial.epochs_done else "0"
    assert had == str(trial.epochs_done)
    with (folder / "started").open("a") as file:
        file.write(f"{os.getpid()} {trial.seed}\\n")
    time.sleep(sleep)
    trial.checkpoint.write_text(str(num_iters))
    return {"loss": hyperparameters["x"] + 1 / num_iters + data["add"]}
if __name__ == "__main__":
    engine = RayEngine(2) if sys.argv[3] == "ray" else None
    search = Hyperband({"add": 1}, get_params, try_params, max_iter=9, run_dir=folder / "run")
    results = search.run(engine)
    (folder / "results.json").write_text(json.dumps(results))
"""


def start_fake_search(folder, sleep, engine="local"):
    (folder / "search.py").write_text(FAKE_SEARCH)
    return subprocess.Popen(
        [sys.executable, str(folder / "search.py"), str(folder), str(sleep), engine],
        env={**os.environ, "PYTHONPATH": str(ROOT / "chapter06")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path, count, process, seconds=90):
    """Wait until a file has `count` lines; returns them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError(f"{path} has not {count} lines; exit status {process.poll()}")


def fake_results(folder, sleep=0, engine="local"):
    process = start_fake_search(folder, sleep, engine)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return ranking(json.loads((folder / "results.json").read_text()))


def test_kill_9_repeats_no_finished_evaluation(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    expected = fake_results(tmp_path / "whole")
    folder = tmp_path / "killed"
    process = start_fake_search(folder, 0.1)
    wait_for_lines(folder / "run" / "evaluations.jsonl", 1 + 10, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    log = folder / "run" / "evaluations.jsonl"
    finished = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert fake_results(folder) == expected
    started = [line.split()[1] for line in (folder / "started").read_text().splitlines()]
    assert len(expected) <= len(started) <= len(expected) + 1  # the one that was running
    assert len(set(started)) == len(expected)
    log_after = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert log_after[: len(finished)] == finished and len(log_after) == len(expected)


def test_diverged_configurations_come_last(hyperband, tmp_path):
    def try_params(data, num_iters, hyperparameters, trial):
        trial.checkpoint.write_text(str(hyperparameters["x"]))
        return {"loss": math.nan if hyperparameters["x"] > 0.3 else 1 - hyperparameters["x"]}

    search = hyperband.Hyperband(None, get_params, try_params, max_iter=9, run_dir=tmp_path)
    losses = [e["loss"] for e in search.run()]
    finite = [loss for loss in losses if loss is not None]
    assert finite == sorted(finite) and set(losses[len(finite) :]) == {None}
    assert "NaN" not in (tmp_path / "evaluations.jsonl").read_text()
    assert 1 - float((tmp_path / "best.keras").read_text()) == finite[0]
    # Nothing that diverged was trained further while something sound was left.
    assert search.done[2, 0, 0]["loss"] is None or (2, 0, 1) in search.done


@pytest.fixture
def finished_run(hyperband, tmp_path):
    """The run directory of a search that was stopped after six evaluations."""
    with pytest.raises(KeyboardInterrupt):
        hyperband.Hyperband(None, get_params, Recorder(6), max_iter=9, run_dir=tmp_path).run()
    return tmp_path


@pytest.mark.parametrize("tail", ['{"bracket": 2, "con', "", "\x00\x00", '{"bracket": 2, "x": 1'])
def test_half_written_last_line_is_ignored(hyperband, finished_run, tail):
    log = finished_run / "evaluations.jsonl"
    log.write_text(log.read_text() + tail)
    try_params = Recorder()
    hyperband.Hyperband(None, get_params, try_params, max_iter=9, run_dir=finished_run).run()
    assert len(try_params.calls) == 20 - 6
    assert all(json.loads(line) for line in log.read_text().splitlines())
    assert len(log.read_text().splitlines()) == 1 + 20


def test_missing_last_newline_loses_nothing(hyperband, finished_run):
    log = finished_run / "evaluations.jsonl"
    log.write_text(log.read_text().rstrip("\n"))
    try_params = Recorder()
    hyperband.Hyperband(None, get_params, try_params, max_iter=9, run_dir=finished_run).run()
    assert len(try_params.calls) == 20 - 6


DAMAGE = {
    "no JSON": (3, "oops", "line 3 is damaged"),
    "no evaluation": (4, '{"bracket": 2}', "line 4 is not an evaluation"),
    "no object": (2, "[1, 2]", "line 2 is not an evaluation"),
    "other bracket": (2, None, "line 2 is not an evaluation"),
    "header": (1, "[]", "belongs to another search"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_line_is_named(hyperband, finished_run, case):
    number, text, words = DAMAGE[case]
    log = finished_run / "evaluations.jsonl"
    lines = log.read_text().splitlines()
    lines[number - 1] = text or lines[number - 1].replace('"bracket": 2', '"bracket": 7')
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=words):
        hyperband.Hyperband(None, get_params, Recorder(), max_iter=9, run_dir=finished_run)
    assert log.read_text().splitlines() == lines


def test_another_search_is_not_resumed(hyperband, finished_run):
    for change in ({"seed": 2}, {"max_iter": 27}, {"settings": {"data": "other"}}):
        arguments = {"max_iter": 9, "run_dir": finished_run, **change}
        name = next(iter(change.get("settings", change)))
        with pytest.raises(ValueError, match=f"another search.*{name}"):
            hyperband.Hyperband(None, get_params, Recorder(), **arguments)

    def other_space(rng):
        return {"x": 1 + rng.random(), "name": "a"}

    with pytest.raises(ValueError, match="line 2 .*params"):
        hyperband.Hyperband(None, other_space, Recorder(), max_iter=9, run_dir=finished_run)


def test_lost_weights_are_named(hyperband, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        hyperband.Hyperband(None, get_params, Recorder(9), max_iter=9, run_dir=tmp_path).run()
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(OSError, match="survivor's weights"):
        hyperband.Hyperband(None, get_params, Recorder(), max_iter=9, run_dir=tmp_path).run()


@pytest.mark.parametrize(
    "arguments",
    [{"eta": 1}, {"eta": 2.5}, {"max_iter": 0}, {"max_iter": -3}, {"seed": -1}],
)
def test_bad_arguments_of_the_search(hyperband, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        hyperband.Hyperband(None, get_params, Recorder(), **arguments)


def test_progress_shows_the_budget_left(hyperband, capsys):
    hyperband.Hyperband(None, get_params, Recorder(), max_iter=9).run()
    captured = capsys.readouterr()
    assert "63/63" in captured.err and "0 left" in captured.err and "best 0." in captured.err
    assert len(captured.out.splitlines()) == 20


def test_comparison_counts_epochs(compare):
    """Worked by hand: budgets, losses at equal budgets, epochs needed."""

    def entries(*pairs):
        return [
            {"trained": len(losses), "loss": losses[-1], "losses": list(losses)} for losses in pairs
        ]

    ours = ({"random_search": None}, entries((0.9,), (0.5, 0.6), (0.8, 0.4, 0.45)))
    other = ({"random_search": 3}, entries((0.7, 0.5, 0.6), (0.9, 0.9, 0.8), (0.5, 0.4, 0.3)))
    assert compare.compare([ours, other]) == {
        "budget": 6,
        "hyperband": [0.45],
        "random": [0.6],
        "needed": [9],
    }
    every = compare.compare([ours, other], every_epoch=True)
    assert every == {"budget": 6, "hyperband": [0.4], "random": [0.5], "needed": [8]}
    never = ({"random_search": 1}, entries((0.9, 0.8)))
    assert compare.compare([ours, never])["needed"] == [None]
    late = ({"random_search": 1}, entries([0.5] * 7))
    with pytest.raises(ValueError, match=r"after 6 epochs.*after 7;.*--max-iter"):
        compare.compare([ours, late])


def test_networks_are_the_books():
    import keras

    build = load(HYPERBAND).build_network
    model = build(dropout=0.25, optimizer="adadelta")
    assert [layer.name for layer in model.layers if layer.weights] == [
        "hidden1", "hidden2", "hidden3", "output",
    ]  # fmt: skip
    assert model.count_params() == 567_434
    assert [model.get_layer(f"dropout{i}").rate for i in (1, 2, 3)] == [0.25] * 3
    assert float(model.optimizer.learning_rate) == 1.0  # as in the book's Keras
    X, y = np.zeros((4, 784), "uint8"), keras.utils.to_categorical([0, 1, 2, 9], 10)
    assert load(SEARCH).build_network(X, y).count_params() == 567_434
    space = load(HYPERBAND).get_params(np.random.default_rng(0))
    assert space.keys() == {"batch_size", "optimizer", "dropout"}


def test_candidates_keep_their_hyperparameters():
    """Through scikit-learn's clone, where Keras's own wrapper loses its fit_kwargs."""
    import keras
    from sklearn.base import clone

    module = load(SEARCH)
    plain = keras.wrappers.SKLearnClassifier(module.build_network, fit_kwargs={"epochs": 5})
    assert clone(plain).fit_kwargs is None  # if this fails, the wrapper was mended
    ours = clone(module.MnistClassifier(epochs=5, seed=7)).set_params(dropout=0.3, batch_size=10)
    assert clone(ours).get_params() == {
        "dropout": 0.3, "optimizer": "adam", "batch_size": 10, "epochs": 5, "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_sample_and_split(script, tmp_path):
    data = load(script).load_data("sample")
    assert data["train_X"].shape[1] == 784 and data["train_X"].dtype == np.uint8
    assert [len(data[f"{part}_y"]) for part in ("train", "val", "test")] == [3667, 333, 1000]
    arrays = tiny_set()
    arrays["x_train"][:, 0, 0] = np.arange(96)
    np.savez(tmp_path / "own.npz", **arrays)
    own = load(script).load_data(tmp_path / "own.npz")
    marks = np.concatenate([own["train_X"], own["val_X"]])[:, 0]
    assert sorted(marks) == list(range(96)) and len(own["val_X"]) == 8


def write_text_npz(folder):
    (folder / "bad.npz").write_text("this is not an archive")


def truncate_npz(folder):
    np.savez(folder / "bad.npz", **tiny_set())
    whole = (folder / "bad.npz").read_bytes()
    (folder / "bad.npz").write_bytes(whole[: len(whole) // 2])


def write_changed_npz(**change):
    def write(folder):
        arrays = {k: v for k, v in (tiny_set() | change).items() if v is not None}
        np.savez(folder / "bad.npz", **arrays)

    return write


HOSTILE = np.array([{"would": "unpickle"}], dtype=object)
BAD_INPUT = {
    "missing path": (lambda folder: None, "does not exist"),
    "text named .npz": (write_text_npz, "not a readable .npz"),
    "truncated": (truncate_npz, "not a readable .npz"),
    "pickle": (write_changed_npz(x_train=HOSTILE), "not a readable .npz"),
    "missing key": (write_changed_npz(y_test=None), "y_test missing"),
    "float images": (write_changed_npz(x_test=np.zeros((20, 6, 6))), "x_test is float64"),
    "colour": (write_changed_npz(x_test=np.zeros((20, 6, 6, 3), "uint8")), "x_test is uint8"),
    "no images": (write_changed_npz(x_test=np.zeros((0, 6, 6), "uint8")), "x_test is"),
    "too few labels": (write_changed_npz(y_train=np.zeros(9, "uint8")), "y_train is"),
    "float labels": (write_changed_npz(y_test=np.zeros(20)), "y_test is float64"),
    "other size in test": (
        write_changed_npz(x_test=np.zeros((20, 8, 8), "uint8")),
        "test images",
    ),
    "negative label": (write_changed_npz(y_train=np.arange(96) % 2 - 1), "from -1"),
    "label without training image": (write_changed_npz(y_test=np.full(20, 255)), "255"),
    "one class": (write_changed_npz(y_train=np.zeros(96, int)), "two classes"),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_in_load_data(tmp_path, script, case):
    write, words = BAD_INPUT[case]
    write(tmp_path)
    with pytest.raises((OSError, ValueError), match="(?i)" + words):
        load(script).load_data(tmp_path / "bad.npz")


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_network_the_message_says_what_works(tmp_path, script):
    """An empty Keras cache and a proxy that answers nothing stand for a machine without network."""
    offline = {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / script), "--run-dir", str(tmp_path / "run")],
        env={**os.environ, **offline},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()  # importing Keras takes half a minute on a busy machine
    start = time.monotonic()
    process.stdout, process.stderr = process.communicate(timeout=120)
    assert time.monotonic() - start < 25
    assert_clear_error(process, "--data sample", "data/fetch.py mnist")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (HYPERBAND, ["--eta", "1"]),
        (HYPERBAND, ["--max-iter", "0"]),
        (HYPERBAND, ["--seed", "-1"]),
        (HYPERBAND, ["--ray-address", "localhost:6379"]),
        (SEARCH, ["--n-iter", "0"]),
        (SEARCH, ["--cv", "1"]),
        (SEARCH, ["--epochs", "0"]),
        (SEARCH, ["--ray-address", "localhost:6379"]),
    ],
)
def test_bad_arguments(monkeypatch, capsys, script, arguments):
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as stop:
        load(script).parse_arguments()
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_without_ray_the_message_says_how_to_get_it(hyperband, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # import ray then fails
    for start_ray in (hyperband.start_ray, load(SEARCH).start_ray):
        with pytest.raises(OSError, match="make cluster.*requirements-cluster.txt"):
            start_ray(2)


@pytest.mark.parametrize("address", ["127.0.0.1:PORT", "nonsense", "127.0.0.1:99999"])
def test_no_cluster_at_the_address(hyperband, address):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = address.replace("PORT", str(unused.getsockname()[1]))
        start = time.monotonic()
        for start_ray in (hyperband.start_ray, load(SEARCH).start_ray):
            with pytest.raises(OSError, match="no Ray cluster"):
                start_ray(2, address)
        assert time.monotonic() - start < 15


def read_log(run_dir):
    """The evaluations in a run's log as {(bracket, config, rung): loss}."""
    lines = (run_dir / "evaluations.jsonl").read_text().splitlines()[1:]
    entries = [json.loads(line) for line in lines]
    found = {(e["bracket"], e["config"], e["rung"]): e["loss"] for e in entries}
    assert len(found) == len(entries)
    return found


@pytest.mark.slow
def test_killed_hyperband_of_mnist_goes_on(run_script, tmp_path):
    """kill -9 in mid-search; together the halves are the uninterrupted search, to the last bit."""
    arguments = ["--data", "sample", "--train-images", "300", "--max-iter", "3", "--run-dir"]
    result = run_script(HYPERBAND, *arguments, tmp_path / "whole", cwd=ROOT / "chapter06")
    assert result.returncode == 0, result.stderr
    expected = read_log(tmp_path / "whole")

    process = start_python(HYPERBAND, *arguments, tmp_path / "killed")
    wait_for_lines(tmp_path / "killed" / "evaluations.jsonl", 1 + 3, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = (tmp_path / "killed" / "evaluations.jsonl").read_text()
    result = run_script(HYPERBAND, *arguments, tmp_path / "killed")
    assert result.returncode == 0, result.stderr
    assert "Resuming the search" in result.stdout
    assert (tmp_path / "killed" / "evaluations.jsonl").read_text().startswith(finished)
    assert read_log(tmp_path / "killed") == expected

    columns = ["loss", "bracket", "config", "rung", "dropout", "optimizer", "batch_size"]
    tables = [pd.read_csv(tmp_path / name / "results.csv") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns])
    metrics = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed")
    ]
    assert metrics[0]["test"] == metrics[1]["test"]
    assert metrics[0]["val"]["loss"] == pytest.approx(min(expected.values()), abs=1e-5)
    assert metrics[0]["test"]["accuracy"] > 0.5  # an untrained network: 0.1
    Image.open(tmp_path / "killed" / "score_against_budget.png").verify()

    result = run_script(HYPERBAND, *arguments, tmp_path / "killed", "--evaluate")
    assert f"test accuracy {metrics[0]['test']['accuracy']:.4f}" in result.stdout, result.stderr


@pytest.mark.slow
def test_random_search_on_the_sample(run_script, tmp_path):
    arguments = ("--data", "sample", "--train-images", 1000, "--n-iter", 2, "--cv", 2)
    result = run_script(SEARCH, *arguments, "--run-dir", tmp_path, cwd=ROOT / "chapter06")
    assert result.returncode == 0, result.stderr
    assert "totalling 4 fits" in result.stdout
    table = pd.read_csv(tmp_path / "results.csv")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(table["spent"]) == [2, 4]
    best = table.iloc[table["mean_test_score"].argmax()]
    assert metrics["best_params"]["batch_size"] == best["batch_size"]
    assert metrics["best_params"]["dropout"] == pytest.approx(best["dropout"])
    assert metrics["test"]["accuracy"] > 0.6 and metrics["parameters"] == 567_434
    Image.open(tmp_path / "score_against_budget.png").verify()
    result = run_script(SEARCH, *arguments, "--run-dir", tmp_path, "--evaluate")
    assert f"test accuracy {metrics['test']['accuracy']:.4f}" in result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_evaluate_without_a_search(run_script, tmp_path, script):
    result = run_script(script, "--data", "sample", "--evaluate", "--run-dir", tmp_path / "run")
    assert_clear_error(result, "does not exist", "search first")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_bad_input_exits_with_one_message(run_script, tmp_path):
    write_text_npz(tmp_path)
    for script in SCRIPTS:
        result = run_script(
            script, "--data", tmp_path / "bad.npz", "--run-dir", tmp_path / "run"
        )  # fmt: skip
        assert_clear_error(result, "not a readable .npz")
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluations.jsonl").write_text('{"seed": 7}\n{}\n')
    result = run_script(HYPERBAND, "--data", "sample", "--run-dir", tmp_path / "run")
    assert_clear_error(result, "another search", "seed 7 there, 1 here")
    np.savez(tmp_path / "few.npz", **tiny_set(train=13))
    result = run_script(SEARCH, "--data", tmp_path / "few.npz", "--cv", 9)
    assert_clear_error(result, "--cv 9")


@pytest.mark.slow
@needs_ray
def test_a_killed_ray_worker_costs_one_retry(tmp_path):
    """Two workers; one is killed in mid-search: the same results, one evaluation started twice."""
    for name in ("local", "ray"):
        (tmp_path / name).mkdir()
    expected = fake_results(tmp_path / "local")
    process = start_fake_search(tmp_path / "ray", 0.5, "ray")
    lines = wait_for_lines(tmp_path / "ray" / "started", 6, process)
    os.kill(int(lines[-1].split()[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    results = json.loads((tmp_path / "ray" / "results.json").read_text())
    assert ranking(results) == expected
    started = [line.split() for line in (tmp_path / "ray" / "started").read_text().splitlines()]
    assert len({pid for pid, _ in started}) == 3  # two, and the one that took the dead one's place
    assert len(started) == len(expected) + 1 and len({seed for _, seed in started}) == len(expected)


@pytest.mark.slow
@needs_ray
def test_hyperband_of_mnist_on_ray(run_script, tmp_path, tiny_npz):
    """Two workers, weights handed on through Ray: the losses of the search on one."""
    arguments = ("--data", tiny_npz, "--max-iter", 3)
    result = run_script(HYPERBAND, *arguments, "--run-dir", tmp_path / "local")
    assert result.returncode == 0, result.stderr
    ray = ("--engine", "ray", "--workers", 2)
    result = run_script(HYPERBAND, *arguments, *ray, "--run-dir", tmp_path / "ray")
    assert result.returncode == 0, result.stderr
    assert "2 at a time" in result.stdout
    expected, found = read_log(tmp_path / "local"), read_log(tmp_path / "ray")
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(expected[key], abs=1e-4) for key in found)


KILL_A_WORKER = """
import os, runpy, signal, sys
folder = sys.argv[1]
from sklearn import model_selection
fit_and_score = model_selection._search._fit_and_score
def deadly(*arguments, **options):
    import os, signal
    with open(folder + "/fits", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if not os.path.exists(folder + "/killed"):
        open(folder + "/killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return fit_and_score(*arguments, **options)
model_selection._search._fit_and_score = deadly
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@needs_ray
def test_random_search_on_ray_survives_a_killed_worker(run_script, tmp_path, tiny_npz):
    arguments = ["--data", tiny_npz, "--n-iter", 2, "--cv", 2, "--run-dir"]
    result = run_script(SEARCH, *arguments, tmp_path / "local")
    assert result.returncode == 0, result.stderr
    command = [sys.executable, "-c", KILL_A_WORKER, tmp_path, ROOT / SEARCH, *arguments]
    command += [tmp_path / "ray", "--engine", "ray", "--n-jobs", 2]
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "fits").read_text().splitlines()) == 4 + 1
    tables = [pd.read_csv(tmp_path / name / "results.csv") for name in ("local", "ray")]
    columns = ["batch_size", "optimizer", "dropout", "mean_test_score"]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns], atol=0.05)


@pytest.mark.slow
@needs_ray
def test_ray_listens_on_this_machine_only(tmp_path):
    """Every listening TCP socket of Ray's processes is on the loopback interface."""
    program = (
        "import glob, os\n"
        "from hyperband import RayEngine\n"
        "engine = RayEngine(2)\n"
        "engine.ray.get(engine.ray.remote(lambda: 1).remote())\n"
        "inodes = set()\n"
        "group = os.getpgid(0)\n"
        "for link in glob.glob('/proc/[0-9]*/fd/*'):\n"
        "    try:\n"
        "        pid = int(link.split('/')[2])\n"
        "        ours = 'ray' in open(f'/proc/{pid}/cmdline').read() or pid == os.getpid()\n"
        "        target = os.readlink(link)\n"
        "    except OSError:\n"
        "        continue\n"
        "    if ours and target.startswith('socket:['):\n"
        "        inodes.add(target[8:-1])\n"
        "for table in ('tcp', 'tcp6'):\n"
        "    for line in open(f'/proc/net/{table}').readlines()[1:]:\n"
        "        fields = line.split()\n"
        "        if fields[3] == '0A' and fields[9] in inodes:\n"
        "            print('LISTEN', fields[1].rpartition(':')[0])\n"
    )
    if not Path("/proc/net/tcp").exists():
        pytest.skip("no /proc/net: not Linux")
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "chapter06")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    addresses = {line.split()[1] for line in result.stdout.splitlines() if "LISTEN" in line}
    assert addresses, result.stderr
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
    assert addresses <= loopback
