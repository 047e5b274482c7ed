"""Chapter 13: who learns from which loss, the networks, measures with known answers, own images."""

import json
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import load_script
from PIL import Image

NAMES = ("gan_mnist", "gan_cifar10", "gan_mnist_conditional", "evaluate_gan", "generate")
mnist, cifar, conditional, evaluate, generate, fail = (
    load_script(f"chapter13/{name}.py") for name in (*NAMES, "how_gans_fail")
)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype("uint8")
OPINIONS = [np.full((4, 1), p, "float32") for p in (0.8, 0.4, 0.3)]  # of real, made, stack


@pytest.fixture
def gan():
    """A GAN for images of 8 x 8, compiled, run without a graph."""
    keras.utils.set_random_seed(0)
    generator = mnist.build_generator(img_shape=(8, 8, 1))
    gan = mnist.GAN(generator, mnist.build_discriminator((8, 8, 1), spectral_norm=True), ema=0.5)
    gan.compile(keras.optimizers.Adam(0.0002, beta_1=0.5), run_eagerly=True)
    return gan


def weights(network):
    return [np.array(weight) for weight in network.weights]


def moved(before, after):
    """Which of the weights have changed."""
    return [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]


def test_networks_are_the_books():
    """Parameters by hand, sizes on the way, MNIST's padding and CIFAR's lack."""
    generator, discriminator = mnist.build_generator(), mnist.build_discriminator()
    convs = 9 * 128 * 128 + 128, 9 * 128 * 64 + 64, 9 * 64 * 1 + 1
    assert generator.count_params() == 101 * 6272 + sum(convs) + 4 * (128 + 128 + 64)
    assert generator.output_shape == (None, 28, 28, 1)
    convs = 10 * 32, (9 * 32 + 1) * 64, (9 * 64 + 1) * 128, (9 * 128 + 1) * 256
    assert discriminator.count_params() == sum(convs) + 4 * (64 + 128) + 4 * 4 * 256 + 1
    paddings = [layer for layer in discriminator.layers if "zero_padding" in layer.name]
    assert [layer.output.shape[1:] for layer in paddings] == [(8, 8, 64)]
    assert cifar.build_generator().output_shape == (None, 32, 32, 3)
    colours = discriminator.count_params() + 9 * 2 * 32
    assert cifar.build_discriminator().count_params() == colours


def test_steps_move_all_weights_and_a_saved_gan_goes_on(gan, tmp_path):
    """Of both networks and the average; saved are both of Adam's moments, too."""
    networks = gan.generator, gan.discriminator, gan.averaged
    before = [weights(network) for network in networks]
    gan.average()  # share = max(1 - ema, 9 / (9 + step)): with ema 0.5 nine tenths at first
    for mean, old, new in zip(weights(gan.averaged), before[2], before[0], strict=True):
        np.testing.assert_allclose(mean, 0.1 * old + 0.9 * new, atol=1e-6)
    gan.fit(IMAGES, batch_size=4, verbose=0)
    assert all(all(moved(old, new.weights)) for old, new in zip(before, networks, strict=True))
    gan.save(tmp_path / "last.keras")
    loaded = keras.models.load_model(tmp_path / "last.keras", custom_objects={"GAN": mnist.GAN})
    assert loaded.ema == 0.5 and int(loaded.steps) == 3
    assert not any(moved(gan.weights, loaded.weights))
    assert not any(moved(gan.optimizer.variables, loaded.optimizer.variables))


def test_each_loss_has_gradients_for_its_own_network_alone(gan):
    """The book's order (freeze, stack, compile) trains the discriminator not at all today."""
    with tf.GradientTape(persistent=True) as tape:
        real, fake, stack = gan(IMAGES)
        losses = {"discriminator": tf.reduce_mean(real - fake), "generator": tf.reduce_mean(stack)}
    for name, loss in losses.items():
        for network in losses:
            gradients = tape.gradient(loss, getattr(gan, network).trainable_weights)
            found = [gradient is not None and bool(np.any(gradient)) for gradient in gradients]
            assert all(found) if network == name else not any(found)


def test_the_stack_has_its_own_batchs_statistics_and_leaves_no_trace(gan):
    """The running ones move twice, by 1 - 0.8: with the real images, and with the made ones."""
    first = np.asarray(gan(IMAGES)[2])
    norms = [layer for layer in gan.discriminator.layers if "batch_norm" in layer.name]
    for layer in norms:
        layer.moving_mean.assign(np.full(layer.moving_mean.shape, 1e6))
    assert abs(first.mean() - np.asarray(gan(IMAGES)[2]).mean()) < 0.2
    for layer in norms:
        np.testing.assert_allclose(layer.moving_mean, 0.8**2 * 1e6, rtol=1e-3)


