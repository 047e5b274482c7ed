"""Chapter 1: the network from scratch, the optimizers, hold-out and K-fold, the check."""

import functools
import json
import re
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import load_script

xor = load_script("chapter01/xor_from_scratch.py")
optimizers = load_script("chapter01/optimizers.py")
validation = load_script("chapter01/holdout_and_kfold.py")
check_gpu = load_script("chapter01/check_gpu.py")


@pytest.fixture
def run_lesson(monkeypatch, tmp_path):
    """A function: run a lesson's main() in an empty folder; returns what it writes as metrics."""

    def run(lesson, *options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", [lesson.__file__, *options])
        lesson.main()
        keras.config.enable_interactive_logging()  # one of them switches it off
        (folder,) = (tmp_path / "runs").iterdir()
        for picture in ["activations", "xor"] if lesson is xor else [folder.name]:
            assert (folder / f"{picture}.png").stat().st_size > 5000
        return json.loads((folder / "metrics.json").read_text())

    return run


# The network from scratch


def test_xor_needs_two_layers(run_lesson, monkeypatch, capsys):
    """Neither a neuron nor linear layers; two layers at each of ten seeds, whatever the batch."""
    shorter = functools.partial(xor.train_on_xor, epochs=500)
    monkeypatch.setattr(xor, "train_on_xor", shorter)
    metrics = run_lesson(xor)
    for scores in metrics["baselines"].values():  # the best they can do is to say 0.5 always
        assert scores["accuracy"] <= 0.75 and scores["mse"] == pytest.approx(0.25, abs=1e-4)
    assert metrics["train"]["accuracy"] == 1 and metrics["train"]["mse"] < 1e-3
    solved = metrics["solved_of_10_seeds"]
    assert [runs for name, runs in solved.items() if "4 hidden" in name] == [10, 10, 10]
    assert metrics["gradient_check"] < 1e-9
    assert "3,991 parameters, 3,930 of them weights" in capsys.readouterr().out  # the book's 3,930
    layers = [(np.full((2, 3), 2.0), np.arange(3.0)), (np.ones((3, 1)), np.array([4.0]))]
    weights, bias = xor.collapse_linear_layers(layers)  # two linear layers are one
    assert weights.tolist() == [[6], [6]] and bias == 7


def test_activations_and_costs_at_known_values():
    z = np.array([-1.0, 0.0, 2.0])
    expected = {
        "linear": ([-1, 0, 2], [1, 1, 1]),
        "sigmoid": ([0.268941421, 0.5, 0.880797078], [0.196611933, 0.25, 0.104993585]),
        "tanh": ([-0.761594156, 0, 0.964027580], [0.419974342, 1, 0.070650825]),
        "relu": ([0, 0, 2], [0, 0, 1]),
        "leaky_relu": ([-0.1, 0, 2], [0.1, 0.1, 1]),
    }
    assert set(expected) == set(xor.ACTIVATIONS)
    for name, both in expected.items():
        for function, values in zip(xor.ACTIVATIONS[name], both, strict=True):
            np.testing.assert_allclose(function(z), values, atol=1e-9, err_msg=name)
    with np.errstate(over="raise", invalid="raise"):
        assert xor.sigmoid(np.array([-1000.0, 1000.0])).tolist() == [0, 1]
    y, predicted = np.array([[1.0], [0.0]]), np.array([[0.8], [0.4]])
    assert xor.mse_cost(y, predicted) == pytest.approx((0.2**2 + 0.4**2) / 4)
    assert xor.cross_entropy_cost(y, predicted) == pytest.approx(-np.log(0.8 * 0.6) / 2)
    assert np.isfinite(xor.cross_entropy_cost(y, 1 - y))


def test_an_epoch_uses_every_row_once_in_an_order_of_its_own(monkeypatch):
    rows = []
    monkeypatch.setattr(xor, "backward", lambda layers, _, X, *more: rows.extend(X) or [])
    xor.train([], [], np.arange(9), np.arange(9), "mse", 0.1, 2, 4, np.random.default_rng(0))
    assert sorted(rows[:9]) == sorted(rows[9:]) == list(range(9)) and rows[:9] != rows[9:]


@pytest.mark.parametrize(
    ("hidden", "cost", "outputs"), [("tanh", "cross_entropy", 1), ("relu", "mse", 2)]
)
def test_gradients_equal_central_differences_and_keras(monkeypatch, hidden, cost, outputs):
    rng = np.random.default_rng(3)
    layers, activations = xor.init_layers((3, 5, outputs), rng), [hidden, "sigmoid"]
    X, y = rng.normal(size=(6, 3)), rng.integers(0, 2, (6, outputs)).astype(float)
    gradients = xor.backward(layers, activations, X, y, cost)
    assert xor.gradient_error(layers, activations, X, y, cost) < 1e-8
    model = keras.Sequential([keras.Input((3,))])
    for (_, bias), name in zip(layers, activations, strict=True):
        model.add(keras.layers.Dense(len(bias), activation=name))
    model.set_weights([parameter for layer in layers for parameter in layer])
    # Keras takes the mean over two outputs where we have our 1/2.
    loss = "mse" if cost == "mse" else "binary_crossentropy"
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
    before = model.get_weights()
    model.train_on_batch(X, y)  # a step at rate 1 takes the gradient off
    for old, new, ours in zip(before, model.get_weights(), sum(gradients, ()), strict=True):
        np.testing.assert_allclose(old - new, ours, atol=1e-6)
        assert np.abs(ours).max() > 1e-3
    wrong = xor.ACTIVATIONS[hidden][0], lambda z: z + 1
    monkeypatch.setitem(xor.ACTIVATIONS, hidden, wrong)
    assert xor.gradient_error(layers, activations, X, y, cost) > 1e-3
    with pytest.raises(ValueError, match="behind tanh"):
        xor.backward(layers, [hidden, "tanh"], X, y, "cross_entropy")


# The optimizers


def test_momentum_and_adam_settle_long_before_sgd(run_lesson, monkeypatch):
    monkeypatch.setattr(optimizers, "RATES", optimizers.RATES[1::2])
    metrics = run_lesson(optimizers)["steps_to_settle"]
    assert len(metrics) == 8
    for name in ("momentum", "Adam"):
        assert metrics[f"bowl, {name}"]["0.01"] < metrics["bowl, SGD"]["0.01"] / 5
        assert metrics[f"bowl, {name}"]["0.0001"] > metrics[f"bowl, {name}"]["0.01"]
    losses = np.full(101, 1e-3)
    losses[[0, 20]] = 1
    assert optimizers.steps_to_settle(losses, 1e-2) == 21
    losses[60] = np.nan
    assert optimizers.steps_to_settle(losses, 1e-2) is None  # not for good
    theta, step = np.array([0.7, -0.4]), 1e-6
    for loss, gradient, *_ in optimizers.SURFACES.values():
        numeric = [(loss(theta + e) - loss(theta - e)) / (2 * step) for e in np.eye(2) * step]
        np.testing.assert_allclose(gradient(theta), numeric, rtol=1e-6)


SMALL, LARGE, BETA = 2**-9, 2**-6, 0.875  # Keras passes settings through float32: exact there
BETAS = {"beta_1": BETA, "beta_2": 1 - 2**-10}


@pytest.mark.parametrize(
    ("name", "keras_name", "keras_settings", "rate", "settings"),
    [
        ("SGD", "SGD", {}, SMALL, {}),
        ("momentum", "SGD", {"momentum": BETA}, SMALL, {"beta": BETA}),
        ("RMSProp", "RMSprop", {"rho": BETA}, LARGE, {"beta": BETA}),
        ("Adam", "Adam", BETAS, LARGE, BETAS),
        ("Adam", "Adam", {}, LARGE, {}),
    ],
)
def test_optimizers_equal_keras_step_by_step(name, keras_name, keras_settings, rate, settings):
    theirs = getattr(keras.optimizers, keras_name)(rate, **keras_settings)
    exact = 1e-12 if settings or rate == SMALL else 1e-4  # Adam's defaults are not
    variable = keras.Variable([-4.0, -1.5], dtype="float64")
    theirs.build([variable])
    rule = functools.partial(optimizers.RULES[name], **settings)
    for ours in optimizers.descend(rule, "bowl", rate, 50)[0][1:]:
        theirs.apply([keras.ops.matmul(optimizers.BOWL, variable)], [variable])
        assert np.abs(ours - keras.ops.convert_to_numpy(variable)).max() < exact


def test_the_books_rules_fail_as_printed(monkeypatch):
    """Momentum only ever decreases θ, Adam takes a negative root, RMSProp divides 0 by 0."""
    losses = optimizers.descend(optimizers.adam_as_printed, "bowl", 0.1)[1]
    assert np.isnan(losses[-1]) and len(losses) < 5
    loss, gradient, _, edges = optimizers.SURFACES["bowl"]
    monkeypatch.setitem(optimizers.SURFACES, "bowl", (loss, gradient, (4.0, 1.5), edges))
    path, losses = optimizers.descend(optimizers.momentum_as_printed, "bowl", 0.005)
    assert (np.diff(path, axis=0) <= 0).all() and losses[-1] > 1e8
    assert optimizers.rmsprop(np.ones(1), np.zeros(1), {}, learning_rate=0.1) == 1


# Hold-out and K-fold


def test_split_has_every_row_once_and_each_class_in_proportion():
    X, y = np.arange(1000)[:, None], np.arange(1000) % 10 // 7
    for share, sizes in ((0.1, [800, 100, 100]), (0.01, [980, 10, 10])):
        data = validation.split_data(X, y, share, seed=1)
        parts = [data[f"{part}_X"][:, 0] for part in ("train", "val", "test")]
        assert [len(rows) for rows in parts] == sizes
        assert sorted(np.concatenate(parts)) == list(range(1000))
        labels = [data[f"{part}_y"] for part in ("train", "val", "test")]
        np.testing.assert_array_equal(np.concatenate(labels), y[np.concatenate(parts)])
        assert [part.mean() for part in labels] == pytest.approx([0.3] * 3, abs=0.01)


@pytest.mark.slow
def test_every_fold_has_a_scaler_of_its_own_and_all_epochs(run_lesson, monkeypatch):
    """In two folds, not five; the leak shows on noise, and ± is the sample's deviation."""
    epochs, scores = [], []
    build, cross_validate = validation.build_network, validation.cross_validate_network

    def build_and_watch(X, y):
        np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-9)  # of its training rows alone
        model = build(X, y)
        fit = model.fit
        model.fit = lambda *a, **options: epochs.append(options["epochs"]) or fit(*a, **options)
        return model

    def cross_validate_and_keep(X, y, folds, epochs):
        folds.n_splits = 2
        scores.append(cross_validate(X, y, folds, epochs))
        return scores[-1]

    monkeypatch.setattr(validation, "build_network", build_and_watch)
    monkeypatch.setattr(validation, "cross_validate_network", cross_validate_and_keep)
    metrics = run_lesson(validation, "--epochs", "7")
    assert epochs == [7] * 5
    assert metrics["test"]["accuracy"] > 0.9 and 1 <= metrics["best_epoch"] <= 7
    assert all(scores["mean"] > 0.9 for scores in metrics["k_fold"].values())  # always 1: 0.63
    assert metrics["k_fold"]["network, K-fold"]["std"] == pytest.approx(np.std(scores[0], ddof=1))
    assert metrics["noise"]["leaking"] > 0.75 and 0.35 < metrics["noise"]["honest"] < 0.65
    assert validation.standard_error(0.97, 57) == pytest.approx(0.0226, abs=1e-4)


