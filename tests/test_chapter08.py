"""Chapter 8: sorting the photographs, the frozen backbone, its cached features, fine-tuning."""

import csv
import hashlib
import io
import json
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script
from PIL import Image

FOLDER = ROOT / "chapter08"
SCRIPT = "chapter08/inceptionv3_dogs_cats.py"
PARTS, CLASSES = ("train", "val", "test"), ("cat", "dog")


@pytest.fixture(scope="module", autouse=True)
def chapter_folder():
    """The scripts import each other from their own folder, as when they are run."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def setup():
    return load_script("chapter08/data_setup.py")


@pytest.fixture(scope="module")
def inception(chapter_folder):
    import inceptionv3_dogs_cats

    return inceptionv3_dogs_cats


@pytest.fixture(scope="module")
def fresh_model(inception):
    """InceptionV3 takes seconds to build: one for all tests, its weights put back after each."""
    import keras

    keras.utils.set_random_seed(1)
    model = inception.build_model_feature_extraction("none", 75)
    return model, model.get_weights()


@pytest.fixture
def model(inception, fresh_model):
    import keras

    model, weights = fresh_model
    model.set_weights(weights)
    model.get_layer("inception_v3").trainable = False
    return inception.compile_for(model, keras.optimizers.Adam())


def photo(number, kind="JPEG", size=(40, 30), bright=0):
    """The bytes of a little noisy picture, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 100, (*size, 3)) + bright
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, kind)
    return file.getvalue()


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def kaggle(count=20, folder="train/"):
    """Names and bytes as in Kaggle's train.zip."""
    return {
        f"{folder}{label}.{i}.jpg": photo(1000 * k + i, bright=150 * k)
        for k, label in enumerate(CLASSES)
        for i in range(count)
    }


