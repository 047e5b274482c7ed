"""Chapter 8: sorting photographs, frozen features, fine-tuning, where the network looks."""

import contextlib
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import load_script
from PIL import Image

TRAINER, SETUP = "inceptionv3_dogs_cats", "data_setup"
names = (TRAINER, SETUP, "classify_photo", "grad_cam", "how_much_data")
scripts = {name: load_script(f"chapter08/{name}.py") for name in names}
trainer, setup = scripts[TRAINER], scripts[SETUP]
PARTS = ("train", "val", "test")
pytestmark = pytest.mark.filterwarnings("ignore:Even though .*eagerly")


def run_main(name, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        scripts[name].main()


def photo(number, bright=0):
    """The bytes of a little noisy picture, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 100, (40, 30, 3)) + bright
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, "JPEG", quality=95)
    content = file.getvalue()
    if number % 2:  # as cameras write: Exif in place of the 18 bytes of JFIF
        content = content[:2] + b"\xff\xe1\x00\x10Exif\0\0II*\0\x08\0\0\0" + content[20:]
    return content


def kaggle(dark="cat", bright="dog"):
    """Names and bytes as in Kaggle's train.zip: 20 of each class."""
    files = {f"train/{dark}.{i}.jpg": photo(i) for i in range(20)}
    return files | {f"train/{bright}.{i}.jpg": photo(i, 150) for i in range(20)}


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_content_decides_the_split_whatever_the_source(tmp_path):
    """Kaggle's zip, Microsoft's made on Windows, a folder: byte by byte, 80 : 10 : 10."""
    files = kaggle()
    microsoft = {"__MACOSX/train/._cat.0.jpg": b"x", ".trash/cat.99.jpg": photo(99)}
    for name, content in reversed(files.items()):
        label, number, _ = Path(name).name.split(".")
        microsoft[f"PetImages\\{label.title()}\\{99 - int(number)}.jpg"] = content
    sources = [write_zip(tmp_path / "a.zip", files), write_zip(tmp_path / "b.zip", microsoft)]
    zipfile.ZipFile(sources[0]).extractall(tmp_path / "folder")
    splits = []
    for source in (*sources, tmp_path / "folder"):
        output = tmp_path / f"to {source.name}"
        table = setup.set_up(source, output)
        assert (table["reason"] == "").all()
        splits.append({file.read_bytes(): file.parent.parts[-2:] for file in output.rglob("*.jpg")})
    assert splits[0] == splits[1] == splits[2]
    assert all(splits[0][content][1] in name for name, content in files.items())
    assert table["place"].str.split("/").str[0].value_counts().tolist() == [32, 4, 4]
    assert not table.equals(setup.plan_split(setup.list_photos(source), seed=2))
    with pytest.raises(ValueError, match="exists already"):
        setup.set_up(source, output)


def test_the_network_sees_what_a_person_sees_of_ones_own_classes(tmp_path):
    """Keras alone would misread or skip some formats; the broken and the doubled are left out."""
    red, white, black, grey = (200, 10, 20), (255, 255, 255), (0, 0, 0), (100, 100, 100)
    files = kaggle("bee", "ant")
    broken = {"bee.30.jpg": b"", "ant.30.jpg": photo(1)[:300], "copy/bee.1.jpg": photo(1)}
    archive, source = write_zip(tmp_path / "mine.zip", files | broken), tmp_path / "mine"
    zipfile.ZipFile(archive).extractall(source)
    upright = np.zeros((40, 60, 3), "uint8")
    upright[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    plain = Image.new("RGB", (60, 40), red)
    deep = Image.fromarray(np.full((40, 60), 100 * 256, "uint16"))
    pictures = {  # with the colours above and below the middle
        "ant.phone.jpg": (Image.fromarray(np.rot90(upright)), {"exif": exif}, white, black),
        "ant.clear.png": (Image.new("RGBA", (60, 40), (*red, 0)), {}, white, white),
        "ant.deep.tif": (deep, {}, grey, grey),
        "ant.print.jpg": (plain.convert("CMYK"), {}, red, red),
    }
    for name, (image, options, *_) in pictures.items():
        image.save(source / name, **options)
    table = setup.set_up(source, tmp_path / "sorted", ("ant", "bee")).set_index("source")
    left_out = table.index[table["place"] == ""]
    assert len(left_out) == 3 and set(left_out) <= {*broken, "train/bee.1.jpg"}
    pixels = {}
    for part in PARTS:
        photos = trainer.setup_data(tmp_path / "sorted" / part, 80, 10)
        pixels |= dict(zip(photos.file_paths, np.concatenate([X for X, _ in photos]), strict=True))
    for name, (*_, above, below) in pictures.items():
        own = scripts["classify_photo"].read_pixels(source / name, 80)
        for found in (own, pixels[str(tmp_path / "sorted" / table.loc[name, "place"])]):
            assert np.abs(found[:36].mean((0, 1)) - above).max() < 6, name
            assert np.abs(found[44:].mean((0, 1)) - below).max() < 6, name


def test_what_cannot_be_sorted_gives_one_line(tmp_path, monkeypatch, capsys):
    """Interrupted it leaves no folder that looks whole; the sample is sorted."""
    Image.fromarray(np.full((20, 20), np.nan, "float32")).save(tmp_path / "a.tiff")
    (tmp_path / "a.heic").write_bytes(b"of a telephone")
    for name, words in (("a.tiff", "which is white"), ("a.heic", "pillow-heif")):
        with pytest.raises(ValueError, match=words):
            setup.read_photo(tmp_path / name)
    whole = write_zip(tmp_path / "whole.zip", kaggle())
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:9000])
    write_zip(tmp_path / "nested.zip", {"train.zip": whole.read_bytes()})
    write_zip(tmp_path / "broken.zip", dict.fromkeys(kaggle(), b"x"))
    words = {"cut": "not a zip", "nested": "unpack zips", "broken": "0 readable"}
    output = ["--output", tmp_path / "sorted"]
    for name, word in {**words, "missing": "fetch.py"}.items():
        with pytest.raises(SystemExit, match=f"^error: .*{word}.*$"):
            run_main(SETUP, "--data", tmp_path / f"{name}.zip", *output)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "rename", lambda *_: 1 / 0)
        run_main(SETUP, "--data", whole, *output)
    assert not (tmp_path / "sorted").exists()
    run_main(SETUP, "--data", "sample", *output)
    assert "    48 train/cat" in capsys.readouterr().out