# The check of the machine


def fail(keras):
    raise RuntimeError("CUDA_ERROR_INVALID_PTX\nand more")


@pytest.mark.parametrize(
    ("names", "name", "wrong", "words"),
    [
        (sys.modules, "keras", None, "keras .*import.* if KERAS_BACKEND is set"),  # no backend
        (vars(keras.config), "image_data_format", lambda: "other", "other, float32.*keras.json"),
        (vars(check_gpu), "find_gpus", lambda keras: [], "gpu .*try: no driver"),
        (check_gpu.WORKS, "product", lambda keras: ("", "cpu:0"), "on cpu:0, although .*reboot"),
        (check_gpu.WORKS, "convolution", fail, "CUDA_ERROR_INVALID_PTX\n .*cuDNN is missing"),
        (check_gpu.WORKS, "fit", fail, "fit .*libdevice or ptxas"),
    ],
)
def test_check_says_what_to_try(monkeypatch, capsys, names, name, wrong, words):
    monkeypatch.setattr("sys.argv", ["check_gpu.py", "--require-gpu"])
    monkeypatch.setattr(check_gpu, "find_gpus", lambda keras: ["GPU:0"])
    for item in check_gpu.WORKS:
        monkeypatch.setitem(check_gpu.WORKS, item, lambda keras: ("", "/device:GPU:0"))
    assert check_gpu.main() == 0
    assert capsys.readouterr().out.endswith("A GPU does the work.\n")
    monkeypatch.setitem(names, name, wrong)
    assert check_gpu.main() == 1
    (failure,) = re.findall(r"^FAIL .*(?:\n  .*)+", capsys.readouterr().out, re.M)
    assert re.search(words, failure, re.S)
    monkeypatch.setattr("sys.argv", ["check_gpu.py"])  # a machine with no GPU passes
    assert check_gpu.main() == (name != "find_gpus")


@pytest.mark.parametrize(
    ("work", "owner", "name", "wrong"),
    [
        ("multiply_matrices", keras.ops, "matmul", np.full((2, 2), 21.0)),
        ("convolve_images", keras.ops, "conv", np.zeros((8, 30, 30, 16))),
        ("fit_one_step", keras.Model, "fit", SimpleNamespace(history={"loss": [2.3]})),
    ],
)
def test_check_works_and_sees_a_wrong_result(monkeypatch, work, owner, name, wrong):
    check = getattr(check_gpu, work)
    text, _ = check(keras)
    assert re.match(r"\[\[22, 28\], \[49, 64\]\]|8 images|loss \d", text)
    monkeypatch.setattr(owner, name, lambda *arguments, **options: wrong)
    with pytest.raises(ValueError, match=r"instead of|not 27|not moved"):
        check(keras)
