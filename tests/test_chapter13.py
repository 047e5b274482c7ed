"""Chapter 13: who learns from which loss, grids, measures with known answers, resuming."""

import json
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training
from PIL import Image

MNIST = "chapter13/gan_mnist.py"
CIFAR10 = "chapter13/gan_cifar10.py"
EVALUATE = "chapter13/evaluate_gan.py"
GENERATE = "chapter13/generate.py"
NAMES = ("gan_mnist", "gan_cifar10", "evaluate_gan", "generate", "how_gans_fail")


@pytest.fixture(scope="module")
def chapter():
    """The scripts, which find each other as if started from the command line."""
    folder = str(ROOT / "chapter13")
    sys.path.insert(0, folder)
    try:
        import evaluate_gan
        import gan_cifar10
        import gan_mnist
        import generate
        import how_gans_fail

        yield SimpleNamespace(
            mnist=gan_mnist,
            cifar10=gan_cifar10,
            evaluate=evaluate_gan,
            generate=generate,
            fail=how_gans_fail,
        )
    finally:
        sys.path.remove(folder)
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture
def gan(chapter):
    """A GAN for images of 16 x 16, compiled."""
    keras.utils.set_random_seed(0)
    shape = (16, 16, 1)
    networks = chapter.mnist.build_generator(shape), chapter.mnist.build_discriminator(shape)
    gan = chapter.mnist.GAN(*networks, seed=1)
    gan.compile()
    return gan


def images(number=8, side=16):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (number, side, side, 1)).astype("uint8")


def weights(network):
    return [np.array(weight) for weight in network.weights]


def changed(before, network):
    """Names of the weights that have moved."""
    return {
        weight.path
        for old, weight in zip(before, network.weights, strict=True)
        if not np.array_equal(old, weight)
    }


# --- networks ---------------------------------------------------------------------------------


def test_networks_are_the_books(chapter):
    """Layer for layer: parameters by hand, sizes on the way, MNIST's padding and CIFAR's lack."""
    generator, discriminator = chapter.mnist.build_generator(), chapter.mnist.build_discriminator()
    conv1, conv2, conv3 = 9 * 128 * 128 + 128, 9 * 128 * 64 + 64, 9 * 64 * 1 + 1
    assert generator.count_params() == 101 * 6272 + conv1 + conv2 + conv3 + 4 * (128 + 128 + 64)
    assert generator.output_shape == (None, 28, 28, 1)
    assert discriminator.get_layer("pad").output.shape[1:] == (8, 8, 64)
    convs = 10 * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + (9 * 128 + 1) * 256
    assert discriminator.count_params() == convs + 4 * (64 + 128) + 4 * 4 * 256 + 1
    slopes = {x.negative_slope for x in discriminator.layers if x.name.startswith("leaky")}
    assert slopes == {0.2}

    assert chapter.cifar10.build_generator().output_shape == (None, 32, 32, 3)
    names = {layer.name for layer in chapter.cifar10.build_discriminator().layers}
    assert "pad" not in names and "conv4" in names


def test_stacked_model_trains_the_generator_alone(chapter, gan):
    stacked = chapter.mnist.build_stacked_model(gan.generator, gan.discriminator)
    assert len(stacked.trainable_weights) == len(gan.generator.trainable_weights)


def test_the_books_order_never_trains_the_discriminator(chapter, gan):
    """Frozen for the stacked model, it stays as it is; thawed and compiled anew it trains."""
    gan.discriminator.compile(chapter.mnist.create_optimizer(), "binary_crossentropy")
    chapter.mnist.build_stacked_model(gan.generator, gan.discriminator)
    before = weights(gan.discriminator)
    batch = chapter.mnist.scale(images()), np.ones((8, 1))
    gan.discriminator.train_on_batch(*batch)
    assert changed(before, gan.discriminator) == set()
    gan.discriminator.trainable = True
    gan.discriminator.compile(chapter.mnist.create_optimizer(), "binary_crossentropy")
    gan.discriminator.train_on_batch(*batch)
    assert "conv1/kernel" in changed(before, gan.discriminator)


# --- one step ---------------------------------------------------------------------------------


def test_step_moves_both_networks(chapter, gan):
    """All trainable weights and all running statistics of both networks move in one step."""
    before = weights(gan.generator), weights(gan.discriminator)
    gan.fit(chapter.mnist.HalfBatches(images(), 8, 0), epochs=1, verbose=0)
    assert changed(before[0], gan.generator) == {w.path for w in gan.generator.weights}
    # Adam's first step does not move what has no gradient: every bias here has one.
    assert changed(before[1], gan.discriminator) == {w.path for w in gan.discriminator.weights}
    assert int(gan.g_optimizer.iterations) == 1 and int(gan.d_optimizer.iterations) == 2


