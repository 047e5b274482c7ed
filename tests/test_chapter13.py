"""Chapter 13: who learns from which loss, the networks, measures with known answers, own images."""

import json
import zlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import load_script
from PIL import Image

MNIST = "chapter13/gan_mnist.py"
NAMES = ("gan_mnist", "gan_cifar10", "gan_mnist_conditional", "evaluate_gan", "generate")


@pytest.fixture(scope="module")
def chapter():
    scripts = {name: load_script(f"chapter13/{name}.py") for name in (*NAMES, "how_gans_fail")}
    return SimpleNamespace(**scripts)


@pytest.fixture
def gan(chapter):
    """Run without a graph."""
    return make_gan(chapter, spectral_norm=True, ema=0.5, run_eagerly=True)


def make_gan(chapter, spectral_norm=False, ema=0.0, run_eagerly=False):
    """A GAN for images of 8 x 8, compiled."""
    keras.utils.set_random_seed(0)
    generator = chapter.gan_mnist.build_generator(img_shape=(8, 8, 1))
    discriminator = chapter.gan_mnist.build_discriminator((8, 8, 1), spectral_norm)
    gan = chapter.gan_mnist.GAN(generator, discriminator, ema=ema)
    gan.compile(keras.optimizers.Adam(0.0002, beta_1=0.5), run_eagerly=run_eagerly)
    return gan


def images(number=8, side=8):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (number, side, side, 1)).astype("uint8")


def weights(network):
    return [np.array(weight) for weight in network.weights]


def changed(before, network):
    """Paths of the weights that have moved."""
    pairs = zip(before, network.weights, strict=True)
    return {weight.path for old, weight in pairs if not np.array_equal(old, weight)}


def test_networks_are_the_books(chapter):
    """Layer for layer: parameters by hand, sizes on the way, MNIST's padding and CIFAR's lack."""
    generator = chapter.gan_mnist.build_generator()
    conv1, conv2, conv3 = 9 * 128 * 128 + 128, 9 * 128 * 64 + 64, 9 * 64 * 1 + 1
    assert generator.count_params() == 101 * 6272 + conv1 + conv2 + conv3 + 4 * (128 + 128 + 64)
    assert generator.output_shape == (None, 28, 28, 1)
    discriminator = chapter.gan_mnist.build_discriminator()
    convs = 10 * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + (9 * 128 + 1) * 256
    assert discriminator.count_params() == convs + 4 * (64 + 128) + 4 * 4 * 256 + 1
    paddings = [layer for layer in discriminator.layers if "zero_padding" in layer.name]
    assert [layer.output.shape[1:] for layer in paddings] == [(8, 8, 64)]
    slopes = {x.negative_slope for x in discriminator.layers if x.name.startswith("leaky")}
    assert slopes == {0.2}
    assert chapter.gan_cifar10.build_generator().output_shape == (None, 32, 32, 3)
    names = [layer.name for layer in chapter.gan_cifar10.build_discriminator().layers]
    assert not [name for name in names if "zero_padding" in name]


def test_steps_move_all_weights_of_both_networks(gan):
    """And every running statistic, and the average."""
    before = [weights(n) for n in (gan.generator, gan.discriminator, gan.averaged)]
    gan.fit(images(), batch_size=4, verbose=0)  # the average sees a step after it was made
    for old, network in zip(before, (gan.generator, gan.discriminator, gan.averaged), strict=True):
        assert changed(old, network) == {weight.path for weight in network.weights}
    assert int(gan.steps) == 2


@pytest.mark.parametrize("loss", ["d_loss", "g_loss"])
def test_each_loss_has_gradients_for_its_own_network_alone(gan, loss):
    """The book's order (freeze, stack, compile) trains the discriminator not at all today."""
    import tensorflow as tf

    own, others = gan.generator, gan.discriminator
    if loss == "d_loss":
        own, others = others, own
    with tf.GradientTape(persistent=True) as tape:
        real, fake, stack = gan(images())
        value = tf.reduce_mean({"d_loss": real - fake, "g_loss": stack}[loss])
    own, others = (tape.gradient(value, net.trainable_weights) for net in (own, others))
    assert all(np.abs(gradient).max() > 0 for gradient in own)
    assert all(gradient is None or not np.any(gradient) for gradient in others)


