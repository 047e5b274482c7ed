"""Chapter 7, second half: convolution by hand, augmentation, the better network."""

import inspect
import json
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import assert_clear_error, kill_in_training, load_script
from PIL import Image

SCRIPT = "chapter07/cnn_cifar10_augmented.py"
BY_HAND = "chapter07/conv_by_hand.py"
SHARED = ["load_data", "download_cifar10", "read_npz", "split_npz", "load_folder", "fuse"]
SHARED += ["finished_epochs", "fit_baseline", "to_rows", "evaluate", "load_best_model"]
SHARED += ["save_figure", "positive"]


@pytest.fixture(scope="module")
def augmented():
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def by_hand():
    return load_script(BY_HAND)


def tiny_set(train=64, test=20, size=12, channels=3):
    """Arrays of an .npz with two classes that differ in brightness."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", train), ("test", test)):
        y = np.arange(n) % 2
        x = rng.integers(0, 100, (n, size, size, channels)) + 150 * y[:, None, None, None]
        arrays |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y.astype("uint8")}
    return arrays


@pytest.fixture
def tiny_npz(tmp_path):
    path = tmp_path / "tiny.npz"
    np.savez(path, **tiny_set())
    return path


def run_main(script, monkeypatch, *arguments):
    """Call the script's `main` in this process, as if from a command line."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


# --- convolution by hand ---


def test_the_books_example(by_hand):
    answer = by_hand.cross_correlate(by_hand.IMAGE, by_hand.FILTER)
    assert answer.tolist() == [[7, 5], [-1, 6]]


def test_convolution_turns_the_filter(by_hand):
    """Against SciPy, with a filter that has no symmetry, on an image that is not square."""
    signal_tools = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    image, kernel = rng.integers(-9, 9, (7, 6)), rng.integers(-9, 9, (3, 2))
    crossed, convolved = by_hand.cross_correlate(image, kernel), by_hand.convolve(image, kernel)
    assert np.array_equal(crossed, signal_tools.correlate2d(image, kernel, mode="valid"))
    assert np.array_equal(convolved, signal_tools.convolve2d(image, kernel, mode="valid"))
    assert not np.array_equal(crossed, convolved)


def test_layer_equals_kerass(by_hand):
    import keras

    layer = keras.layers.Conv2D(5, kernel_size=(3, 2), activation="relu")
    layer.build((None, 8, 9, 3))
    layer.set_weights([*layer.get_weights()[:1], np.linspace(-1, 1, 5)])
    image = np.random.default_rng(0).random((8, 9, 3), dtype="float32")
    expected = keras.ops.convert_to_numpy(layer(image[None]))[0]
    np.testing.assert_allclose(by_hand.conv_layer(image, *layer.get_weights()), expected, atol=1e-5)


def test_by_hand_prints_and_draws(by_hand, augmented, monkeypatch, capsys, tmp_path):
    """The whole script, with the book's network untrained: no training, so it is quick."""
    augmented.build_network().save(tmp_path / "model.keras")
    run_main(
        by_hand, monkeypatch, "--model", tmp_path / "model.keras", "--run-dir", tmp_path / "out"
    )
    printed = capsys.readouterr().out
    for fact in (
        "4*1 + 2*0 + 1*-1 + 6*1 + 5*0 + 2*-1 + 3*1 + 0*0 + 3*-1 = 7",
        "keras.layers.Conv2D       [[7, 5], [-1, 6]]",
        "true convolution          [[-7, -5], [1, -6]]",
        "together 1,792",
        "= 176,947,200",
        "is the same: True",
        "upright edge 27, to a lying one 0",
    ):
        assert fact in printed
    for name in ("books_filter.png", "filters.png", "feature_maps.png"):
        Image.open(tmp_path / "out" / name).verify()


