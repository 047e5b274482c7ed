"""Chapter 7: the networks, the augmentation, convolution by hand, photographs of one's own."""

import json
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import load_script
from contract import run_to_end
from PIL import Image
from scipy.signal import convolve2d

SCRIPT, PHOTOS = "chapter07/cnn_cifar10.py", "chapter07/photos_to_npz.py"
cnn, photos_to_npz = load_script(SCRIPT), load_script(PHOTOS)
augmented = load_script("chapter07/cnn_cifar10_augmented.py")
by_hand = load_script("chapter07/conv_by_hand.py")


def test_networks_are_the_books():
    for model in (cnn.build_network(), augmented.build_network()):
        # 1,792 parameters in the first convolution, 1,152 flattened values: the book's arithmetic.
        assert model.get_layer("conv_1").count_params() == 3 * 3 * 3 * 64 + 64 == 1792
        assert model.get_layer("flatten").output.shape == (None, 6 * 6 * 32)
        assert model.count_params() == 744_874
        names = [layer.name for layer in model.layers if layer.weights]
        assert " ".join(names) == "conv_1 batch_norm_1 conv_2 batch_norm_2 fc1 fc2 softmax"
        assert model.get_layer("dropout1").rate == model.get_layer("dropout2").rate == 0.2
    better = augmented.build_network("better", steps=1000)
    assert better.count_params() == 392_426
    rates = [float(better.optimizer._learning_rate(step)) for step in range(0, 1001, 10)]
    assert rates[0] == 0 and np.argmax(rates) == 10  # a tenth of the way
    assert max(rates) == pytest.approx(0.003) and rates[-1] == pytest.approx(0, abs=1e-6)
    # What is saved takes images as they are.
    names = [layer.name for network in (model, better) for layer in network.layers]
    assert not [name for name in names if "random" in name]


def test_a_file_sorted_by_class_is_halved_without_overlap(tmp_path):
    X, y = np.zeros((40, 12, 12, 3), "uint8"), np.repeat([0, 1], 20)
    X[:, 0, 0, 0] = np.arange(40)  # a mark on each image
    names = np.array(["ants", "bees"])
    np.savez(tmp_path / "a.npz", x_train=X, y_train=y, x_test=X, y_test=y, class_names=names)
    data = cnn.load_data(tmp_path / "a.npz")
    val, test = (data[f"{part}_X"][:, 0, 0, 0] for part in ("val", "test"))
    assert sorted([*val, *test]) == list(range(40)) and len(val) == 20
    assert data["test_y"].tolist() == y[test].tolist()
    assert np.bincount(data["val_y"]).tolist() == [10, 10]


@pytest.mark.slow
def test_a_newcomers_first_training_rises_from_the_first_epoch_on(tmp_path):
    """`make train` cut short; running averages of momentum 0.99 showed 0.10 for five epochs."""
    run_to_end(SCRIPT, "--data", "sample", "--epochs", 2, "--run-dir", tmp_path)
    accuracy = pd.read_csv(tmp_path / "history.csv")["val_accuracy"].to_numpy()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0.4 < accuracy[0] < accuracy[1]
    assert metrics["test"]["accuracy"] > metrics["baselines"]["linear_model_accuracy"] + 0.1


@pytest.mark.slow
def test_report_takes_names_with_dollar_signs_and_grey_images(tmp_path):
    rng = np.random.default_rng(0)
    data = {"class_names": ["$x_1", "50 % $$", "$x_1"]}
    for part in ("train", "val", "test"):
        data[f"{part}_X"] = rng.integers(0, 255, (30, 10, 10, 1)).astype("uint8")
        data[f"{part}_y"] = np.arange(30) % 3
    cnn.report(cnn.build_network(1, (10, 10, 1), 3), data, tmp_path)
    labels = [label.get_text() for label in plt.gca().get_yticklabels()]
    assert labels == [r"\$x_1", r"50 % \$\$", r"\$x_1"]  # alike, and not one


def test_batches_are_shared_by_a_mirrored_strategy(monkeypatch):
    """The book's `multi_gpu_model`, for two GPUs, which are asked for and not needed here."""
    asked, one = [], tf.distribute.OneDeviceStrategy("CPU:0")
    monkeypatch.setattr(
        tf.distribute, "MirroredStrategy", lambda devices: asked.extend(devices) or one
    )
    with pytest.raises(ValueError, match="it has 0"):
        cnn.build_network(2)
    two = tf.config.list_physical_devices("CPU") * 2
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: two)
    assert cnn.build_network(2).steps_per_execution == 1  # it can do only one at a time
    assert asked == ["GPU:0", "GPU:1"]
    assert cnn.build_network(1).steps_per_execution == 16 and len(asked) == 2