@pytest.mark.parametrize("script", ["gan_mnist", "gan_cifar10"])
def test_losses_by_hand(chapter, script):
    """-log D for real and stack, -log(1 - D) for made ones; soft labels are 0.3 away at most."""
    probabilities = [np.full((4, 1), p, "float32") for p in (0.8, 0.4, 0.3)]
    networks = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]) for _ in range(2)]
    expected = -(np.log(0.8) + np.log(0.6)) / 2
    for soft, error in ((False, 0), (True, 0.15 * np.log(0.8 / 0.2 * 0.6 / 0.4))):
        gan = getattr(chapter, script).GAN(*networks, soft_labels=soft)
        loss = float(gan.compute_loss(None, None, probabilities))
        d_loss, g_loss, accuracy = (
            float(x.result()) for x in (gan.d_loss, gan.g_loss, gan.d_accuracy)
        )
        assert g_loss == pytest.approx(-np.log(0.3), abs=1e-5) and accuracy == 1
        assert loss == pytest.approx(d_loss + g_loss, abs=1e-5)
        assert expected - 1e-5 <= d_loss <= expected + error + 1e-5
        assert not soft or d_loss > expected + 1e-3


def test_saturating_loss_by_hand(chapter):
    """log(1 - D) of the made images in the place of -log D."""
    probabilities = [np.full((4, 1), p, "float32") for p in (0.8, 0.4, 0.3)]
    gan = chapter.how_gans_fail.PlaneGAN(0.001, 0.001, saturating=True)
    expected = -(np.log(0.8) + np.log(0.6)) / 2 + np.log(0.7)
    loss = float(gan.compute_loss(None, None, probabilities))
    assert loss == pytest.approx(expected, abs=1e-5)


def test_the_stack_leaves_the_discriminators_statistics_alone(gan, monkeypatch):
    """What moves them is the real images' call and the made images' one."""
    calls = []
    plain = gan.discriminator.stateless_call

    def stateless_call(*args, **kwargs):
        before = weights(gan.discriminator)
        outputs = plain(*args, **kwargs)
        calls.append(changed(before, gan.discriminator))
        return outputs

    monkeypatch.setattr(gan.discriminator, "stateless_call", stateless_call)
    gan(images())
    assert calls == [set()]


def test_the_stack_normalizes_by_its_own_batch(gan):
    """Not by running statistics, in which real and made images are mixed."""
    normalizations = [x for x in gan.discriminator.layers if "batch_normalization" in x.name]
    first = np.asarray(gan(images())[2])
    for layer in normalizations:
        layer.moving_mean.assign(1e3 + layer.moving_mean)
    second = np.asarray(gan(images())[2])
    assert abs(first.mean() - second.mean()) < 0.2


@pytest.mark.slow
def test_discriminator_learns_what_is_real(chapter):
    """White images against the generator's grey ones: it soon tells them apart."""
    gan = make_gan(chapter)
    history = gan.fit(np.full((80, 8, 8, 1), 255, "uint8"), batch_size=8, epochs=4, verbose=0)
    assert history.history["d_accuracy"][-1] > 0.8


def test_averages_are_running_ones(gan):
    """share = max(1 - ema, 9 / (9 + step)): with ema 0.5 nine tenths after the first step."""
    old, new = weights(gan.averaged), weights(gan.generator)
    gan.average()
    for mean, before, weight in zip(gan.averaged.weights, old, new, strict=True):
        np.testing.assert_allclose(mean, 0.1 * before + 0.9 * weight, atol=1e-6)


