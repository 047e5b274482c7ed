"""Chapter 8: sorting photographs, frozen features, fine-tuning, where the network looks."""

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python
from PIL import Image

SCRIPT = "chapter08/inceptionv3_dogs_cats.py"
PARTS, CLASSES = ("train", "val", "test"), ("cat", "dog")


@pytest.fixture(scope="module", autouse=True)
def chapter_folder():
    """The scripts import data_setup from their own folder, as when they are run."""
    sys.path.insert(0, str(ROOT / "chapter08"))
    yield
    sys.path.remove(str(ROOT / "chapter08"))


@pytest.fixture(scope="module")
def setup(chapter_folder):
    import data_setup

    return data_setup


@pytest.fixture(scope="module")
def trainer(chapter_folder):
    return load_script(SCRIPT)


def photo(number, kind="JPEG", bright=0):
    """The bytes of a little noisy picture, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 100, (40, 30, 3)) + bright
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, kind, quality=95)
    return file.getvalue()


def kaggle(count=20):
    """Names and bytes as in Kaggle's train.zip: dark cats, bright dogs."""
    return {
        f"train/{label}.{i}.jpg": photo(1000 * k + i, bright=150 * k)
        for k, label in enumerate(CLASSES)
        for i in range(count)
    }


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # with backslashes as they are
            archive.writestr(entry, content)
    return path


def write_folder(folder, entries):
    for name, content in entries.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def sorted_photos(setup, tmp_path):
    """A folder as data_setup.py leaves it: 32 + 4 + 4 photographs."""
    setup.set_up(write_zip(tmp_path / "train.zip", kaggle()), tmp_path / "sorted")
    return tmp_path / "sorted"


# data_setup.py ------------------------------------------------------------------------------------


def test_all_sources_give_the_same_split(setup, tmp_path):
    """Kaggle's zip, Microsoft's, one made on Windows, a folder: content decides, not the name."""
    files = kaggle()
    microsoft, windows = {"readme[1].txt": b"x", "PetImages/Cat/Thumbs.db": b"x"}, {}
    for name, content in reversed(files.items()):
        label, number, _ = Path(name).name.split(".")
        microsoft[f"PetImages/{label.title()}/{99 - int(number)}.jpg"] = content
        windows[name.replace("/", "\\")] = content
    windows |= {"__MACOSX/train/._cat.0.jpg": b"x", ".trash/cat.99.jpg": photo(99)}
    sources = [
        write_zip(tmp_path / "train.zip", files),
        write_zip(tmp_path / "microsoft.zip", microsoft),
        write_zip(tmp_path / "windows.zip", windows),
        write_folder(tmp_path / "folder", files),
    ]
    splits = []
    for source in sources:
        table = setup.set_up(source, tmp_path / f"to_{source.stem}")
        assert len(table) == 40 and (table["reason"] == "").all()
        written = sorted((tmp_path / f"to_{source.stem}").rglob("*.jpg"))
        splits.append({file.read_bytes(): file.parent.parts[-2:] for file in written})
    assert all(split == splits[0] for split in splits)
    assert set(splits[0]) == set(files.values())  # byte by byte
    counts = [list(splits[0].values()).count((p, c)) for p in PARTS for c in CLASSES]
    assert counts == [16, 16, 2, 2, 2, 2]
    for name, content in files.items():
        assert splits[0][content][1] == Path(name).name[:3]
    places = [setup.plan_split(setup.list_photos(sources[0]), seed=s)["place"] for s in (1, 2)]
    assert not places[0].equals(places[1])


def test_broken_and_doubled_ones_are_listed_and_left_out(setup, tmp_path):
    files = kaggle()
    broken = {"train/cat.30.jpg": b"", "train/dog.30.jpg": photo(1)[:300], "cat.31.png": b"text"}
    doubled = {"copies/cat.90.jpg": files["train/cat.3.jpg"]}
    source = write_zip(tmp_path / "train.zip", files | broken | doubled)
    table = setup.set_up(source, tmp_path / "sorted")
    assert set(table.loc[table["place"] == "", "source"]) >= {*broken}
    assert (table["place"] == "").sum() == 4 == (table["reason"] != "").sum()
    assert table.loc[table["place"] != "", "place"].is_unique
    contents = [file.read_bytes() for file in (tmp_path / "sorted").rglob("*.jpg")]
    assert sorted(contents) == sorted(files.values())
    assert pd.read_csv(tmp_path / "sorted" / "split.csv").shape == table.shape


