"""Chapter 1: the network from scratch, the optimizers, hold-out and K-fold; each script as run."""

import functools
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import load_script, run_python
from PIL import Image


@pytest.fixture(scope="module")
def xor():
    return load_script("chapter01/xor_from_scratch.py")


@pytest.fixture(scope="module")
def optimizers():
    return load_script("chapter01/optimizers.py")


@pytest.fixture(scope="module")
def validation():
    return load_script("chapter01/holdout_and_kfold.py")


def run_lesson(name, folder):
    """What it writes as metrics; its pictures have been looked at."""
    result = run_python(f"chapter01/{name}.py", cwd=folder)
    assert result.returncode == 0, result.stderr
    pictures = list((folder / "runs" / name).glob("*.png"))
    assert len(pictures) == (2 if "xor" in name else 1)
    for picture in pictures:
        with Image.open(picture) as image:
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20, "an empty picture"
    return json.loads((folder / "runs" / name / "metrics.json").read_text())


# The network from scratch


def test_xor_as_a_user_runs_it(tmp_path):
    """Neither a neuron nor linear layers; two layers at each of ten seeds, whatever the batch."""
    metrics = run_lesson("xor_from_scratch", tmp_path)
    for scores in metrics["baselines"].values():  # the best they can do is to say 0.5 always
        assert scores["accuracy"] <= 0.75 and scores["mse"] == pytest.approx(0.25, abs=1e-4)
    assert metrics["train"]["accuracy"] == 1 and metrics["train"]["mse"] < 1e-3
    solved = metrics["solved_of_10_seeds"]
    assert [runs for name, runs in solved.items() if "4 hidden" in name] == [10, 10, 10]
    assert metrics["gradient_check"] < 1e-9


