"""Chapter 5: softmax, the three networks on digits, L2 against AdamW, early stopping, comparisons.

What every trainer must do (resume, bad input, other settings, copied alone) is in contract.py.
"""

import json
import math
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import load_script

MLP, DROPOUT, L2 = (f"chapter05/mlp_mnist{end}.py" for end in ("", "_dropout", "_l2"))
SOFTMAX, COMPARE = "chapter05/softmax.py", "chapter05/compare_runs.py"


@pytest.fixture(params=[MLP, DROPOUT, L2], ids=["mlp", "dropout", "l2"])
def script(request):
    return load_script(request.param)


def without_xla(model):
    """`model`, compiled as it was, but for XLA: that takes longer than these trainings."""
    model.compile_from_config(model.get_compile_config() | {"jit_compile": False})
    return model


@pytest.fixture
def run_main(monkeypatch, capsys):
    """What `main()` of a script prints."""

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, arguments)])
        capsys.readouterr()
        script.main()
        return capsys.readouterr().out

    return run


def write_digits(path, **changes):
    """An .npz of 120 and 30 images of 8x8 pixels, three classes, sorted by label."""
    arrays = {}
    for part, n in (("train", 120), ("test", 30)):
        y = np.arange(n) * 3 // n
        x = np.random.default_rng(0).integers(0, 60, (n, 8, 8)) + 60 * y[:, None, None]
        arrays |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y.astype("uint8")}
    np.savez(path, **(arrays | changes))
    return path


def test_softmax_and_cross_entropy_of_the_book(run_main):
    module = load_script(SOFTMAX)
    assert module.softmax(module.Z) == pytest.approx([0.284, 0.257, 0.141, 0.128, 0.19], abs=5e-4)
    assert module.softmax([1000, 1001, 1002]) == module.softmax([0, 1, 2])
    matrix = [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert module.to_categorical([0, 3, 2, 1]) == matrix
    expected = -(math.log(0.9) + math.log(0.7) + math.log(0.01)) / 3
    assert module.binary_cross_entropy([1, 0, 1], [0.9, 0.3, 0.01]) == pytest.approx(expected)
    columns = [[0, 1], [1, 0], [0, 1]], [[0.1, 0.9], [0.7, 0.3], [0.99, 0.01]]
    assert module.categorical_cross_entropy(*columns) == pytest.approx(expected)
    output = run_main(module)
    assert "[0.284, 0.257, 0.141, 0.128, 0.190], sum 1.000" in output
    assert "0.232, softmax of their sigmoids" in output  # e / (e + 9)


def test_networks_are_the_books(script):
    model = script.build_network()
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    assert counts == {"hidden1": 401_920, "hidden2": 131_328, "hidden3": 32_896, "output": 1_290}
    functions = [model.get_layer(name).activation.__name__ for name in counts]
    assert functions == ["relu", "relu", "relu", "softmax"]
    rows = np.random.default_rng(0).integers(0, 256, (4, 784), dtype="uint8")
    np.testing.assert_allclose(model.get_layer("rescale")(rows), rows / 255, rtol=1e-5)


def test_dropout_follows_each_hidden_layer():
    layers = load_script(DROPOUT).build_network().layers[2:8]
    order = ["hidden1", "dropout1", "hidden2", "dropout2", "hidden3", "dropout3"]
    assert [layer.name for layer in layers] == order
    assert [layer.rate for layer in layers[1::2]] == [0.5] * 3


def test_5000_digits_of_all_classes_are_for_validation(script, monkeypatch):
    """From a set that is sorted by label; each row keeps its label."""
    y = np.repeat(np.arange(10, dtype="uint8"), 6000)
    images = np.broadcast_to(y[:, None, None], (60_000, 4, 5))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: [(images, y)] * 2)
    data = script.load_data()
    assert data["train_X"].shape == (55_000, 20) and data["train_X"].dtype == np.uint8
    assert np.bincount(data["train_y"]).tolist() == [5500] * 10
    assert np.bincount(data["val_y"]).tolist() == [500] * 10
    assert all((data[f"{part}_X"] == data[f"{part}_y"][:, None]).all() for part in ("train", "val"))


