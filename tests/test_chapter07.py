"""Chapter 7: the CNN, its readers, its bad inputs, resume after a kill, other backends."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script
from PIL import Image

SCRIPT = "chapter07/cnn_cifar10.py"
PICTURES = ("learning_curves.png", "confusion_matrix.png", "mistakes.png")


@pytest.fixture(scope="module")
def cnn():
    return load_script(SCRIPT)


def tiny_set(train=64, test=17, size=12, channels=3, classes=2):
    """Arrays of an .npz whose classes differ in brightness; 17 test images split unevenly."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", train), ("test", test)):
        y = np.arange(n) % classes
        x = (
            rng.integers(0, 100, (n, size, size, channels))
            + 150 * y[:, None, None, None] // classes
        )
        arrays |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y.astype("uint8")[:, None]}
    return arrays


@pytest.fixture
def tiny_npz(tmp_path):
    path = tmp_path / "tiny.npz"
    np.savez(path, **tiny_set())
    return path


def test_network_is_the_books(cnn):
    model = cnn.build_network()
    # 1,792 parameters in the first convolution and 1,152 flattened values: the book's arithmetic.
    assert model.get_layer("conv_1").count_params() == 3 * 3 * 3 * 64 + 64 == 1792
    assert model.get_layer("pool_2").output.shape == (None, 6, 6, 32)
    assert model.get_layer("flatten").output.shape == (None, 1152)
    assert model.count_params() == 744_874
    names = [layer.name for layer in model.layers if layer.weights]
    assert names == ["conv_1", "batch_norm_1", "conv_2", "batch_norm_2", "fc1", "fc2", "softmax"]
    assert model.get_layer("dropout1").rate == model.get_layer("dropout2").rate == 0.2


def test_fused_batch_normalization_equals_kerass(cnn):
    """Outputs, gradients and running statistics, in training and in use."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow needs the fused op")
    import tensorflow as tf

    x = tf.constant(np.random.default_rng(0).normal(3, 2, (4, 5, 5, 6)).astype("float32"))
    results = []
    for fuse in (lambda layer: layer, cnn.fuse):
        layer = fuse(keras.layers.BatchNormalization())
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(-1, 2, 6))
        layer.beta.assign(np.linspace(1, 0, 6))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**3)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        results.append([y, *gradients, *layer.get_weights()])
    for plain, fused in zip(*results, strict=True):
        # Sums of large terms of both signs: rounding is relative to the terms, not to the sum.
        np.testing.assert_allclose(fused, plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())
    np.testing.assert_allclose(results[1][-1], results[0][-1], rtol=1e-6)  # running variance


def test_sample_has_the_real_sets_format(cnn):
    data = cnn.load_data("sample")
    assert data["train_X"].shape[1:] == (32, 32, 3) and data["train_X"].dtype == np.uint8
    assert data["class_names"][3] == "cat" and len(data["class_names"]) == 10
    assert set(data["val_y"]) == set(data["test_y"]) == set(range(10))
    assert abs(len(data["val_y"]) - len(data["test_y"])) <= 1


def test_npz_test_half_is_split_without_overlap(cnn, tmp_path):
    arrays = tiny_set(test=40)
    arrays["x_test"][:, 0, 0, 0] = np.arange(40)  # a mark on each image
    arrays["y_test"] = np.sort(arrays["y_test"], axis=0)  # a file sorted by class
    np.savez(tmp_path / "sorted.npz", **arrays)
    data = cnn.load_data(tmp_path / "sorted.npz")
    marks = np.concatenate([data["val_X"], data["test_X"]])[:, 0, 0, 0]
    assert sorted(marks) == list(range(40)) and len(data["val_X"]) == 20
    assert set(data["val_y"]) == set(data["test_y"]) == {0, 1}
    # the labels still belong to their images
    assert np.array_equal(data["test_y"], arrays["y_test"][data["test_X"][:, 0, 0, 0], 0])


def test_folder_of_own_images(cnn, tmp_path):
    """Any size, mode and suffix; every image in one set only; the split is stratified."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ants", "bees", "crickets")):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 255, (20 + i, 31, 4), dtype="uint8")
            pixels[..., label] = 255
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.PNG")
        Image.fromarray(pixels[..., 0]).convert("L").save(tmp_path / name / "grey.jpg")
    (tmp_path / "ants" / "notes.txt").write_text("not an image, left out")
    data = cnn.load_data(tmp_path, image_size=16)
    assert data["class_names"] == ["ants", "bees", "crickets"]
    images = np.concatenate([data[f"{part}_X"] for part in ("train", "val", "test")])
    assert images.shape == (33, 16, 16, 3)
    assert len(np.unique(images.reshape(33, -1), axis=0)) == 33
    for part in ("train", "val", "test"):
        assert set(data[f"{part}_y"]) == {0, 1, 2}