def test_soft_labels_cost_a_sure_discriminator(gan):
    """Real 0.7 to 1, made 0 to 0.3: being sure and right is no longer for nothing."""
    sure = np.ones((4000, 1), "float32"), np.zeros((4000, 1), "float32"), np.ones((1, 1), "float32")
    sure = [np.clip(opinion, 0.01, 0.99) for opinion in sure]
    hard = float(gan.compute_loss(None, None, sure))
    gan.soft_labels = True
    mean = 0.15  # of what is taken off
    expected = -(1 - mean) * np.log(0.99) - mean * np.log(0.01) - np.log(0.99)
    assert hard == pytest.approx(-2 * np.log(0.99), rel=1e-3)
    assert float(gan.compute_loss(None, None, sure)) == pytest.approx(expected, rel=0.02)


def test_a_saved_gan_goes_on_where_it_stood(chapter, gan, tmp_path):
    """Weights, averages, both of Adam's moments, in one file."""
    gan.fit(images(), batch_size=8, verbose=0)
    gan.save(tmp_path / "last.keras")
    objects = {"GAN": chapter.gan_mnist.GAN}
    loaded = keras.models.load_model(tmp_path / "last.keras", custom_objects=objects)
    assert loaded.ema == 0.5 and int(loaded.steps) == 1
    for name in ("generator", "discriminator", "averaged", "optimizer"):
        old, new = getattr(gan, name).variables, getattr(loaded, name).variables
        for one, two in zip(old, new, strict=True):
            if "seed" not in one.path:
                np.testing.assert_array_equal(one, two)


def test_conditional_networks_look_at_the_label(chapter):
    keras.utils.set_random_seed(0)
    script = chapter.gan_mnist_conditional
    generator, discriminator = script.build_generator(), script.build_discriminator()
    noise = np.ones((2, 100), "float32")
    one, two = generator([noise, np.array([1, 2])])
    assert np.abs(np.asarray(one) - np.asarray(two)).max() > 0.001
    one, two = discriminator([np.ones((2, 28, 28, 1), "float32"), np.array([1, 2])])
    assert float(one[0]) != float(two[0])