def test_neuron_and_activations_at_known_values(xor):
    z = xor.linear_function(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0], [0.5], [-1.0]]), [0.25])
    assert z.tolist() == [[1 + 1 - 3 + 0.25]]
    z = np.array([-1.0, 0.0, 2.0])
    expected = {
        "linear": ([-1, 0, 2], [1, 1, 1]),
        "sigmoid": ([0.268941421, 0.5, 0.880797078], [0.196611933, 0.25, 0.104993585]),
        "tanh": ([-0.761594156, 0, 0.964027580], [0.419974342, 1, 0.070650825]),
        "relu": ([0, 0, 2], [0, 0, 1]),
        "leaky_relu": ([-0.1, 0, 2], [0.1, 0.1, 1]),
    }
    assert set(expected) == set(xor.ACTIVATIONS)
    for name, (values, slopes) in expected.items():
        function, derivative = xor.ACTIVATIONS[name]
        np.testing.assert_allclose(function(z), values, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(derivative(z), slopes, atol=1e-9, err_msg=name)


def test_sigmoid_stays_finite(xor):
    with np.errstate(over="raise", invalid="raise"):
        assert xor.sigmoid(np.array([-1000.0, 1000.0])).tolist() == [0, 1]


def test_costs_worked_by_hand(xor):
    y, predicted = np.array([[1.0], [0.0]]), np.array([[0.8], [0.4]])
    assert xor.mse_cost(y, predicted) == pytest.approx((0.2**2 + 0.4**2) / 4)
    assert xor.cross_entropy_cost(y, predicted) == pytest.approx(-np.log(0.8 * 0.6) / 2)
    assert np.isfinite(xor.cross_entropy_cost(y, 1 - y))


def test_parameter_count_of_the_books_network(xor):
    sizes = (100, 30, 30, 1)
    assert xor.count_parameters(sizes) == 3991
    assert xor.count_parameters(sizes, biases=False) == 3930  # what the book says
    layers = xor.init_layers(sizes, np.random.default_rng(0))
    assert sum(p.size for layer in layers for p in layer) == 3991


def test_linear_layers_are_one_linear_layer(xor):
    rng = np.random.default_rng(0)
    layers = [(w, rng.normal(size=b.shape)) for w, b in xor.init_layers((5, 4, 3, 2), rng)]
    X = rng.normal(size=(7, 5))
    stacked = xor.forward(layers, ["linear"] * 3, X)[0]
    one = xor.linear_function(X, *xor.collapse_linear_layers(layers))
    np.testing.assert_allclose(stacked, one, atol=1e-12)
    with_tanh = xor.forward(layers, ["tanh", "tanh", "linear"], X)[0]
    assert np.abs(with_tanh - one).max() > 0.1


def test_no_line_separates_xor(xor):
    rng = np.random.default_rng(0)
    best = 0
    for _ in range(2000):
        layers = [(rng.normal(size=(2, 1)), rng.normal(size=1))]
        best = max(best, xor.evaluate(layers, ["linear"], xor.XOR_X, xor.XOR_Y)["accuracy"])
    assert best == 0.75


def test_an_epoch_uses_every_row_once(xor):
    """At a rate this small the steps of three rows and one add up as if taken at one place."""
    layers, rate = [(np.array([[0.3], [-0.2]]), np.array([0.1]))], 1e-7
    errors = (xor.forward(layers, ["linear"], xor.XOR_X)[0] - xor.XOR_Y)[:, 0]
    rng = np.random.default_rng(0)
    xor.train(layers, ["linear"], xor.XOR_X, xor.XOR_Y, "mse", rate, 1, 3, rng)
    possible = [(errors.sum() - alone) / 3 + alone for alone in errors]
    assert np.isclose(possible, (layers[0][1] - 0.1) / -rate, rtol=1e-4).any()


NETWORKS = [
    (["tanh", "sigmoid"], "cross_entropy", 1),
    (["sigmoid", "sigmoid"], "mse", 1),
    (["relu", "linear"], "mse", 2),
    (["leaky_relu", "tanh"], "mse", 1),
]


def make_network(xor, outputs):
    """Layers, X and y."""
    rng = np.random.default_rng(3)
    layers = xor.init_layers((3, 5, outputs), rng)
    return layers, rng.normal(size=(6, 3)), rng.integers(0, 2, (6, outputs)).astype(float)


@pytest.mark.parametrize(("activations", "cost", "outputs"), NETWORKS)
def test_back_propagation_agrees_with_central_differences(xor, activations, cost, outputs):
    layers, X, y = make_network(xor, outputs)
    assert xor.gradient_error(layers, activations, X, y, cost) < 1e-8
    gradients = xor.backward(layers, activations, X, y, cost)
    assert all(np.abs(g).max() > 1e-3 for layer in gradients for g in layer)


def test_numeric_check_catches_a_planted_bug(xor, monkeypatch):
    wrong = (np.tanh, lambda z: 1 - np.tanh(z))  # the square forgotten
    monkeypatch.setitem(xor.ACTIVATIONS, "tanh", wrong)
    layers, X, y = make_network(xor, 1)
    assert xor.gradient_error(layers, ["tanh", "sigmoid"], X, y, "cross_entropy") > 1e-3


@pytest.mark.parametrize(("activations", "cost", "outputs"), NETWORKS[:3])
def test_gradients_equal_keras(xor, activations, cost, outputs):
    import keras

    layers, X, y = make_network(xor, outputs)
    model = keras.Sequential([keras.Input((X.shape[1],))])
    for (_, bias), name in zip(layers, activations, strict=True):
        model.add(keras.layers.Dense(len(bias), activation=name))
    model.set_weights([parameter for layer in layers for parameter in layer])
    loss = "mse" if cost == "mse" else "binary_crossentropy"
    scale = outputs / 2 if cost == "mse" else 1  # Keras averages over outputs, without our 1/2
    model.compile(keras.optimizers.SGD(1.0), loss, loss_weights=[scale])
    before = model.get_weights()
    model.train_on_batch(X, y)  # a step at rate 1 takes the gradient off
    gradients = xor.backward(layers, activations, X, y, cost)
    for old, new, ours in zip(before, model.get_weights(), sum(gradients, ()), strict=True):
        np.testing.assert_allclose(old - new, ours, atol=1e-6)


def test_cross_entropy_behind_anything_else_is_refused(xor):
    layers, X, y = make_network(xor, 1)
    with pytest.raises(ValueError, match="behind tanh"):
        xor.backward(layers, ["tanh", "tanh"], X, y, "cross_entropy")


# The optimizers


def test_optimizers_as_a_user_runs_them(tmp_path):
    """Momentum and Adam settle long before SGD."""
    metrics = run_lesson("optimizers", tmp_path)["steps_to_settle"]
    assert len(metrics) == 8
    for name in ("momentum", "Adam"):
        assert metrics[f"bowl, {name}"]["0.01"] < metrics["bowl, SGD"]["0.01"] / 5
        assert metrics[f"bowl, {name}"]["0.0001"] > metrics[f"bowl, {name}"]["0.01"]


SMALL, LARGE, BETA = 2**-9, 2**-6, 0.875  # Keras passes settings through float32: exact there
BETAS = {"beta_1": BETA, "beta_2": 1 - 2**-10}


@pytest.mark.parametrize(
    ("name", "keras_name", "keras_settings", "rate", "settings"),
    [
        ("SGD", "SGD", {}, SMALL, {}),
        ("momentum", "SGD", {"momentum": BETA}, SMALL, {"beta": BETA}),
        ("RMSProp", "RMSprop", {"rho": BETA}, LARGE, {"beta": BETA}),
        ("Adam", "Adam", BETAS, LARGE, BETAS),
    ],
)
def test_optimizers_equal_keras_step_by_step(
    optimizers, name, keras_name, keras_settings, rate, settings
):
    import keras

    variable = keras.Variable([-4.0, -1.5], dtype="float64")
    optimizer = getattr(keras.optimizers, keras_name)(rate, **keras_settings)
    optimizer.build([variable])
    rule = functools.partial(optimizers.RULES[name], **settings)
    for ours in optimizers.descend(rule, "bowl", rate, 50)[0][1:]:
        gradient = optimizers.BOWL @ keras.ops.convert_to_numpy(variable)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")], [variable])
        np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(variable), atol=1e-12)