def awkward_photos():
    """Names, contents and the colours that a person sees: above and below the middle."""
    red, white, black, grey = (200, 10, 20), (255, 255, 255), (0, 0, 0), (100, 100, 100)
    upright = np.zeros((40, 60, 3), "uint8")
    upright[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    plain = Image.new("RGB", (60, 40), red)
    deep = Image.fromarray(np.full((40, 60), 100 * 256, "uint16"))
    pictures = {
        "phone.jpg": (Image.fromarray(np.rot90(upright)), {"exif": exif}, white, black),
        "clear.png": (Image.new("RGBA", (60, 40), (*red, 0)), {}, white, white),
        "deep.png": (deep, {}, grey, grey),
        "deep.tif": (deep, {}, grey, grey),
        "print.jpg": (plain.convert("CMYK"), {}, red, red),
        "web.webp": (plain, {"lossless": True}, red, red),
        "palette.gif": (plain.convert("P", palette=Image.Palette.ADAPTIVE), {}, red, red),
        "old.jpg": (Image.new("L", (60, 40), 100), {}, grey, grey),
    }
    for name, (image, options, above, below) in pictures.items():
        file = io.BytesIO()
        image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
        yield name, file.getvalue(), above, below


def test_the_network_sees_what_a_person_sees(setup, trainer, tmp_path):
    """Turned, transparent, 16-bit, CMYK, TIFF, WebP: Keras alone would misread or skip them."""
    photos = {f"dog/{name}": content for name, content, *_ in awkward_photos()}
    source = write_folder(tmp_path / "photos", photos | kaggle(10))
    table = setup.set_up(source, tmp_path / "sorted").set_index("source")
    read_pixels = load_script("chapter08/classify_photo.py").read_pixels
    for name, _, above, below in awkward_photos():
        place = tmp_path / "sorted" / table.loc[f"dog/{name}", "place"]
        photos = trainer.setup_data(place.parent.parent, 80, 10)
        index = photos.file_paths.index(str(place))
        pixels = np.concatenate([X for X, _ in photos])[index]
        for found in (pixels, read_pixels(tmp_path / "photos" / "dog" / name, 80)):
            assert found.shape == (80, 80, 3)
            assert np.abs(found[:36].mean((0, 1)) - above).max() < 6, name
            assert np.abs(found[44:].mean((0, 1)) - below).max() < 6, name


def test_what_is_no_picture_is_refused(setup, tmp_path):
    numbers = np.full((20, 20), 0.5, "float32")
    numbers[3, 3] = np.nan
    Image.fromarray(numbers).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="which is white"):
        setup.read_photo(tmp_path / "a.tiff")