@pytest.mark.slow
def test_by_hand_needs_no_trained_network(by_hand, capsys):
    """The small network it trains instead has learned something."""
    import keras

    keras.utils.set_random_seed(1)
    model = by_hand.train_small_network()
    assert len(by_hand.find_convolutions(model)) == 2
    with np.load(by_hand.SAMPLE) as archive:
        scores = model.evaluate(archive["x_test"], archive["y_test"], verbose=0)
    assert scores[1] > 0.25  # chance: 0.10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere.npz"], "does not exist"),
        (["--data", __file__], "not a readable .npz"),
        (["--image", "500"], "images 0 to 499"),
        (["--image", "-1"], "images 0 to 499"),
        (["--model", "nowhere.keras"], "nowhere.keras does not exist"),
        (["--model", __file__], "cannot be loaded"),
    ],
)
def test_by_hand_refuses_bad_input(by_hand, monkeypatch, capsys, tmp_path, arguments, words):
    with pytest.raises(SystemExit) as stop:
        run_main(by_hand, monkeypatch, *arguments, "--run-dir", tmp_path / "out")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error
    assert not (tmp_path / "out").exists()


def test_by_hand_refuses_a_network_for_other_images(by_hand, augmented):
    model = augmented.build_network((12, 12, 3), 2)
    with pytest.raises(ValueError, match="takes images of"):
        by_hand.check_model(model, (32, 32, 3), "it")


# --- augmentation ---


def test_parts_shared_with_cnn_cifar10_are_the_same(augmented):
    """Scripts are standalone, so these stand in both: a repair of one must reach the other."""
    plain = load_script("chapter07/cnn_cifar10.py")
    for name in SHARED:
        assert inspect.getsource(getattr(augmented, name)) == inspect.getsource(
            getattr(plain, name)
        ), name


def test_network_is_the_one_of_cnn_cifar10(augmented):
    """Layer by layer, dropout included: the original's augmented network went past it."""
    plain = load_script("chapter07/cnn_cifar10.py").build_network()
    network = augmented.build_network()
    assert [layer.get_config() for layer in network.layers] == [
        layer.get_config() for layer in plain.layers
    ]
    for model in (plain, network):  # one chain: each layer takes the one before
        assert [layer.input.name for layer in model.layers[2:]] == [
            layer.output.name for layer in model.layers[1:-1]
        ]
    assert network.count_params() == 744_874


def test_changes_are_random_and_of_the_books_size(augmented):
    import keras

    keras.utils.set_random_seed(1)
    datagen = augmented.create_datagen()
    names = [type(layer).__name__ for layer in datagen.layers]
    assert names == ["RandomFlip", "RandomRotation", "RandomTranslation"]
    # A bright arm from the centre to the right: where it points tells the turn.
    image = np.zeros((65, 65, 1), dtype="float32")
    image[32, 32:60] = 255
    batch = np.repeat(image[None], 200, axis=0)
    changed = keras.ops.convert_to_numpy(datagen(batch, training=True))[..., 0]
    assert changed.shape == batch.shape[:3]
    rows, columns = np.mgrid[:65, :65] - 32
    weight = changed.sum(axis=(1, 2))
    x = (changed * columns).sum(axis=(1, 2)) / weight
    y = (changed * rows).sum(axis=(1, 2)) / weight
    angles = np.degrees(np.arctan2(y, np.abs(x)))
    assert 0.35 < (x < 0).mean() < 0.65  # mirrored or not
    # 20 degrees, and up to 1.3 pixels of shift move the arm's middle, 14 pixels out, by 5 more.
    assert 15 < np.abs(angles).max() < 26 and abs(angles.mean()) < 4
    assert len(np.unique(angles.round(3))) > 150  # each image is changed in its own way


def test_changes_happen_in_training_only(augmented):
    import keras

    images = np.random.default_rng(0).uniform(0, 255, (4, 12, 12, 3)).astype("float32")
    network = augmented.build_network((12, 12, 3), 2)
    model = augmented.add_augmentation(network, augmented.create_datagen())
    for training, alike in ((False, True), (True, False)):
        out = keras.ops.convert_to_numpy(augmented.create_datagen()(images, training=training))
        assert np.array_equal(out, images) == alike
    assert np.allclose(
        model.predict(images, verbose=0), network.predict(images, verbose=0), atol=1e-6
    )