def test_adam_equals_keras_with_its_default_settings(optimizers):
    import keras

    variable = keras.Variable(np.array([0.3, -0.7]), dtype="float32")
    optimizer = keras.optimizers.Adam()
    optimizer.build([variable])
    theta, state = np.array([0.3, -0.7]), {}
    for step in range(25):
        gradient = np.array([np.cos(step), 5.0])
        theta = optimizers.adam(theta, gradient, state, learning_rate=0.001)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        difference = np.abs(theta - keras.ops.convert_to_numpy(variable)).max()
        assert difference < 1e-6, step


def test_first_adam_step_is_the_learning_rate_whatever_the_slope(optimizers):
    # The bias correction at work; without it the first step is 0.1 / √0.001 = 3.2 times as long.
    theta = optimizers.adam(np.zeros(3), np.array([1e-3, 1.0, -1e3]), {}, learning_rate=0.01)
    np.testing.assert_allclose(theta, [-0.01, -0.01, 0.01], rtol=1e-2)


def test_momentum_of_the_book_without_misprints_is_keras_momentum_at_a_tenth(optimizers):
    gradients = np.random.default_rng(0).normal(size=(20, 2))
    ours, theta, v, state = np.zeros(2), np.zeros(2), np.zeros(2), {}
    for gradient in gradients:
        v = 0.9 * v + (1 - 0.9) * gradient
        theta = theta - 0.5 * v
        ours = optimizers.momentum(ours, gradient, state, learning_rate=0.05)
    np.testing.assert_allclose(ours, theta, atol=1e-12)


def test_rmsprop_survives_a_gradient_of_zero(optimizers):
    theta = optimizers.rmsprop(np.ones(2), np.array([0.0, 1.0]), {}, learning_rate=0.1)
    assert theta[0] == 1
    assert theta[1] == pytest.approx(1 - 0.1 / np.sqrt(0.1), rel=1e-5)


@pytest.mark.parametrize("start", [(-4.0, -1.5), (4.0, 1.5), (0.01, 0.01)])
def test_momentum_as_printed_runs_away(optimizers, monkeypatch, start):
    loss, gradient, _, edges = optimizers.SURFACES["bowl"]
    monkeypatch.setitem(optimizers.SURFACES, "bowl", (loss, gradient, start, edges))
    path, losses = optimizers.descend(optimizers.momentum_as_printed, "bowl", 0.005, 500)
    assert (np.diff(path, axis=0) <= 0).all()  # no coordinate ever grows
    assert losses[-1] > 1e8
    assert optimizers.descend(optimizers.momentum, "bowl", 0.005, 500)[1][-1] < 1e-4


def test_adam_as_printed_is_not_a_number_where_the_slope_is_negative(optimizers):
    _, losses = optimizers.descend(optimizers.adam_as_printed, "bowl", 0.1, steps=100)
    assert np.isnan(losses[-1]) and len(losses) < 5
    _, losses = optimizers.descend(optimizers.adam, "bowl", 0.1, steps=500)
    assert losses[-1] < 1e-2


def test_settling_means_for_good(optimizers):
    losses = np.full(101, 1e-3)
    assert optimizers.steps_to_settle(losses, 1e-2) == 0
    losses[[0, 20]] = 1
    assert optimizers.steps_to_settle(losses, 1e-2) == 21
    assert optimizers.steps_to_settle(np.append(losses, 1e9), 1e-2) is None  # diverged
    for late in (1, np.nan):
        losses[60] = late
        assert optimizers.steps_to_settle(losses, 1e-2) is None