def test_each_update_leaves_the_other_alone(chapter, gan):
    """Bit for bit, running statistics included."""
    generator, discriminator = weights(gan.generator), weights(gan.discriminator)
    gan.update_discriminator(chapter.mnist.scale(images()), True, 10)
    assert changed(generator, gan.generator) == set()
    assert changed(discriminator, gan.discriminator)
    discriminator = weights(gan.discriminator)
    gan.update_generator(8)
    assert changed(discriminator, gan.discriminator) == set()
    assert changed(generator, gan.generator) == {w.path for w in gan.generator.weights}


def test_images_for_the_discriminator_leave_the_generator_alone(chapter, gan):
    before = weights(gan.generator)
    noise = np.random.default_rng(0).normal(size=(4, 100)).astype("float32")
    made = chapter.mnist.without_traces(gan.generator, noise)
    assert changed(before, gan.generator) == set()
    np.testing.assert_allclose(made, gan.generator(noise, training=True), atol=1e-5)


def test_discriminator_learns_what_is_real(chapter, gan):
    """White images against the generator's grey ones: after 30 steps it tells them apart."""
    white = np.full((16, 16, 16, 1), 255, "uint8")
    gan.fit(chapter.mnist.HalfBatches(white.repeat(15, axis=0), 8, 0), epochs=1, verbose=0)
    noise = np.random.default_rng(0).normal(size=(16, 100)).astype("float32")
    real = gan.discriminator(chapter.mnist.scale(white), training=True)
    fake = gan.discriminator(gan.generator(noise), training=True)
    assert float(np.mean(real)) > float(np.mean(fake)) + 0.2


def test_labels(gan):
    assert np.array(gan.labels(True, 5, 0)).tolist() == [[1.0]] * 5
    gan.soft_labels = True
    real, fake = np.array(gan.labels(True, 500, 0)), np.array(gan.labels(False, 500, 0))
    assert 0.7 <= real.min() < 0.75 and 0.95 < real.max() <= 1
    assert 0 <= fake.min() < 0.05 and 0.25 < fake.max() <= 0.3
    gan.soft_labels, gan.label_noise = False, 0.25
    assert 0.18 < 1 - np.mean(gan.labels(True, 1000, 0)) < 0.32


def test_noise_depends_on_seed_and_step_alone(chapter, gan):
    first = np.array(gan.random(0, (3, 2)))
    np.testing.assert_array_equal(first, gan.random(0, (3, 2)))
    assert not np.array_equal(first, gan.random(1, (3, 2)))
    gan.g_optimizer.iterations.assign(1)
    assert not np.array_equal(first, gan.random(0, (3, 2)))


def test_half_batches(chapter):
    """An epoch takes half of the images, none twice; the next epoch takes others."""
    X = np.arange(64, dtype="uint8").reshape(64, 1, 1, 1).repeat(2, axis=1).repeat(2, axis=2)
    batches = chapter.mnist.HalfBatches(X, 8, seed=3)
    seen = [np.concatenate([batches[i][0] for i in range(len(batches))])[:, 0, 0, 0]]
    assert len(batches) == 8 and len(seen[0]) == len(set(seen[0])) == 32
    batches.on_epoch_end()
    assert not np.array_equal(
        seen[0], np.concatenate([batches[i][0] for i in range(8)])[:, 0, 0, 0]
    )
    resumed = chapter.mnist.HalfBatches(X, 8, seed=3, epoch=1)
    np.testing.assert_array_equal(batches[0][0], resumed[0][0])


