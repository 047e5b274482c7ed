"""Chapter 6: brackets and survivors, the book's printed listings, what searches draw, the tuner."""

import math
import pickle
import sys
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import ROOT, load_script
from keras.layers import Dense, Dropout
from sklearn.model_selection import RandomizedSearchCV
from sklearn.tree import DecisionTreeClassifier

names = ("hyperband", "hyperband_mnist", "random_search_mnist", "compare_searches")
hyperband, mnist, random_search, compare = (load_script(f"chapter06/{name}.py") for name in names)
Hyperband = hyperband.Hyperband
pytestmark = pytest.mark.filterwarnings("ignore:Even though .*eagerly")


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Compiling takes longer than training what is so small."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


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
        self.calls.append((x, num_iters, trial.epochs_done, trial.seed))
        return {"loss": 1 / (1 + num_iters * x) + 0.3 * x, "count": np.int32(num_iters)}


def test_brackets_are_those_of_the_published_algorithm():
    brackets = hyperband.create_brackets(81, 3)
    firsts = [rungs[0] for rungs in brackets.values()]
    assert firsts == [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
    epochs = [sum(n * r for n, r in rungs) for rungs in brackets.values()]
    assert epochs == [405, 363, 351, 378, 405]  # the README's, where survivors start over
    assert hyperband.create_brackets(100, 3)[4] == [(81, 1), (27, 3), (9, 11), (3, 33), (1, 100)]
    assert int(math.log(243, 3)) == 4  # the trap: right at a power is one more than just below it
    assert [len(hyperband.create_brackets(n, 3)) for n in (242, 243)] == [5, 6]


def test_the_listings_as_the_book_prints_them():
    """No generator, no trial, numpy values, a list of loss and accuracy from `evaluate`."""

    def build_network(keep_prob=0.5, optimizer="adam"):
        hidden = [Dense(9, activation="relu"), Dropout(keep_prob)]
        model = keras.Sequential([*hidden, Dense(10, activation="softmax")])
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

    X, y = np.random.default_rng(0).random((30, 50)), np.eye(10)[np.arange(30) % 10]
    data = {"train_X": X[:20], "train_y": y[:20], "val_X": X[20:], "val_y": y[20:]}
    hb = Hyperband(data, get_params, try_params)
    assert hb.brackets == hyperband.create_brackets(81, 3)
    hb.brackets = hyperband.create_brackets(2, 2)
    results = hb.run()
    assert len(results) == 5 and results[0]["loss"] == min(e["loss"] for e in results) > 0
    assert results[0]["params"].keys() == {"batch_size", "optimizer", "keep_prob"}


def test_best_of_each_rung_go_on_from_their_weights(tmp_path):
    """Recorder checks the weights; none are left at the end. Several workers find the same."""
    search = Hyperband(None, get_params, Recorder(), max_iter=27, run_dir=tmp_path)
    results = search.run()
    losses = {(e["bracket"], e["rung"], e["config"]): e["loss"] for e in results}
    for s, rungs in search.brackets.items():
        best = []
        for i, (n, _) in enumerate(rungs):
            ranked = {c: v for (b, r, c), v in losses.items() if (b, r) == (s, i)}
            assert len(ranked) == n and set(best[:n]) in (set(), set(ranked))
            best = sorted(ranked, key=ranked.get)
    assert [e["loss"] for e in results] == sorted(losses.values())
    assert sum(e["trained"] for e in results) == 357  # each epoch once
    assert not list(tmp_path.glob("survivor*"))
    search = Hyperband(None, get_params, Recorder(), max_iter=27)
    found = search.run(lambda evaluate, jobs: reversed([evaluate(job) for job in jobs]))
    assert [e["loss"] for e in found] == [e["loss"] for e in results]
    job = Hyperband({}, mnist.get_params, mnist.try_params)._create_job(4, 0, 0)
    assert pickle.loads(pickle.dumps(job)) == job  # processes are sent it


def test_no_configuration_is_drawn_twice_while_there_are_others():
    def get_params():
        return {"batch": np.random.choice([1, 2, 3]), "rate": np.random.choice(9)}  # noqa: NPY002

    def draw(seed, get_params=get_params, **options):
        search = Hyperband(None, get_params, Recorder(), 9, seed=seed, **options)
        return [tuple(params.values()) for params in search.configurations]

    assert len(draw(1)) == len(set(draw(1))) == 17  # of 27
    assert draw(1) == draw(1) != draw(2)
    assert draw(1)[:9] != draw(1, random_search=9)  # Hyperband's own would be no comparison
    few = draw(1, lambda: {"batch": np.random.choice([1, 2, 3])})  # noqa: NPY002
    assert len(few) == 17 and set(few) == {(1,), (2,), (3,)}


def test_arrays_and_objects_as_hyperparameters_and_diverged_losses(tmp_path):
    """As drawn they reach `try_params`, whose other parameters keep their defaults."""

    def get_params(rng, layers=(1, 2)):
        start, sizes = keras.initializers.Ones(), rng.integers(1, 9, 3)
        return {"sizes": sizes, "layers": layers, "start": start, "x": rng.random()}

    def try_params(data, num_iters, hyperparameters, verbose=0):
        assert hyperparameters["sizes"].shape == (3,) and hyperparameters["layers"] == (1, 2)
        assert isinstance(hyperparameters.pop("start"), keras.initializers.Ones) and verbose == 0
        if hyperparameters["x"] < data:
            raise KeyboardInterrupt
        loss = hyperparameters["x"] if hyperparameters["x"] < 0.7 else math.nan
        return {"loss": np.array([loss, 9]), "curve": np.arange(2)}

    with pytest.raises(KeyboardInterrupt):
        Hyperband(0.2, get_params, try_params, 9, run_dir=tmp_path).run()
    results = Hyperband(0, get_params, try_params, 9, run_dir=tmp_path).run()
    assert "NaN" not in (tmp_path / "evaluations.jsonl").read_text()
    assert results[0]["loss"] is not None and results[-1]["loss"] is None
    assert results[0]["params"]["start"] == "Ones" and results[0]["curve"] == [0, 1]
    assert {e["trained"] for e in results} == {1, 3, 9}  # survivors start over, as in the book


@pytest.mark.parametrize("stop_at", [0, 9, 13])
def test_interrupted_search_repeats_nothing(tmp_path, stop_at):
    """Stopped at any point, the two halves together are the uninterrupted search."""
    whole, first, second, third = (Recorder(stop) for stop in (None, stop_at, None, None))
    search = partial(Hyperband, None, get_params, max_iter=9, seed=3)
    search(try_params=whole).run()
    with pytest.raises(KeyboardInterrupt):
        search(try_params=first, run_dir=tmp_path).run()
    results = search(try_params=second, run_dir=tmp_path).run()
    assert first.calls + second.calls == whole.calls  # the seeds of the evaluations, too
    assert search(try_params=third, run_dir=tmp_path).run() == results and not third.calls
    with pytest.raises(ValueError, match="other files or settings"):
        Hyperband(None, lambda rng: {"x": 1}, third, max_iter=9, seed=3, run_dir=tmp_path)


def test_networks_and_spaces_are_the_books_and_the_learning_rate():
    for script in (mnist, random_search):
        model = script.build_network(dropout=0.25, optimizer="adadelta", learning_rate=1.0)
        assert model.count_params() == 567_434 and model.get_layer("dropout2").rate == 0.25
        assert type(model.optimizer).__name__ == "Adadelta"
        assert float(model.optimizer.learning_rate) == 1
    drawn = pd.DataFrame([mnist.get_params(np.random.default_rng(i)) for i in range(300)])
    assert set(drawn["batch_size"]) == {5, 10, 100} and drawn["optimizer"].nunique() == 3
    assert sorted(set(drawn["dropout"])) == np.linspace(0.1, 0.5, 10).tolist()
    space = random_search.create_hyperparameters()
    assert space["batch_size"] == [10, 20, 30, 40, 50] and len(space["dropout"]) == 5
    for rates in (drawn["learning_rate"], space["learning_rate"].rvs(300, random_state=0)):
        assert rates.min() > 1e-4 and rates.max() < 1 and 1e-3 < np.median(rates) < 1e-1


def test_survivors_keep_their_optimizer_and_the_winner_gets_all_digits(tmp_path):
    X, y = np.zeros((25, 4), "uint8"), np.arange(25) % 2
    data = {"train_X": X[:20], "train_y": y[:20], "val_X": X[20:], "val_y": y[20:], "sizes": (4, 2)}
    params = {"batch_size": 5, "optimizer": "adam", "dropout": 0.1, "learning_rate": 0.01}
    first, second, winner = (tmp_path / f"{name}.keras" for name in ("first", "second", "winner"))
    mnist.try_params(data, 1, dict(params), mnist.Trial(1, 0, None, first))
    mnist.try_params(data, 3, dict(params), mnist.Trial(1, 1, first, second))
    mnist.try_params(mnist.join(data), 2, dict(params), mnist.Trial(1, 0, None, winner))
    models = map(keras.models.load_model, (first, second, winner))
    assert [int(model.optimizer.iterations) for model in models] == [4, 3 * 4, 2 * 5]
    # The baseline has the same digits as the winner: here validation alone shows what a 1 is.
    X[20:24], y[20:] = 255, [1, 1, 1, 1, 0]
    data |= {"train_y": np.zeros(20, int), "test_X": X[20:], "test_y": y[20:]}
    assert mnist.fit_baseline(mnist.join(data)) == 1


def test_random_search_draws_and_splits_as_scikit_learn_does(monkeypatch, tmp_path):
    """The same candidates on the same folds as RandomizedSearchCV of the same seed."""
    X, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 3
    space = {"max_depth": range(1, 9), "min_samples_leaf": range(1, 9)}

    def fit(X, y, epochs, seed, **hyperparameters):
        tree = DecisionTreeClassifier(random_state=0, **hyperparameters).fit(X, y)
        return SimpleNamespace(evaluate=lambda X, y, **_: {"accuracy": tree.score(X, y)})

    monkeypatch.setattr(random_search, "create_hyperparameters", lambda: space)
    monkeypatch.setattr(random_search, "fit", fit)
    table = random_search.search(X, y, tmp_path / "log", [], n_iter=6, cv=3, seed=5)
    tree, ours = DecisionTreeClassifier(random_state=0), table.sort_index()
    search = RandomizedSearchCV(tree, space, n_iter=6, cv=3, random_state=5)
    theirs = search.fit(X, y).cv_results_
    assert ours["max_depth"].tolist() == theirs["param_max_depth"].tolist()
    np.testing.assert_allclose(ours["accuracy"], theirs["mean_test_score"])


def test_searches_are_compared_at_the_budget_of_the_shortest(tmp_path, monkeypatch, capsys):
    """Worked by hand; the committed ones make the README's table."""
    searches, diverged = [], None
    for trained, losses in ([1, 2, 3], [diverged, 0.5, 0.45]), ([3, 3, 3], [0.7, 0.8, 0.3]):
        lowest = np.array(losses, "float64") - 0.1
        table = pd.DataFrame({"trained": trained, "loss": losses, "lowest_loss": lowest})
        table.to_json(tmp_path / "search.jsonl", orient="records", lines=True)
        searches.append(compare.read_search(tmp_path / "search.jsonl"))
    budget, best = compare.compare(searches)
    assert budget == 6 and best["best loss"].tolist() == pytest.approx([0.45, 0.7])
    assert best["best lowest_loss"].tolist() == pytest.approx([0.35, 0.6])
    logs = sorted((ROOT / "chapter06" / "results").glob("*.jsonl"))
    usual = ["x", *map(str, logs), "--output", str(tmp_path / "c.png")]
    monkeypatch.setattr(sys, "argv", usual)
    compare.main()
    assert "random search" in capsys.readouterr().out and (tmp_path / "c.png").exists()
    _, best = compare.compare([compare.read_search(log) for log in logs])
    readme = (ROOT / "chapter06" / "README.md").read_text()
    for kind, losses in best.groupby("search"):
        scores = losses[["best loss", "best lowest_loss"]].agg(["mean", "std"])
        cells = [f"{mean:.4f} ± {std:.4f}" for mean, std in scores.T.to_numpy()]
        assert f"| {kind} | " in readme and all(cell in readme for cell in cells)


@pytest.mark.slow
def test_keras_tuner_searches_the_same(tmp_path, monkeypatch):
    """Its evaluations in the same form; the finished search again adds none."""
    tuner, log = load_script("chapter06/hyperband_keras_tuner.py"), tmp_path / "evaluations.jsonl"
    usual = ["--data", "sample", "--train-images", "10", "--max-iter", "3"]
    monkeypatch.setattr(sys, "argv", ["x", *usual, "--run-dir", str(tmp_path)])
    tuner.main()
    table, before = pd.read_json(log, lines=True), log.read_text()
    assert table["trained"].tolist() == [1, 1, 1, 2, 3, 3]
    assert set(table["params"][0]) == {"batch_size", "optimizer", "dropout", "learning_rate"}
    assert table["params"][3] == table["params"][table["loss"][:3].argmin()]
    monkeypatch.setattr(tuner, "plot_search", lambda *_: None)
    tuner.main()
    assert log.read_text() == before