def test_gradients_of_the_surfaces(optimizers):
    for loss, gradient, *_ in optimizers.SURFACES.values():
        theta, step = np.array([0.7, -0.4]), 1e-6
        numeric = [(loss(theta + e) - loss(theta - e)) / (2 * step) for e in np.eye(2) * step]
        np.testing.assert_allclose(gradient(theta), numeric, rtol=1e-6)


# Hold-out and K-fold


@pytest.mark.parametrize(("share", "sizes"), [(0.1, (800, 100, 100)), (0.01, (980, 10, 10))])
def test_split_sizes_and_disjoint_rows(validation, share, sizes):
    X, y = np.arange(1000)[:, None], np.arange(1000) % 10 // 7
    data = validation.split_data(X, y, share, seed=1)
    assert tuple(len(data[f"{part}_X"]) for part in ("train", "val", "test")) == sizes
    rows = np.concatenate([data["train_X"], data["val_X"], data["test_X"]])[:, 0]
    assert sorted(rows) == list(range(1000))
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(data[f"{part}_y"], y[data[f"{part}_X"][:, 0]])
        assert data[f"{part}_y"].mean() == pytest.approx(0.3, abs=0.01)
    again = validation.split_data(X, y, share, seed=1)
    other = validation.split_data(X, y, share, seed=2)
    np.testing.assert_array_equal(data["test_X"], again["test_X"])
    assert not np.array_equal(data["test_X"], other["test_X"])


def test_standard_error_is_what_repeated_measuring_shows(validation):
    measured = np.random.default_rng(0).binomial(57, 0.97, 20_000) / 57
    assert validation.standard_error(0.97, 57) == pytest.approx(measured.std(), rel=0.02)
    assert validation.standard_error(0.97, 57) == pytest.approx(0.0226, abs=1e-4)


def test_every_fold_has_a_scaler_of_its_own_and_all_epochs(validation, monkeypatch):
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import KFold

    seen, build = [], validation.build_network

    def build_and_watch(X, y):
        np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-9)  # of its training rows alone
        model = build(X, y)
        fit = model.fit
        model.fit = lambda *a, **options: seen.append(options["epochs"]) or fit(*a, **options)
        return model

    monkeypatch.setattr(validation, "build_network", build_and_watch)
    X, y = load_breast_cancer(return_X_y=True)
    validation.cross_validate_network(X[:100], y[:100], KFold(2), epochs=3)
    assert seen == [3, 3]


def test_leak_is_visible_on_noise(validation):
    leaking, honest = validation.measure_leak(seed=0)
    assert leaking > 0.75
    assert 0.35 < honest < 0.65


@pytest.mark.slow
def test_hold_out_and_k_fold_as_a_user_runs_them(tmp_path):
    """The network learns, and does as well as logistic regression."""
    metrics = run_lesson("holdout_and_kfold", tmp_path)
    assert metrics["test"]["accuracy"] > 0.9 and 1 <= metrics["best_epoch"] <= 15
    assert len(metrics["k_fold"]) == 4
    assert all(scores["mean"] > 0.95 for scores in metrics["k_fold"].values())  # always 1: 0.63


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--epochs", "0"], "--epochs"), (["--run-dir", "file"], "File exists")],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    validation, monkeypatch, capsys, tmp_path, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("sys.argv", ["holdout_and_kfold.py", *options])
    with pytest.raises(SystemExit, match="2"):
        validation.main()
    assert re.search(f"error: .*{message}", capsys.readouterr().err.splitlines()[-1])
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "runs").exists()


# The check of the machine

PASSED = "[[22, 28], [49, 64]]", "/job:localhost/replica:0/task:0/device:GPU:0"


@pytest.fixture
def check_gpu(monkeypatch):
    """The script, as if the command line were empty and there were one GPU on which all works."""
    script = load_script("chapter01/check_gpu.py")
    monkeypatch.setattr("sys.argv", ["check_gpu.py"])
    monkeypatch.setattr(script, "find_gpus", lambda keras: ["GPU:0"])
    for item in script.WORKS:
        monkeypatch.setitem(script.WORKS, item, lambda keras: PASSED)
    return script