def tree(folder):
    """{path: SHA-256} of all files below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def photos_in(folder):
    return {name: digest for name, digest in tree(folder).items() if not name.endswith("csv")
            and not name.endswith("json")}  # fmt: skip


@pytest.fixture
def sorted_photos(setup, tmp_path):
    """A folder as data_setup.py leaves it: 32 + 4 + 4 photographs, dark cats, bright dogs."""
    setup.set_up(write_zip(tmp_path / "train.zip", kaggle()), tmp_path / "sorted")
    return tmp_path / "sorted"


# --- data_setup.py -------------------------------------------------------------------------------


def test_all_sources_give_the_same_split(setup, tmp_path):
    """Kaggle's two zips, Microsoft's, a folder: names and order do not matter, content does."""
    files = kaggle()
    write_zip(tmp_path / "train.zip", files)
    backwards = dict(reversed(files.items()))
    write_zip(tmp_path / "dogs-vs-cats.zip", {
        "test1.zip": b"not looked at", "train.zip": (tmp_path / "train.zip").read_bytes(),
        "sampleSubmission.csv": "id,label",
    })  # fmt: skip
    microsoft = {"PetImages/Cat/Thumbs.db": b"x", "readme[1].txt": "x"}
    for name, content in backwards.items():
        label, number, _ = Path(name).name.split(".")
        microsoft[f"PetImages/{label.title()}/{99 - int(number)}.jpg"] = content
    write_zip(tmp_path / "kagglecatsanddogs_5340.zip", microsoft)
    for name, content in backwards.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    splits = []
    for source in ("train.zip", "dogs-vs-cats.zip", "kagglecatsanddogs_5340.zip", "folder"):
        target = tmp_path / ("to_" + source)
        setup.set_up(tmp_path / source, target)
        assert not (target / setup.STAGING).exists()
        places = {d: tuple(name.split("/")[:2]) for name, d in photos_in(target).items()}
        assert len(places) == 40
        splits.append(places)
    assert splits[0] == splits[1] == splits[2] == splits[3]
    counts = [list(splits[0].values()).count((p, c)) for p in PARTS for c in CLASSES]
    assert counts == [16, 16, 2, 2, 2, 2]
    for name, content in files.items():  # every photograph, and under its own label
        assert splits[0][hashlib.sha256(content).hexdigest()][1] == Path(name).name[:3]
    setup.set_up(tmp_path / "train.zip", tmp_path / "other seed", seed=2)
    assert photos_in(tmp_path / "other seed") != photos_in(tmp_path / "to_train.zip")


def test_twenty_broken_of_two_hundred_are_listed(setup, tmp_path, capsys):
    files = kaggle(100)
    broken = [f"train/{label}.{i}.jpg" for label in CLASSES for i in range(10)]
    for i, name in enumerate(broken):
        whole = files[name]
        files[name] = (b"", b"not a picture", whole[:-60], whole[:20])[i % 4]
    setup.set_up(write_zip(tmp_path / "train.zip", files), tmp_path / "sorted")
    out = capsys.readouterr().out
    with (tmp_path / "sorted" / "left_out.csv").open() as file:
        listed = {row["file"] for row in csv.DictReader(file)}
    assert listed == set(broken)
    assert all(f"left out: {name} (" in out for name in broken)
    assert len(photos_in(tmp_path / "sorted")) == 180


def test_no_content_in_two_sets(setup, tmp_path):
    """Copies under other names are left out; one picture with two labels is, altogether."""
    files = kaggle()
    for i in range(20):
        files[f"copies/cat.{100 + i}.jpg"] = files[f"train/cat.{i}.jpg"]
    files["train/dog.50.jpg"] = files["train/cat.51.jpg"] = photo(7777)
    setup.set_up(write_zip(tmp_path / "train.zip", files), tmp_path / "sorted")
    found = photos_in(tmp_path / "sorted")
    assert len(found) == len(set(found.values())) == 40
    assert hashlib.sha256(photo(7777)).hexdigest() not in found.values()


@pytest.mark.parametrize(
    "entry", ["../outside/cat.1.jpg", "train/../../cat.1.jpg", "/tmp/cat.1.jpg", "..\\cat.1.jpg"]
)
def test_zip_that_leads_outside_is_refused(setup, tmp_path, entry):
    write_zip(tmp_path / "train.zip", kaggle() | {entry: photo(1)})
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="unsafe entry"):
        setup.set_up(tmp_path / "train.zip", tmp_path / "deep" / "sorted")
    assert tree(tmp_path) == before and not (tmp_path / "deep").exists()


def test_bombs_are_left_out(setup, tmp_path, monkeypatch):
    """One photograph of too many bytes or pixels is listed; too many bytes in all are refused."""
    files = kaggle() | {"train/cat.90.jpg": photo(1, size=(200, 200))}
    files["train/dog.90.jpg"] = photo(2) + bytes(30_000)
    monkeypatch.setattr(setup, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(setup, "MAX_BYTES", 20_000)
    write_zip(tmp_path / "train.zip", files)
    setup.set_up(tmp_path / "train.zip", tmp_path / "sorted")
    assert len(photos_in(tmp_path / "sorted")) == 40
    assert (
        "cat.90.jpg,ValueError: 200 x 200 pixels"
        in (tmp_path / "sorted" / "left_out.csv").read_text()
    )
    monkeypatch.setattr(setup, "MAX_TOTAL_BYTES", 10_000)
    with pytest.raises(ValueError, match="unpacks to"):
        setup.set_up(tmp_path / "train.zip", tmp_path / "again")


BAD_SOURCES = {
    "missing": (lambda folder: folder / "nothing.zip", "does not exist"),
    "text": (lambda folder: write(folder / "a.zip", b"not a zip"), "not a readable zip"),
    "cut off": (
        lambda folder: write(
            folder / "a.zip", write_zip(folder / "b.zip", kaggle()).read_bytes()[:9000]
        ),
        "not a readable zip",
    ),
    "without photographs": (
        lambda folder: write_zip(folder / "a.zip", {"cat.txt": "x"}),
        "0 readable photographs of a cat",
    ),
    "one class": (
        lambda folder: write_zip(
            folder / "a.zip", {k: v for k, v in kaggle().items() if "cat" in k}
        ),
        "0 readable photographs of a dog",
    ),
    "all broken": (
        lambda folder: write_zip(folder / "a.zip", dict.fromkeys(kaggle(), b"x")),
        "cat.0.jpg",
    ),
}  # fmt: skip


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_sources(setup, tmp_path, monkeypatch, capsys, case):
    make, words = BAD_SOURCES[case]
    source = make(tmp_path)
    before = tree(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["data_setup.py", "--data", str(source), "--output", str(tmp_path / "sorted")]
    )
    with pytest.raises(SystemExit) as stop:
        setup.main()
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and words in errors[0]
    assert tree(tmp_path) == before


def test_missing_default_says_how_to_bring_it(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "DATA_DIR", tmp_path)
    with pytest.raises(OSError, match=r"data/fetch.py dogs-vs-cats.*--data sample"):
        setup.set_up(None, tmp_path / "dogs-vs-cats")


def test_default_is_what_fetch_brings(setup, tmp_path, monkeypatch):
    """data/fetch.py leaves train/cat.N.jpg, in the folder that is written to."""
    monkeypatch.setattr(setup, "DATA_DIR", tmp_path)
    for name, content in kaggle().items():
        path = tmp_path / "dogs-vs-cats" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    setup.set_up(None, tmp_path / "dogs-vs-cats")
    assert len(list((tmp_path / "dogs-vs-cats").glob("*/*/*.jpg"))) == 40
    assert len(list((tmp_path / "dogs-vs-cats" / "train").glob("*.jpg"))) == 40  # untouched


@pytest.mark.parametrize("stop_at", ["write_bytes", "rename", "replace"])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_interrupted_set_up_goes_on(setup, tmp_path, monkeypatch, stop_at, after):
    """Stopped while files are written or while they are moved: same result as in one go."""
    source = write_zip(tmp_path / "train.zip", kaggle())
    setup.set_up(source, tmp_path / "in one go")
    real, calls = getattr(Path, stop_at), []

    def fail(self, *args):
        calls.append(self)
        if len(calls) == after:
            if stop_at == "write_bytes":
                real(self, args[0][:100])  # half a file, as after a kill
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Path, stop_at, fail)
        with pytest.raises(KeyboardInterrupt):
            setup.set_up(source, tmp_path / "sorted")
    assert not (tmp_path / "sorted" / "split.csv").exists()  # nothing looks finished
    setup.set_up(source, tmp_path / "sorted")
    assert tree(tmp_path / "sorted") == tree(tmp_path / "in one go")


def test_folder_sorted_within_itself(setup, tmp_path, monkeypatch):
    """--data X --output X, interrupted: what was written so far is not taken for the source."""
    for name, content in kaggle().items():
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(setup, "move_into_place", lambda *_: 1 / 0)
        patch.setattr(setup.json, "dumps", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            setup.set_up(tmp_path / "x", tmp_path / "x")
    setup.set_up(tmp_path / "x", tmp_path / "x")
    assert len(list((tmp_path / "x").glob("*/*/*.jpg"))) == 40
    assert (tmp_path / "x" / "left_out.csv").read_text().splitlines() == ["file,reason"]


def test_existing_split_is_not_overwritten(setup, sorted_photos, tmp_path, capsys):
    before = tree(sorted_photos)
    setup.set_up(tmp_path / "train.zip", sorted_photos)
    assert "set up already" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another split"):
        setup.set_up(tmp_path / "train.zip", sorted_photos, seed=2)
    (sorted_photos / "split.csv").unlink()
    with pytest.raises(ValueError, match="is there already"):
        setup.set_up(tmp_path / "train.zip", sorted_photos)
    (sorted_photos / "split.csv").touch()
    assert tree(sorted_photos).keys() == before.keys()


def test_data_setup_as_a_user_runs_it(run_script, tmp_path):
    result = run_script("chapter08/data_setup.py", "--data", "sample", "--output", tmp_path / "x",
                        cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "48 cats, 48 dogs" in result.stdout
    assert len(photos_in(tmp_path / "x")) == 120


# --- reading photographs -------------------------------------------------------------------------


def test_read_photo_takes_what_pillow_reads(inception, tmp_path):
    """Whatever the mode and format: uint8 (size, size, 3), with the colours that a person sees."""
    red = Image.new("RGB", (60, 40), (200, 10, 20))
    half = Image.new("RGBA", (60, 40), (200, 10, 20, 0))
    pictures = {
        "rgb.png": (red, (200, 10, 20)),
        "cmyk.jpg": (red.convert("CMYK"), (200, 10, 20)),
        "palette.gif": (red.convert("P", palette=Image.Palette.ADAPTIVE), (200, 10, 20)),
        "grey.jpg": (Image.new("L", (60, 40), 77), (77, 77, 77)),
        "transparent.png": (half, (255, 255, 255)),
        "web.webp": (red, (200, 10, 20)),
    }
    for name, (image, color) in pictures.items():
        image.save(tmp_path / name)
        found = inception.read_photo(tmp_path / name, 80)
        assert found.shape == (80, 80, 3) and found.dtype == np.uint8
        assert np.abs(found.mean((0, 1)) - color).max() < 6, name
    deep = np.tile(np.linspace(0, 65535, 50).astype("uint16"), (50, 1))
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = inception.read_photo(tmp_path / "deep.png", 80)
    assert found[:, 0].max() < 10 and found[:, -1].min() > 245


def test_read_photo_turns_upright(inception, tmp_path):
    """EXIF orientation 6: the camera was held sideways, the top is stored at the left."""
    pixels = np.zeros((40, 60, 3), "uint8")
    pixels[:20] = 255  # white above black
    stored = Image.fromarray(np.rot90(pixels))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found = inception.read_photo(tmp_path / "turned.jpg", 80).astype(int)
    assert found[:30].mean() > 240 and found[50:].mean() < 15


def test_batches_cover_every_photograph_in_a_new_order(inception, sorted_photos):
    data = inception.load_data(sorted_photos)
    batches = inception.Batches(data["train_X"], data["train_y"], 5, 75, seed=1)
    assert len(batches) == 7 and batches[0][0].shape == (5, 75, 75, 3)
    assert batches[6][0].shape == (2, 75, 75, 3)
    first = batches.order.copy()
    labels = np.concatenate([batches[i][1][:, 0] for i in range(7)])
    bright = np.concatenate([batches[i][0].mean((1, 2, 3)) for i in range(7)]) > 125
    assert np.array_equal(labels, bright)  # each label with its own photograph
    batches.on_epoch_end()
    assert sorted(batches.order) == sorted(first) == list(range(32))
    assert not np.array_equal(batches.order, first)


def test_read_ahead_keeps_the_order_and_holds_few(inception):
    class Counting:
        asked = 0

        def __len__(self):
            return 100

        def __getitem__(self, index):
            self.asked += 1
            return (index,)

    counting = Counting()
    for number, index in enumerate(inception.read_ahead(counting)):
        assert index == number
        assert counting.asked <= number + 1 + inception.READERS


# --- load_data -----------------------------------------------------------------------------------


def test_overlap_between_sets_is_refused(inception, sorted_photos):
    stolen = next((sorted_photos / "test" / "dog").iterdir())
    shutil.copy(stolen, sorted_photos / "train" / "cat" / "another_name.jpg")
    with pytest.raises(ValueError, match="same photograph") as caught:
        inception.load_data(sorted_photos)
    assert stolen.name in str(caught.value) and "another_name.jpg" in str(caught.value)


def test_broken_photographs_are_left_out(inception, sorted_photos):
    (sorted_photos / "train" / "cat" / "broken.jpg").write_bytes(photo(5)[:300])
    (sorted_photos / "val" / "dog" / "empty.jpg").touch()
    data = inception.load_data(sorted_photos)
    assert [file.name for file, _ in data["left_out"]] == ["broken.jpg", "empty.jpg"]
    assert [len(data[f"{part}_X"]) for part in PARTS] == [32, 4, 4]


def test_load_data_refuses_what_is_not_sorted(inception, tmp_path, sorted_photos):
    with pytest.raises(OSError, match=r"data_setup.py.*--data sample"):
        inception.load_data(tmp_path / "nowhere")
    (sorted_photos / "train" / "bird").mkdir()
    with pytest.raises(ValueError, match="3 class folders"):
        inception.load_data(sorted_photos)
    (sorted_photos / "train" / "bird").rmdir()
    shutil.rmtree(sorted_photos / "val" / "cat")
    with pytest.raises(ValueError, match="val needs readable photographs in both"):
        inception.load_data(sorted_photos)


# --- the network ---------------------------------------------------------------------------------


def test_network_is_the_books(inception, fresh_model):
    model = fresh_model[0]
    names = [layer.name for layer in model.layers]
    assert names == ["input", "rescale", "inception_v3", "avg_pool", "fc1", "predictions"]
    assert model.get_layer("inception_v3").count_params() == 21_802_784
    assert model.get_layer("fc1").count_params() == 2048 * 1024 + 1024
    assert model.get_layer("predictions").count_params() == 1024 + 1
    assert model.get_layer("fc1").activation.__name__ == "relu"
    assert inception.IMAGE_SIZE == 299


def test_photographs_are_scaled_as_inception_wants(fresh_model):
    import keras

    photos = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("float32")
    expected = keras.applications.inception_v3.preprocess_input(photos.copy())
    found = fresh_model[0].get_layer("rescale")(photos)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-6)


def test_only_the_new_layers_learn_in_stage_1(model, inception):
    assert inception.count_trainable(model) == 2048 * 1024 + 1024 + 1024 + 1


def test_layer_249_starts_the_last_two_blocks(inception, fresh_model):
    backbone = fresh_model[0].get_layer("inception_v3")
    assert inception.first_layer_after(backbone, "mixed8") == 249
    assert backbone.layers[248].name == "mixed8" and len(backbone.layers) == 311
    names = {layer.name for layer in backbone.layers[249:]}
    assert {"mixed9_0", "mixed9_1", "mixed9", "mixed10"} <= names


def test_stage_2_changes_only_the_last_blocks(inception, model):
    """BatchNormalization and all before layer 249 stay bit-identical; each later layer learns."""
    import keras

    backbone = model.get_layer("inception_v3")
    batch_norm = keras.layers.BatchNormalization
    rng = np.random.default_rng(0)
    for layer in backbone.layers:  # statistics that a training batch would move far away
        if isinstance(layer, batch_norm):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    before = {layer.name: layer.get_weights() for layer in (*backbone.layers, *model.layers[3:])}
    model = inception.build_model_fine_tuning(model)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.momentum) == 0.9
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(1e-4)
    model.optimizer.learning_rate = 1.0  # so that nothing stays the same by rounding
    X = rng.integers(0, 256, (8, 75, 75, 3)).astype("uint8")
    model.fit(X, np.arange(8) % 2, batch_size=8, epochs=2, verbose=0)
    changed = []
    for index, layer in enumerate(backbone.layers):
        same = all(map(np.array_equal, before[layer.name], layer.get_weights()))
        if index < 249 or isinstance(layer, batch_norm):
            assert same, layer.name
        elif layer.weights:
            assert not same, layer.name
            changed.append(layer.name)
    assert len(changed) == 18  # nine convolutions in each of the two blocks
    for name in ("fc1", "predictions"):
        assert not np.array_equal(before[name][0], model.get_layer(name).get_weights()[0])


def test_saved_model_keeps_batch_normalization_in_inference_mode(inception, model, tmp_path):
    """With training=True, too, as in `fit`: the layers come back frozen from the file."""
    import keras

    model.save(tmp_path / "model.keras")
    (tmp_path / "settings.json").write_text('{"class_names": ["cat", "dog"]}')
    loaded, names = inception.load_best_model(tmp_path)
    X = np.random.default_rng(0).integers(0, 256, (4, 75, 75, 3)).astype("float32")
    plain = keras.ops.convert_to_numpy(loaded(X))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded(X, training=True)), plain)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(X)), plain, atol=1e-6)
    assert names == ["cat", "dog"]


# --- weights -------------------------------------------------------------------------------------


def test_weights_without_network(inception, monkeypatch, capsys, tmp_path):
    """No file and no network: one message with URL, file name, folder, and what `none` means."""
    import keras

    def fail(*_, **__):
        raise Exception("URL fetch failure on https://…: None -- timed out\nsecond line")

    monkeypatch.setattr(keras.applications, "InceptionV3", fail)
    arguments = ["x.py", "--data", "sample", "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        inception.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    for words in (
        "https://storage.googleapis.com/",
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        str(Path(".keras") / "models"),
        "--weights PATH",
        "--weights none",
        "chance",
    ):
        assert words in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()
    import socket

    assert socket.getdefaulttimeout() == 20  # a silent network is given up
    socket.setdefaulttimeout(None)


def test_weights_without_network_as_a_user_sees_it(run_script, tmp_path):
    """An empty Keras cache and a proxy that answers nothing stand for a machine without network."""
    start = time.monotonic()
    result = run_script(
        SCRIPT,
        "--data", "sample", "--run-dir", tmp_path / "run",
        env={"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""},
    )  # fmt: skip
    assert_clear_error(result, "notop.h5", "--weights none", str(tmp_path / "models"))
    assert time.monotonic() - start < 30
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["missing", "text", "other network"])
def test_bad_weights_file(inception, monkeypatch, tmp_path, kind):
    import keras

    path = tmp_path / "w.weights.h5"
    if kind == "text":
        path.write_text("not HDF5")
    if kind == "other network":
        inputs = keras.Input(shape=(3,))
        keras.Model(inputs, keras.layers.Dense(2)(inputs)).save_weights(path)
    tiny = keras.Input(shape=(75, 75, 3))  # stands in for InceptionV3, which takes seconds
    tiny = keras.Model(tiny, keras.layers.Conv2D(4, 3)(tiny))
    monkeypatch.setattr(keras.applications, "InceptionV3", lambda **_: tiny)
    with pytest.raises((OSError, ValueError), match=r"no such file|does not hold weights"):
        inception.build_backbone(str(path), 75)


def test_weights_file_is_loaded(inception, monkeypatch, tmp_path):
    import keras

    def tiny(**_):
        inputs = keras.Input(shape=(75, 75, 3))
        return keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(inputs))

    monkeypatch.setattr(keras.applications, "InceptionV3", tiny)
    source = tiny()
    source.save_weights(tmp_path / "a.weights.h5")
    found = inception.build_backbone(str(tmp_path / "a.weights.h5"), 75)
    assert inception.hash_weights(found) == inception.hash_weights(source)
    source.layers[1].bias.assign([0, 0, np.nan, 0])
    source.save_weights(tmp_path / "b.weights.h5")
    with pytest.raises(ValueError, match="not finite"):
        inception.build_backbone(str(tmp_path / "b.weights.h5"), 75)


# --- cached features -----------------------------------------------------------------------------


@pytest.fixture
def tiny_extractor():
    """Photographs to their mean colours, standing in for InceptionV3."""
    import keras

    inputs = keras.Input(shape=(75, 75, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def test_features_are_cached_by_content_and_weights(
    inception, tiny_extractor, sorted_photos, tmp_path
):
    data = inception.load_data(sorted_photos)
    cache = tmp_path / "cache"
    first = inception.extract_features(tiny_extractor, data, "train", cache, 5)
    photos = np.stack([inception.read_photo(file, 75) for file in data["train_X"]])
    np.testing.assert_allclose(first, tiny_extractor.predict(photos, verbose=0), rtol=1e-4)
    assert isinstance(first, np.memmap) and [p.suffix for p in cache.iterdir()] == [".npy"]

    def forbidden(*_):
        raise AssertionError("computed again")

    real, tiny_extractor.predict_on_batch = tiny_extractor.predict_on_batch, forbidden
    again = inception.extract_features(tiny_extractor, data, "train", cache, 7)
    assert np.array_equal(first, again)
    tiny_extractor.predict_on_batch = real
    tiny_extractor.layers[-1].bias.assign([1, 1, 1, 1])
    other = inception.extract_features(tiny_extractor, data, "train", cache)
    np.testing.assert_allclose(other, np.asarray(first) + 1, rtol=1e-4)
    changed = data["train_X"][3]
    changed.write_bytes(photo(4242))
    data = inception.load_data(sorted_photos)
    other = inception.extract_features(tiny_extractor, data, "train", cache)
    assert len(list(cache.iterdir())) == 3
    assert not np.allclose(other[3], first[3] + 1) and np.allclose(other[4], first[4] + 1)


def test_interrupted_extraction_goes_on(inception, tiny_extractor, sorted_photos, tmp_path):
    data, calls = inception.load_data(sorted_photos), []
    whole = inception.extract_features(tiny_extractor, data, "train", tmp_path / "whole", 5)
    real = tiny_extractor.predict_on_batch

    def stop_in_the_third_batch(photos):
        calls.append(len(photos))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(photos)

    tiny_extractor.predict_on_batch = stop_in_the_third_batch
    with pytest.raises(KeyboardInterrupt):
        inception.extract_features(tiny_extractor, data, "train", tmp_path / "cache", 5)
    assert not list((tmp_path / "cache").glob("*.npy"))
    found = inception.extract_features(tiny_extractor, data, "train", tmp_path / "cache", 5)
    assert calls == [5, 5, 5, 5, 5, 5, 5, 2]  # two batches are done, the third comes again
    assert np.array_equal(found, whole)


# --- whole runs ----------------------------------------------------------------------------------


@pytest.fixture
def run_main(inception, monkeypatch):
    """main() in this process, on a backbone of three convolutions that builds at once."""
    import keras

    def tiny_inception(input_shape=(75, 75, 3), **_):
        inputs = keras.Input(shape=input_shape)
        x = keras.layers.Conv2D(4, 3, strides=9)(inputs)
        x = keras.layers.Concatenate(name="mixed8")([x, x])
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3)(x))
        return keras.Model(inputs, keras.layers.Conv2D(8, 3)(x), name="inception_v3")

    def run(*arguments):
        monkeypatch.setattr(keras.applications, "InceptionV3", tiny_inception)
        monkeypatch.setattr(sys, "argv", ["inceptionv3_dogs_cats.py", *map(str, arguments)])
        inception.main()

    return run


@pytest.mark.slow
def test_main_writes_what_it_promises(run_main, sorted_photos, tmp_path, capsys):
    arguments = (
        *("--data", sorted_photos, "--weights", "none", "--image-size", 75, "--epochs", 9),
        *("--fine-tune-epochs", 1, "--run-dir", tmp_path / "run", "--cache-dir", tmp_path / "c"),
    )
    run_main(*arguments, "--random-baseline")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["epochs"] == 10 and metrics["best_epoch"] in range(1, 11)
    assert metrics["photographs"] == {"train": 32, "val": 4, "test": 4}
    assert metrics["test"]["accuracy"] == metrics["val"]["accuracy"] == 1
    assert metrics["baselines"]["color_histogram_accuracy"] == 1  # dark cats, bright dogs
    assert metrics["baselines"]["random_weights_scaled_accuracy"] == 1
    assert metrics["peak_memory_mb"] > 100
    assert not (tmp_path / "run" / "stage1.json").exists()
    for name in ("learning_curves.png", "surest.png"):
        Image.open(tmp_path / "run" / name).verify()
    stages = [row.rsplit(",", 1)[1] for row in (tmp_path / "run/history.csv").read_text().split()]
    assert stages == ["stage", *"111111111", "2"]
    before = tree(tmp_path / "run")
    capsys.readouterr()
    run_main(*arguments, "--evaluate")
    assert f"test accuracy {metrics['test']['accuracy']:.4f}" in capsys.readouterr().out
    after = tree(tmp_path / "run")
    assert after["metrics.json"] == before["metrics.json"]
    assert after["model.keras"] == before["model.keras"]


def test_cached_and_recomputed_features_train_alike(run_main, sorted_photos, tmp_path):
    """The book's way and ours: the same losses after each epoch, to rounding."""
    histories = []
    for name, extra in (("cached", []), ("recomputed", ["--no-cache"])):
        run_main(
            *("--data", sorted_photos, "--weights", "none", "--image-size", 75, "--epochs", 3),
            *("--fine-tune-epochs", 0, "--run-dir", tmp_path / name),
            *("--cache-dir", tmp_path / "c", *extra),
        )
        rows = (tmp_path / name / "history_feature_extraction.csv").read_text().split()[1:]
        histories.append([[float(value) for value in row.split(",")] for row in rows])
    np.testing.assert_allclose(*histories, atol=1e-5)
    assert histories[0][0][2] != histories[0][2][2]  # it did learn