def test_interrupted_or_repeated_it_spoils_nothing(setup, tmp_path, monkeypatch):
    source, output = write_zip(tmp_path / "train.zip", kaggle()), tmp_path / "sorted"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            setup.set_up(source, output)
    assert not output.exists()
    setup.set_up(source, output)
    assert len(list(output.rglob("*.jpg"))) == 40
    assert {path.name for path in tmp_path.iterdir()} == {"train.zip", "sorted"}
    (output / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        setup.set_up(source, output)
    assert (output / "mine.txt").read_text() == "mine"


def bad_sources(folder):
    whole = write_zip(folder / "whole.zip", kaggle())
    (folder / "text.zip").write_text("not a zip")
    (folder / "cut.zip").write_bytes(whole.read_bytes()[:9000])
    write_zip(folder / "nested.zip", {"train.zip": whole.read_bytes()})
    write_zip(folder / "cats.zip", {n: c for n, c in kaggle().items() if "cat" in n})
    write_zip(folder / "broken.zip", dict.fromkeys(kaggle(), b"x"))
    words = {"text": "zip", "cut": "zip", "nested": "unpacked first", "cats": "dog"}
    return words | {"broken": "0 readable", "missing": "fetch.py"}


def test_bad_sources_give_one_line(setup, tmp_path, monkeypatch):
    for name, words in bad_sources(tmp_path).items():
        arguments = ["--data", tmp_path / f"{name}.zip", "--output", tmp_path / "sorted"]
        monkeypatch.setattr(sys, "argv", ["data_setup.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            setup.main()
        assert str(stop.value.code).startswith("error: ") and "\n" not in stop.value.code
        assert words in stop.value.code, stop.value.code
    assert not (tmp_path / "sorted").exists()


def test_classes_of_ones_own(setup, tmp_path):
    """Two other classes, as folders: what data_setup.py writes, the trainer reads."""
    files = {n.replace("cat", "bee").replace("dog", "ant"): c for n, c in kaggle().items()}
    source = write_folder(tmp_path / "mine", files)
    table = setup.set_up(source, tmp_path / "sorted", ("ant", "bee"))
    assert table["label"].value_counts().to_dict() == {"ant": 20, "bee": 20}


def test_the_sample(setup, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["data_setup.py", "--data", "sample"])
    setup.main()
    out = capsys.readouterr().out
    assert "    48 train/cat" in out and "     6 test/dog" in out
    assert len(list((tmp_path / "runs" / "dogs-vs-cats_sample").rglob("*.jpg"))) == 120


# The network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(trainer):
    return trainer.build_model_feature_extraction(weights="none", image_size=75)


@pytest.fixture
def mobilenet(trainer):
    import keras

    keras.utils.set_random_seed(1)
    return trainer.build_model_feature_extraction("mobilenet", "none", 32)


def test_the_network_is_the_books(trainer, inception):
    names = [layer.name for layer in inception.layers]
    assert names == ["input", "rescale", "inception_v3", "avg_pool", "fc1", "predictions"]
    assert inception.get_layer("inception_v3").count_params() == 21_802_784
    assert inception.get_layer("fc1").count_params() == 2048 * 1024 + 1024
    assert inception.get_layer("predictions").count_params() == 1024 + 1
    learning = sum(int(np.prod(weight.shape)) for weight in inception.trainable_weights)
    assert learning == 2048 * 1024 + 1024 + 1024 + 1
    assert trainer.BACKBONES["inceptionv3"][1] == 299


def test_fine_tuning_unfreezes_from_the_books_layer_249_on(trainer, inception):
    """The book: "the very last inception block"; they are the last two, mixed9 and mixed10."""
    import keras

    model = trainer.build_model_fine_tuning(keras.models.clone_model(inception))
    base_model = model.get_layer("inception_v3")
    assert base_model.layers[248].name == "mixed8" and len(base_model.layers) == 311
    weighty = [(i, layer) for i, layer in enumerate(base_model.layers) if layer.weights]
    learning = [i for i, layer in weighty if layer.trainable_weights]
    assert min(learning) >= 249 and len(learning) == 18  # nine convolutions in each of the two
    normalizing = [layer for _, layer in weighty if "BatchNormalization" in str(type(layer))]
    assert len(normalizing) == 94 and not any(layer.trainable for layer in normalizing)
    assert isinstance(model.optimizer, keras.optimizers.SGD) and model.optimizer.momentum == 0.9
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["efficientnetv2b0", "convnexttiny"])
def test_other_backbones_have_a_top_that_learns(trainer, backbone):
    model = trainer.build_model_feature_extraction(backbone, "none", 64)
    head = len(model.trainable_weights)
    assert "rescale" not in [layer.name for layer in model.layers]  # they scale themselves
    model = trainer.build_model_fine_tuning(model, trainer.BACKBONES[backbone][3])
    base_model = next(layer for layer in model.layers if hasattr(layer, "layers"))
    first = next(i for i, layer in enumerate(base_model.layers) if layer.trainable_weights)
    assert len(model.trainable_weights) > head and first > len(base_model.layers) / 2


def test_the_model_takes_pixels_and_scales_them_as_its_backbone_wants(trainer, mobilenet):
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    expected = keras.applications.mobilenet.preprocess_input(pixels.copy())
    found = keras.ops.convert_to_numpy(mobilenet.get_layer("rescale")(pixels))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected.min() < -0.9  # the book's 0 to 1 shows it a paler world


def test_stage_2_changes_the_last_blocks_and_no_statistics(trainer, mobilenet, tmp_path):
    """Also after saving and loading, as a run that goes on does it."""
    import keras

    trainer.build_model_fine_tuning(mobilenet, "conv_pw_11_relu").save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    base_model = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    rng = np.random.default_rng(0)
    for layer in base_model.layers:  # statistics that a training batch would move far away
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    before = {layer.name: layer.get_weights() for layer in base_model.layers}
    model.optimizer.learning_rate = 1.0  # so that nothing stays the same by rounding
    X = rng.integers(0, 256, (8, 32, 32, 3)).astype("float32")
    model.fit(X, np.arange(8) % 2, batch_size=8, epochs=2, verbose=0)
    changed = [
        layer.name
        for layer in base_model.layers
        if not all(map(np.array_equal, before[layer.name], layer.get_weights()))
    ]
    assert changed == ["conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13"]


def test_features_are_what_the_backbone_gives_and_computed_once(
    trainer, mobilenet, sorted_photos, tmp_path, monkeypatch
):
    """A kill while they are saved leaves nothing that looks whole."""
    import keras

    data, path = trainer.load_data(sorted_photos, 32, 5), tmp_path / "features.npz"

    def half(file, savez=np.savez, **arrays):
        savez(file, **arrays)
        Path(file).write_bytes(Path(file).read_bytes()[:500])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            trainer.extract_features(mobilenet, data, path)
    assert not path.exists()
    features = trainer.extract_features(mobilenet, data, path)
    assert features["train_X"].shape == (32, 256) and features["train_y"].sum() == 16
    pixels = np.concatenate([X for X, _ in data["test"]])
    extractor = keras.Model(mobilenet.input, mobilenet.get_layer("avg_pool").output)
    np.testing.assert_allclose(features["test_X"], extractor.predict(pixels, verbose=0), rtol=1e-4)
    monkeypatch.setattr(keras.Model, "predict", lambda *_: 1 / 0)  # never again
    again = trainer.extract_features(mobilenet, data, path)
    np.testing.assert_array_equal(again["val_X"], features["val_X"])


def test_photographs_are_shuffled_anew_in_each_epoch(trainer, sorted_photos):
    photos = trainer.setup_data(sorted_photos / "train", 32, 8, seed=1)
    epochs = [np.concatenate([X.numpy().mean((1, 2, 3)) for X, _ in photos]) for _ in range(2)]
    assert not np.array_equal(*epochs) and np.array_equal(*map(np.sort, epochs))
    for X, y in photos:  # each label with its own photograph: bright dogs
        assert np.array_equal(X.numpy().mean((1, 2, 3)) > 125, y[:, 0] == 1)


def test_colour_histograms_tell_dark_from_bright(trainer, sorted_photos):
    data = trainer.load_data(sorted_photos, 32, 10)
    assert trainer.fit_baseline(data).tolist() == data["test_y"].tolist()


def test_bad_weights_are_called_what_they_are(sorted_photos, tmp_path):
    """No missing or wrong file is called a failed download; the run folder can still be used."""
    (tmp_path / "text.h5").write_text("no weights")
    lists = []
    for weights, size in (("missing.h5", 32), ("text.h5", 32), ("none", 8)):
        usual = ["--data", sorted_photos, "--backbone", "mobilenet", "--run-dir", tmp_path / "r"]
        lists.append([*map(str, usual), "--weights", weights, "--image-size", str(size)])
    result = run_python("tests/each.py", ROOT / SCRIPT, json.dumps(lists), cwd=tmp_path)
    outcomes = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(outcomes) == 3
    for outcome, words in zip(outcomes, ("weights", "open file", "Input size"), strict=True):
        lines = [line for line in outcome["stderr"].splitlines() if "error: " in line]
        assert outcome["status"] == 1 and len(lines) == 1, outcome
        assert words in lines[0] and "fetch" not in lines[0]
        assert "Traceback" not in outcome["stderr"]
    assert not list((tmp_path / "r").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", ["new_fine_tuning.keras", "new.keras"])
def test_killed_while_it_saves_in_stage_2_it_goes_on(
    trainer, sorted_photos, tmp_path, monkeypatch, killed_at
):
    import keras

    run_dir, plain_save, plain_copy = tmp_path / "run", keras.Model.save, shutil.copy
    usual = ["--data", sorted_photos, "--backbone", "mobilenet", "--weights", "none"]
    usual += ["--image-size", 32, "--unfreeze-after", 1, "--epochs", 3, "--run-dir", run_dir]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, usual)])

    def die_writing(path):
        epochs = len((run_dir / "history.csv").read_text().splitlines()) - 1
        if path.name == killed_at and epochs > 1:  # the first was stage 1
            path.write_bytes(path.read_bytes()[:2000])
            raise KeyboardInterrupt

    def save(model, path):
        plain_save(model, path)
        die_writing(path)

    def copy(source, target):
        plain_copy(source, target)
        die_writing(target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        patch.setattr(shutil, "copy", copy)
        with pytest.raises(KeyboardInterrupt):
            trainer.main()
    stage_1 = (run_dir / "feature_extraction.keras").read_bytes()
    features = (run_dir / "features.npz").stat().st_mtime_ns
    trainer.main()
    history = pd.read_csv(run_dir / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    assert (run_dir / "feature_extraction.keras").read_bytes() == stage_1
    assert (run_dir / "features.npz").stat().st_mtime_ns == features
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["epochs"] == 3 and "gain" in metrics


# What a trained network is used for ---------------------------------------------------------------


@pytest.fixture
def bright_is_dog(tmp_path):
    """The folder of a network of the trainer's layers that tells bright pictures from dark ones."""
    import keras

    inputs = keras.Input(shape=(32, 32, 3))
    base_model = keras.Sequential([keras.layers.AveragePooling2D(4)])
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(base_model(inputs))
    x = keras.layers.Dense(6, activation="relu", name="fc1")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="predictions")(x))
    rng = np.random.default_rng(0)
    kernel = np.abs(rng.normal(size=(3, 6))) * [1, 1, 1, -1, -1, -1]
    kernel2 = np.array([[1], [2], [1], [-2], [-1], [-1]]) / 50
    model.get_layer("fc1").set_weights([kernel, np.array([-150] * 3 + [150] * 3)])
    model.get_layer("predictions").set_weights([kernel2, np.array([0.0])])
    folder = tmp_path / "bright"
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "settings.json").write_text('{"class_names": ["cat", "dog"]}')
    return folder


