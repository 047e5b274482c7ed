"""Chapter 6: brackets and survivors, the book's printed listings, what searches draw, the tuner."""

import importlib.util
import json
import math
import os
import pickle
import subprocess
import sys
import time
from functools import partial
from multiprocessing.pool import ThreadPool

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script
from PIL import Image

SAMPLE_SEARCH = ("--data", "sample", "--train-images", 300, "--max-iter", 3)
needs_keras_tuner = pytest.mark.skipif(
    importlib.util.find_spec("keras_tuner") is None, reason="KerasTuner is not installed"
)


@pytest.fixture(scope="module")
def hyperband():
    return load_script("chapter06/hyperband.py")


@pytest.fixture(scope="module")
def random_search():
    return load_script("chapter06/random_search_mnist.py")


@pytest.fixture(scope="module")
def compare():
    return load_script("chapter06/compare_searches.py")


@pytest.fixture
def mnist(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "chapter06")  # it imports `hyperband`
    return load_script("chapter06/hyperband_mnist.py")


# A search that trains nothing: the loss falls with the iterations, at a pace that depends on `x`,
# so that the best after one iteration are not the best in the end.
def get_params(rng):
    return {"x": rng.random(), "name": rng.choice(["a", "b"])}


class Recorder:
    """A `try_params` that notes its calls; what it saves holds the iterations it has had."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, data, num_iters, hyperparameters, trial):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        x = hyperparameters["x"]
        if trial.epochs_done:
            assert trial.start.read_text() == f"{x} {trial.epochs_done}"
        trial.save_to.write_text(f"{x} {num_iters}")
        saved = [path.name.partition("-")[0] for path in trial.save_to.parent.iterdir()]
        assert len(saved) <= len(set(saved)) + 1  # one rung each, but of this one
        self.calls.append((x, num_iters, trial.epochs_done, trial.seed))
        return {"loss": 1 / (1 + num_iters * x) + 0.3 * x, "count": np.int32(num_iters)}


def without_seconds(results):
    return [{**entry, "seconds": 0} for entry in results]


def test_brackets_are_those_of_the_published_algorithm(hyperband):
    """ceil((s_max + 1) / (s + 1) * eta^s) configurations, and a third of them on each rung."""
    assert hyperband.create_brackets(81, 3) == {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        3: [(34, 3), (11, 9), (3, 27), (1, 81)],
        2: [(15, 9), (5, 27), (1, 81)],
        1: [(8, 27), (2, 81)],
        0: [(5, 81)],
    }
    epochs = [sum(n * r for n, r in rungs) for rungs in hyperband.create_brackets(81, 3).values()]
    assert epochs == [405, 363, 351, 378, 405]  # the README's, where survivors start over
    assert hyperband.create_brackets(100, 3)[4] == [(81, 1), (27, 3), (9, 11), (3, 33), (1, 100)]


@pytest.mark.parametrize("eta", [2, 3, 5])
def test_number_of_rungs_at_powers_of_eta(hyperband, eta):
    """int(log(243, 3)) is 4: right at a power, one less just below it."""
    assert int(math.log(243, 3)) == 4  # the trap
    for power in range(1, 9):
        brackets = hyperband.create_brackets(eta**power, eta)
        assert list(brackets) == list(range(power, -1, -1))
        assert brackets[power] == [(eta ** (power - i), eta**i) for i in range(power + 1)]
        assert all(rungs[-1][1] == eta**power for rungs in brackets.values())
        assert len(hyperband.create_brackets(eta**power - 1, eta)) == power


def test_the_listings_as_the_book_prints_them(hyperband):
    """No generator, no trial, numpy values, a list of loss and accuracy from `evaluate`."""
    from keras.layers import Dense, Dropout, Input
    from keras.models import Model

    def build_network(keep_prob=0.5, optimizer="adam"):
        inputs = Input(shape=(784,), name="input")
        x = Dense(512, activation="relu", name="hidden1")(inputs)
        x = Dropout(keep_prob)(x)
        prediction = Dense(10, activation="softmax", name="output")(x)
        model = Model(inputs=inputs, outputs=prediction)
        model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
        return model

    def get_params():
        batches = np.random.choice([5, 10, 100])  # noqa: NPY002
        optimizers = np.random.choice(["rmsprop", "adam", "adadelta"])  # noqa: NPY002
        dropout = np.random.choice(np.linspace(0.1, 0.5, 10))  # noqa: NPY002
        return {"batch_size": batches, "optimizer": optimizers, "keep_prob": dropout}

    def try_params(data, num_iters, hyperparameters):
        model = build_network(
            keep_prob=hyperparameters["keep_prob"], optimizer=hyperparameters["optimizer"]
        )
        model.fit(
            x=data["train_X"],
            y=data["train_y"],
            batch_size=hyperparameters["batch_size"],
            epochs=int(num_iters),
        )
        loss = model.evaluate(x=data["val_X"], y=data["val_y"], verbose=0)
        return {"loss": loss}

    y = np.arange(60) % 10
    X = np.random.default_rng(0).random((60, 784)) / 2 + y[:, None] / 20
    data = {"train_X": X[:40], "train_y": keras.utils.to_categorical(y[:40], 10)}
    data |= {"val_X": X[40:], "val_y": keras.utils.to_categorical(y[40:], 10)}
    hb = hyperband.Hyperband(data, get_params, try_params)
    assert hb.brackets == hyperband.create_brackets(81, 3)
    hb.brackets = hyperband.create_brackets(2, 2)
    results = hb.run()
    assert len(results) == 5 and results[0]["loss"] == min(e["loss"] for e in results) > 0
    assert results[0]["params"].keys() == {"batch_size", "optimizer", "keep_prob"}
    assert results[0]["seconds"] > 0


def test_best_of_each_rung_go_on_from_their_weights(hyperband, tmp_path):
    """Recorder checks the weights: each iteration is trained once, and none are left at the end."""
    try_params = Recorder()
    search = hyperband.Hyperband(None, get_params, try_params, max_iter=27, run_dir=tmp_path)
    results = search.run()
    losses = {(e["bracket"], e["rung"], e["config"]): e["loss"] for e in results}
    for s, rungs in search.brackets.items():
        for i, (n, epochs) in enumerate(rungs):
            configs = {c for b, r, c in losses if (b, r) == (s, i)}
            assert len(configs) == n
            if i > 0:
                before = {c: v for (b, r, c), v in losses.items() if (b, r) == (s, i - 1)}
                assert configs == set(sorted(before, key=before.get)[:n])
            assert {e["epochs"] for e in results if (e["bracket"], e["rung"]) == (s, i)} == {epochs}
    assert [e["loss"] for e in results] == sorted(e["loss"] for e in results)
    trained = {}
    for x, iterations, done, _ in try_params.calls:
        assert trained.get(x, 0) == done
        trained[x] = iterations
    assert sum(trained.values()) == sum(e["trained"] for e in results) == 357
    assert not list((tmp_path / "survivors").iterdir())


def test_no_configuration_is_drawn_twice_while_there_are_others(hyperband):
    def get_params():
        return {"batch": np.random.choice([1, 2, 3]), "rate": np.random.choice(9)}  # noqa: NPY002

    def draw(seed, random_search=None, get_params=get_params):
        search = hyperband.Hyperband(
            None, get_params, Recorder(), 9, seed=seed, random_search=random_search
        )
        return [tuple(params.values()) for params in search.configurations]

    assert len(draw(1)) == len(set(draw(1))) == 17  # of 27
    assert draw(1) == draw(1) != draw(2)
    assert draw(1)[:9] != draw(1, random_search=9)  # Hyperband's own would be no comparison
    few = draw(1, get_params=lambda: {"batch": np.random.choice([1, 2, 3])})  # noqa: NPY002
    assert len(few) == 17 and set(few) == {(1,), (2,), (3,)}


def test_other_parameters_of_the_two_functions_keep_their_defaults(hyperband):
    def get_params(low=0.5):
        return {"x": np.random.uniform(low, 1)}  # noqa: NPY002

    def try_params(data, num_iters, hyperparameters, verbose=0):
        assert verbose == 0
        return {"loss": hyperparameters["x"] / num_iters}

    results = hyperband.Hyperband(None, get_params, try_params, max_iter=3).run()
    assert {e["trained"] for e in results} == {1, 3}  # survivors start over, as in the book


def test_arrays_and_objects_as_hyperparameters(hyperband, tmp_path):
    """They reach `try_params` as they were drawn, also when the search goes on."""

    def get_params(rng):
        start = keras.initializers.RandomNormal(seed=1)
        return {"sizes": rng.integers(1, 9, 3), "layers": (1, 2), "start": start, "x": rng.random()}

    def try_params(data, num_iters, hyperparameters):
        assert hyperparameters["sizes"].shape == (3,) and hyperparameters["layers"] == (1, 2)
        assert isinstance(hyperparameters.pop("start"), keras.initializers.RandomNormal)
        if hyperparameters["x"] < data:
            raise KeyboardInterrupt
        return {"loss": np.array([hyperparameters["x"], 9]), "curve": np.arange(2)}

    with pytest.raises(KeyboardInterrupt):
        hyperband.Hyperband(0.2, get_params, try_params, 9, run_dir=tmp_path).run()
    kept = (tmp_path / "evaluations.jsonl").read_text()
    results = hyperband.Hyperband(0, get_params, try_params, 9, run_dir=tmp_path).run()
    assert kept and (tmp_path / "evaluations.jsonl").read_text().startswith(kept)
    assert results[0]["params"]["start"] == "RandomNormal"
    assert len(results[0]["params"]["sizes"]) == 3 and results[0]["curve"] == [0, 1]


@pytest.mark.parametrize("stop_at", [0, 8, 9, 12, 13, 20])
def test_interrupted_search_repeats_nothing(hyperband, tmp_path, stop_at):
    """Stopped at any point, the two halves together are the uninterrupted search."""
    whole, first, second, third = Recorder(), Recorder(stop_at), Recorder(), Recorder()
    search = partial(hyperband.Hyperband, None, get_params, max_iter=9, seed=3)
    expected = search(try_params=whole).run()
    with pytest.raises(KeyboardInterrupt):
        search(try_params=first, run_dir=tmp_path).run()
    results = search(try_params=second, run_dir=tmp_path).run()
    assert first.calls + second.calls == whole.calls  # the seeds of the evaluations, too
    assert without_seconds(results) == without_seconds(expected)
    assert search(try_params=third, run_dir=tmp_path).run() == results and not third.calls


def test_another_space_is_not_gone_on_with(hyperband, tmp_path):
    hyperband.Hyperband(None, get_params, Recorder(), max_iter=3, run_dir=tmp_path).run()
    with pytest.raises(ValueError, match="other files or settings"):
        hyperband.Hyperband(
            None, lambda rng: {"x": 2 * rng.random()}, Recorder(), max_iter=3, run_dir=tmp_path
        )


def test_diverged_configurations_come_last(hyperband, tmp_path):
    def try_params(data, num_iters, hyperparameters):
        return {"loss": math.nan if hyperparameters["x"] > 0.3 else 1 - hyperparameters["x"]}

    search = hyperband.Hyperband(None, get_params, try_params, max_iter=9, run_dir=tmp_path)
    losses = [entry["loss"] for entry in search.run()]
    finite = [loss for loss in losses if loss is not None]
    assert 0 < len(finite) < len(losses) and losses[: len(finite)] == sorted(finite)
    assert "NaN" not in (tmp_path / "evaluations.jsonl").read_text()


def test_several_workers_find_the_same(hyperband, mnist):
    def try_params(data, num_iters, hyperparameters, trial):
        time.sleep(hyperparameters["x"] / 50)  # so that they end in another order
        trial.save_to.write_text("weights")
        return {"loss": 1 / (1 + num_iters * hyperparameters["x"]) + 0.3 * hyperparameters["x"]}

    expected = hyperband.Hyperband(None, get_params, try_params, max_iter=9).run()
    with ThreadPool(3) as pool:
        search = hyperband.Hyperband(None, get_params, try_params, max_iter=9)
        assert without_seconds(search.run(pool.imap_unordered)) == without_seconds(expected)
    job = hyperband.Hyperband({}, mnist.get_params, mnist.try_params)._create_job(4, 0, 0)
    assert pickle.loads(pickle.dumps(job)) == job  # processes are sent it


POOL_SEARCH = """
import os, sys, time
from hyperband import Hyperband
def get_params(rng):
    return {"x": rng.random()}