def test_the_network_is_the_books_and_fine_tuned_from_its_layer_249_on():
    """The book: "the very last inception block"; they are the last two, mixed9 and mixed10."""
    model = trainer.build_model_feature_extraction(weights="none", image_size=75)
    names = ["input", "rescale", "inception_v3", "avg_pool", "fc1", "predictions"]
    assert [layer.name for layer in model.layers] == names
    base_model = model.get_layer("inception_v3")
    new = 2048 * 1024 + 1024 + 1024 + 1
    assert model.count_params() - new == base_model.count_params() == 21_802_784
    assert sum(weight.shape.num_elements() for weight in model.trainable_weights) == new
    model = trainer.build_model_fine_tuning(model)
    assert base_model.layers[248].name == "mixed8" and len(base_model.layers) == 311
    learning = [i for i, layer in enumerate(base_model.layers) if layer.trainable_weights]
    assert min(learning) >= 249 and len(learning) == 18  # nine convolutions in each of the two
    assert type(model.optimizer) is keras.optimizers.SGD and model.optimizer.momentum == 0.9
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("backbone", "module", "first"),
    [
        ("efficientnetv2b0", "efficientnet_v2", "block6a_expand_conv"),
        ("convnexttiny", "convnext", "convnext_tiny_downsampling_block_2"),
        ("mobilenet", "mobilenet", "conv_dw_12"),
    ],
)
def test_other_backbones_have_their_own_scale_and_top(backbone, module, first):
    model = trainer.build_model_feature_extraction(backbone, "none", 32)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    _, side, rescale, last_frozen = trainer.BACKBONES[backbone]
    found = model.get_layer("rescale")(pixels) if rescale else pixels
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model = trainer.build_model_fine_tuning(model, last_frozen)
    base_model = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    learning = [layer.name for layer in base_model.layers if layer.trainable_weights]
    assert learning[0] == first and side == 224


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    setup.set_up(write_zip(folder / "train.zip", kaggle()), folder / "sorted")
    return folder / "sorted"