def test_classify_photo(bright_is_dog, tmp_path, monkeypatch, capsys):
    """Right answers; a file that is no photograph is named, the others are still classified."""
    classify_photo = load_script("chapter08/classify_photo.py")
    files = [tmp_path / name for name in ("dark.png", "broken.jpg", "bright.tiff", "missing.jpg")]
    Image.new("L", (9, 9), 10).save(files[0])
    files[1].write_bytes(photo(1)[:200])
    Image.new("RGBA", (99, 300), (250, 250, 250, 255)).save(files[2])
    arguments = [*map(str, files), "--run-dir", str(bright_is_dog)]
    monkeypatch.setattr(sys, "argv", ["classify_photo.py", *arguments])
    with pytest.raises(SystemExit, match="1"):
        classify_photo.main()
    out, err = capsys.readouterr()
    lines = [line.split(" (")[0] for line in out.splitlines() if "%" in line]
    assert lines == [f"{files[0]}: cat", f"{files[2]}: dog"]
    skipped = [line for line in err.splitlines() if line.startswith("skipped: ")]
    assert [str(files[1]) in skipped[0], str(files[3]) in skipped[1]] == [True, True]
    monkeypatch.setattr(sys, "argv", ["classify_photo.py", *arguments[:-1], str(tmp_path)])
    with pytest.raises(SystemExit, match="^error: "):
        classify_photo.main()