def layer_names(model):
    return {type(layer).__name__ for layer in model._flatten_layers()}


def test_saved_network_has_no_random_layers_and_has_learned(augmented, tmp_path):
    """Training the model around it trains the network; the file holds the network alone."""
    import keras

    keras.utils.set_random_seed(1)
    np.savez(tmp_path / "tiny.npz", **tiny_set())
    data = augmented.load_data(tmp_path / "tiny.npz")
    network = augmented.build_network((12, 12, 3), 2)
    before = [np.array(weight) for weight in network.get_weights()]
    model = augmented.add_augmentation(network, augmented.create_datagen())
    assert "RandomRotation" in layer_names(model)
    model.fit(
        data["train_X"],
        data["train_y"],
        batch_size=8,
        epochs=2,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=augmented.create_callbacks(network, data, tmp_path),
        verbose=0,
    )
    saved = keras.models.load_model(tmp_path / "model.keras")
    assert not any(name.startswith("Random") for name in layer_names(saved))
    assert [layer.name for layer in saved.layers] == [layer.name for layer in network.layers]
    assert saved.count_params() == network.count_params()
    assert all(
        not np.array_equal(old, new) for old, new in zip(before, saved.get_weights(), strict=True)
    )
    history = pd.read_csv(tmp_path / "history.csv")
    best = history["val_accuracy"].idxmax()
    assert augmented.evaluate(saved, data, "val")["accuracy"] == pytest.approx(
        history["val_accuracy"][best]
    )
    assert {"clean_accuracy", "clean_loss"} <= set(history)


def test_better_network(augmented):
    """Fewer parameters, padding, any image size, and a rate that rises, falls and ends at 0."""
    network = augmented.build_better_network(total_steps=100)
    assert network.count_params() < augmented.build_network().count_params()
    assert network.get_layer("conv_1").output.shape == (None, 32, 32, 32)
    assert network.get_layer("conv_4").output.shape == (None, 4, 4, 256)
    assert augmented.build_better_network(100, (10, 17, 1), 3).output.shape == (None, 3)
    schedule = network.optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    assert rates[0] == 0 and rates[2] == max(rates) and rates[4] == pytest.approx(0, abs=1e-9)
    assert rates[0] < rates[1] < rates[2] > rates[3] > rates[4]


@pytest.mark.slow
def test_both_trainings_from_one_command(augmented, monkeypatch, capsys, tmp_path, tiny_npz):
    """Same weights at the start, same steps; files, figures, and --evaluate afterwards."""
    run_dir = tmp_path / "run"
    arguments = ("--data", tiny_npz, "--run-dir", run_dir, "--batch-size", 16)
    starts = []
    fit = augmented.train

    def note_start(network, *rest):
        starts.append([np.array(weight) for weight in network.get_weights()])
        return fit(network, *rest)

    monkeypatch.setattr(augmented, "train", note_start)
    run_main(augmented, monkeypatch, *arguments, "--epochs", 2)
    for first, second in zip(*starts, strict=True):
        assert np.array_equal(first, second)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["baselines"]["logistic_regression_accuracy"] == 1  # bright against dark
    for result in (metrics, metrics["without_augmentation"]):
        assert {"accuracy", "loss"} <= result["test"].keys() and result["seconds"] > 0
    for folder in (run_dir, run_dir / "without"):
        assert list(pd.read_csv(folder / "history.csv")["epoch"]) == [0, 1]
        assert not (folder / "backup").exists() and not (folder / "finished.json").exists()
    for name in ("learning_curves.png", "augmented_images.png"):
        Image.open(run_dir / name).verify()
    printed = capsys.readouterr().out
    assert "without augmentation" in printed and "logistic regression" in printed

    run_main(augmented, monkeypatch, *arguments, "--evaluate")
    test_line = f" test accuracy {metrics['test']['accuracy']:.4f}"
    assert test_line in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_training_is_not_done_again(augmented, monkeypatch, capsys, tmp_path, tiny_npz):
    """Stopped in the second training: the first is not repeated."""
    run_dir = tmp_path / "run"
    arguments = ("--data", tiny_npz, "--run-dir", run_dir, "--epochs", 1, "--network", "book")
    fit, stop = augmented.train, {"on": True}

    def interrupt_second(network, datagen, *rest):
        if datagen is not None and stop["on"]:
            raise KeyboardInterrupt
        return fit(network, datagen, *rest)

    monkeypatch.setattr(augmented, "train", interrupt_second)
    with pytest.raises(SystemExit) as end:
        run_main(augmented, monkeypatch, *arguments)
    assert "goes on" in str(end.value) and not (run_dir / "metrics.json").exists()
    stop["on"] = False
    written = (run_dir / "without" / "model.keras").stat().st_mtime_ns
    run_main(augmented, monkeypatch, *arguments)
    assert "Finished before the interruption" in capsys.readouterr().out
    assert (run_dir / "without" / "model.keras").stat().st_mtime_ns == written
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["without_augmentation"]["seconds"] is None and metrics["seconds"] > 0