@pytest.mark.parametrize(("backend", "cpu"), [("tensorflow", "CPU:0"), ("jax", "cpu:0")])
def test_check_on_the_cpu(run_script, tmp_path, backend, cpu):
    """On JAX TensorFlow is not needed."""
    if not find_spec(backend):
        pytest.skip(f"no {backend}")
    env = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    if backend == "jax":
        (tmp_path / "tensorflow.py").write_text("raise ImportError('must not be needed')\n")
        env["PYTHONPATH"] = str(tmp_path)
    result = run_script("chapter01/check_gpu.py", cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f" on {backend} " in result.stdout and "OK    fit          loss " in result.stdout
    assert f"OK    product      [[22, 28], [49, 64]] on {cpu}" in result.stdout
    assert "OK    convolution  8 images" in result.stdout
    assert "--    gpu " in result.stdout and "try: CUDA_VISIBLE_DEVICES" in result.stdout


@pytest.mark.parametrize(
    ("backend", "settings", "words"),
    [
        ("theano", {}, "Unable to import backend"),
        ("tensorflow", {"image_data_format": "channels_first"}, "channels_first, float32"),
    ],
)
def test_check_names_the_setting_that_keeps_keras_from_working(
    run_script, tmp_path, backend, settings, words
):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    env = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": backend}
    result = run_script("chapter01/check_gpu.py", env=env)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert re.search(f"FAIL  keras .*{words}", result.stdout)
    assert "try: if KERAS_BACKEND is set" in result.stdout and "keras.json" in result.stdout


def test_check_passes_where_all_works_on_the_gpu(check_gpu, capsys):
    assert check_gpu.main() == 0
    out = capsys.readouterr().out
    assert out.endswith("A GPU does the work.\n") and "on GPU:0" in out and "try" not in out


def test_check_without_a_gpu_fails_where_one_is_required(check_gpu, monkeypatch, capsys):
    monkeypatch.setattr(check_gpu, "find_gpus", lambda keras: [])
    assert check_gpu.main() == 0
    monkeypatch.setattr("sys.argv", ["check_gpu.py", "--require-gpu"])
    assert check_gpu.main() == 1
    assert re.search("FAIL  gpu .*\n +try: no driver", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("item", "remedy"),
    [("product", "reboot"), ("convolution", "cuDNN is missing"), ("fit", "libdevice or ptxas")],
)
@pytest.mark.parametrize("on_cpu", [True, False])
def test_check_fails_where_one_item_does(check_gpu, monkeypatch, capsys, item, remedy, on_cpu):
    def fail(keras):
        if on_cpu:  # the wrong device
            return "all right", "cpu:0"
        raise RuntimeError("CUDA_ERROR_INVALID_PTX\nand more")

    monkeypatch.setitem(check_gpu.WORKS, item, fail)
    assert check_gpu.main() == 1
    (block,) = re.findall(r"^FAIL .*(?:\n  .*)+", capsys.readouterr().out, re.M)
    why = "on cpu:0, although there is a GPU" if on_cpu else "RuntimeError: CUDA_ERROR_INVALID_PTX"
    assert why in block and remedy in block and "and more" not in block


@pytest.mark.parametrize(
    ("work", "wrong"),
    [
        ("multiply_matrices", ("matmul", lambda first, second: np.full((2, 2), 21.0))),
        ("convolve_images", ("conv", lambda images, kernel: np.zeros((8, 30, 30, 16)))),
    ],
)
def test_check_sees_a_wrong_result(monkeypatch, work, wrong):
    import keras

    script = load_script("chapter01/check_gpu.py")
    getattr(script, work)(keras)
    monkeypatch.setattr(keras.ops, *wrong)
    with pytest.raises(ValueError, match=r"instead of|not 27"):
        getattr(script, work)(keras)


def test_check_sees_a_step_that_changes_nothing(monkeypatch):
    import keras

    history = type("History", (), {"history": {"loss": [2.3]}})
    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: history)
    with pytest.raises(ValueError, match="not moved"):
        load_script("chapter01/check_gpu.py").fit_one_step(keras)


def test_check_reads_what_nvidia_smi_says(check_gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_gpu.ask_driver() == ""
    fake = tmp_path / "nvidia-smi"
    for answer, expected in [
        (
            "echo 580.95.05, 8.9, NVIDIA L4; echo 580.95.05, 8.9, NVIDIA L4",
            "580.95.05, 8.9, NVIDIA L4",
        ),
        ("echo NVIDIA-SMI has failed; exit 9", ""),
    ]:
        fake.write_text(f"#!/bin/sh\n{answer}\n")
        fake.chmod(0o755)
        assert check_gpu.ask_driver() == expected
