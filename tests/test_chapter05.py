"""Chapter 5: softmax, the three networks, L2 against AdamW, early stopping, comparisons."""

import json
import math
import sys
from types import SimpleNamespace

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import load_script

MLP, DROPOUT, L2 = (f"chapter05/mlp_mnist{end}.py" for end in ("", "_dropout", "_l2"))


@pytest.fixture
def run_main(monkeypatch, capsys):
    without_xla = property(lambda _: False, lambda *_: None)  # it takes longer than the trainings
    monkeypatch.setattr(keras.Model, "jit_compile", without_xla)

    def run(script, *arguments):
        """What `main()` of a script prints."""
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        load_script(script).main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def digits(tmp_path):
    """An .npz of 8x8 random pixels, labels at random, class names that begin a formula."""
    rng, arrays = np.random.default_rng(0), {"class_names": ["$a", "b$_{", "c"]}
    for part, n in (("train", 120), ("test", 30)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, 8, 8), dtype="uint8")
        arrays[f"y_{part}"] = rng.permutation(np.arange(n) % 3)
    np.savez(tmp_path / "digits.npz", **arrays)
    return tmp_path / "digits.npz"


def test_softmax_and_cross_entropy_of_the_book():
    module = load_script("chapter05/softmax.py")
    assert module.softmax(module.Z) == pytest.approx([0.284, 0.257, 0.141, 0.128, 0.19], abs=5e-4)
    assert module.softmax([1000, 1001, 1002]) == module.softmax([0, 1, 2])
    assert module.to_categorical([0, 2, 1]) == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    expected = -(math.log(0.9) + math.log(0.7) + math.log(0.01)) / 3
    assert module.binary_cross_entropy([1, 0, 1], [0.9, 0.3, 0.01]) == pytest.approx(expected)
    columns = [[0, 1], [1, 0], [0, 1]], [[0.1, 0.9], [0.7, 0.3], [0.99, 0.01]]
    assert module.categorical_cross_entropy(*columns) == pytest.approx(expected)
    sigmoids = [module.sigmoid(x) for x in [20, *[-20] * 9]]
    assert max(module.softmax(sigmoids)) == pytest.approx(math.e / (math.e + 9))


@pytest.mark.parametrize("script", [MLP, DROPOUT, L2])
def test_networks_and_5000_digits_for_validation_are_the_books(script, monkeypatch):
    """Of a set that is sorted by label digits of all classes; each row keeps its label."""
    model = load_script(script).build_network()
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    assert counts == {"hidden1": 401_920, "hidden2": 131_328, "hidden3": 32_896, "output": 1_290}
    functions = [model.get_layer(name).activation.__name__ for name in counts]
    assert functions == ["relu", "relu", "relu", "softmax"]
    if script == DROPOUT:
        dropouts = [(layer.name, layer.rate) for layer in model.layers[3:8:2]]
        assert dropouts == [("dropout1", 0.5), ("dropout2", 0.5), ("dropout3", 0.5)]
    y = np.repeat(np.arange(10, dtype="uint8"), 6000)
    images = np.broadcast_to(y[:, None, None], (60_000, 4, 5))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: [(images, y)] * 2)
    data = load_script(script).load_data()
    for part, n in (("train", 5500), ("val", 500)):
        X, y = data[f"{part}_X"], data[f"{part}_y"]
        assert X.shape == (10 * n, 20) and X.dtype == np.uint8 and (y[:, None] == X).all()
        assert np.bincount(y).tolist() == [n] * 10


@pytest.mark.parametrize("l2", [0.01, 0])
def test_adam_rescales_a_penalty_and_not_a_decay(l2):
    """One step on black pixels, where nothing else has a gradient in hidden1."""
    model = load_script(L2).build_network(5, l2=l2, weight_decay=None if l2 else 0.1)
    both = load_script(L2).build_network(5, weight_decay=0.1)
    assert both.get_layer("hidden1").kernel_regularizer is None
    model.run_eagerly = True  # XLA takes longer than the step
    kernels = [model.get_layer(f"hidden{i}").get_weights()[0] for i in (1, 2, 3)]
    X, y, penalty = np.zeros((8, 5)), np.arange(8), l2 * sum((w**2).sum() for w in kernels)
    scores = model.train_on_batch(X, y, return_dict=True)
    assert scores["loss"] == pytest.approx(scores["cross_entropy"] + penalty, rel=1e-4)
    change = model.get_layer("hidden1").get_weights()[0] - kernels[0]
    expected = -0.001 * (np.sign(kernels[0]) if l2 else 0.1 * kernels[0])
    heavy = abs(kernels[0]) > 0.05  # the penalty's gradient is far above Adam's epsilon
    np.testing.assert_allclose(change[heavy], expected[heavy], rtol=0.1, atol=1e-7)