def test_no_number_stops_and_keeps_the_networks(chapter, gan, tmp_path):
    """A generator that gives NaN: an error names the step; the epoch before stays on disk."""
    batches = chapter.mnist.HalfBatches(images(16), 8, 0)
    callbacks = chapter.mnist.create_callbacks(tmp_path, 1)
    gan.fit(batches, epochs=1, callbacks=callbacks, verbose=0)
    good = keras.models.load_model(tmp_path / "generator.keras").get_weights()
    gan.generator.get_layer("conv3").bias.assign([np.nan])
    with pytest.raises(FloatingPointError, match="step 1: a loss is no number"):
        gan.fit(batches, epochs=1, callbacks=chapter.mnist.create_callbacks(tmp_path, 1), verbose=0)
    kept = keras.models.load_model(tmp_path / "generator.keras").get_weights()
    for one, other in zip(good, kept, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(other).all()


# --- pictures ---------------------------------------------------------------------------------


def test_grid(chapter):
    """Five columns, white frames; -1 is black and 1 is white."""
    shades = np.linspace(-1, 1, 10).reshape(10, 1, 1, 1) * np.ones((1, 4, 4, 1))
    grid = chapter.mnist.make_grid(shades, zoom=1)
    assert grid.size == (5 * 8, 2 * 8) and grid.mode == "L"
    assert grid.getpixel((3, 3)) == 0 and grid.getpixel((35, 11)) == 255
    assert grid.getpixel((0, 0)) == 255
    seven = chapter.mnist.make_grid(shades[:7], zoom=1)  # no image is left out
    assert seven.size == grid.size and seven.getpixel((11, 11)) > 0 == grid.getpixel((3, 3))
    assert seven.getpixel((35, 11)) == 255


def test_walk_stays_on_the_sphere(chapter):
    corners = np.random.default_rng(0).normal(size=(3, 100))
    corners *= 10 / np.linalg.norm(corners, axis=1, keepdims=True)
    noise = chapter.generate.walk_noise(corners, steps=4)
    np.testing.assert_allclose(noise[::4], corners, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 10, rtol=1e-5)


# --- measures ---------------------------------------------------------------------------------


def test_frechet_distance(chapter):
    """By hand: shifted by 3 in one direction 9; twice as wide in d directions d (2 - 1)²."""
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    assert chapter.evaluate.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert chapter.evaluate.frechet_distance(x, x + [3, 0, 0]) == pytest.approx(9, abs=1e-6)
    assert chapter.evaluate.frechet_distance(x, 2 * x) == pytest.approx(3, abs=1e-6)


def test_judge_sees_a_collapse(chapter):
    """A classifier that reads the class off a pixel: all classes alike, or one class alone."""
    inputs = keras.Input((16, 16, 1))
    pixel = keras.layers.Lambda(lambda x: x[:, 0, 0, 0:1] * 10, output_shape=(1,))(inputs)
    features = keras.layers.Concatenate(name="features")([pixel, -pixel])
    centres = keras.ops.arange(10, dtype="float32")[None]
    outputs = keras.layers.Softmax()(-50 * (features[:, :1] - centres) ** 2)
    classifier = keras.Model(inputs, outputs)
    every = (np.arange(200) % 10 / 10).astype("float32").reshape(200, 1, 1, 1) * np.ones(
        (1, 16, 16, 1)
    )
    judge = chapter.evaluate.Judge(classifier, every)
    assert judge.floor == pytest.approx(0, abs=1e-3)
    fair = judge.measure(every)
    assert fair["classes"] == 10 and fair["entropy"] == pytest.approx(1) and not fair["collapsed"]
    assert fair["sure"] == 1 and fair["frechet"] == pytest.approx(0, abs=0.1)
    one = judge.measure(np.full_like(every, 0.3))
    assert one["classes"] == 1 and one["entropy"] == pytest.approx(0, abs=1e-6)
    assert one["collapsed"] and one["frechet"] > 10 and one["histogram"][3] == 1


def test_verdicts(chapter):
    judge = chapter.fail.judge_training
    assert judge({"collapsed": False}, 0.6) == "healthy"
    assert judge({"collapsed": True}, 0.6) == "mode collapse"
    assert judge({"collapsed": False}, 0.999) == "discriminator too strong"
    assert judge({"collapsed": True}, 1.0) == "mode collapse and discriminator too strong"


# --- data -------------------------------------------------------------------------------------


def test_samples(chapter):
    digits = chapter.mnist.load_data("sample")
    assert digits["train_X"].shape[1:] == (28, 28, 1) and len(digits["train_X"]) == 4000
    photographs = chapter.cifar10.load_data("sample")
    assert photographs["train_X"].shape[1:] == (32, 32, 3)
    scaled = chapter.mnist.scale(np.uint8([0, 255]))
    assert scaled.tolist() == [-1, 1] and scaled.dtype == np.float32


def test_folder_of_images(chapter, tmp_path):
    for number in range(64):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    X = chapter.mnist.load_data(tmp_path)["train_X"]
    assert X.shape == (64, 16, 16, 3) and X[5, 0, 0].tolist() == [5, 0, 0]
    Image.new("RGB", (20, 16)).save(tmp_path / "99.png")
    with pytest.raises(ValueError, match=r"99.png has the shape \(16, 20, 3\)"):
        chapter.mnist.load_data(tmp_path)
    (tmp_path / "99.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="99.png is not a readable image"):
        chapter.mnist.load_data(tmp_path)


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"x_test": images()}, "x_train missing"),
        ({"x_train": images(64).astype("float32")}, "is float32"),
        ({"x_train": images(64, side=18)}, "multiple of 4"),
        ({"x_train": images(64, side=8)}, "16 or more"),
        ({"x_train": images(64)[:, :, :12]}, "16 x 12 pixels"),
        ({"x_train": images(10)}, "64 or"),
        ({"x_train": images(64), "y_train": np.arange(3)}, "one whole number for each"),
    ],
)
def test_bad_arrays(chapter, tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        chapter.mnist.load_data(tmp_path / "bad.npz")


def run_main(module, monkeypatch, capsys, *args):
    """`main()` in this process, ended by SystemExit; returns what `assert_clear_error` needs."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        module.main()
    streams = capsys.readouterr()
    return SimpleNamespace(returncode=stop.value.code, stdout=streams.out, stderr=streams.err)


def test_bad_files_are_named(chapter, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    missing = ("--data", tmp_path / "none.npz", "--run-dir", run_dir)
    assert_clear_error(run_main(chapter.mnist, monkeypatch, capsys, *missing), "does not exist")
    np.savez(tmp_path / "pickle.npz", x_train=np.array([{}], dtype=object))
    pickled = ("--data", tmp_path / "pickle.npz", "--run-dir", run_dir)
    assert_clear_error(run_main(chapter.cifar10, monkeypatch, capsys, *pickled), "plain arrays")
    assert not run_dir.exists()
    for module in (chapter.evaluate, chapter.generate):
        result = run_main(module, monkeypatch, capsys, "--run-dir", run_dir)
        assert_clear_error(result, "train first")
    run_dir.mkdir()
    chapter.mnist.build_discriminator((16, 16, 1)).save(run_dir / "generator.keras")
    result = run_main(chapter.generate, monkeypatch, capsys, "--run-dir", run_dir)
    assert_clear_error(result, "a generator turns")
    (run_dir / "generator.keras").write_bytes(b"PK no model")
    result = run_main(chapter.generate, monkeypatch, capsys, "--run-dir", run_dir)
    assert_clear_error(result, "cannot be loaded")


# --- whole runs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """200 small images of two classes: left half white, or right half."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = rng.integers(0, 60, (400, 16, 16)).astype("uint8")
    for image, label in zip(X, y, strict=True):
        image[:, 8 * label : 8 * label + 8] = 255
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    np.savez(path, x_train=X[:200], y_train=y[:200], x_test=X[200:], y_test=y[200:])
    return path


@pytest.mark.slow
def test_train_evaluate_generate(run_script, tiny, tmp_path):
    """Files of a run, and what the other two scripts make of them."""
    run_dir = tmp_path / "run"
    options = ("--epochs", 2, "--save-every", 5, "--soft-labels", "--dropout-generator", 0.2)
    result = run_script(MNIST, "--data", tiny, "--run-dir", run_dir, *options)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["steps"] == 12 and metrics["seconds"] > 0
    steps = [int(p.stem[-6:]) for p in sorted((run_dir / "images").iterdir())]
    assert steps == [1, 5, 10]
    assert [int(p.stem[-6:]) for p in sorted((run_dir / "moments").iterdir())] == [1, 6, 12]
    with Image.open(run_dir / "training.gif") as film:
        assert film.n_frames == 3
    assert list((run_dir / "tb").rglob("events*")) and not (run_dir / "backup").exists()

    result = run_script(EVALUATE, "--run-dir", run_dir)
    assert result.returncode == 0, result.stderr
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["classifier_accuracy"] > 0.95
    assert [moment["step"] for moment in evaluation["moments"]] == [1, 6, 12]
    assert evaluation["moments"][-1]["frechet"] > evaluation["frechet_floor"] >= 0
    assert {"measures.png", "nearest.png"} <= {path.name for path in run_dir.iterdir()}

    result = run_script(GENERATE, "--run-dir", run_dir, "--walk", 2)
    assert result.returncode == 0, result.stderr
    with Image.open(run_dir / "walk.gif") as film:
        assert film.n_frames > 10
    result = run_script(
        GENERATE, "--run-dir", run_dir, "--count", 7, "--output", tmp_path / "g.png"
    )
    assert result.returncode == 0 and (tmp_path / "g.png").exists(), result.stderr


@pytest.mark.slow
def test_learns_on_the_shipped_digits(run_script, tmp_path):
    """One epoch of the sample's real digits: nearer to them, neither network has won."""
    run_dir = tmp_path / "run"
    result = run_script(MNIST, "--data", "sample", "--epochs", 1, "--run-dir", run_dir)
    assert result.returncode == 0, result.stderr
    last = json.loads((run_dir / "metrics.json").read_text())["last"]
    assert 0.5 < last["d_accuracy"] < 0.9 and last["g_loss"] < 3, last
    result = run_script(EVALUATE, "--run-dir", run_dir)  # finds the sample by itself
    assert result.returncode == 0, result.stderr
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["classifier_accuracy"] > 0.9
    first, *_, end = evaluation["moments"]
    assert end["frechet"] < first["frechet"] / 2, (first, end)
    assert end["entropy"] > 0.5 and end["mean_top_probability"] > 0.5, end


@pytest.mark.slow
def test_failures_from_the_command_line(run_script, tiny, tmp_path):
    """A few batches of each training: measures of all three, and a picture."""
    run_dir = tmp_path / "run"
    script = "chapter13/how_gans_fail.py"
    result = run_script(script, "--data", tiny, "--run-dir", run_dir, "--steps", 3)
    assert result.returncode == 0, result.stderr
    trainings = json.loads((run_dir / "metrics.json").read_text())["trainings"]
    assert list(trainings) == ["collapse", "overpowered", "mended"]
    for name, measures in trainings.items():
        assert sum(measures["histogram"]) == pytest.approx(1) and measures["frechet"] > 0
        assert (run_dir / f"{name}.png").exists()
    assert (run_dir / "classes.png").stat().st_size > 3000


@pytest.mark.slow
def test_cifar10_script(run_script, tmp_path):
    run_dir = tmp_path / "run"
    options = ("--epochs", 1, "--batch-size", 200, "--save-every", 4)
    result = run_script(CIFAR10, "--data", "sample", "--run-dir", run_dir, *options)
    assert result.returncode == 0, result.stderr
    with Image.open(sorted((run_dir / "images").iterdir())[-1]) as grid:
        assert grid.mode == "RGB" and grid.size[0] == 5 * 36 * 3


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tiny, tmp_path):
    """kill -9, then the same command: epochs go on, as do noise and both optimizers."""
    run_dir = tmp_path / "run"
    args = ("--data", tiny, "--run-dir", run_dir, "--epochs", 9, "--save-every", 3)
    done = kill_in_training(MNIST, args, run_dir / "backup", after_epoch=2)
    result = run_script(MNIST, *args)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}." in result.stdout
    assert json.loads((run_dir / "metrics.json").read_text())["seconds"] is None
    losses = np.loadtxt(run_dir / "losses.csv", delimiter=",", skiprows=1)[:, 0]
    assert losses[-1] == 54 and (np.diff(losses) > 0).all()


