"""Chapter 5: softmax, the three networks on MNIST, bad input, resume, the comparison, JAX."""

import inspect
import json
import math
import re
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script, run_python
from PIL import Image

MLP, DROPOUT, L2 = (f"chapter05/mlp_mnist{end}.py" for end in ("", "_dropout", "_l2"))
SCRIPTS = (MLP, DROPOUT, L2)
SOFTMAX, COMPARE = "chapter05/softmax.py", "chapter05/compare_runs.py"
PICTURES = ("confusion_matrix.png", "mistakes.png")
README, RESULTS = ROOT / "chapter05" / "README.md", ROOT / "chapter05" / "results"


@pytest.fixture(scope="module")
def mlp():
    return load_script(MLP)


@pytest.fixture(params=SCRIPTS, ids=["mlp", "dropout", "l2"])
def script(request):
    return load_script(request.param)


@pytest.fixture
def run_main(monkeypatch, capsys):
    """`main()` of a script in this process: what a test of messages needs, without a start-up."""

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        capsys.readouterr()
        try:
            load_script(name).main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    """The plain network, trained from its own folder as a user would: (process, run directory)."""
    run_dir = tmp_path_factory.mktemp("tb") / "mlp"
    arguments = ["--data", "sample", "--epochs", 3, "--run-dir", run_dir]
    return run_python("chapter05/mlp_mnist.py", *arguments, cwd=ROOT / "chapter05"), run_dir