def test_what_would_go_wrong_late_or_silently_is_refused(script, tmp_path):
    assert len(script.load_data(write_digits(tmp_path / "good.npz"))["val_y"]) == 10
    none = {"x_test": np.zeros((0, 8, 8), "uint8"), "y_test": np.zeros(0, int)}
    other_size, scaled = {"x_test": np.zeros((30, 8, 9), "uint8")}, {"x_test": np.zeros((30, 8, 8))}
    one_hot, unknown = {"y_train": np.eye(3)[np.arange(120) % 3]}, {"y_test": np.full(30, 3)}
    for changes in (none, other_size, scaled, one_hot, unknown):
        with pytest.raises(ValueError, match=r"labels are not|not uint8"):
            script.load_data(write_digits(tmp_path / "bad.npz", **changes))


def test_l2_penalty_is_in_the_loss_and_not_in_the_cross_entropy():
    model = without_xla(load_script(L2).build_network(input_features=5, l2=0.003))
    scores = model.evaluate(np.zeros((6, 5)), np.arange(6), verbose=0, return_dict=True)
    kernels = [model.get_layer(f"hidden{i}").get_weights()[0] for i in (1, 2, 3)]
    penalty = 0.003 * sum(float((kernel**2).sum()) for kernel in kernels)
    assert scores["cross_entropy"] == pytest.approx(math.log(10), rel=1e-4)
    assert scores["loss"] == pytest.approx(math.log(10) + penalty, rel=1e-4)


@pytest.mark.parametrize(
    ("strength", "change"),
    [
        ({"l2": 0.01}, lambda w: -0.001 * np.sign(w)),
        ({"l2": 0.001}, lambda w: -0.001 * np.sign(w)),
        ({"l2": 0, "weight_decay": 0.1}, lambda w: -0.001 * 0.1 * w),
        ({"l2": 0}, lambda w: 0 * w),
    ],
)
def test_adam_rescales_the_penalty_and_not_the_decay(strength, change):
    """One step on black pixels, where the cross-entropy has no gradient in hidden1.

    Adam makes of any penalty's gradient a step of the learning rate; decay goes with the weight.
    """
    model = without_xla(load_script(L2).build_network(input_features=5, **strength))
    before = model.get_layer("hidden1").get_weights()[0]
    model.fit(np.zeros((8, 5)), np.arange(8), batch_size=8, verbose=0)
    after = model.get_layer("hidden1").get_weights()[0]
    heavy = abs(before) > 0.05  # the penalty's gradient is far above Adam's epsilon
    expected = change(before[heavy])
    np.testing.assert_allclose((after - before)[heavy], expected, rtol=0.1, atol=1e-7)