def test_classify_photo(inception, model, tmp_path, monkeypatch, capsys):
    """Right labels from a network that tells dark from bright; broken files are named."""
    import keras

    classify_photo = load_script("chapter08/classify_photo.py")
    inputs = keras.Input(shape=(75, 75, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    layer = keras.layers.Dense(1, activation="sigmoid")
    tiny = keras.Model(inputs, layer(x))
    layer.set_weights([np.full((3, 1), 0.1), np.array([-38.0])])
    tiny.save(tmp_path / "model.keras")
    (tmp_path / "settings.json").write_text('{"class_names": ["cat", "dog"]}')
    files = [tmp_path / name for name in ("dark.png", "broken.jpg", "bright.tiff", "missing.jpg")]
    Image.new("L", (9, 9), 10).save(files[0])
    files[1].write_bytes(photo(1)[:200])
    Image.new("RGBA", (99, 300), (250, 250, 250, 255)).save(files[2])
    arguments = ["classify_photo.py", "--run-dir", str(tmp_path), "--batch-size", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, *map(str, files)])
    classify_photo.main()
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{files[0]}: cat (100.0%)", f"{files[2]}: dog (100.0%)"]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["skipped", str(files[1])],
        ["skipped", str(files[3])],
    ]
    for bad in ([str(files[1])], [str(files[0]), "--run-dir", str(tmp_path / "nowhere")]):
        monkeypatch.setattr(sys, "argv", [*arguments, *bad])
        with pytest.raises(SystemExit) as stop:
            classify_photo.main()
        assert stop.value.code == 2 and "error: " in capsys.readouterr().err