def test_grids_and_film(chapter, tmp_path):
    """5 x 5, zoomed; of 250 grids 60 are opened, the first and the last among them."""
    white = keras.Sequential([keras.Input((100,)), keras.layers.Dense(4, bias_initializer="ones")])
    white.add(keras.layers.Reshape((2, 2, 1)))
    white.layers[0].kernel.assign(np.zeros((100, 4)))
    chapter.gan_mnist.save_imgs(white, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (30, 30) and grid.getextrema() == (255, 255)
    (tmp_path / "images").mkdir()
    for number in range(250):
        Image.new("L", (4, 4), number).save(tmp_path / "images" / f"{number:06}.png")
    (tmp_path / "history.csv").write_text("epoch,d_accuracy,d_loss,g_loss\n0,0.5,1,1\n")
    chapter.gan_mnist.report(SimpleNamespace(averaged=white), tmp_path)
    with Image.open(tmp_path / "training.gif") as film:
        assert film.n_frames == 60
        shades = []
        for frame in (0, 59):
            film.seek(frame)
            shades.append(film.convert("L").getpixel((0, 0)))
    assert shades == [0, 249]


def test_walk_stays_on_the_sphere(chapter):
    corners = np.random.default_rng(0).normal(size=(3, 100))
    corners *= 10 / np.linalg.norm(corners, axis=1, keepdims=True)
    noise = chapter.generate.walk(corners, steps=4)
    np.testing.assert_allclose(noise[::4], corners, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 10, rtol=1e-5)


def test_own_images_of_any_size(chapter, tmp_path):
    """Middle squares, not squeezed; 16 bits become 8, not white; grey for MNIST's networks."""
    Image.new("RGB", (90, 30), (200, 100, 0)).save(tmp_path / "wide.png")
    thirds = Image.new("RGB", (90, 30), (255, 255, 255))
    thirds.paste((0, 0, 255), (30, 0, 60, 30))
    thirds.save(tmp_path / "thirds.bmp")
    Image.fromarray(np.full((40, 40), 100 * 256, "uint16")).save(tmp_path / "16 bit.png")
    Image.new("L", (50, 50), 77).save(tmp_path / "grey.jpg")
    X = chapter.gan_cifar10.load_data(tmp_path)["train_X"]
    assert X.shape == (4, 32, 32, 3) and X.dtype == np.uint8
    colours = {tuple(int(v) for v in image[16, 16]) for image in X}
    assert colours == {(100, 100, 100), (77, 77, 77), (0, 0, 255), (200, 100, 0)}
    assert not (X[2] == 255).all(axis=2).any()  # the white sides are cut off
    X = chapter.gan_mnist.load_data(tmp_path)["train_X"]
    assert X.shape == (4, 28, 28, 1) and X[2].max() < 100


def test_frechet_distance(chapter):
    """By hand: shifted by 3 in one direction 9; twice as wide in d directions d (2 - 1)²."""
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    assert chapter.evaluate_gan.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert chapter.evaluate_gan.frechet_distance(x, x + [3, 0, 0]) == pytest.approx(9, abs=1e-6)
    assert chapter.evaluate_gan.frechet_distance(x, 2 * x) == pytest.approx(3, abs=1e-6)


def test_measures_see_a_collapse(chapter):
    """A classifier that reads the class off a pixel: all classes alike, or one class alone."""
    inputs = keras.Input((4, 4, 1))
    features = keras.layers.Flatten(name="features")(inputs)
    first = keras.layers.Dense(10, activation="softmax")
    classifier = keras.Model(inputs, first(features))
    classes = np.arange(10)  # the softmax of -(x - 10 c)² / 10 grows with 2 c x - 10 c²
    kernel = np.zeros((16, 10))
    kernel[0] = 2 * classes
    first.set_weights([kernel, -10 * classes**2])
    labels = np.arange(200) % 10
    every = (10 * labels).astype("float32").reshape(200, 1, 1, 1) * np.ones((1, 4, 4, 1))
    fair = chapter.evaluate_gan.measure(classifier, every, labels, every)
    assert fair["classes"] == 10 and fair["entropy"] == pytest.approx(1) and fair["right"] == 1
    assert fair["frechet"] == pytest.approx(0, abs=0.1)
    one = chapter.evaluate_gan.measure(classifier, np.full_like(every, 30), labels, every)
    assert one["classes"] == 1 and one["entropy"] == pytest.approx(0, abs=1e-6)
    assert one["frechet"] > 10 and one["histogram"][3] == 1 and one["right"] == 0.1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """400 small images of two classes: left half white, or right half; sorted by class."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, 2, 400))
    X = rng.integers(0, 60, (400, 16, 16)).astype("uint8")
    for image, label in zip(X, y, strict=True):
        image[:, 8 * label : 8 * label + 8] = 255
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    np.savez(path, x_train=X[::2], y_train=y[::2], x_test=X[1::2], y_test=y[1::2])
    return path


def make_run(chapter, folder, data):
    """A run folder with two generators that were never trained."""
    (folder / "moments").mkdir(parents=True)
    train_X = chapter.gan_mnist.load_data(data)["train_X"]
    settings = {"script": "gan_mnist", "data": zlib.crc32(train_X.tobytes())}
    (folder / "settings.json").write_text(json.dumps(settings))
    generator = chapter.gan_mnist.build_generator(img_shape=(16, 16, 1))
    for name in ("moments/000001.keras", "moments/000050.keras", "generator.keras"):
        generator.save(folder / name)
    return folder


@pytest.mark.slow
def test_evaluate_judges_by_a_classifier_of_the_same_images(chapter, run_script, tiny, tmp_path):
    run_dir = make_run(chapter, tmp_path / "runs" / "gan", tiny)
    usual = ("--run-dir", run_dir, "--classifier-epochs", 20)
    result = run_script("chapter13/evaluate_gan.py", "--data", tiny, *usual)
    assert result.returncode == 0, result.stderr
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["classifier_accuracy"] > 0.95
    # Of a set that is sorted by class, as many of each kind.
    assert all(0.3 < share < 0.7 for share in evaluation["real"]["histogram"])
    assert evaluation["real"]["classes"] == 2 and evaluation["real"]["right"] > 0.95
    assert [moment["step"] for moment in evaluation["moments"]] == [1, 50]
    assert evaluation["moments"][-1]["frechet"] > 2 * evaluation["frechet_floor"]
    assert (run_dir / "nearest.png").exists()
    # Other images: refused. Other labels: another classifier, whose word is worth nothing.
    arrays = dict(np.load(tiny))
    np.savez(tmp_path / "other.npz", **(arrays | {"x_train": 255 - arrays["x_train"]}))
    result = run_script("chapter13/evaluate_gan.py", "--data", tmp_path / "other.npz", *usual)
    assert result.returncode == 1 and "--data" in result.stderr
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
    random = np.random.default_rng(0).integers(0, 2, 200)
    np.savez(tmp_path / "random.npz", **(arrays | {"y_train": random}))
    usual = ("--run-dir", run_dir, "--classifier-epochs", 1)
    result = run_script("chapter13/evaluate_gan.py", "--data", tmp_path / "random.npz", *usual)
    assert result.returncode == 0, result.stderr
    assert "too little" in result.stdout and "collapse" not in result.stdout
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["moments"][-1]["classes"] is None
    assert len(list((tmp_path / "runs").glob("classifier_*.keras"))) == 2


@pytest.mark.slow
def test_generate_writes_grids_and_walks(chapter, run_script, tiny, tmp_path):
    run_dir = make_run(chapter, tmp_path / "gan", tiny)
    for options, name, frames in (
        (("--count", 7), "generated.png", 1),
        (("--count", 2, "--walk"), "walk.gif", 24),
    ):
        result = run_script("chapter13/generate.py", "--run-dir", run_dir, *options)
        assert result.returncode == 0, result.stderr
        with Image.open(run_dir / name) as picture:
            assert getattr(picture, "n_frames", 1) == frames
    (run_dir / "generator.keras").write_bytes(b"PK no model")
    result = run_script("chapter13/generate.py", "--run-dir", run_dir)
    assert result.returncode == 1 and result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr


def test_failures_have_names(chapter):
    """Points on all heaps, on one of them, and between them."""
    measure, centres = chapter.how_gans_fail.measure, chapter.how_gans_fail.CENTRES
    assert measure(centres.repeat(10, axis=0))["verdict"] == "healthy"
    one = measure(centres[[3] * 80])
    assert (one["near"], one["heaps"], one["verdict"]) == (1, 1, "mode collapse")
    assert measure(np.zeros((80, 2)))["verdict"] == "off the data"


def test_a_sure_discriminator_leaves_no_gradient_of_the_saturating_loss_alone(chapter):
    """d log(1 - D) is -D times the logit's gradient, d -log D is -(1 - D) times it."""
    keras.utils.set_random_seed(0)
    gan = chapter.how_gans_fail.PlaneGAN(0.001, 0.001)
    noise = np.random.default_rng(0).normal(size=(50, 100)).astype("float32")
    before = chapter.how_gans_fail.measure_gradients(gan, noise)
    gan.discriminator.layers[-1].bias.assign([-12.0])
    after = chapter.how_gans_fail.measure_gradients(gan, noise)
    assert after["D"] < 1e-4 and after["log(1 - D)"] < 1e-3 * before["log(1 - D)"]
    assert after["-log D"] > 1.5 * before["-log D"]


def test_each_optimizer_moves_its_own_network(chapter):
    gan = chapter.how_gans_fail.PlaneGAN(0.0, 0.001)
    gan.compile(run_eagerly=True)
    before = weights(gan.generator), weights(gan.discriminator)
    chapter.how_gans_fail.train(gan, chapter.how_gans_fail.load_data(512), 1, seed=0)
    assert changed(before[0], gan.generator) == set()
    assert changed(before[1], gan.discriminator)