@pytest.mark.slow
def test_learns_on_the_sample_beyond_logistic_regression(tmp_path, run_main):
    run_main(load_script(MLP), "--data", "sample", "--epochs", 4, "--run-dir", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    accuracy, baseline = metrics["test"]["accuracy"], metrics["baselines"]
    assert baseline["logistic_regression_accuracy"] > 0.88
    assert baseline["more"] < -2 * baseline["error"]
    assert baseline["logistic_regression_accuracy"] == pytest.approx(accuracy + baseline["more"])
    assert metrics["sureness"] > accuracy  # what the calibration curve shows
    assert (tmp_path / "calibration.png").exists()


@pytest.mark.slow
def test_a_run_that_was_stopped_early_is_finished(tmp_path, run_main, monkeypatch):
    """Labels at random: the validation loss soon rises. More patience goes on."""
    script = load_script(MLP)
    build_network = script.build_network
    monkeypatch.setattr(
        script, "build_network", lambda *a, **b: without_xla(build_network(*a, **b))
    )
    labels = np.random.default_rng(0).permutation(np.arange(120) % 3)
    data, run_dir = write_digits(tmp_path / "random.npz", y_train=labels), tmp_path / "run"
    command = [script, "--data", data, "--run-dir", run_dir, "--epochs", 30, "--patience"]
    run_main(*command, 2)
    losses = pd.read_csv(run_dir / "history.csv")["val_loss"]
    assert len(losses) < 30 and losses.argmin() == len(losses) - 3
    assert "Epoch" not in run_main(*command, 2)
    assert len(losses) == json.loads((run_dir / "metrics.json").read_text())["epochs"]
    assert f"Epoch {len(losses) + 1}/30" in run_main(*command, 25)


def test_surest_mistakes_are_told_apart(tmp_path, monkeypatch):
    """Probabilities that are all 1.0 in float32; class names that begin a formula."""
    names, script = np.array(["$a", "b$_{", "c"]), load_script(MLP)
    data = script.load_data(write_digits(tmp_path / "digits.npz", class_names=names))
    softmax = np.exp(-20 - np.arange(30, dtype="float32"))[:, None] * np.ones(3, "float32")
    softmax[np.arange(30), (data["test_y"] + 1) % 3] = 1
    model = script.build_network(64, 3)
    monkeypatch.setattr(model, "evaluate", lambda *_, **__: {"accuracy": 0, "loss": 9})
    monkeypatch.setattr(model, "predict", lambda *_, **__: softmax)
    script.report(model, data, tmp_path)
    titles = [ax.get_title() for ax in plt.gcf().axes]
    assert not any(ax.title.get_parse_math() for ax in plt.gcf().axes)
    odds = [float(title.split()[2]) for title in titles]
    assert titles[0].startswith("$a, log-odds ") and titles[0].endswith("is c")
    assert len(set(odds)) == 15 and odds == sorted(odds, reverse=True)


def write_run(run_dir, val_losses, seed=1, **settings):
    run_dir.mkdir()
    (run_dir / "settings.json").write_text(json.dumps({"seed": seed} | settings))
    history = {"epoch": range(len(val_losses)), "loss": 0.5, "val_loss": val_losses}
    history |= {"val_accuracy": np.linspace(0.9, 0.95, len(val_losses))}
    history |= {"val_cross_entropy": 0.25} if "l2" in settings else {}
    pd.DataFrame(history).to_csv(run_dir / "history.csv", index=False)
    return run_dir


def test_comparison_groups_seeds_and_sorts_numbers(tmp_path, run_main):
    runs = [
        write_run(tmp_path / "a", [9.0, 8.0], script="mlp_mnist_l2", l2=0.01),
        write_run(tmp_path / "b", [9.0, 8.0], script="mlp_mnist_l2", l2=1e-05),
        write_run(tmp_path / "c", [9.0, 8.0], script="mlp_mnist_l2", l2=0.0, weight_decay=0.1),
        write_run(tmp_path / "d", [0.3, 0.1, 0.2], script="mlp_mnist"),
        write_run(tmp_path / "e", [0.5, 0.3, 0.4], script="mlp_mnist", seed=2),
        write_run(tmp_path / "f", [1.0], script="cnn_$_$", num_gpus=1),
    ]
    with (runs[0] / "history.csv").open("a") as file:
        file.write("2,0.1")  # an epoch that is just being written
    assert "cnn_$_$   " in run_main(load_script(COMPARE), runs[-1])  # one run: just its script
    lines = run_main(load_script(COMPARE), *runs).splitlines()
    assert [" ".join(line.split()) for line in lines[1:-1]] == [
        "cnn_$_$, num_gpus 1 1 1 1.0000 1 1.0000 0.9000",
        "mlp_mnist 2 3 ± 0 0.2000 ± 0.1414 2 ± 0 0.3000 ± 0.1414 0.9500 ± 0.0000",
        "mlp_mnist_l2, l2 0.0, weight_decay 0.1 1 2 0.2500 1 0.2500 0.9500",
        "mlp_mnist_l2, l2 1e-05 1 2 0.2500 1 0.2500 0.9500",
        "mlp_mnist_l2, l2 0.01 1 2 0.2500 1 0.2500 0.9500",
    ]
    assert (tmp_path / "comparison.png").exists()
    (runs[0] / "history.csv").write_text("epoch,val_loss,val_accuracy\n")
    for folder, problem in ((runs[0], "a has no finished epoch"), (tmp_path / "b2", "b2")):
        with pytest.raises(SystemExit, match=f"error: .*{problem}"):
            run_main(load_script(COMPARE), folder)