@pytest.mark.parametrize("script", [mnist, cifar], ids=["mnist", "cifar10"])
def test_losses_by_hand(script):
    """-log D for real and stack, -log(1 - D) for made ones; soft labels are 0.3 away at most."""
    networks = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]) for _ in range(2)]
    expected = -(np.log(0.8) + np.log(0.6)) / 2
    for soft, error in ((False, 0), (True, 0.15 * np.log(0.8 / 0.2 * 0.6 / 0.4))):
        gan = script.GAN(*networks, soft_labels=soft)
        loss = float(gan.compute_loss(None, None, OPINIONS))
        d_loss, g_loss = float(gan.d_loss.result()), float(gan.g_loss.result())
        assert g_loss == pytest.approx(-np.log(0.3), abs=1e-5) and gan.d_accuracy.result() == 1
        assert loss == pytest.approx(d_loss + g_loss, abs=1e-5)
        assert expected - 1e-5 <= d_loss <= expected + error + 1e-5
        assert not soft or d_loss > expected + 1e-3


def test_conditional_networks_look_at_the_label():
    keras.utils.set_random_seed(0)
    labels = np.array([1, 2])
    one, two = np.asarray(conditional.build_generator()([np.ones((2, 100), "float32"), labels]))
    assert np.abs(one - two).max() > 0.001
    one, two = conditional.build_discriminator()([np.ones((2, 28, 28, 1), "float32"), labels])
    assert float(one[0]) != float(two[0])


def test_film_is_made_of_sixty_grids(gan, tmp_path):
    """Of 250 no more are opened, the first and the last among them."""
    (tmp_path / "images").mkdir()
    for number in range(250):
        Image.new("L", (4, 4), number).save(tmp_path / "images" / f"{number:06}.png")
    (tmp_path / "history.csv").write_text("epoch,d_accuracy,d_loss,g_loss\n0,0.5,1,1\n")
    mnist.report(gan, tmp_path)
    with Image.open(tmp_path / "training.gif") as film:
        assert film.n_frames == 60
        for frame, shade in ((0, 0), (59, 249)):
            film.seek(frame)
            assert film.convert("L").getpixel((0, 0)) == shade


def test_own_images_of_any_size(tmp_path):
    """Middle squares, not squeezed; 16 bits become 8, not white; grey for MNIST's networks."""
    Image.new("L", (50, 50), 77).save(tmp_path / "grey.jpg")
    thirds = Image.new("RGB", (90, 30), (255, 255, 255))
    thirds.paste((0, 0, 255), (30, 0, 60, 30))
    thirds.save(tmp_path / "thirds.bmp")
    Image.fromarray(np.full((40, 40), 100 * 256, "uint16")).save(tmp_path / "16 bit.png")
    X = cifar.load_data(tmp_path)["train_X"]  # in order of the names
    assert X.shape == (3, 32, 32, 3) and X.dtype == np.uint8
    assert X[:, 16, 16].tolist() == [[100] * 3, [77] * 3, [0, 0, 255]]
    assert not (X[2] == 255).all(axis=2).any()  # the white sides are cut off
    X = mnist.load_data(tmp_path)["train_X"]
    assert X.shape == (3, 28, 28, 1) and X[2].max() < 100


def test_frechet_distance():
    """By hand: shifted by 3 in one direction 9; twice as wide the sum of the variances."""
    x = np.random.default_rng(0).normal(size=(2000, 3))
    x -= x.mean(axis=0)
    for other, distance in ((x, 0), (x + [3, 0, 0], 9), (2 * x, x.var(axis=0, ddof=1).sum())):
        assert evaluate.frechet_distance(x, other) == pytest.approx(distance, abs=1e-6)


def test_measures_see_a_collapse():
    """Images of one pixel whose ten colours are the classes: all alike, or one class alone."""
    inputs = keras.Input((1, 1, 10))
    features = keras.layers.Flatten(name="features")(inputs)
    classifier = keras.Model(inputs, keras.layers.Softmax()(features))
    labels = np.arange(200) % 10
    every = 99 * np.eye(10, dtype="float32")[labels].reshape(200, 1, 1, 10)
    fair = evaluate.measure(classifier, every, labels, every)
    assert fair["classes"] == 10 and fair["entropy"] == pytest.approx(1) and fair["right"] == 1
    assert fair["frechet"] == pytest.approx(0, abs=0.1)
    one = evaluate.measure(classifier, every[[3] * 200], labels, every)
    assert one["classes"] == 1 and one["entropy"] == pytest.approx(0, abs=1e-6)
    assert one["frechet"] > 10 and one["histogram"][3] == 1 and one["right"] == 0.1