@pytest.mark.slow
def test_learns_on_the_sample_beyond_logistic_regression(tmp_path, run_main):
    run_main(MLP, "--data", "sample", "--epochs", 4, "--run-dir", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    accuracy, baseline = metrics["test"]["accuracy"], metrics["baselines"]
    assert baseline["logistic_regression_accuracy"] > 0.88
    assert baseline["more"] < -2 * baseline["error"]
    assert baseline["logistic_regression_accuracy"] == pytest.approx(accuracy + baseline["more"])
    assert metrics["sureness"] > accuracy  # what the calibration curve shows


@pytest.mark.slow
def test_a_run_that_was_stopped_early_is_finished(digits, tmp_path, run_main, monkeypatch):
    """Labels at random: the validation loss soon rises. More patience goes on."""
    monkeypatch.setattr(load_script(MLP), "report", lambda *_: {})
    command = [MLP, "--data", digits, "--run-dir", tmp_path / "run", "--epochs", 30, "--patience"]
    run_main(*command, 2)
    log = tmp_path / "run" / "history.csv"
    before, losses = log.read_text(), pd.read_csv(log)["val_loss"]
    assert len(losses) < 30 and losses.argmin() == len(losses) - 3
    run_main(*command, 2)
    assert log.read_text() == before
    run_main(*command, 25)
    assert log.read_text().startswith(before) and len(log.read_text()) > len(before)


def test_surest_mistakes_are_told_apart(digits, tmp_path):
    """Probabilities that are all 1.0 in float32."""
    data = load_script(MLP).load_data(digits)
    softmax = np.exp(-20 - np.arange(30, dtype="float32"))[:, None] * np.ones(3, "float32")
    softmax[np.arange(30), (data["test_y"] + 1) % 3] = 1
    model = SimpleNamespace(
        evaluate=lambda *_, **__: {"accuracy": 0, "loss": 9}, predict=lambda *_, **__: softmax
    )
    load_script(MLP).report(model, data, tmp_path)
    titles = [ax.title for ax in plt.gcf().axes]
    assert not any(title.get_parse_math() for title in titles)
    odds = [float(title.get_text().split()[2]) for title in titles]
    assert len(set(odds)) == 15 and odds == sorted(odds, reverse=True)


def test_comparison_groups_seeds_and_sorts_numbers(tmp_path, run_main):
    runs = {
        "a": ([9.0, 8.0], {"script": "mlp_$_$", "seed": 1, "l2": 0.01}),
        "b": ([9.0, 8.0], {"script": "mlp_$_$", "seed": 1, "l2": 1e-05}),
        "c": ([0.3, 0.1, 0.2], {"script": "mlp_mnist", "seed": 1}),
        "d": ([0.5, 0.3, 0.4], {"script": "mlp_mnist", "seed": 2}),
    }
    for name, (losses, settings) in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(json.dumps(settings))
        history = pd.DataFrame({"val_loss": losses, "val_accuracy": 0.9}).rename_axis("epoch")
        history = history.assign(val_cross_entropy=0.25) if "l2" in settings else history
        history.to_csv(tmp_path / name / "history.csv")
    with (tmp_path / "a" / "history.csv").open("a") as file:
        file.write("2,0.1")  # an epoch that is just being written
    output = run_main("chapter05/compare_runs.py", *[tmp_path / name for name in runs])
    assert [" ".join(line.split()) for line in output.splitlines()[1:-1]] == [
        "mlp_$_$, l2 1e-05 1 2 0.2500 1 0.2500 0.9000",
        "mlp_$_$, l2 0.01 1 2 0.2500 1 0.2500 0.9000",
        "mlp_mnist 2 3 ± 0 0.2000 ± 0.1414 2 ± 0 0.3000 ± 0.1414 0.9000 ± 0.0000",
    ]
