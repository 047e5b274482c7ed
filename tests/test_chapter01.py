"""Chapter 1: the network from scratch, the optimizers, hold-out and K-fold; each script as run."""

import functools
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import ROOT, load_script
from PIL import Image

SCRIPTS = {
    "xor_from_scratch": ([], ["activations.png", "xor.png"]),
    "optimizers": (["--steps", 200], ["optimizers.png"]),
    "holdout_and_kfold": (["--epochs", 1], ["holdout_and_kfold.png"]),
}


@pytest.fixture(scope="module")
def xor():
    return load_script("chapter01/xor_from_scratch.py")


@pytest.fixture(scope="module")
def optimizers():
    return load_script("chapter01/optimizers.py")


@pytest.fixture(scope="module")
def validation():
    return load_script("chapter01/holdout_and_kfold.py")


# The network from scratch


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


def test_sigmoid_and_softmax_stay_finite(xor):
    with np.errstate(over="raise", invalid="raise"):
        assert xor.sigmoid(np.array([-1000.0, 1000.0])).tolist() == [0, 1]
        a = xor.softmax(np.array([[1000.0, 1000.0, -1000.0], [1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(a[0], [0.5, 0.5, 0])
    np.testing.assert_allclose(a[1], [0.09003057, 0.24472847, 0.66524096], atol=1e-8)


def test_costs_worked_by_hand(xor):
    y, predicted = np.array([[1.0], [0.0]]), np.array([[0.8], [0.4]])
    assert xor.mse_cost(y, predicted) == pytest.approx((0.2**2 + 0.4**2) / 4)
    assert xor.cross_entropy_cost(y, predicted) == pytest.approx(-np.log(0.8 * 0.6) / 2)
    one_hot = np.array([[0.0, 1.0, 0.0]])
    assert xor.cross_entropy_cost(one_hot, np.array([[0.2, 0.7, 0.1]])) == pytest.approx(
        -np.log(0.7)
    )
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


@pytest.mark.parametrize(("activation", "cost"), [("linear", "mse"), ("sigmoid", "cross_entropy")])
def test_a_single_neuron_fails_on_xor(xor, activation, cost):
    rng = np.random.default_rng(0)
    layers = xor.init_layers((2, 1), rng)
    history = xor.train(layers, [activation], xor.XOR_X, xor.XOR_Y, cost, 0.3, 1000, 4, rng)
    result = xor.evaluate(layers, [activation], xor.XOR_X, xor.XOR_Y)
    assert result["accuracy"] <= 0.75
    assert result["mse"] == pytest.approx(0.25, abs=1e-4)
    # The best it can do is to say 0.5 always: J = 0.25/2, or log 2.
    assert history[-1] == pytest.approx(0.125 if cost == "mse" else np.log(2), abs=1e-4)


@pytest.mark.parametrize("batch_size", [4, 2, 1])
def test_two_layers_solve_xor_for_ten_seeds(xor, batch_size):
    solved = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        layers, activations = xor.init_layers((2, 4, 1), rng), ["tanh", "sigmoid"]
        xor.train(
            layers, activations, xor.XOR_X, xor.XOR_Y, "cross_entropy", 0.3, 600, batch_size, rng
        )
        solved += xor.evaluate(layers, activations, xor.XOR_X, xor.XOR_Y)["accuracy"] == 1
    assert solved == 10


@pytest.mark.parametrize("batch_size", [4, 3, 1])
def test_an_epoch_uses_every_row_once(xor, batch_size):
    # With a learning rate this small the steps of an epoch add up as if taken at one place.
    rng, rate = np.random.default_rng(0), 1e-7
    before = [(np.array([[0.3], [-0.2]]), np.array([0.1]))]
    layers = [tuple(p.copy() for p in before[0])]
    xor.train(layers, ["linear"], xor.XOR_X, xor.XOR_Y, "mse", rate, 1, batch_size, rng)
    errors = xor.XOR_X @ before[0][0] + before[0][1] - xor.XOR_Y
    sizes = {4: 4, 1: 1}
    if batch_size in sizes:
        expected = -rate * xor.XOR_X.T @ errors / sizes[batch_size]
        np.testing.assert_allclose(layers[0][0] - before[0][0], expected, rtol=1e-4)
    else:  # batches of three rows and one: the last row counts too
        steps = (layers[0][1] - before[0][1]) / -rate
        possible = [(errors.sum() - e) / 3 + e for e in errors[:, 0]]
        assert np.isclose(possible, steps, rtol=1e-4).any()


GRADIENT_CASES = [
    (["tanh", "sigmoid"], "cross_entropy", 1),
    (["sigmoid", "sigmoid"], "mse", 1),
    (["relu", "linear"], "mse", 2),
    (["leaky_relu", "tanh"], "mse", 1),
    (["tanh", "softmax"], "cross_entropy", 3),
]


def gradient_case(xor, activations, cost, outputs):
    rng = np.random.default_rng(3)
    layers = xor.init_layers((3, 5, outputs), rng)
    X, y = rng.normal(size=(6, 3)), rng.integers(0, 2, (6, outputs)).astype(float)
    if activations[-1] == "softmax":
        y = np.eye(outputs)[rng.integers(0, outputs, 6)]
    predicted, cache = xor.forward(layers, activations, X)
    gradients = xor.backward(layers, activations, cache, predicted, y, cost)
    return layers, X, y, predicted, gradients


@pytest.mark.parametrize(("activations", "cost", "outputs"), GRADIENT_CASES)
def test_back_propagation_agrees_with_central_differences(xor, activations, cost, outputs):
    layers, X, y, _, gradients = gradient_case(xor, activations, cost, outputs)
    numeric = xor.numeric_gradients(layers, activations, X, y, cost)
    assert xor.largest_difference(gradients, numeric) < 1e-8
    assert all(np.abs(g).max() > 1e-3 for layer in gradients for g in layer)


def test_numeric_check_catches_a_planted_bug(xor, monkeypatch):
    wrong = (np.tanh, lambda z: 1 - np.tanh(z))  # the square forgotten
    monkeypatch.setitem(xor.ACTIVATIONS, "tanh", wrong)
    layers, X, y, _, gradients = gradient_case(xor, ["tanh", "sigmoid"], "cross_entropy", 1)
    numeric = xor.numeric_gradients(layers, ["tanh", "sigmoid"], X, y, "cross_entropy")
    assert xor.largest_difference(gradients, numeric) > 1e-3
    # Only the layer behind the wrong derivative is wrong: the last one does not use it.
    assert xor.largest_difference(gradients[1:], numeric[1:]) < 1e-8


@pytest.mark.parametrize(
    ("activations", "cost", "outputs"),
    [case for case in GRADIENT_CASES if case[0][0] != "leaky_relu"],
)
def test_gradients_equal_keras(xor, activations, cost, outputs):
    import keras

    layers, X, y, _, gradients = gradient_case(xor, activations, cost, outputs)
    model = keras.Sequential([keras.Input((X.shape[1],))])
    for (_, bias), name in zip(layers, activations, strict=True):
        model.add(keras.layers.Dense(len(bias), activation=name))
    model.set_weights([parameter for layer in layers for parameter in layer])
    kind = "binary" if outputs == 1 else "categorical"
    loss = "mse" if cost == "mse" else f"{kind}_crossentropy"
    scale = outputs / 2 if cost == "mse" else 1  # Keras averages over outputs, without our 1/2
    model.compile(keras.optimizers.SGD(1.0), loss, loss_weights=[scale])
    before = model.get_weights()
    model.train_on_batch(X, y)  # a step at rate 1 takes the gradient off
    for old, new, ours in zip(before, model.get_weights(), sum(gradients, ()), strict=True):
        np.testing.assert_allclose(old - new, ours, atol=1e-6)


@pytest.mark.parametrize(
    ("hidden", "output", "cost"),
    [
        ("tanh", "tanh", "cross_entropy"),
        ("tanh", "softmax", "mse"),
        ("tanh", "linear", "cross_entropy"),
        ("softmax", "sigmoid", "cross_entropy"),
    ],
)
def test_costs_without_a_gradient_are_refused(xor, hidden, output, cost):
    with pytest.raises(ValueError, match=output):
        gradient_case(xor, [hidden, output], cost, 2)


# The optimizers


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

    start = np.random.default_rng(0).uniform(-1, 1, 2)
    variable = keras.Variable(start, dtype="float64")
    optimizer = getattr(keras.optimizers, keras_name)(rate, **keras_settings)
    optimizer.build([variable])
    rule = functools.partial(optimizers.RULES[name], **settings)
    for ours in optimizers.descend(rule, "bowl", rate, 50, start)[0][1:]:
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


@pytest.mark.parametrize("start", [(-4, -1.5), (4, 1.5), (0.01, 0.01)])
def test_momentum_as_printed_runs_away(optimizers, start):
    path, losses = optimizers.descend(
        optimizers.momentum_as_printed, "bowl", 0.005, steps=500, start=start
    )
    assert (np.diff(path, axis=0) <= 0).all()  # no coordinate ever grows
    assert losses[-1] > 1e8
    _, losses = optimizers.descend(optimizers.momentum, "bowl", 0.005, steps=500, start=start)
    assert losses[-1] < 1e-4


def test_adam_as_printed_is_not_a_number_where_the_slope_is_negative(optimizers):
    _, losses = optimizers.descend(optimizers.adam_as_printed, "bowl", 0.1, steps=100)
    assert np.isnan(losses[-1]) and len(losses) < 5
    _, losses = optimizers.descend(optimizers.adam, "bowl", 0.1, steps=500)
    assert losses[-1] < 1e-2


def test_momentum_and_adam_settle_long_before_sgd(optimizers):
    best = {
        name: optimizers.best_run(rule, "bowl", 1e-2, 1000)[0]
        for name, rule in optimizers.RULES.items()
    }
    assert best["momentum"] < best["SGD"] / 5
    assert best["Adam"] < best["SGD"] / 5


def test_settling_means_for_good(optimizers):
    losses = np.full(101, 1e-3)
    assert optimizers.steps_to_settle(losses, 1e-2, 100) == 0
    losses[[0, 20]] = 1
    assert optimizers.steps_to_settle(losses, 1e-2, 100) == 21
    losses[60] = 1
    assert optimizers.steps_to_settle(losses, 1e-2, 100) is None
    assert optimizers.steps_to_settle(losses[:50], 1e-2, 100) is None  # diverged
    losses[60] = np.nan
    assert optimizers.steps_to_settle(losses, 1e-2, 100) is None


def test_gradients_of_the_surfaces(optimizers):
    for loss, gradient, _ in optimizers.SURFACES.values():
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


def test_scaler_is_fitted_on_the_training_rows_of_each_fold(validation):
    from sklearn.model_selection import StratifiedKFold, cross_validate

    X, y = validation.load_data()
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    fitted = cross_validate(
        validation.make_network(),
        X,
        y,
        cv=folds,
        params={"sklearnclassifier__epochs": 1, "sklearnclassifier__verbose": 0},
        return_estimator=True,
    )["estimator"]
    for pipeline, (train, _) in zip(fitted, folds.split(X, y), strict=True):
        np.testing.assert_allclose(pipeline[0].mean_, X[train].mean(axis=0))
        assert not np.allclose(pipeline[0].mean_, X.mean(axis=0), rtol=1e-4)


def test_every_fold_trains_for_the_epochs_asked_for(validation, monkeypatch):
    from sklearn.model_selection import KFold

    seen, build = [], validation.build_network

    def build_and_watch(X, y):
        model = build(X, y)
        fit = model.fit
        model.fit = lambda *a, **options: seen.append(options["epochs"]) or fit(*a, **options)
        return model

    monkeypatch.setattr(validation, "build_network", build_and_watch)
    X, y = validation.load_data()
    validation.cross_validate_network(X[:100], y[:100], KFold(2), epochs=3)
    assert seen == [3, 3]


def test_leak_is_visible_on_noise(validation):
    leaking, honest = validation.measure_leak(seed=0)
    assert leaking > 0.75
    assert 0.35 < honest < 0.65


@pytest.mark.slow
def test_network_learns_and_does_as_well_as_logistic_regression(validation):
    import keras
    from sklearn.model_selection import StratifiedKFold

    keras.utils.set_random_seed(0)
    X, y = validation.load_data()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = validation.cross_validate_network(X, y, folds, epochs=15)
    assert accuracy.mean() > 0.95  # majority class: 0.63


# Each script as a user runs it


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "tensorflow") for name in SCRIPTS),
        pytest.param("holdout_and_kfold", "jax", marks=pytest.mark.slow),
    ],
)
def test_script_as_a_user_runs_it(run_script, tmp_path, name, backend):
    arguments, pictures = SCRIPTS[name]
    if not find_spec(backend):
        pytest.skip(f"no {backend}")
    run_dir = tmp_path / "new" / "folder"
    command = [f"chapter01/{name}.py", *arguments, "--run-dir", run_dir]
    result = run_script(*command, cwd=ROOT / "chapter01", env={"KERAS_BACKEND": backend})
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["script"] == name
    for picture in pictures:
        with Image.open(run_dir / picture) as image:
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20, "an empty picture"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("xor_from_scratch", ["--seed", "many"], ["--seed", "many"]),
        ("optimizers", ["--steps", "10"], ["--steps", "100"]),
        ("holdout_and_kfold", ["--epochs", "0"], ["--epochs"]),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    monkeypatch, capsys, tmp_path, name, arguments, words
):
    run_dir = tmp_path / "run"
    monkeypatch.setattr("sys.argv", [name, *arguments, "--run-dir", str(run_dir)])
    with pytest.raises(SystemExit, match="2"):
        load_script(f"chapter01/{name}.py").main()
    message = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in message and all(word in message for word in words)
    assert not run_dir.exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_run_dir_that_is_a_file(monkeypatch, capsys, tmp_path, name):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("sys.argv", [name, "--run-dir", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="2"):
        load_script(f"chapter01/{name}.py").main()
    assert re.search("error: .*File exists", capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "mine"


# The check of the machine

NO_DEVICE = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
PASSED = "[[22, 28], [49, 64]]", "/job:localhost/replica:0/task:0/device:GPU:0"


@pytest.fixture
def check_gpu(monkeypatch):
    """The script, as if the command line were empty and there were one GPU on which all works."""
    script = load_script("chapter01/check_gpu.py")
    monkeypatch.setattr("sys.argv", ["check_gpu.py"])
    monkeypatch.setattr(script, "find_gpus", lambda keras: (["GPU:0"], True))
    for name in ("multiply_matrices", "convolve_images", "fit_one_step"):
        monkeypatch.setattr(script, name, lambda keras: PASSED)
    return script


def test_check_on_the_cpu(run_script, tmp_path):
    result = run_script("chapter01/check_gpu.py", cwd=tmp_path, env=NO_DEVICE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "OK    product      [[22, 28], [49, 64]] on CPU:0" in result.stdout
    assert "OK    convolution  8 images" in result.stdout
    assert "OK    fit          loss " in result.stdout
    assert 'CUDA_VISIBLE_DEVICES is "-1"' in result.stdout


def test_check_on_jax_without_tensorflow(run_script, tmp_path):
    if not find_spec("jax"):
        pytest.skip("JAX is not installed (requirements-cluster.txt has it)")
    (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow must not be needed')\n")
    env = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(tmp_path)}
    result = run_script("chapter01/check_gpu.py", env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " on jax " in result.stdout and "OK    fit " in result.stdout
    assert "OK    product      [[22, 28], [49, 64]] on cpu:0" in result.stdout


@pytest.mark.parametrize(
    ("backend", "settings", "words"),
    [
        ("torch", {}, ["No module named 'torch'", "KERAS_BACKEND is torch"]),
        ("theano", {}, ["Unable to import backend", "KERAS_BACKEND is theano"]),
        (None, {"backend": "theano"}, ["Unable to import backend", "keras.json: delete it"]),
        (
            None,
            {"image_data_format": "channels_first", "floatx": "float16"},
            ["channels_first, float16", "keras.json: delete it"],
        ),
    ],
)
def test_check_names_the_setting_that_keeps_keras_from_working(
    run_script, tmp_path, monkeypatch, backend, settings, words
):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    env = {"PYTHONPATH": str(tmp_path), "KERAS_HOME": str(tmp_path)}
    if settings:
        (tmp_path / "keras.json").write_text(json.dumps(settings))
    if backend:
        env["KERAS_BACKEND"] = backend
    result = run_script("chapter01/check_gpu.py", env=env)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAIL  keras ")]
    assert words[0] in line and words[1] in result.stdout


def test_check_passes_where_all_works_on_the_gpu(check_gpu, capsys):
    assert check_gpu.main() == 0
    out = capsys.readouterr().out
    assert out.endswith("A GPU does the work.\n") and "on GPU:0" in out and "try" not in out


def test_check_without_a_gpu_fails_where_one_is_required(check_gpu, monkeypatch, capsys):
    monkeypatch.setattr(check_gpu, "find_gpus", lambda keras: ([], True))
    assert check_gpu.main() == 0
    assert "--    gpu " in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["check_gpu.py", "--require-gpu"])
    assert check_gpu.main() == 1
    out = capsys.readouterr().out
    assert "FAIL  gpu " in out and "What to try where a GPU should be used:" in out


@pytest.mark.parametrize(
    ("work", "remedy"),
    [
        ("multiply_matrices", "reboot"),
        ("convolve_images", "cuDNN is missing"),
        ("fit_one_step", "libdevice or ptxas"),
    ],
)
@pytest.mark.parametrize("on_cpu", [True, False])
def test_check_fails_where_one_item_does(check_gpu, monkeypatch, capsys, work, remedy, on_cpu):
    def fail(keras):
        if on_cpu:  # the wrong device
            return "all right", "cpu:0"
        raise RuntimeError("CUDA_ERROR_INVALID_PTX\nand more")

    monkeypatch.setattr(check_gpu, work, fail)
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


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({}, ["dlopen or cuInit"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["hides the GPU", "dlopen"]),
        ({"LD_LIBRARY_PATH": "/opt/cuda"}, ["dlopen", "LD_LIBRARY_PATH"]),
        ({"driver": "470.256.02"}, ["needs driver 525", "dlopen"]),
        ({"capability": "3.7"}, ["3.7 is too old", "dlopen"]),
        ({"capability": "12.0"}, ["KERAS_BACKEND=jax", "dlopen"]),
        ({"capability": "", "driver": "strange"}, ["dlopen"]),
        ({"cuda": False}, ["tensorflow is there without CUDA"]),
        ({"driver": "", "system": "Windows", "cuda": False}, ["WSL 2", "without CUDA"]),
        ({"driver": "", "system": "Darwin", "cuda": False}, ["macOS", "without CUDA"]),
        ({"driver": "", "release": "6.6-microsoft-standard-WSL2"}, ["driver in Windows"]),
        ({"machine": "aarch64", "cuda": False}, ["for ARM", "without CUDA"]),
    ],
)
def test_check_suggests_what_applies_to_the_machine(check_gpu, monkeypatch, machine, words):
    monkeypatch.setattr(check_gpu.Path, "exists", lambda path: False)  # no container
    for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
        if name in machine:
            monkeypatch.setenv(name, machine[name])
    for name, value in (("system", "Linux"), ("release", "6.8"), ("machine", "x86_64")):
        value = machine.get(name, value)
        monkeypatch.setattr(check_gpu.platform, name, lambda value=value: value)
    driver, capability = machine.get("driver", "580.95.05"), machine.get("capability", "8.9")
    cuda = machine.get("cuda", True)
    remedies = check_gpu.suggest_remedies("tensorflow", cuda, driver, capability)
    assert len(remedies) == len(words), remedies
    for word, remedy in zip(words, remedies, strict=True):
        assert word in remedy


def test_check_reads_what_nvidia_smi_says(check_gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_gpu.ask_driver("driver_version") == ""
    fake = tmp_path / "nvidia-smi"
    for answer, expected in [
        ("echo 580.95.05; echo 580.95.05", "580.95.05"),
        ("echo '[N/A]'", ""),
        ("echo NVIDIA-SMI has failed; exit 9", ""),
    ]:
        fake.write_text(f"#!/bin/sh\n{answer}\n")
        fake.chmod(0o755)
        assert check_gpu.ask_driver("driver_version") == expected