def test_choose_sizes_and_draw():
    more = load_script("chapter08/how_much_data.py")
    assert more.choose_sizes(1600) == [50, 100, 200, 400, 800, 1600]
    assert more.choose_sizes(130) == [50, 100, 130]
    y = np.repeat([0, 1], [70, 60])
    rows = more.draw(y, 100, np.random.default_rng(0))
    assert len(set(rows)) == 100 and y[rows].sum() == 50
    assert sorted(more.draw(y, 130, np.random.default_rng(0))) == list(range(130))


def test_fit_line_finds_the_line():
    import pandas as pd

    more = load_script("chapter08/how_much_data.py")
    n = np.repeat([50, 100, 200, 400], 3)
    noise = np.tile([-0.01, 0, 0.01], 4)
    line = more.fit_line(pd.DataFrame({"n": n, "accuracy": 0.3 + 0.05 * np.log2(n) + noise}))
    assert line["gain_per_doubling"] == pytest.approx(0.05)
    assert line["intercept"] == pytest.approx(0.3) and 0.9 < line["r_squared"] < 1


def test_how_much_data(tmp_path, monkeypatch, inception, setup):
    """More photographs, better heads, on features in which one number tells a little."""
    import keras

    more = load_script("chapter08/how_much_data.py")
    setup.set_up(write_zip(tmp_path / "train.zip", kaggle(45)), tmp_path / "sorted")
    tiny = keras.Input(shape=(75, 75, 3))
    tiny = keras.Model(tiny, keras.layers.Conv2D(4, 3)(tiny), name="inception_v3")

    def build(*_):
        inputs = keras.Input(shape=(75, 75, 3))
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(tiny(inputs))
        return keras.Model(inputs, keras.layers.Dense(1, name="predictions")(x))

    monkeypatch.setattr(more, "build_model_feature_extraction", build)
    monkeypatch.setattr(sys, "argv", [
        "how_much_data.py", "--data", str(tmp_path / "sorted"), "--weights", "none",
        "--image-size", "75", "--draws", "1", "--steps", "40", "--run-dir", str(tmp_path / "run"),
        "--cache-dir", str(tmp_path / "cache"),
    ])  # fmt: skip
    more.main()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["val"]) == {"random weights", "colour histograms"}
    assert set(metrics["val"]["random weights"]) == {"50", "74"}
    assert metrics["val"]["random weights"]["74"]["mean"] > 0.9  # dark cats, bright dogs
    Image.open(tmp_path / "run" / "how_much_data.png").verify()
    assert len((tmp_path / "run" / "accuracy.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize(
    "arguments", [["--image-size", "74"], ["--epochs", "0"], ["--fine-tune-epochs", "-1"]]
)
def test_bad_arguments(inception, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["inceptionv3_dogs_cats.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        inception.parse_arguments()
    assert stop.value.code == 2 and arguments[0].strip("-") in capsys.readouterr().err


@pytest.mark.slow
def test_killed_run_goes_on_in_stage_2(run_script, sorted_photos, tmp_path):
    """kill -9 in fine-tuning: stage 1 is not repeated, stage 2 goes on after its last epoch."""
    run_dir = tmp_path / "run"
    arguments = [
        *("--data", sorted_photos, "--weights", "none", "--image-size", 75, "--epochs", 2),
        *("--fine-tune-epochs", 2, "--run-dir", run_dir, "--cache-dir", tmp_path / "cache"),
    ]
    kill_in_training(SCRIPT, arguments, run_dir / "backup_fine_tuning", after_epoch=1)
    stage_1 = (run_dir / "history_feature_extraction.csv").read_text()
    result = run_script(SCRIPT, *arguments)
    assert result.returncode == 0, result.stderr
    assert "after stage 2, epoch" in result.stdout and "Stage 1, feature" not in result.stdout
    assert (run_dir / "history_feature_extraction.csv").read_text() == stage_1
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["epochs"] == 4 and metrics["seconds"]["stage_2"] is None


@pytest.mark.slow
def test_jax_backend_on_the_sample(run_script, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        SCRIPT,
        *("--data", "sample", "--weights", "none", "--image-size", 75, "--epochs", 1),
        *("--fine-tune-epochs", 0, "--run-dir", tmp_path / "run", "--cache-dir", tmp_path / "c"),
        env={"KERAS_BACKEND": "jax"},
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax" and "stand-in" in metrics["data"]


@pytest.mark.slow
def test_real_photographs_are_sorted_whole(setup, inception, real_data_dir, tmp_path):
    """1,000 cats and 1,000 dogs: all decode, none twice, 80/10/10."""
    setup.set_up(real_data_dir / "dogs-vs-cats", tmp_path / "sorted")
    data = inception.load_data(tmp_path / "sorted")  # refuses an overlap
    assert [len(data[f"{part}_X"]) for part in PARTS] == [1600, 200, 200]
    assert [int(data[f"{part}_y"].sum()) for part in PARTS] == [800, 100, 100]