def test_grad_cam_equals_the_gradient(bright_is_dog):
    import keras
    import tensorflow as tf

    grad_cam = load_script("chapter08/grad_cam.py").grad_cam
    model = keras.models.load_model(bright_is_dog / "model.keras")
    rng = np.random.default_rng(1)
    for scale, sign in ((255, 1), (60, -1)):  # a dog, a cat
        pixels = rng.uniform(0, scale, (32, 32, 3)).astype("float32")
        pixels[:, 16:] *= 0.5
        probability, heat = grad_cam(model, pixels)
        assert (probability > 0.5) == (sign > 0)
        maps = model.layers[1](pixels[None])
        with tf.GradientTape() as tape:
            tape.watch(maps)
            x = maps
            for layer in model.layers[2:-1]:
                x = layer(x)
            last = model.layers[-1]
            logit = tf.matmul(x, last.kernel) + last.bias
        weights = tape.gradient(logit, maps).numpy().sum((1, 2))[0]  # by the map's average
        expected = np.maximum((maps.numpy()[0] * weights * sign).sum(-1), 0)
        np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-4)
        if sign > 0:  # brightness speaks for a dog, and there is more of it on the left
            assert heat[:, :4].mean() > 1.5 * heat[:, 4:].mean()


def test_grad_cam_draws(bright_is_dog, tmp_path, monkeypatch):
    grad_cam = load_script("chapter08/grad_cam.py")
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(photo(i, bright=150 * i))
    arguments = [str(tmp_path / "0.jpg"), str(tmp_path / "1.jpg"), "--run-dir", str(bright_is_dog)]
    monkeypatch.setattr(sys, "argv", ["grad_cam.py", *arguments])
    grad_cam.main()
    with Image.open(bright_is_dog / "grad_cam.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    monkeypatch.setattr(sys, "argv", ["grad_cam.py", "none.jpg", *arguments[2:]])
    with pytest.raises(SystemExit, match="^error: "):
        grad_cam.main()


@pytest.fixture(scope="module")
def more():
    return load_script("chapter08/how_much_data.py")


def test_sizes_and_slope(more):
    assert more.choose_sizes(1440) == [50, 100, 200, 400, 800, 1440]
    assert more.choose_sizes(100) == [50, 100]
    n, fold = np.tile([50, 100, 200, 400], 3), np.repeat([0, 1, 2], 4)
    accuracy = 0.3 + np.array([0.04, 0.05, 0.06])[fold] * np.log2(n)
    line = more.fit_line(pd.DataFrame({"fold": fold, "n": n, "accuracy": accuracy}))
    assert line["gain_per_doubling"] == pytest.approx(0.05) and line["std"] == pytest.approx(0.01)
    assert 0.2 < line["r_squared"] < 1


def test_each_part_is_scored_once_by_heads_that_never_saw_it(more, monkeypatch):
    """Also at the full size the draws differ: there are no three copies of one training set."""
    calls = []

    def score(train_X, train_y, val_X, val_y, steps):
        calls.append((set(train_X[:, 0]), set(val_X[:, 0]), train_y.mean()))
        return 0.5

    monkeypatch.setattr(more, "score_head", score)
    X, y = np.arange(250.0)[:, None], np.arange(250) % 2
    table = more.measure(X, y, folds=5, steps=1, seed=1)
    assert table.groupby("n").size().to_dict() == {50: 5, 100: 5, 200: 5}
    full = [(train, val) for train, val, _ in calls if len(train) == 200]
    assert set().union(*(val for _, val in full)) == set(range(250))
    assert len({frozenset(train) for train, _ in full}) == 5
    assert not any(train & val for train, val, _ in calls)
    assert all(share == 0.5 for *_, share in calls)


@pytest.mark.slow
def test_how_much_data_finds_the_gain(more, tmp_path, monkeypatch):
    """On features of which one in fifty tells something: more photographs, better heads."""
    rng = np.random.default_rng(0)
    y = np.arange(500) % 2
    X = rng.normal(size=(500, 50)).astype("float32") * 1e-9  # as small as random weights make them
    X[:, 0] += 1e-9 * (2 * y - 1)
    (tmp_path / "run").mkdir()
    arrays = {"train_X": X[:450], "train_y": y[:450], "val_X": X[450:], "val_y": y[450:]}
    np.savez(tmp_path / "run" / "features.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    usual = ["how_much_data.py", "run", "--folds", "2", "--steps", "60", "--output", "out"]
    monkeypatch.setattr(sys, "argv", usual)
    more.main()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["lines"]["run"]["gain_per_doubling"] > 0.01
    assert metrics["val"]["run"]["250"]["mean"] > 0.7
    with Image.open(tmp_path / "out" / "how_much_data.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    for bad in (usual[1:], ["none"], ["run", "--folds", "1"], ["run", "--seed", "-1"]):
        monkeypatch.setattr(sys, "argv", ["how_much_data.py", *bad])
        with pytest.raises(SystemExit, match="^error: "):
            more.main()


@pytest.mark.slow
def test_transfer_on_real_photographs(trainer, setup, real_data_dir, tmp_path, monkeypatch):
    """With a laptop's backbone and its ImageNet weights: far above colour histograms at once."""
    weights = next(real_data_dir.glob("mobilenet_2_5_224*"), None)
    if weights is None:
        pytest.skip("no MobileNet weights in REAL_DATA_DIR")
    setup.set_up(real_data_dir / "dogs-vs-cats", tmp_path / "sorted")
    usual = ["--data", tmp_path / "sorted", "--backbone", "mobilenet", "--weights", weights]
    usual += ["--epochs", 2, "--run-dir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, usual)])
    trainer.main()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.9 > metrics["colour_histograms"]["accuracy"] + 0.15
    assert metrics["epochs"] == 2 and not (tmp_path / "run" / "fine_tuning.keras").exists()