def write_text_npz(folder):
    (folder / "bad.npz").write_text("this is not an archive")
    return folder / "bad.npz"


def write_pickle_npz(folder):
    hostile = np.array([{"would": "unpickle"}], dtype=object)
    np.savez(folder / "bad.npz", **(tiny_set() | {"x_train": hostile}))
    return folder / "bad.npz"


def write_changed_npz(**change):
    def write(folder):
        arrays = {k: v for k, v in (tiny_set() | change).items() if v is not None}
        np.savez(folder / "bad.npz", **arrays)
        return folder / "bad.npz"

    return write


def write_bad_image(folder):
    for name in ("a", "b"):
        (folder / "set" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (12, 12)).save(folder / "set" / name / f"{i}.png")
    (folder / "set" / "b" / "3.png").write_bytes(b"\x89PNG then nothing")
    return folder / "set"


def write_empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def truncate_npz(folder):
    np.savez(folder / "bad.npz", **tiny_set())
    whole = (folder / "bad.npz").read_bytes()
    (folder / "bad.npz").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.npz"


GREY = np.zeros((64, 12, 12), "uint8")
OTHER_SIZE = np.zeros((17, 16, 16, 3), "uint8")
BAD_INPUT = {
    "missing path": (lambda folder: folder / "nowhere.npz", "does not exist"),
    "empty folder": (write_empty_folder, "0 class folders"),
    "text named .npz": (write_text_npz, "not a readable .npz"),
    "truncated": (truncate_npz, "not a readable .npz"),
    "pickle": (write_pickle_npz, "not a readable .npz"),
    "missing key": (write_changed_npz(y_test=None), "y_test missing"),
    "grey without channel axis": (write_changed_npz(x_train=GREY), "x_train is"),
    "float images": (write_changed_npz(x_test=np.zeros((17, 12, 12, 3))), "x_test is float64"),
    "too few labels": (write_changed_npz(y_train=np.zeros(9, "uint8")), "y_train is"),
    "other size in test": (write_changed_npz(x_test=OTHER_SIZE), "test images"),
    "too small": (
        write_changed_npz(
            x_train=np.zeros((64, 8, 8, 3), "uint8"), x_test=np.zeros((17, 8, 8, 3), "uint8")
        ),
        "needs 10",
    ),
    "negative label": (write_changed_npz(y_train=np.arange(64) % 2 - 1), "from -1"),
    "label without training image": (write_changed_npz(y_test=np.full(17, 255)), "255"),
    "one class": (write_changed_npz(y_train=np.zeros(64, int)), "two classes"),
    "damaged image": (write_bad_image, "3.png"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused(cnn, tmp_path, monkeypatch, capsys, case):
    """Status 2, one message that names the trouble, and nothing written."""
    write, words = BAD_INPUT[case]
    run_dir = tmp_path / "run"
    arguments = ["cnn_cifar10.py", "--data", str(write(tmp_path)), "--run-dir", str(run_dir)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        cnn.main()
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and words in errors[0]
    assert not run_dir.exists()


def test_bad_input_as_a_user_sees_it(run_script, tmp_path):
    result = run_script(SCRIPT, "--data", write_pickle_npz(tmp_path), cwd=tmp_path)
    assert_clear_error(result, "bad.npz", "not a readable .npz")
    assert not (tmp_path / "runs").exists()


def test_without_network_the_message_says_what_works(run_script, tmp_path):
    """An empty Keras cache and a proxy that answers nothing stand for a machine without network."""
    start = time.monotonic()
    result = run_script(
        SCRIPT,
        "--run-dir", tmp_path / "run",
        env={"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""},
    )  # fmt: skip
    assert_clear_error(result, "--data sample", "data/fetch.py cifar10")
    assert time.monotonic() - start < 30
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--epochs", "0"], ["--batch-size", "3", "--num-gpus", "2"], ["--image-size", "9"]],
)
def test_bad_arguments(cnn, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["cnn_cifar10.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        cnn.parse_arguments()
    assert stop.value.code == 2
    assert arguments[0].strip("-") in capsys.readouterr().err


def test_more_devices_than_there_are(run_script, tmp_path, tiny_npz):
    result = run_script(
        SCRIPT, "--data", tiny_npz, "--num-gpus", "4", "--run-dir", tmp_path / "run"
    )
    assert_clear_error(result, "this machine has 1")


def test_trains_evaluates_and_resumes_nothing_when_done(run_script, tmp_path, tiny_npz):
    """Two epochs from another folder, then --evaluate in a fresh process."""
    run_dir = tmp_path / "run"
    arguments = ("--data", tiny_npz, "--run-dir", run_dir, "--batch-size", 8)
    result = run_script(SCRIPT, *arguments, "--epochs", 2, cwd=ROOT / "chapter07")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and metrics["parameters"] > 100_000
    assert metrics["baselines"]["logistic_regression_accuracy"] == 1  # bright against dark
    assert {"accuracy", "loss"} <= metrics["test"].keys()
    assert not (run_dir / "backup").exists()
    assert list((run_dir / "tb").rglob("events.out.*"))
    for name in PICTURES:
        Image.open(run_dir / name).verify()

    for name in PICTURES:
        (run_dir / name).unlink()
    before = (run_dir / "metrics.json").read_text()
    result = run_script(SCRIPT, *arguments, "--evaluate")
    assert result.returncode == 0, result.stderr
    assert f"test accuracy {metrics['test']['accuracy']:.4f}" in result.stdout
    assert (run_dir / "confusion_matrix.png").exists()
    assert (run_dir / "metrics.json").read_text() == before


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 damaged"])
def test_evaluate_without_a_usable_model(cnn, tmp_path, content):
    if content is not None:
        (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises((OSError, ValueError), match="train"):
        cnn.load_best_model(tmp_path, cnn.load_data("sample"))


def test_evaluate_on_other_data_than_trained_on(cnn, tmp_path):
    cnn.build_network(input_shape=(12, 12, 3), num_classes=2).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="other data"):
        cnn.load_best_model(tmp_path, cnn.load_data("sample"))


def test_best_so_far_survives_a_restart(cnn, tmp_path):
    """The first epoch after a restart must not replace a better one from before."""
    (tmp_path / "history.csv").write_text("epoch,val_accuracy\n0,0.5\n1,0.75\n2,0.6\n")
    cnn.build_network().save(tmp_path / "model.keras")

    def threshold(resuming):
        callbacks = cnn.create_callbacks(tmp_path, resuming)
        return next(c.best for c in callbacks if hasattr(c, "best"))

    assert threshold(resuming=True) == 0.75
    assert threshold(resuming=False) in (None, -np.inf)
    (tmp_path / "model.keras").write_bytes(b"half-written")
    assert threshold(resuming=True) in (None, -np.inf)


def test_backup_of_other_settings_is_not_resumed(cnn, tmp_path, capsys):
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "training_metadata.json").write_text('{"epoch": 3}')
    (tmp_path / "settings.json").write_text('{"seed": 1}')
    assert cnn.interrupted_run(tmp_path, {"seed": 1}) and "after epoch 3" in capsys.readouterr().out
    assert not cnn.interrupted_run(tmp_path, {"seed": 2})
    assert "other settings" in capsys.readouterr().out and not backup.exists()


@pytest.mark.parametrize("left", ["", '{"epoch": 3, "ba'])
def test_kill_while_keras_counts_the_epochs(cnn, tmp_path, capsys, left):
    """An empty or cut training_metadata.json: the backup of the epoch before takes over."""
    backup = tmp_path / "backup"
    backup.mkdir()
    (tmp_path / "settings.json").write_text('{"seed": 1}')
    (backup / "training_metadata.json").write_text(left)
    (backup / "latest.weights.h5").write_text("after epoch 3")
    (backup / "training_metadata.json.bkp").write_text('{"epoch": 2}')
    (backup / "latest.weights.h5.bkp").write_text("after epoch 2")
    assert cnn.interrupted_run(tmp_path, {"seed": 1}) and "after epoch 2" in capsys.readouterr().out
    assert json.loads((backup / "training_metadata.json").read_text()) == {"epoch": 2}
    assert (backup / "latest.weights.h5").read_text() == "after epoch 2"

    for file in backup.glob("*.bkp"):  # killed in the first epoch: nothing to go on from
        file.unlink()
    (backup / "training_metadata.json").write_text(left)
    assert not cnn.interrupted_run(tmp_path, {"seed": 1}) and not backup.exists()


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training; the same command goes on from the last finished epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--epochs", "4", "--run-dir", str(run_dir))
    done = kill_in_training(SCRIPT, arguments, run_dir / "backup", after_epoch=2)
    best_before = pd.read_csv(run_dir / "history.csv")["val_accuracy"][:done].max()

    result = run_script(SCRIPT, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}" in result.stdout
    assert f"Epoch {done + 1}/4" in result.stdout and f"Epoch {done}/4" not in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == [0, 1, 2, 3]
    # It learned on: the optimizer and the weights came back, not a fresh network.
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None
    assert metrics["val"]["accuracy"] >= best_before - 1e-6


@pytest.mark.slow
def test_learns_on_the_sample(run_script, tmp_path):
    """Well past chance (0.10) and past logistic regression."""
    result = run_script(SCRIPT, "--data", "sample", "--epochs", 10, "--run-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "stand-in" in metrics["data"]
    assert metrics["test"]["accuracy"] > 0.5
    assert metrics["test"]["accuracy"] > metrics["baselines"]["logistic_regression_accuracy"] + 0.1


@pytest.mark.slow
def test_two_tensorflow_devices(tmp_path, tiny_npz):
    """--num-gpus 2 on two logical CPU devices under MirroredStrategy."""
    program = (
        "import runpy, sys, tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    arguments = [
        "--data",
        tiny_npz,
        "--num-gpus",
        "2",
        "--epochs",
        "2",
        "--run-dir",
        tmp_path / "run",
    ]
    result = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "device: cpu:0, cpu:1" in result.stdout
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_jax_backend(run_script, tmp_path, tiny_npz, devices):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    source = "sample" if devices == 1 else tiny_npz
    env = {"KERAS_BACKEND": "jax"}
    if devices > 1:
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    result = run_script(
        SCRIPT,
        "--data", source, "--epochs", 1, "--num-gpus", devices, "--run-dir", tmp_path / "run",
        env=env,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"


@pytest.mark.slow
def test_mixed_precision(run_script, tmp_path, tiny_npz):
    result = run_script(
        SCRIPT,
        "--data",
        tiny_npz,
        "--epochs",
        1,
        "--mixed-precision",
        "--run-dir",
        tmp_path / "run",
    )
    assert result.returncode == 0, result.stderr
    assert "mixed" in (tmp_path / "run" / "settings.json").read_text()


@pytest.mark.slow
def test_real_cifar10_beats_logistic_regression_in_one_epoch(cnn, real_data_dir):
    """One epoch on real photographs; logistic regression stays at 0.405 (chapter07/README.md)."""
    import keras

    keras.utils.set_random_seed(1)
    data = cnn.load_data(real_data_dir / "cifar10.npz")
    assert [len(data[f"{part}_X"]) for part in ("train", "val", "test")] == [50_000, 5_000, 5_000]
    model = cnn.build_network()
    model.fit(data["train_X"], data["train_y"], batch_size=32, verbose=0)
    assert cnn.evaluate(model, data, "val")["accuracy"] > 0.405