def test_bad_input_as_a_user_sees_it(run_script, tmp_path):
    (tmp_path / "bad.npz").write_text("this is not an archive")
    result = run_script(SCRIPT, "--data", "bad.npz", cwd=tmp_path)
    assert_clear_error(result, "bad.npz", "not a readable .npz")
    assert not (tmp_path / "runs").exists()


def test_evaluate_without_a_model(augmented, monkeypatch, capsys, tmp_path, tiny_npz):
    with pytest.raises(SystemExit) as stop:
        run_main(
            augmented, monkeypatch, "--data", tiny_npz, "--run-dir", tmp_path / "no", "--evaluate"
        )
    assert stop.value.code == 2 and "train first" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--network", "best"]])
def test_bad_arguments(augmented, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["cnn_cifar10_augmented.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        augmented.parse_arguments()
    assert stop.value.code == 2 and arguments[0].strip("-") in capsys.readouterr().err


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in the augmented training; the same command goes on from its last epoch."""
    run_dir = tmp_path / "run"
    np.savez(tmp_path / "set.npz", **tiny_set(train=640, size=20))
    arguments = ("--data", tmp_path / "set.npz", "--epochs", 7, "--run-dir", run_dir)
    arguments = [*map(str, arguments), "--batch-size", "8"]
    kill_in_training(SCRIPT, arguments, run_dir / "backup", after_epoch=2)
    assert (run_dir / "without" / "finished.json").exists()

    result = run_script(SCRIPT, *arguments)
    assert result.returncode == 0, result.stderr
    assert "Finished before the interruption" in result.stdout
    assert "Resuming the interrupted run" in result.stdout
    assert "Epoch 7/7" in result.stdout and "Epoch 1/7" not in result.stdout
    for folder in (run_dir, run_dir / "without"):
        history = pd.read_csv(folder / "history.csv").drop_duplicates("epoch", keep="last")
        assert list(history["epoch"]) == list(range(7))
        # It learned on: weights and optimizer came back, not a fresh network.
        assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0]
    best = pd.read_csv(run_dir / "history.csv")["val_accuracy"].max()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None
    assert metrics["val"]["accuracy"] == pytest.approx(best)


@pytest.mark.slow
def test_better_network_learns_on_the_sample(run_script, tmp_path):
    """As a user runs it; far past chance (0.10) and past logistic regression."""
    result = run_script(
        SCRIPT,
        "--data", "sample", "--network", "better", "--epochs", 7, "--batch-size", 32,
        "--run-dir", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["network"] == "better" and "stand-in" in metrics["data"]
    assert metrics["test"]["accuracy"] > metrics["baselines"]["logistic_regression_accuracy"] + 0.1


@pytest.mark.slow
def test_jax_backend(run_script, tmp_path, tiny_npz):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        SCRIPT,
        "--data", tiny_npz, "--epochs", 2, "--run-dir", tmp_path / "run",
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"