@pytest.mark.slow
def test_a_run_is_judged_by_a_classifier_of_its_images(monkeypatch, capsys, tmp_path):
    """Two classes, a half is white or the other; the generators were never trained."""
    y = np.arange(400) // 200  # sorted by class
    X = np.random.default_rng(0).integers(0, 60, (400, 16, 16)).astype("uint8")
    X[:200, :, :8], X[200:, :, 8:] = 255, 255
    arrays = {"x_train": X[::2], "y_train": y[::2], "x_test": X[1::2], "y_test": y[1::2]}
    run_dir, data = tmp_path / "runs" / "gan", tmp_path / "tiny.npz"
    (run_dir / "moments").mkdir(parents=True)
    settings = {"script": "gan_mnist", "data": zlib.crc32(X[::2].tobytes())}
    (run_dir / "settings.json").write_text(json.dumps(settings))
    for name in ("moments/000001.keras", "generator.keras"):
        mnist.build_generator(img_shape=(16, 16, 1)).save(run_dir / name)

    def run_main(script, *options):
        monkeypatch.setattr(sys, "argv", ["x.py", "--run-dir", *map(str, (run_dir, *options))])
        script.main()
        return capsys.readouterr().out

    def judge(epochs, **other):
        np.savez(data, **(arrays | other))
        output = run_main(evaluate, "--data", data, "--classifier-epochs", epochs)
        return output, json.loads((run_dir / "evaluation.json").read_text())

    evaluation = judge(20)[1]
    assert evaluation["classifier_accuracy"] > 0.95
    assert all(0.3 < share < 0.7 for share in evaluation["real"]["histogram"])
    assert evaluation["moments"][-1]["frechet"] > 2 * evaluation["frechet_floor"]
    # Other images: refused. Other labels: another classifier, whose word is worth nothing.
    with pytest.raises(SystemExit, match=r"error: .*--data"):
        judge(1, x_train=255 - X[::2])
    output, evaluation = judge(1, y_train=np.random.default_rng(0).integers(0, 2, 200))
    assert evaluation["moments"][-1]["classes"] is None
    assert "too little" in output and "collapse" not in output
    for options, name, frames in (((), "generated.png", 1), (("--walk",), "walk.gif", 24)):
        run_main(generate, "--count", 2, *options)
        with Image.open(run_dir / name) as picture:
            assert getattr(picture, "n_frames", 1) == frames
    for options in (["--count", 1, "--walk"], ["--order", 2018]):
        with pytest.raises(SystemExit, match="error: .*(two images|conditional)"):
            run_main(generate, *options)
    for path in (run_dir / "moments").iterdir():
        path.unlink()
    with pytest.raises(SystemExit, match="no generator yet"):
        judge(1)


def test_failures_have_names():
    """Points on all heaps, on one of them, and between them."""
    assert fail.measure(fail.CENTRES.repeat(10, axis=0))["verdict"] == "healthy"
    collapse = {"near": 1, "heaps": 1, "verdict": "mode collapse"}
    assert fail.measure(fail.CENTRES[[3] * 80]) == collapse
    assert fail.measure(np.zeros((80, 2)))["verdict"] == "off the data"


def test_a_sure_discriminator_leaves_no_gradient_of_the_saturating_loss_alone():
    """d log(1 - D) is -D times the logit's gradient, d -log D is -(1 - D) times it."""
    keras.utils.set_random_seed(0)
    gan = fail.PlaneGAN(0.0, 0.001, saturating=True)
    expected = -(np.log(0.8) + np.log(0.6)) / 2 + np.log(0.7)
    assert float(gan.compute_loss(None, None, OPINIONS)) == pytest.approx(expected, abs=1e-5)
    noise = np.random.default_rng(0).normal(size=(50, 100)).astype("float32")
    first = fail.measure_gradients(gan, noise)
    gan.discriminator.layers[-1].bias.assign([-12.0])
    sure = fail.measure_gradients(gan, noise)
    assert sure["D"] < 1e-4 and sure["log(1 - D)"] < 1e-3 * first["log(1 - D)"]
    assert sure["-log D"] > 1.5 * first["-log D"]
    # Each network has a rate of its own: here the generator stays.
    before = weights(gan.generator), weights(gan.discriminator)
    fail.train(gan, fail.load_data(512), 1, seed=0)
    assert not any(moved(before[0], gan.generator.weights))
    assert any(moved(before[1], gan.discriminator.weights))
