"""Chapter 7: the networks, the augmentation, convolution by hand, photographs of one's own."""

import json
import shutil
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import load_script, run_python
from PIL import Image
from scipy.signal import convolve2d

SCRIPT, PHOTOS = "chapter07/cnn_cifar10.py", "chapter07/photos_to_npz.py"


@pytest.fixture(scope="module")
def cnn():
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def augmented():
    return load_script("chapter07/cnn_cifar10_augmented.py")


@pytest.fixture(scope="module")
def by_hand():
    return load_script("chapter07/conv_by_hand.py")


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory, slow_training):
    """The run folder of four epochs on the sample, `make train` cut short."""
    folder = tmp_path_factory.mktemp("sample") / "run"
    result = run_python(SCRIPT, "--data", "sample", "--epochs", 4, "--run-dir", folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def assert_drawn(*pictures):
    for path in pictures:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_networks_are_the_books(cnn, augmented):
    for model in (cnn.build_network(), augmented.build_network()):
        # 1,792 parameters in the first convolution, 1,152 flattened values: the book's arithmetic.
        assert model.get_layer("conv_1").count_params() == 3 * 3 * 3 * 64 + 64 == 1792
        assert model.get_layer("pool_2").output.shape == (None, 6, 6, 32)
        assert model.get_layer("flatten").output.shape == (None, 1152)
        assert model.count_params() == 744_874
        names = [layer.name for layer in model.layers if layer.weights]
        assert " ".join(names) == "conv_1 batch_norm_1 conv_2 batch_norm_2 fc1 fc2 softmax"
        assert model.get_layer("dropout1").rate == model.get_layer("dropout2").rate == 0.2
        assert model.get_layer("rescale").scale == 1 / 255


def test_better_network_is_half_as_large_and_its_learning_rate_rises_and_falls(augmented):
    model = augmented.build_network("better", steps=1000)
    assert model.count_params() == 392_426
    rate = model.optimizer._learning_rate
    rates = np.array([float(rate(step)) for step in range(0, 1001, 10)])
    assert rates[0] == 0 and rates.argmax() == 10  # a tenth of the way
    assert rates.max() == pytest.approx(0.003) and rates[-1] == pytest.approx(0, abs=1e-6)


def test_a_file_sorted_by_class_is_halved_without_overlap(cnn, tmp_path):
    X = np.zeros((40, 12, 12, 3), "uint8")
    X[:, 0, 0, 0] = np.arange(40)  # a mark on each image
    y = np.repeat([0, 1], 20)
    names = np.array(["ants", "bees"])
    np.savez(tmp_path / "a.npz", x_train=X, y_train=y, x_test=X, y_test=y, class_names=names)
    data = cnn.load_data(tmp_path / "a.npz")
    val, test = (data[f"{part}_X"][:, 0, 0, 0] for part in ("val", "test"))
    assert sorted([*val, *test]) == list(range(40)) and len(val) == 20
    assert data["test_y"].tolist() == y[test].tolist()
    assert np.bincount(data["val_y"]).tolist() == [10, 10]


@pytest.mark.slow
def test_a_newcomers_first_training_rises_from_the_first_epoch_on(sample_run):
    """Running averages of momentum 0.99 showed 0.10 here for five epochs."""
    history = pd.read_csv(sample_run / "history.csv")
    metrics = json.loads((sample_run / "metrics.json").read_text())
    assert history["val_accuracy"].iloc[0] > 0.25
    assert history["val_accuracy"].iloc[-1] > history["val_accuracy"].iloc[0] + 0.1
    assert metrics["test"]["accuracy"] > metrics["baselines"]["linear_model_accuracy"] + 0.1
    assert_drawn(sample_run / "learning_curves.png", sample_run / "confusion_matrix.png")


@pytest.mark.slow
def test_report_takes_names_with_dollar_signs_and_grey_images(cnn, tmp_path):
    rng = np.random.default_rng(0)
    data = {"class_names": ["$x_1", "50 % $$", "$x_1"]}
    for part in ("train", "val", "test"):
        data[f"{part}_X"] = rng.integers(0, 255, (30, 10, 10, 1)).astype("uint8")
        data[f"{part}_y"] = np.arange(30) % 3
    scores = cnn.report(cnn.build_network(1, (10, 10, 1), 3), data, tmp_path)
    assert 0 <= scores["test"]["accuracy"] <= 1
    assert (tmp_path / "confusion_matrix.png").exists()
    labels = [label.get_text() for label in plt.gca().get_yticklabels()]
    assert labels == [r"\$x_1", r"50 % \$\$", r"\$x_1"]  # alike, and not one


def test_batches_are_shared_by_a_mirrored_strategy(cnn, monkeypatch):
    """With two devices, both of them CPUs here: the book's `multi_gpu_model`."""
    import tensorflow as tf

    asked = []

    def strategy(devices):
        asked.extend(devices)
        return tf.distribute.OneDeviceStrategy("CPU:0")

    monkeypatch.setattr(tf.distribute, "MirroredStrategy", strategy)
    assert cnn.build_network(2).steps_per_execution == 1  # it can do only one at a time
    assert asked == ["GPU:0", "GPU:1"]
    assert cnn.build_network(1).steps_per_execution == 16 and len(asked) == 2


def test_augmentation_changes_images_repeatably(augmented):
    import keras

    images = augmented.load_data("sample")["train_X"][:8]

    def change(seed):
        keras.utils.set_random_seed(seed)
        return np.asarray(augmented.create_datagen()(images, training=True))

    first = change(1)
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 255
    assert not np.allclose(first, images)
    np.testing.assert_array_equal(first, change(1))
    assert not np.allclose(first, change(2))
    # A turn by 20 degrees and a shift by 2 % at most: the middle of a plain image stays.
    plain = np.full((1, 32, 32, 3), 100, "uint8")
    np.testing.assert_allclose(augmented.create_datagen()(plain, training=True), 100, atol=1e-3)


@pytest.mark.parametrize("network", ["book", "better"])
def test_the_networks_have_no_random_image_layer(augmented, network):
    """What is saved takes images as they are."""
    model = augmented.build_network(network, steps=10)
    assert not [layer.name for layer in model.layers if "random" in layer.name]


def test_the_books_convolution(by_hand):
    assert by_hand.cross_correlate(by_hand.IMAGE, by_hand.FILTER).tolist() == [[7, 5], [-1, 6]]
    assert by_hand.convolve(by_hand.IMAGE, by_hand.FILTER).tolist() == [[-7, -5], [1, -6]]
    rng = np.random.default_rng(0)  # no symmetry, no square
    image, kernel = rng.integers(-9, 9, (7, 6)), rng.integers(-9, 9, (3, 2))
    assert np.array_equal(by_hand.convolve(image, kernel), convolve2d(image, kernel, mode="valid"))


def test_pooling_and_padding_equal_kerass(by_hand):
    from keras import layers

    assert by_hand.max_pool(by_hand.IMAGE).tolist() == [[6, 2], [4, 6]]
    rng = np.random.default_rng(0)
    for shape, kernel_size in (((4, 4), (3, 3)), ((7, 6), (2, 4)), ((5, 8), (5, 1))):
        image, kernel = rng.integers(-9, 9, shape), rng.integers(-9, 9, kernel_size)
        pooled = by_hand.run_layer(layers.MaxPooling2D((2, 2)), image)
        assert np.array_equal(by_hand.max_pool(image), pooled)
        padded = by_hand.pad_same(image, kernel)
        assert padded.sum() == image.sum()  # with zeros
        answer = by_hand.cross_correlate(padded, kernel)
        layer = layers.Conv2D(1, kernel_size, padding="same", use_bias=False)
        assert answer.shape == shape
        assert np.array_equal(answer, by_hand.run_layer(layer, image, kernel))


def test_a_layer_by_hand_equals_kerass(by_hand):
    import keras

    image = np.random.default_rng(0).random((9, 8, 3), dtype="float32")
    layer = keras.layers.Conv2D(5, (3, 2), activation="relu", bias_initializer="normal")
    expected = np.asarray(layer(image[None]))[0]
    np.testing.assert_allclose(by_hand.conv_layer(image, *layer.get_weights()), expected, atol=1e-5)


def test_conv_by_hand_says_what_the_book_counts(cnn, by_hand, tmp_path, monkeypatch, capsys):
    """Without a trained network it names the command; with one it draws."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [by_hand.__file__])
    by_hand.main()
    output = capsys.readouterr().out
    for number in ("1,792", "176,947,200", "[[7, 5], [-1, 6]]", "cnn_cifar10.py --data sample"):
        assert number in output
    assert not list(tmp_path.iterdir())
    run_dir = tmp_path / "runs" / "cnn_cifar10_sample"
    run_dir.mkdir(parents=True)
    cnn.build_network().save(run_dir / "model.keras")
    by_hand.main()
    drawn = tmp_path / "runs" / "conv_by_hand"
    assert_drawn(drawn / "filters.png", drawn / "feature_maps.png")


def write_photographs(folder):
    """Eleven photographs of each of two classes, some of them awkward, and a file that is none."""
    rng = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 255, (20 + i, 30, 3)).astype("uint8")
            suffix = ("png", "TIF", "jpg", "bmp")[i % 4]
            Image.fromarray(pixels).save(folder / name / f"{i}.{suffix}")
        clear = np.zeros((20, 20, 4), "uint8")  # black, and transparent
        Image.fromarray(clear).save(folder / name / "clear.png")
        upright = np.zeros((40, 20, 3), "uint8")
        upright[:20] = 255  # bright above dark, noted as lying on its side
        photo, exif = Image.fromarray(np.rot90(upright)), Image.Exif()
        exif[0x0112] = 6
        photo.save(folder / name / "phone.jpg", exif=exif, quality=95)
        Image.fromarray(np.full((20, 20), 100 * 256, "uint16")).save(folder / name / "16 bit.png")
        (folder / name / "broken.jpg").write_bytes(b"no photograph")
        (folder / name / ".hidden").write_text("left alone")
    return folder


def test_photographs_become_an_npz(cnn, run_script, tmp_path):
    """Transparent ones on white, phones' upright, TIFF too; a bad file is named and left out."""
    photos, output = write_photographs(tmp_path / "photos"), tmp_path / "photos.npz"
    result = run_script(PHOTOS, photos, output, "--image-size", 16)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("left out") == 2 and "broken.jpg" in result.stdout
    assert ".hidden" not in result.stdout
    data = cnn.load_data(output)
    assert data["class_names"] == ["ants", "bees"] and data["train_X"].shape == (17, 16, 16, 3)
    assert set(data["train_y"]) == set(data["val_y"]) == set(data["test_y"]) == {0, 1}
    again = run_script(PHOTOS, photos, output)
    assert again.returncode == 1 and again.stderr.startswith("error: ")
    assert "exists" in again.stderr and again.stderr.count("\n") == 1
    read_photo = load_script(PHOTOS).read_photo
    assert read_photo(photos / "ants" / "clear.png", 16).min() == 255
    assert set(read_photo(photos / "ants" / "16 bit.png", 16).flat) == {100}
    phone = read_photo(photos / "ants" / "phone.jpg", 16).mean(axis=2)
    assert abs(phone[:6].mean() - phone[-6:].mean()) > 200
    assert abs(phone[:, :6].mean() - phone[:, -6:].mean()) < 20


@pytest.mark.parametrize(
    ("take_away", "words"), [("bees", "two folders"), ("ants/1.TIF", "ten"), (".", "No such file")]
)
def test_too_few_photographs_are_refused(tmp_path, take_away, words):
    photos = write_photographs(tmp_path / "photos")
    for path in (photos / "ants" / "2.jpg", photos / take_away):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((ValueError, OSError), match=words):
        load_script(PHOTOS).read_folder(photos, 16)