def test_bad_weights_are_called_what_they_are(photos, tmp_path, monkeypatch):
    """No missing or wrong file is called a failed download; the run folder can still be used."""
    monkeypatch.chdir(tmp_path)
    Path("text.h5").write_text("no weights")
    usual = [TRAINER, "--data", photos, "--backbone", "mobilenet", "--run-dir", "run"]
    rows = ("missing.h5", 32, "weights"), ("text.h5", 32, "open file"), ("none", 8, "Input size")
    for weights, size, words in rows:
        with pytest.raises(SystemExit, match=f"^error: (?!.*fetch).*{words}.*$"):
            run_main(*usual, "--weights", weights, "--image-size", size)
    assert not list(Path("run").iterdir())


def build_tiny(include_top, weights, input_shape):
    """A backbone of two blocks that is trained and saved in a moment."""
    x = inputs = keras.Input(input_shape)
    for name in ("low", "high"):
        x = keras.layers.Conv2D(8, 3, strides=4, name=name)(x)
        x = keras.layers.BatchNormalization(name=f"{name}_statistics")(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A run folder: killed while it saves features, then in each stage; and again gone on with."""
    run_dir, copy, savez = tmp_path_factory.mktemp("run"), shutil.copy, np.savez
    kills = ["new_features.npz", "new_feature_extraction.keras", "new_fine_tuning.keras"]

    def kill(path):
        if path.name in kills:
            kills.remove(path.name)
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    usual = ["--data", photos, "--backbone", "tiny", "--weights", "none", "--run-dir", run_dir]
    usual += ["--batch-size", 4, "--unfreeze-after", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trainer.BACKBONES, "tiny", (build_tiny, 32, True, "low"))
        patch.setattr(np, "savez", lambda path, **arrays: kill(path) or savez(path, **arrays))
        patch.setattr(shutil, "copy", lambda source, path: kill(path) or copy(source, path))
        tf.config.run_functions_eagerly(True)  # compiling takes longer than so little training
        for epochs in (3, 3, 3, 2, 3):
            with contextlib.suppress(KeyboardInterrupt):
                run_main(TRAINER, *usual, "--epochs", epochs)
        tf.config.run_functions_eagerly(False)
    assert not kills
    return run_dir


def test_killed_while_it_saves_it_goes_on(trained):
    """Stage 2 changes the last block, but no statistics, also when it goes on."""
    assert pd.read_csv(trained / "history.csv")["epoch"].tolist() == [0, 1, 2]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["epochs"] == 3 and metrics["colour_histograms"]["accuracy"] == 1
    frozen, tuned = (
        keras.models.load_model(trained / f"{name}.keras").layers[2].layers
        for name in ("feature_extraction", "last")
    )
    for before, after in zip(frozen, tuned, strict=True):
        same = all(map(np.array_equal, before.get_weights(), after.get_weights()))
        assert same == (before.name != "high")


def test_features_are_what_the_backbone_gives_and_computed_once(trained, photos):
    features = trainer.extract_features(None, None, trained / "features.npz")  # read
    model = keras.models.load_model(trained / "feature_extraction.keras")
    extractor = keras.Model(model.input, model.get_layer("avg_pool").output)
    for part in PARTS:
        batches = list(trainer.setup_data(photos / part, 32, 5))
        X = np.concatenate([extractor(pixels) for pixels, _ in batches])
        np.testing.assert_allclose(features[f"{part}_X"], X, rtol=1e-4, atol=1e-6)
        assert np.array_equal(features[f"{part}_y"], np.concatenate([y[:, 0] for _, y in batches]))


@pytest.mark.slow
def test_transfer_on_real_photographs(real_data_dir, tmp_path):
    """With a laptop's backbone and its ImageNet weights: far above colour histograms at once."""
    weights = next(real_data_dir.glob("mobilenet*"), None) or pytest.skip("no MobileNet weights")
    setup.set_up(real_data_dir / "dogs-vs-cats", tmp_path / "sorted")
    usual = ["--data", tmp_path / "sorted", "--backbone", "mobilenet", "--weights", weights]
    run_main(TRAINER, *usual, "--epochs", 2, "--run-dir", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.9 > metrics["colour_histograms"]["accuracy"] + 0.15


def test_photographs_are_classified_and_explained(trained, tmp_path, capsys):
    files = [tmp_path / name for name in ("dark.png", "broken.jpg", "bright.tiff", "missing.jpg")]
    Image.new("L", (9, 9), 50).save(files[0])
    files[1].write_bytes(photo(1)[:200])
    Image.new("RGBA", (99, 300), (200, 200, 200, 255)).save(files[2])
    with pytest.raises(SystemExit, match="1"):
        run_main("classify_photo", *files, "--run-dir", trained)
    out, err = capsys.readouterr()
    answers = [line.split(" (")[0] for line in out.splitlines() if "%" in line]
    assert answers == [f"{files[0]}: cat", f"{files[2]}: dog"]
    assert f"skipped: {files[1]}" in err and f"skipped: {files[3]}" in err
    run_main("grad_cam", files[0], files[2], "--run-dir", trained)
    assert (trained / "grad_cam.png").exists()
    with pytest.raises(SystemExit, match=f"^error: {files[1]}: "):
        run_main("grad_cam", *files[:2], "--run-dir", trained)
    for name in ("classify_photo", "grad_cam"):
        with pytest.raises(SystemExit, match="^error: "):
            run_main(name, files[0], "--run-dir", tmp_path)


@pytest.mark.parametrize(("bright", "sign"), [(150, 1), (0, -1)])  # a dog, a cat
def test_grad_cam_equals_the_gradient(trained, bright, sign):
    model = keras.models.load_model(trained / "model.keras")
    *_, rescale, backbone, avg_pool, fc1, predictions = model.layers
    pixels = np.random.default_rng(1).uniform(bright, bright + 99, (32, 32, 3)).astype("float32")
    probability, heat = scripts["grad_cam"].grad_cam(model, pixels)
    assert (probability > 0.5) == (sign > 0)
    maps = backbone(rescale(pixels[None]))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        log_odds = tf.matmul(fc1(avg_pool(maps)), predictions.kernel)
    weights = tape.gradient(log_odds, maps).numpy().sum((1, 2))[0]  # by the map's average
    expected = np.maximum((maps.numpy()[0] * weights * sign).sum(-1), 0)
    np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-4)


def test_more_photographs_are_better(tmp_path):
    """By features of any scale; two curves, though both folders are called "run"."""
    more = scripts["how_much_data"]
    X, y = np.random.default_rng(0).normal(size=(600, 50)), np.arange(600) % 2
    X[:, 0] += 2 * y - 1  # one feature in fifty tells something
    runs = [tmp_path / name / "run" for name in ("pretrained", "random")]
    for run_dir, scale in zip(runs, (1, 1e-9), strict=True):  # those of random weights are tiny
        run_dir.mkdir(parents=True)
        X *= scale
        arrays = {"train_X": X[:500], "train_y": y[:500], "val_X": X[500:], "val_y": y[500:]}
        np.savez(run_dir / "features.npz", **arrays)
    usual = ["how_much_data", *runs, "--output", tmp_path / "out"]
    for folds in (1, 301):
        with pytest.raises(SystemExit, match="^error: too few photographs"):
            run_main(*usual, "--folds", folds)
    (tmp_path / "out").mkdir()  # as an interrupted one leaves it
    run_main(*usual)
    with pytest.raises(SystemExit, match="holds files"):
        run_main(*usual)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics["val"]) == list(map(str, runs))
    curves = [{int(n): row["mean"] for n, row in val.items()} for val in metrics["val"].values()]
    assert list(curves[0]) == [50, 100, 200, 400, 480]
    assert curves[0] == pytest.approx(curves[1]) and 0.6 < curves[0][50] < curves[0][480] - 0.1
    line = more.fit_line(pd.DataFrame([[0.5, 0.7], [0.6, 0.8], [0.8, 1.0]], index=[50, 100, 400]))
    assert line == pytest.approx({"gain_per_doubling": 0.1, "std": 0})