def try_params(data, num_iters, hyperparameters, trial):
    assert not trial.epochs_done or trial.start.read_text() == str(trial.epochs_done)
    trial.save_to.write_text(str(num_iters))
    time.sleep(0.02)
    return {"loss": hyperparameters["x"] + 1 / num_iters, "process": os.getpid()}
if __name__ == "__main__":
    if sys.argv[1] == "ray":
        from ray.util.multiprocessing import Pool
    else:
        from multiprocessing.pool import Pool
    expected = Hyperband(None, get_params, try_params, max_iter=9).run()
    with Pool(2) as pool:
        results = Hyperband(None, get_params, try_params, 9, run_dir="run").run(pool.imap_unordered)
    assert [e["loss"] for e in results] == [e["loss"] for e in expected]
    assert len({e["process"] for e in results}) == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["multiprocessing", "ray"])
def test_workers_are_processes_here_or_on_ray(pool, tmp_path):
    if pool == "ray":
        pytest.importorskip("ray", reason="Ray is not installed (requirements-cluster.txt)")
    (tmp_path / "search.py").write_text(POOL_SEARCH)
    folders = f"{ROOT / 'chapter06'}{os.pathsep}{tmp_path}"
    environment = os.environ | {"PYTHONPATH": folders, "RAY_USAGE_STATS_ENABLED": "0"}
    result = subprocess.run(
        [sys.executable, "search.py", pool],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("bad", [{"eta": 1}, {"eta": 2.5}, {"max_iter": 0}, {"max_iter": 0.5}])
def test_bad_numbers(hyperband, bad):
    with pytest.raises(ValueError, match="whole numbers"):
        hyperband.Hyperband(None, get_params, Recorder(), **bad)


def test_networks_are_the_books(mnist, random_search):
    for script in (mnist, random_search):
        model = script.build_network(dropout=0.25, optimizer="adadelta", learning_rate=1.0)
        names = [layer.name for layer in model.layers if layer.weights]
        assert names == ["hidden1", "hidden2", "hidden3", "output"]
        assert model.count_params() == 567_434
        assert [model.get_layer(f"dropout{i}").rate for i in (1, 2, 3)] == [0.25] * 3
        assert isinstance(model.optimizer, keras.optimizers.Adadelta)
        assert float(model.optimizer.learning_rate) == 1.0


def test_spaces_are_the_books_and_the_learning_rate(mnist, random_search):
    drawn = pd.DataFrame([mnist.get_params(np.random.default_rng(i)) for i in range(300)])
    assert set(drawn["batch_size"]) == {5, 10, 100}
    assert set(drawn["optimizer"]) == {"rmsprop", "adam", "adadelta"}
    assert sorted(set(drawn["dropout"])) == np.linspace(0.1, 0.5, 10).tolist()
    space = random_search.create_hyperparameters()
    assert space["batch_size"] == [10, 20, 30, 40, 50]
    np.testing.assert_allclose(space["dropout"], [0.1, 0.2, 0.3, 0.4, 0.5])
    for rates in (drawn["learning_rate"], space["learning_rate"].rvs(300, random_state=0)):
        assert rates.min() > 1e-4 and rates.max() < 1 and 1e-3 < np.median(rates) < 1e-1


def test_random_search_draws_and_splits_as_scikit_learn_does(random_search, monkeypatch, tmp_path):
    """The same candidates on the same folds as RandomizedSearchCV of the same seed."""
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import RandomizedSearchCV

    X, y = np.arange(30).reshape(30, 1).astype("uint8"), np.arange(30) % 3
    seen, theirs = [], []

    class Dummy(DummyClassifier):
        def __init__(self, batch_size=1, optimizer=None, dropout=0, learning_rate=0):
            super().__init__()
            self.batch_size, self.optimizer = batch_size, optimizer
            self.dropout, self.learning_rate = dropout, learning_rate

        def fit(self, X, y):
            theirs.append((X.ravel().tolist(), self.batch_size, self.optimizer, self.learning_rate))
            return super().fit(X, y)

    class Model:
        def evaluate(self, X, y, **options):
            return {"accuracy": len(seen) / 10}

    def fit(X, y, epochs, seed, batch_size, optimizer, dropout, learning_rate):
        seen.append((X.ravel().tolist(), batch_size, optimizer, learning_rate))
        return Model()

    monkeypatch.setattr(random_search, "fit", fit)
    table = random_search.search(X, y, tmp_path / "log", [], n_iter=4, cv=2, seed=5)
    RandomizedSearchCV(
        Dummy(), random_search.create_hyperparameters(), n_iter=4, cv=2, random_state=5, refit=False
    ).fit(X, y)
    assert seen == theirs and len(seen) == 8
    assert table["accuracy"].tolist() == pytest.approx([0.75, 0.55, 0.35, 0.15])


def write_search(path, name, *evaluations):
    """A log of pairs (trained, loss), the lowest loss always 0.1 less."""
    lines = [
        {"search": name, "trained": trained, "loss": loss, "lowest_loss": loss and loss - 0.1}
        for trained, loss in evaluations
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_searches_are_compared_at_the_budget_of_the_shortest(compare, tmp_path):
    """Worked by hand; a training that diverged is none."""
    paths = [
        write_search(tmp_path / "a", "Hyperband", (1, None), (2, 0.5), (3, 0.45)),
        write_search(tmp_path / "b", "Hyperband", (1, 0.9), (2, 0.55), (3, 0.8)),
        write_search(tmp_path / "c", "random search", (3, 0.7), (3, 0.8), (3, 0.3)),
    ]
    budget, best = compare.compare([compare.read_search(path) for path in paths])
    assert budget == 6
    assert best["best loss"].tolist() == pytest.approx([0.45, 0.55, 0.7])
    assert best["best lowest_loss"].tolist() == pytest.approx([0.35, 0.45, 0.6])


def test_committed_searches_make_the_comparison(compare, tmp_path, monkeypatch, capsys):
    """A table with a row for each kind and a picture, from the files in results/."""
    logs = sorted(map(str, (ROOT / "chapter06" / "results").glob("*.jsonl")))
    monkeypatch.setattr(sys, "argv", ["x", *logs, "--output", str(tmp_path / "c.png")])
    compare.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    readme = (ROOT / "chapter06" / "README.md").read_text()
    assert len(rows) == 3
    for row in rows:
        assert all(cell in readme for cell in row.split(" | ")[:3]), row
    Image.open(tmp_path / "c.png").verify()
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="^error: "):
        compare.main()


@pytest.mark.slow
@needs_keras_tuner
def test_keras_tuner_searches_the_same(run_script, tmp_path):
    """Its evaluations in the same form; the finished search again adds none; others are refused."""
    script = "chapter06/hyperband_keras_tuner.py"
    result = run_script(script, *SAMPLE_SEARCH, "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "run" / "evaluations.jsonl").read_text()
    table = pd.DataFrame(map(json.loads, log.splitlines()))
    assert table["trained"].tolist() == [1, 1, 1, 2, 3, 3]
    assert table["bracket"].tolist() == [1, 1, 1, 1, 0, 0]
    assert set(table["params"][0]) == {"batch_size", "optimizer", "dropout", "learning_rate"}
    assert table["params"][3] == table["params"][table["loss"][:3].argmin()]
    Image.open(tmp_path / "run" / "search.png").verify()
    result = run_script(script, *SAMPLE_SEARCH, "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "run" / "evaluations.jsonl").read_text() == log
    result = run_script(script, *SAMPLE_SEARCH, "--run-dir", tmp_path / "run", "--seed", 2)
    assert result.returncode == 1 and "give another --run-dir" in result.stderr


def test_without_keras_tuner_a_line_says_how_to_get_it(mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)  # its import then fails
    with pytest.raises(SystemExit, match="error: .*pip install keras-tuner"):
        load_script("chapter06/hyperband_keras_tuner.py")