def tiny_set(train=72, test=20, size=8, classes=3):
    """Arrays of an .npz whose classes differ in brightness."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", train), ("test", test)):
        y = np.arange(n) % classes
        x = rng.integers(0, 60, (n, size, size)) + 180 * y[:, None, None] // classes
        arrays |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y.astype("uint8")}
    return arrays


@pytest.fixture
def tiny_npz(tmp_path):
    path = tmp_path / "tiny.npz"
    np.savez(path, **tiny_set())
    return path


# --- softmax ----------------------------------------------------------------------------------


def test_softmax_of_the_books_example():
    softmax = load_script(SOFTMAX).softmax
    z = [0.9, 0.8, 0.2, 0.1, 0.5]
    assert [round(p, 3) for p in softmax(z)] == [0.284, 0.257, 0.141, 0.128, 0.19]
    assert sum(softmax(z)) == pytest.approx(1, abs=1e-15)
    assert softmax(np.array(z)) == pytest.approx(softmax(z), abs=1e-15)
    assert softmax([math.log(1), math.log(2), math.log(7)]) == pytest.approx([0.1, 0.2, 0.7])


def test_softmax_of_large_numbers():
    softmax = load_script(SOFTMAX).softmax
    assert softmax([1000, 1001, 1002]) == softmax([0, 1, 2])
    assert softmax([-1000, 0, 1000]) == [0, 0, 1]
    assert softmax([1e308, 1e308]) == [0.5, 0.5]


def test_two_class_cross_entropy_is_the_binary_one():
    module = load_script(SOFTMAX)
    assert module.to_categorical([0, 3, 2, 1]) == [  # the book's matrix
        [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0],
    ]  # fmt: skip
    y, p = [1, 0, 1, 1], [0.9, 0.3, 0.01, 0.5]
    both = [[1 - p_i, p_i] for p_i in p]
    expected = -(math.log(0.9) + math.log(0.7) + math.log(0.01) + math.log(0.5)) / 4
    assert module.binary_cross_entropy(y, p) == pytest.approx(expected)
    categories = module.to_categorical(y)
    assert module.categorical_cross_entropy(categories, both) == pytest.approx(expected)
    assert module.categorical_cross_entropy([[0, 1]], [[0.0, 1.0]]) == 0


def test_softmax_runs_without_any_package():
    """`-S`: no site-packages."""
    command = [sys.executable, "-I", "-S", str(ROOT / SOFTMAX)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "[0.284, 0.257, 0.141, 0.128, 0.190], sum 1.000" in result.stdout
    assert "sigmoids 0.232" in result.stdout  # e / (e + 9): why sigmoids do not belong in there


# --- networks and data ------------------------------------------------------------------------


def test_networks_are_the_books(script):
    model = script.build_network()
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    assert counts == {
        "hidden1": 784 * 512 + 512,
        "hidden2": 512 * 256 + 256,
        "hidden3": 256 * 128 + 128,
        "output": 128 * 10 + 10,
    }
    assert model.count_params() == 567_434
    assert model.input_shape == (None, 784) and model.input.name == "input"
    assert [model.get_layer(name).activation.__name__ for name in counts] == ["relu"] * 3 + [
        "softmax"
    ]
    assert model.name == script.__name__.removeprefix("chapter05_")
    assert script.build_network(64, 3, learning_rate=0.01).output_shape == (None, 3)


def test_raw_pixels_give_what_scaled_ones_gave(mlp):
    """The network divides by 255 itself, also when the bytes come as uint8."""
    import keras

    model = mlp.build_network()
    rows = np.random.default_rng(0).integers(0, 256, (4, 784), dtype="uint8")
    rest = keras.Model(model.get_layer("rescale").output, model.output)
    expected = rest.predict(rows.astype("float32") / 255, verbose=0)
    np.testing.assert_allclose(model.predict(rows, verbose=0), expected, rtol=1e-4)


def test_dropout_follows_every_hidden_layer_and_is_saved(tmp_path):
    import keras

    dropout = load_script(DROPOUT)
    dropout.build_network().save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    names = [layer.name for layer in model.layers]
    assert names[2:] == [
        "hidden1", "dropout1", "hidden2", "dropout2", "hidden3", "dropout3", "output",
    ]  # fmt: skip
    assert [model.get_layer(f"dropout{i}").rate for i in (1, 2, 3)] == [0.5] * 3
    x = np.full((1, 784), 255, "uint8")
    assert not np.allclose(model(x, training=True), model(x, training=True))
    assert np.allclose(model(x), model(x))  # in use it is whole


def test_l2_is_on_every_hidden_layer_and_is_saved(tmp_path):
    import keras

    l2 = load_script(L2)
    assert float(l2.build_network().get_layer("hidden1").kernel_regularizer.l2) == 0.01
    l2.build_network(l2=0.003).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    hidden = [model.get_layer(f"hidden{i}") for i in (1, 2, 3)]
    assert [float(layer.kernel_regularizer.l2) for layer in hidden] == pytest.approx([0.003] * 3)
    assert all(layer.bias_regularizer is None for layer in hidden)
    assert model.get_layer("output").kernel_regularizer is None
    # The penalty is in the loss, and the cross-entropy is without it.
    data = {"test_X": np.zeros((6, 784), "uint8"), "test_y": np.arange(6)}
    scores = l2.evaluate(model, data, "test")
    penalty = 0.003 * sum(float((layer.get_weights()[0] ** 2).sum()) for layer in hidden)
    assert scores["cross_entropy"] == pytest.approx(math.log(10), rel=1e-4)
    assert scores["loss"] == pytest.approx(scores["cross_entropy"] + penalty, rel=1e-4)


def test_last_5000_of_60000_are_validation(script, monkeypatch):
    train_X = np.zeros((60_000, 28, 28), "uint8")
    train_X[55_000:, 0, 1] = 1
    train_X[:, 27, 27] = np.arange(60_000) % 251
    train_y = (np.arange(60_000) % 10).astype("uint8")
    test = np.zeros((10_000, 28, 28), "uint8"), np.zeros(10_000, "uint8")
    monkeypatch.setattr(script, "download_mnist", lambda: (train_X, train_y, *test))
    data = script.load_data()
    assert data["train_X"].shape == (55_000, 784) and data["train_X"].dtype == np.uint8
    assert data["val_X"].shape == (5_000, 784) and data["test_X"].shape == (10_000, 784)
    assert not data["train_X"][:, 1].any() and data["val_X"][:, 1].all()
    assert np.array_equal(data["val_X"][:, -1], np.arange(55_000, 60_000) % 251)  # row by row
    assert np.array_equal(data["val_y"], train_y[55_000:]) and data["val_y"].dtype == np.int64
    assert data["class_names"] == list("0123456789")


def test_sample_is_real_digits_in_the_same_format(script):
    data = script.load_data("sample")
    assert [len(data[f"{part}_y"]) for part in script.PARTS] == [3667, 333, 1000]
    assert data["train_X"].shape[1] == 784 and data["train_X"].dtype == np.uint8
    for part in script.PARTS:
        assert set(data[f"{part}_y"]) == set(range(10))


def test_the_scripts_share_their_code():
    """Copied so that each file stands alone: a change in one belongs in all three."""
    modules = [load_script(name) for name in SCRIPTS]
    names = "download_mnist read_npz count_validation create_callbacks finished_epochs"
    names += " interrupted_run fit_baseline load_best_model positive train"
    for name in names.split():
        assert len({inspect.getsource(getattr(module, name)) for module in modules}) == 1, name


# --- bad input --------------------------------------------------------------------------------


def write_text_npz(folder):
    (folder / "bad.npz").write_text("this is not an archive")
    return folder / "bad.npz"


def write_npy(folder):
    np.save(folder / "bad.npy", np.zeros((3, 8, 8), "uint8"))
    return folder / "bad.npy"


def truncate_npz(folder):
    np.savez(folder / "bad.npz", **tiny_set())
    whole = (folder / "bad.npz").read_bytes()
    (folder / "bad.npz").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.npz"


def changed(**change):
    def write(folder):
        arrays = {k: v for k, v in (tiny_set() | change).items() if v is not None}
        np.savez(folder / "bad.npz", **arrays)
        return folder / "bad.npz"

    return write


HOSTILE = np.array([{"would": "unpickle"}], dtype=object)
SORTED = np.repeat(np.arange(12), 6)  # the last of twelve classes is the last twelfth
BAD_INPUT = {
    "missing path": (lambda folder: folder / "nowhere.npz", "does not exist"),
    "folder": (lambda folder: folder, "not a readable .npz"),
    "text named .npz": (write_text_npz, "not a readable .npz"),
    "one array": (write_npy, "not a readable .npz"),
    "truncated": (truncate_npz, "not a readable .npz"),
    "pickle": (changed(x_train=HOSTILE), "not a readable .npz"),
    "missing key": (changed(y_test=None), "y_test missing"),
    "colour images": (changed(x_train=np.zeros((72, 8, 8, 3), "uint8")), "x_train is"),
    "flattened already": (changed(x_train=np.zeros((72, 64), "uint8")), "x_train is"),
    "float images": (changed(x_test=np.zeros((20, 8, 8))), "x_test is float64"),
    "no test images": (changed(x_test=np.zeros((0, 8, 8), "uint8")), "x_test is"),
    "too few labels": (changed(y_train=np.zeros(9, "uint8")), "y_train is"),
    "one-hot labels": (changed(y_train=np.eye(3, dtype=int)[np.arange(72) % 3]), "y_train is"),
    "float labels": (changed(y_test=np.zeros(20)), "y_test is float64"),
    "other size in test": (changed(x_test=np.zeros((20, 9, 8), "uint8")), "test images"),
    "negative label": (changed(y_train=np.arange(72) % 3 - 1), "from -1"),
    "labels from 1 to 10": (changed(y_train=np.arange(72) % 10 + 1), "from 0 to 10"),
    "label without training image": (changed(y_test=np.full(20, 255)), "255"),
    "gap": (changed(y_train=np.arange(72) % 3 * 2), "every whole number from 0 to 2"),
    "one class": (changed(y_train=np.zeros(72, int)), "two classes"),
    "sorted by class": (changed(y_train=SORTED, y_test=SORTED[:20]), "shuffle"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_exits_with_one_message_and_writes_nothing(run_main, tmp_path, case):
    write, words = BAD_INPUT[case]
    path = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run_main(MLP, "--data", path, "--run-dir", tmp_path / "run")
    assert_clear_error(result, words, str(path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [DROPOUT, L2])
def test_bad_input_of_the_other_scripts(run_main, tmp_path, name):
    result = run_main(name, "--data", truncate_npz(tmp_path), "--run-dir", tmp_path / "run")
    assert_clear_error(result, "not a readable .npz")
    assert not (tmp_path / "run").exists()


def test_without_network_the_message_says_what_works(run_script, tmp_path):
    """An empty Keras cache and a proxy that answers nothing stand for a machine without network."""
    start = time.monotonic()
    result = run_script(
        MLP,
        "--run-dir", tmp_path / "run",
        env={"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""},
    )  # fmt: skip
    assert_clear_error(result, "--data sample", "python data/fetch.py mnist")
    assert time.monotonic() - start < 30
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (MLP, ["--epochs", "0"]),
        (DROPOUT, ["--batch-size", "-3"]),
        (L2, ["--l2", "-0.1"]),
        (L2, ["--l2", "nan"]),
    ],
)
def test_bad_arguments(run_main, name, arguments):
    result = run_main(name, *arguments)
    assert result.returncode == 2 and arguments[0] in result.stderr


# --- training ---------------------------------------------------------------------------------


def test_learns_on_the_sample_from_its_own_folder(trained):
    process, run_dir = trained
    assert process.returncode == 0, process.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["epochs"] == 3 and metrics["parameters"] == 567_434
    assert metrics["test"]["accuracy"] > 0.85  # chance: 0.10
    assert metrics["baselines"]["logistic_regression_accuracy"] > 0.85
    assert {"accuracy", "loss"} <= metrics["train"].keys() & metrics["val"].keys()
    assert metrics["data"] == "sample (5,000 digits of MNIST)"
    history = pd.read_csv(run_dir / "history.csv")
    assert metrics["val"]["accuracy"] == pytest.approx(history["val_accuracy"].max(), abs=1e-6)
    assert metrics["last_epoch"]["val_loss"] == history["val_loss"].iloc[-1]
    assert not (run_dir / "backup").exists()
    for part in ("train", "validation"):  # what TensorBoard reads lies beside the other runs
        assert list((run_dir / part).glob("events.out.*"))
    for name in PICTURES:
        Image.open(run_dir / name).verify()
    assert "macro avg" in process.stdout and "support" in process.stdout


def test_evaluate_scores_the_saved_model_again(trained, run_main):
    _, run_dir = trained
    metrics = (run_dir / "metrics.json").read_text()
    for name in PICTURES:
        (run_dir / name).unlink()
    result = run_main(MLP, "--data", "sample", "--run-dir", run_dir, "--evaluate")
    assert result.returncode == 0, result.stderr
    accuracy = json.loads(metrics)["test"]["accuracy"]
    assert f"test accuracy {accuracy:.4f}" in result.stdout and "Epoch" not in result.stdout
    assert all((run_dir / name).exists() for name in PICTURES)
    assert (run_dir / "metrics.json").read_text() == metrics


def test_evaluate_on_other_data_than_trained_on(trained, run_main, tiny_npz):
    _, run_dir = trained
    result = run_main(MLP, "--data", tiny_npz, "--run-dir", run_dir, "--evaluate")
    assert_clear_error(result, "other data", "(784, 10)", "(64, 3)")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [(DROPOUT, []), (L2, ["--l2", "0.001"])])
def test_the_other_networks_train_on_own_images(run_main, tmp_path, tiny_npz, name, options):
    """Three classes of 8x8 images, from the training to --evaluate."""
    arguments = ("--data", tiny_npz, "--run-dir", tmp_path / "run", "--batch-size", 8, *options)
    result = run_main(name, *arguments, "--epochs", 2)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["baselines"]["logistic_regression_accuracy"] == 1  # dark, grey and bright
    assert metrics["epochs"] == 2 and metrics["data"] == str(tiny_npz)
    assert metrics.get("l2") == (0.001 if options else None)
    result = run_main(name, *arguments, "--evaluate")
    assert result.returncode == 0, result.stderr
    assert f"test accuracy {metrics['test']['accuracy']:.4f}" in result.stdout


def test_default_run_directories_lie_beside_each_other(monkeypatch):
    """A first try on the sample replaces no model of the real set; each L2 strength has its own."""

    def run_dir(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return load_script(name).parse_arguments().run_dir.relative_to(ROOT / "runs/chapter05")

    assert str(run_dir(MLP)) == "tb/mlp" and str(run_dir(DROPOUT)) == "tb/dropout"
    assert str(run_dir(L2)) == "tb/l2_0.01"
    assert str(run_dir(L2, "--l2", "1e-5")) == "tb/l2_1e-05"
    assert str(run_dir(MLP, "--data", "sample")) == "tb_sample/mlp"


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 damaged"])
def test_evaluate_without_a_usable_model(run_main, tmp_path, tiny_npz, content):
    if content is not None:
        (tmp_path / "model.keras").write_bytes(content)
    result = run_main(MLP, "--data", tiny_npz, "--run-dir", tmp_path, "--evaluate")
    assert_clear_error(result, "model.keras", "train")


def test_best_so_far_survives_a_restart(mlp, tmp_path):
    """The first epoch after a restart must not replace a better one from before."""
    (tmp_path / "history.csv").write_text("epoch,val_accuracy\n0,0.5\n1,0.75\n2,0.6\n")
    mlp.build_network(4, 2).save(tmp_path / "model.keras")

    def threshold(resuming):
        callbacks = mlp.create_callbacks(tmp_path, resuming)
        return next(c.best for c in callbacks if hasattr(c, "best"))

    assert threshold(resuming=True) == 0.75
    assert threshold(resuming=False) in (None, -np.inf)
    (tmp_path / "model.keras").write_bytes(b"half-written")
    assert threshold(resuming=True) in (None, -np.inf)


def test_backup_of_other_settings_is_not_resumed(mlp, tmp_path, capsys):
    for name in ("backup", "train", "validation"):
        (tmp_path / name).mkdir()
    (tmp_path / "backup" / "training_metadata.json").write_text('{"epoch": 3}')
    (tmp_path / "settings.json").write_text('{"seed": 1}')
    assert mlp.interrupted_run(tmp_path, {"seed": 1}) and "after epoch 3" in capsys.readouterr().out
    assert (tmp_path / "train").exists()
    assert not mlp.interrupted_run(tmp_path, {"seed": 2})
    assert "other settings" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 2}


# --- comparison -------------------------------------------------------------------------------


def write_run(folder, name, val_losses, **columns):
    """A run directory whose history has these validation losses."""
    (folder / name).mkdir(parents=True)
    table = {"epoch": range(len(val_losses)), "val_loss": val_losses}
    table |= {"loss": 0.5, "accuracy": 0.8, "val_accuracy": np.linspace(0.9, 0.95, len(val_losses))}
    pd.DataFrame(table | columns).to_csv(folder / name / "history.csv", index=False)
    return folder / name


def test_compare_runs_shows_all_runs_of_a_folder(run_script, tmp_path):
    write_run(tmp_path, "dropout", [0.3, 0.2, 0.1])
    # The penalty of an L2 run is left out of the comparison.
    write_run(tmp_path, "l2_0.01", [9.0, 8.0], cross_entropy=0.4, val_cross_entropy=[0.35, 0.25])
    write_run(tmp_path, "mlp", [0.2, 0.05, 0.3])
    (tmp_path / "notes").mkdir()  # not a run
    result = run_script(COMPARE, tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [" ".join(line.split()) for line in result.stdout.splitlines() if "(epoch" in line]
    assert rows[0] == "mlp 3 0.5000 0.3000 0.0500 (epoch 2) 0.9500 (epoch 3)"
    assert rows[1].startswith("dropout 3 ")
    assert rows[2] == "l2_0.01 2 0.4000 0.2500 0.2500 (epoch 2) 0.9500 (epoch 2)"
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > 800


def test_compare_runs_of_given_runs(run_main, tmp_path):
    runs = [write_run(tmp_path / folder, "mlp", [0.2, 0.1]) for folder in ("a", "b")]
    result = run_main(COMPARE, *runs, "--output", tmp_path / "two.png")
    assert result.returncode == 0, result.stderr
    assert all(f"{run} " in result.stdout for run in runs)  # same name, so told apart by path
    assert (tmp_path / "two.png").exists() and not (tmp_path / "a" / "comparison.png").exists()


def test_compare_runs_reads_a_resumed_and_an_unfinished_history(tmp_path):
    compare = load_script(COMPARE)
    run = write_run(tmp_path, "mlp", [0.3, 0.2])
    with (run / "history.csv").open("a") as file:
        file.write("1,0.15,0.5,0.8,0.96\n2,nan,nan,nan,nan\n3,0.1")  # again, diverged, cut off
    history = compare.read_history(run)
    assert list(history["epoch"]) == [1, 2] and list(history["val_loss"]) == [0.3, 0.15]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no history.csv"),
        ("", "not a readable CSV"),
        ("epoch,loss\n0,1\n", "val_loss, val_accuracy"),
        ("epoch,loss,val_loss,val_accuracy\n", "no finished epoch"),
        ("epoch,loss,val_loss,val_accuracy\n0,a,b,c\n", "no finished epoch"),
    ],
)
def test_compare_runs_of_no_history(run_main, tmp_path, content, words):
    (tmp_path / "mlp").mkdir()
    if content is not None:
        (tmp_path / "mlp" / "history.csv").write_text(content)
    result = run_main(COMPARE, tmp_path)
    assert_clear_error(result, words, str(tmp_path))
    assert not list(tmp_path.rglob("*.png"))


def test_compare_runs_of_a_missing_folder(run_main, tmp_path):
    result = run_main(COMPARE, tmp_path / "nowhere")
    assert_clear_error(result, "does not exist", "python chapter05/mlp_mnist.py")


# --- the README's figures ---------------------------------------------------------------------


def results(pattern):
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(pattern))]


@pytest.mark.parametrize(
    ("runs", "row"),
    [("mlp", "`mlp_mnist.py`"), ("dropout", "`mlp_mnist_dropout.py`")],
)
def test_readme_has_the_test_accuracy_of_the_results(runs, row):
    found = results(f"{runs}_seed*.json")
    assert [run["seed"] for run in found] == [1, 2, 3]
    assert {run["data"] for run in found} == {"MNIST"} and {run["epochs"] for run in found} == {50}
    accuracies = [run["test"]["accuracy"] for run in found]
    mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
    line = next(line for line in README.read_text().splitlines() if line.startswith(f"| {row} "))
    assert f"{mean:.4f} ± {std:.4f}" in line
    assert ", ".join(str(run["best_epoch"]) for run in found) in line
    assert mean >= 0.980


def test_readme_shows_the_runs_as_compare_runs_does(run_main, tmp_path):
    """Its table, and every strength of L2, from the histories kept beside it."""
    result = run_main(COMPARE, RESULTS / "history", "--output", tmp_path / "comparison.png")
    assert result.returncode == 0, result.stderr
    readme = README.read_text()
    rows = [line.rstrip() for line in result.stdout.splitlines() if "(epoch" in line]
    assert len(rows) == 6 and all(row in readme for row in rows)
    for run in results("l2_*_seed1.json"):
        row = re.search(rf"^\| {run['l2']:g}\b.*$", readme, re.MULTILINE)[0]
        assert f"{run['val']['accuracy']:.4f}" in row
        assert f"{run['last_epoch']['val_cross_entropy']:.4f}" in row


# --- slow -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training; the same command goes on from the last finished epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--epochs", "20", "--run-dir", str(run_dir))
    done = kill_in_training(MLP, arguments, run_dir / "backup", after_epoch=2)
    best_before = pd.read_csv(run_dir / "history.csv")["val_accuracy"][:done].max()

    result = run_script(MLP, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}" in result.stdout
    assert f"Epoch {done + 1}/20" in result.stdout and f"Epoch {done}/20" not in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == list(range(20))
    # It learned on: the optimizer and the weights came back, not a fresh network.
    assert history["loss"].iloc[done] < 0.7 * history["loss"].iloc[0]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None
    assert metrics["val"]["accuracy"] >= best_before - 1e-6


@pytest.mark.slow
def test_overfitting_shows_on_the_sample(run_main, tmp_path):
    """Validation loss: the plain network's rises again, dropout's stays low (last five epochs)."""
    losses = {}
    for name, options in ((MLP, []), (DROPOUT, []), (L2, ["--l2", "1e-4"])):
        epochs = 6 if name == L2 else 18
        run_dir = tmp_path / name.replace("/", "_")
        result = run_main(
            name, "--data", "sample", "--epochs", epochs, "--run-dir", run_dir, *options
        )
        assert result.returncode == 0, result.stderr
        metrics = json.loads((run_dir / "metrics.json").read_text())
        assert metrics["test"]["accuracy"] > 0.9, name
        history = load_script(COMPARE).read_history(run_dir)
        losses[name] = history["val_loss"].tail(5).mean()
        if name == MLP:
            assert losses[MLP] > 1.15 * history["val_loss"].min()
            assert history["loss"].tail(5).mean() < 0.05
    assert losses[DROPOUT] < 0.9 * losses[MLP]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_jax_backend(run_script, tmp_path, tiny_npz, name):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    arguments = ("--data", tiny_npz, "--epochs", 2, "--run-dir", tmp_path / "run")
    result = run_script(name, *arguments, env={"KERAS_BACKEND": "jax"})
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"
    assert list((tmp_path / "run" / "validation").glob("events.out.*"))


@pytest.mark.slow
def test_real_mnist_in_three_epochs(run_main, real_data_dir, tmp_path):
    source = real_data_dir / "mnist.npz"
    result = run_main(MLP, "--data", source, "--epochs", 3, "--run-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "55,000 train, 5,000 val, 10,000 test" in result.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.97
    baseline = metrics["baselines"]["logistic_regression_accuracy"]
    assert 0.91 < baseline < 0.935  # what a linear model reaches on MNIST