@pytest.mark.slow
def test_backend_is_named(run_script, tmp_path):
    env = {"KERAS_BACKEND": "jax"}
    pytest.importorskip("jax")
    result = run_script(MNIST, "--data", "sample", "--run-dir", tmp_path / "run", env=env)
    assert_clear_error(result, "TensorFlow backend")


def test_resuming_restores_both_optimizers(chapter, gan, tmp_path):
    """Two epochs in one go, and one, stop, one more: the optimizers stand at the same step."""
    batches = chapter.mnist.HalfBatches(images(32), 8, 0)
    (tmp_path / "a").mkdir()
    callback = keras.callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    gan.fit(batches, epochs=1, callbacks=[callback], verbose=0)
    other = chapter.mnist.GAN(
        chapter.mnist.build_generator((16, 16, 1)),
        chapter.mnist.build_discriminator((16, 16, 1)),
        1,
    )
    other.compile()
    callback = keras.callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    other.fit(batches, epochs=1, callbacks=[callback], verbose=0)  # nothing left to do
    for mine, theirs in (
        (gan.generator, other.generator),
        (gan.discriminator, other.discriminator),
        (gan.g_optimizer, other.g_optimizer),
        (gan.d_optimizer, other.d_optimizer),
    ):
        for one, two in zip(mine.variables, theirs.variables, strict=True):
            if "seed" not in one.path:
                np.testing.assert_array_equal(one, two)
    assert int(other.d_optimizer.iterations) == 8