def test_augmentation_changes_images_repeatably():
    images = augmented.load_data("sample")["train_X"][:8]

    def change(seed):
        keras.utils.set_random_seed(seed)
        return np.asarray(augmented.create_datagen()(images, training=True))

    first = change(1)
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 255
    assert not np.allclose(first, images) and not np.allclose(first, change(2))
    np.testing.assert_array_equal(first, change(1))


def test_convolution_pooling_and_padding_by_hand_equal_the_books_and_kerass():
    layers, rng = keras.layers, np.random.default_rng(0)
    assert by_hand.cross_correlate(by_hand.IMAGE, by_hand.FILTER).tolist() == [[7, 5], [-1, 6]]
    assert by_hand.convolve(by_hand.IMAGE, by_hand.FILTER).tolist() == [[-7, -5], [1, -6]]
    assert by_hand.max_pool(by_hand.IMAGE).tolist() == [[6, 2], [4, 6]]
    for shape, kernel_size in (((7, 6), (2, 4)), ((5, 8), (5, 1))):  # no symmetry, no square
        image, kernel = rng.integers(-9, 9, shape), rng.integers(-9, 9, kernel_size)
        assert np.array_equal(by_hand.convolve(image, kernel), convolve2d(image, kernel, "valid"))
        pooled = by_hand.run_layer(layers.MaxPooling2D((2, 2)), image)
        assert np.array_equal(by_hand.max_pool(image), pooled)
        answer = by_hand.cross_correlate(by_hand.pad_same(image, kernel), kernel)
        layer = layers.Conv2D(1, kernel_size, padding="same", use_bias=False)
        assert np.array_equal(answer, by_hand.run_layer(layer, image, kernel))
    image = rng.random((9, 8, 3), dtype="float32")
    layer = layers.Conv2D(5, (3, 2), activation="relu", bias_initializer="normal")
    expected = np.asarray(layer(image[None]))[0]
    np.testing.assert_allclose(by_hand.conv_layer(image, *layer.get_weights()), expected, atol=1e-5)


def test_conv_by_hand_says_what_the_book_counts(tmp_path, monkeypatch, capsys):
    """Without a trained network it names the command; with one it draws."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [by_hand.__file__])
    by_hand.main()
    output = capsys.readouterr().out
    assert all(text in output for text in ("1,792", "176,947,200", "cnn_cifar10.py --data sample"))
    (tmp_path / "runs" / "cnn_cifar10_sample").mkdir(parents=True)
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3)])
    network.save(tmp_path / "runs" / "cnn_cifar10_sample" / "model.keras")
    by_hand.main()
    for name in ("filters.png", "feature_maps.png"):
        with Image.open(tmp_path / "runs" / "conv_by_hand" / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_photographs_become_an_npz(run_script, tmp_path):
    """Transparent ones on white, phones' upright, TIFF too; a bad file is named and left out."""
    photos, output = tmp_path / "photos", tmp_path / "photos.npz"
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6  # it lies on its side
    clear, dark, upright = np.zeros((20, 20, 4)), np.full((20, 20), 100 * 256), np.zeros((40, 20))
    upright[:20] = 255
    for folder in (photos / "ants", photos / "bees"):
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 255, (20 + i, 30, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / f"{i}.{('png', 'TIF', 'jpg', 'bmp')[i % 4]}")
        Image.fromarray(clear.astype("uint8")).save(folder / "clear.png")
        Image.fromarray(dark.astype("uint16")).save(folder / "16 bit.png")
        turned = Image.fromarray(np.rot90(upright).astype("uint8"))
        turned.save(folder / "phone.jpg", exif=exif, quality=95)
        (folder / "broken.jpg").write_bytes(b"no photograph")
        (folder / ".hidden").write_text("left alone")
    result = run_script(PHOTOS, photos, output, "--image-size", 16)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("left out") == 2 and "broken.jpg" in result.stdout
    data = cnn.load_data(output)
    assert data["class_names"] == ["ants", "bees"] and data["train_X"].shape == (17, 16, 16, 3)
    again = run_script(PHOTOS, photos, output)
    assert again.returncode == 1 and "exists" in again.stderr and again.stderr.count("\n") == 1
    assert photos_to_npz.read_photo(photos / "ants" / "clear.png", 16).min() == 255
    assert set(photos_to_npz.read_photo(photos / "ants" / "16 bit.png", 16).flat) == {100}
    phone = photos_to_npz.read_photo(photos / "ants" / "phone.jpg", 16).mean(axis=2)
    assert phone[:6].mean() > phone[-6:].mean() + 200
    for path in (photos / "ants").glob("[12].*"):
        path.unlink()
    with pytest.raises(ValueError, match="ten"):
        photos_to_npz.read_folder(photos, 16)
    (photos / "bees").rename(tmp_path / "bees")
    with pytest.raises(ValueError, match="two folders"):
        photos_to_npz.read_folder(photos, 16)
