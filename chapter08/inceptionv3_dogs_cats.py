"""Tell dogs from cats with InceptionV3, a network that was trained on other photographs.

Book: chapter 8, "Transfer learning in Keras".

    python chapter08/data_setup.py               # once: sorts the photographs into folders
    python chapter08/inceptionv3_dogs_cats.py    # ImageNet weights, fetched once (88 MB)
    python chapter08/inceptionv3_dogs_cats.py --weights inception_v3_notop.h5   # a file of yours
    python chapter08/inceptionv3_dogs_cats.py --data sample --weights none      # no network at all

Stage 1, feature extraction: the pretrained network, the backbone, is frozen, and only two new
layers on top of it learn. A frozen backbone gives the same 2,048 numbers for a photograph in every
epoch, so they are computed once and kept in --cache-dir (`--no-cache` computes them anew in each
epoch, as the book does). Stage 2, fine-tuning: the last two inception blocks learn, too, slowly.

What to expect: the book reports 0.983 validation accuracy on Kaggle's photographs with ImageNet
weights. What to look for: how little fine-tuning adds, and what is left without pretrained weights
(`--random-baseline`). chapter08/README.md has measured runs, with other weights than the book's.
"""

import argparse
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import shutil
import socket
import sys
import time
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from keras import layers
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter08"
PARTS = ("train", "val", "test")
IMAGE_SIZE = 299  # what InceptionV3 was trained on
WEIGHTS_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
LAST_FROZEN = "mixed8"  # layer 248 of the backbone: the book unfreezes from 249 on
STAGES = ("feature_extraction", "fine_tuning")
READERS = min(16, os.cpu_count() or 1)  # threads; Pillow decodes outside Python's lock


def load_data(source=None, run_dir=None):
    """Return the files of the photographs and their labels; the photographs stay on disk.

    Args:
        source: None for data/dogs-vs-cats as data_setup.py leaves it, "sample" for the stand-in in
            data/samples (unpacked to `run_dir`/photos), or a folder with {train,val,test}/ and in
            each of them the same two folders of photographs.

    Returns:
        dict with `train_X`, `val_X`, `test_X`: lists of pathlib.Path; `train_y`, …: int64 (n,),
        0 or 1; `train_sha256`, …: the content of each file; `class_names`: list of two str;
        `left_out`: list of (path, reason) for files that do not decode.

    Raises:
        OSError: not there. ValueError: not such a folder, or one content stands in two parts.
    """
    folder = Path(source).expanduser() if source else DATA_DIR / "dogs-vs-cats"
    if source == "sample":
        from data_setup import set_up

        folder = run_dir / "photos"
        set_up("sample", folder)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise OSError(
                f"{folder / part} does not exist. `python chapter08/data_setup.py` sorts "
                "photographs into train, val and test (it takes a zip or a folder); "
                "`--data sample` works now"
            )
    class_names = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    if len(class_names) != 2:
        raise ValueError(
            f"{folder / 'train'} has {len(class_names)} class folders, expected two; "
            "`python chapter08/data_setup.py` makes them"
        )
    data = {"class_names": class_names, "left_out": []}
    checked = read_checked(folder / "split.csv")
    for part in PARTS:
        files, labels = [], []
        for label, name in enumerate(class_names):
            found = sorted(path for path in (folder / part / name).glob("[!.]*") if path.is_file())
            files += found
            labels += [label] * len(found)
        with ThreadPoolExecutor(READERS) as pool:
            results = pool.map(lambda file: examine(file, checked), files)
            results = list(tqdm(results, f"Checking {part}", len(files), unit="file"))
        good = [i for i, (_, reason) in enumerate(results) if reason is None]
        data["left_out"] += [(f, r[1]) for f, r in zip(files, results, strict=True) if r[1]]
        data[f"{part}_X"] = [files[i] for i in good]
        data[f"{part}_y"] = np.array([labels[i] for i in good], dtype="int64")
        data[f"{part}_sha256"] = [results[i][0] for i in good]
        if set(data[f"{part}_y"]) != {0, 1}:
            raise ValueError(
                f"{folder / part} needs readable photographs in both {class_names[0]}/ and "
                f"{class_names[1]}/" + f"; unreadable: {data['left_out'][:1]}" * (len(files) > 0)
            )
    check_overlap(data)
    return data


def read_checked(path):
    """The SHA-256 of every photograph that data_setup.py has found to decode."""
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {row.get("sha256") for row in csv.DictReader(file)}


def examine(file, checked):
    """(SHA-256, None) of a photograph, or (None, reason) if it does not decode."""
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest not in checked:
            read_photo(file)
    except Exception as error:  # Pillow raises a dozen kinds on damaged files
        return None, str(error) or type(error).__name__
    return digest, None


def check_overlap(data):
    """Raise ValueError if the same content stands in two of train, val and test."""
    seen = {}
    for part in PARTS:
        for file, digest in zip(data[f"{part}_X"], data[f"{part}_sha256"], strict=True):
            other_part, other = seen.setdefault(digest, (part, file))
            if other_part != part:
                raise ValueError(
                    f"{other} and {file} are the same photograph: a network must not be tested on "
                    "what it was trained on; remove one of them"
                )


def read_photo(file, image_size=IMAGE_SIZE):
    """One photograph as uint8 (image_size, image_size, 3), whatever Pillow can read.

    Turned upright, on white where it is transparent, squeezed to a square as in the book.
    """
    with Image.open(file) as image:
        image.draft(None, (image_size, image_size))  # large JPEGs: decode at a lower resolution
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits of grey: from darkest to lightest
            grey = np.asarray(image, dtype="float64")
            grey = 255 * (grey - grey.min()) / max(np.ptp(grey), 1e-9)
            image = Image.fromarray(grey.astype("uint8"))
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB").resize((image_size, image_size), Image.Resampling.BILINEAR)
        return np.asarray(image)


class Batches(keras.utils.PyDataset):
    """Batches of photographs, or of rows of features, read from disk as they are needed.

    Args:
        X: list of files, or the array of their features.
        seed: shuffle, in every epoch anew; None keeps the order.
    """

    def __init__(self, X, y, batch_size, image_size=IMAGE_SIZE, seed=None):
        photos = isinstance(X, list)
        # Threads that read ahead, 10 batches at most: what keeps memory flat. Rows need none.
        super().__init__(workers=max(2, READERS) if photos else 1, max_queue_size=10)
        self.X, self.y, self.batch_size, self.image_size = X, y, batch_size, image_size
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(y))
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        if isinstance(self.X, list):
            X = np.stack([read_photo(self.X[row], self.image_size) for row in rows])
        else:
            X = np.asarray(self.X[rows])
        return X, self.y[rows, None].astype("float32")

    def on_epoch_end(self):
        if self.rng is not None:
            self.order = self.rng.permutation(len(self.y))


def read_ahead(batches):
    """The photographs of each batch in turn, while threads already read the next ones."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting = deque()
        for index in range(len(batches)):
            waiting.append(pool.submit(batches.__getitem__, index))
            if len(waiting) > READERS:
                yield waiting.popleft().result()[0]
        while waiting:
            yield waiting.popleft().result()[0]


def build_backbone(weights="imagenet", image_size=IMAGE_SIZE):
    """InceptionV3 without its top, with the weights that `weights` names.

    Raises:
        OSError: they are not on this machine and could not be fetched. ValueError: the file does
            not fit.
    """
    if weights == "imagenet":
        socket.setdefaulttimeout(20)  # a silent network must not hold us for minutes
    elif weights != "none" and not Path(weights).is_file():
        raise OSError(f"--weights {weights}: no such file")
    try:
        backbone = keras.applications.InceptionV3(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=(image_size, image_size, 3),
            name="inception_v3",
        )
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise OSError(
            f"the ImageNet weights of InceptionV3 are not on this machine and could not be fetched "
            f"({first_line(error)}). Download {WEIGHTS_URL}{WEIGHTS_FILE} (88 MB) elsewhere, keep "
            f"its name, and put it into {keras_home() / 'models'}, or give it as --weights PATH. "
            "--weights none runs without: the network starts from random weights and has nothing "
            "to transfer, so expect little more than chance"
        ) from error
    if weights not in ("imagenet", "none"):
        try:
            backbone.load_weights(weights)
        except Exception as error:  # many kinds, depending on what the file is
            raise ValueError(
                f"{weights} does not hold weights of InceptionV3 without its top "
                f"({first_line(error)}); {WEIGHTS_FILE} does"
            ) from error
    if not all(np.isfinite(array).all() for array in backbone.get_weights()):
        raise ValueError(f"--weights {weights}: some of the weights are not finite numbers")
    return backbone


def first_line(error):
    """The message of an exception, cut to one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def keras_home():
    """Where Keras keeps what it downloads."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))


def build_model_feature_extraction(weights="imagenet", image_size=IMAGE_SIZE):
    """The book's network, compiled for stage 1: only the two new dense layers learn.

    It takes photographs as they are (0-255) and scales them to -1 … 1 itself, which is what
    InceptionV3 was trained on; the book's 0 … 1 shows it a paler world (docs/differences.md).
    """
    backbone = build_backbone(weights, image_size)
    backbone.trainable = False
    inputs = keras.Input(shape=(image_size, image_size, 3), name="input")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs)
    # BatchNormalization keeps to its statistics because it is not trainable, in stage 2 too: in
    # `fit` Keras 3 overrides the training=False here, which Keras 2 respected.
    x = backbone(x, training=False)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(1024, activation="relu", name="fc1")(x)
    outputs = layers.Dense(1, activation="sigmoid", name="predictions")(x)
    model = keras.Model(inputs=inputs, outputs=outputs, name="inceptionv3_dogs_cats")
    return compile_for(model, keras.optimizers.Adam(learning_rate=0.001))


def compile_for(model, optimizer):
    """Compile for two classes."""
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


def split_model(model):
    """The model as two: photographs to features, features to probability; they share its layers."""
    features = model.get_layer("avg_pool").output
    head = keras.Model(features, model.output, name="head")
    return keras.Model(model.input, features, name="extractor"), compile_for(
        head, keras.optimizers.Adam(learning_rate=0.001)
    )


def build_model_fine_tuning(model, learning_rate=0.0001, momentum=0.9):
    """The same network, compiled for stage 2: the last two inception blocks learn, too.

    BatchNormalization stays as it is: neither its statistics, taken from a million photographs,
    nor its shifts should follow a few batches of ours.
    """
    backbone = model.get_layer("inception_v3")
    first = first_layer_after(backbone, LAST_FROZEN)
    backbone.trainable = True
    for layer in backbone.layers[:first]:
        layer.trainable = False
    for layer in backbone.layers[first:]:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    return compile_for(model, keras.optimizers.SGD(learning_rate=learning_rate, momentum=momentum))


def first_layer_after(backbone, name):
    """The index from which on all layers depend on layer `name`: 249 in InceptionV3.

    By name and connections, not by number: another Keras may order its layers in another way.
    """
    after = keras.Model(backbone.get_layer(name).output, backbone.output)
    after = {layer.name for layer in after.layers if not isinstance(layer, layers.InputLayer)}
    first = next(i for i, layer in enumerate(backbone.layers) if layer.name in after)
    if {layer.name for layer in backbone.layers[first:]} != after:
        raise RuntimeError(f"the layers after {name} are not the last ones in this Keras")
    return first


def hash_weights(model):
    """SHA-256 of all weights of a model."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def extract_features(extractor, data, part, cache_dir, batch_size=32):
    """The features of all photographs of a part, from the cache or into it.

    The file's name follows from what the features depend on: the photographs' content, their size,
    the weights. An interrupted extraction goes on with the next batch.

    Returns:
        float32 array (n, 2048) on disk (memory-mapped), in the order of data[f"{part}_X"].
    """
    image_size = extractor.input_shape[1]
    key = [hash_weights(extractor), str(image_size), *data[f"{part}_sha256"]]
    key = hashlib.sha256("\n".join(key).encode()).hexdigest()[:20]
    path = cache_dir / f"{key}.npy"
    if path.exists():
        return np.load(path, mmap_mode="r", allow_pickle=False)

    cache_dir.mkdir(parents=True, exist_ok=True)
    part_file, progress = path.with_suffix(".part"), path.with_suffix(".progress")
    shape = (len(data[f"{part}_X"]), extractor.output_shape[1])
    done = read_progress(part_file, progress, shape)
    mode = "r+" if done else "w+"
    rows = np.lib.format.open_memmap(part_file, mode, dtype="float32", shape=shape)
    batches = Batches(data[f"{part}_X"][done:], data[f"{part}_y"][done:], batch_size, image_size)
    with tqdm(total=len(rows), initial=done, desc=f"Features of {part}", unit="photo") as bar:
        for photos in read_ahead(batches):
            rows[done : done + len(photos)] = extractor.predict_on_batch(photos)
            done += len(photos)
            write_whole(progress, str(done))
            bar.update(len(photos))
    rows.flush()
    if not path.exists():  # another run may have come first, with the same rows
        part_file.replace(path)
    for left in (part_file, progress):
        left.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_progress(part_file, progress, shape):
    """How many rows an interrupted extraction has finished; 0 if there is nothing to go on from."""
    try:
        found = np.load(part_file, mmap_mode="r", allow_pickle=False)
        done = int(progress.read_text())
    except (OSError, ValueError, EOFError):
        return 0
    return done if found.shape == shape and 0 <= done <= shape[0] else 0


def write_whole(path, text):
    """Write a file under another name first: a kill leaves the old one or the new one."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def create_callbacks(run_dir, name, checkpoint, best_so_far=None, resuming=False):
    """Callbacks of one stage: keep the best epoch, log each epoch, let a killed run go on.

    Args:
        name: "feature_extraction" or "fine_tuning".
        checkpoint: file for the best epoch, .keras or .weights.h5.
        best_so_far: validation accuracy that an epoch must exceed to be kept.
    """
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            checkpoint,
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            save_weights_only=checkpoint.suffix == ".h5",
            initial_value_threshold=best_so_far,
        ),
        keras.callbacks.CSVLogger(run_dir / f"history_{name}.csv", append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / f"backup_{name}", double_checkpoint=True),
    ]
    if importlib.util.find_spec("tensorflow"):  # it writes TensorBoard's files on every backend
        callbacks.insert(0, keras.callbacks.TensorBoard(run_dir / "tb" / name, write_graph=False))
    return callbacks


def finished_epochs(backup_dir):
    """Number of epochs that the backup of `BackupAndRestore` in `backup_dir` holds; 0 without one.

    A kill while Keras writes that number leaves an empty file. Then the backup of the epoch before,
    which `double_checkpoint` keeps, takes its place.
    """
    for suffix in ("", ".bkp"):
        try:
            text = (backup_dir / f"training_metadata.json{suffix}").read_text()
            epochs = json.loads(text)["epoch"]
        except (OSError, ValueError):
            continue
        if suffix:
            for name in ("latest.weights.h5", "training_metadata.json"):
                shutil.copy(backup_dir / f"{name}.bkp", backup_dir / name)
        return epochs
    return 0


def interrupted_run(run_dir, settings):
    """The number of finished epochs in each stage of an interrupted run of the same settings.

    Returns:
        (stage_1, stage_2), with None for stage 1 when it is done; (0, 0) clears the way for a new
        run. A run with other settings is set aside: going on from it would mix two.
    """
    settings_path, done_path = run_dir / "settings.json", run_dir / "stage1.json"
    epochs = [finished_epochs(run_dir / f"backup_{name}") for name in STAGES]
    if done_path.exists():
        epochs[0] = None
    if epochs != [0, 0]:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            where = f"stage 2, epoch {epochs[1]}" if epochs[0] is None else f"epoch {epochs[0]}"
            print(f"Resuming the interrupted run in {run_dir} after {where}.")
            return tuple(epochs)
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    for name in ("tb", *(f"backup_{stage}" for stage in STAGES)):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    done_path.unlink(missing_ok=True)
    write_whole(settings_path, json.dumps(settings, indent=2))
    return 0, 0


def fit_stage(model, train, val, epochs, run_dir, name, checkpoint, best_so_far, done):
    """Fit one stage, going on after `done` epochs; returns its history, one row per epoch."""
    path = run_dir / f"history_{name}.csv"
    for _ in range(done):
        train.on_epoch_end()  # the order of the next epoch, as without the interruption
    if done:
        best_so_far = max(best_so_far or 0, read_history(path)["val_accuracy"][:done].max())
    model.fit(
        train,
        epochs=epochs,
        shuffle=False,  # Batches does: Keras would only shuffle whole batches
        validation_data=val,
        callbacks=create_callbacks(run_dir, name, checkpoint, best_so_far, done > 0),
    )
    return read_history(path)


def read_history(path):
    """One row per epoch; an epoch whose backup was cut off is logged twice."""
    return pd.read_csv(path).drop_duplicates("epoch", keep="last").reset_index(drop=True)


def train(model, data, args, settings):
    """Both stages; the best epoch of all is left in model.keras.

    Returns:
        (history, seconds): DataFrame with one row per epoch and a column `stage`; seconds per
        stage, and for the features, None when part of it was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    stage_1, stage_2 = interrupted_run(args.run_dir, settings)
    seconds, histories = {}, []
    best_path = args.run_dir / "stage1.weights.h5"
    whole, head = split_model(model)
    start = time.perf_counter()
    if args.cache:
        fitted, X = head, {p: extract_features(whole, data, p, args.cache_dir) for p in PARTS[:2]}
    else:
        fitted, X = model, {part: data[f"{part}_X"] for part in PARTS[:2]}
    seconds["features"] = round(time.perf_counter() - start, 1)

    def batches(X, part):
        seed = args.seed if part == "train" else None
        return Batches(X, data[f"{part}_y"], args.batch_size, args.image_size, seed)

    if stage_1 is not None:
        print(f"Stage 1, feature extraction: {count_trainable(fitted):,} weights learn")
        start = time.perf_counter()
        history = fit_stage(
            *(fitted, batches(X["train"], "train"), batches(X["val"], "val"), args.epochs),
            *(args.run_dir, STAGES[0], best_path, None, stage_1),
        )
        seconds["stage_1"] = None if stage_1 else round(time.perf_counter() - start, 1)
        fitted.load_weights(best_path)
        model.save(args.run_dir / "model.keras")
        best = float(history["val_accuracy"].max())
        write_whole(args.run_dir / "stage1.json", json.dumps({"val_accuracy": best, **seconds}))
    else:
        fitted.load_weights(best_path)
    done = json.loads((args.run_dir / "stage1.json").read_text())
    seconds |= {key: value for key, value in done.items() if key != "val_accuracy"}
    histories.append(read_history(args.run_dir / f"history_{STAGES[0]}.csv").assign(stage=1))
    print(f"Stage 1: best validation accuracy {done['val_accuracy']:.4f}")

    if args.fine_tune_epochs:
        model = build_model_fine_tuning(model)
        print(f"Stage 2, fine-tuning: {count_trainable(model):,} weights learn")
        start = time.perf_counter()
        history = fit_stage(
            *(model, batches(data["train_X"], "train"), batches(data["val_X"], "val")),
            *(args.fine_tune_epochs, args.run_dir, STAGES[1], args.run_dir / "model.keras"),
            *(done["val_accuracy"], stage_2),
        )
        seconds["stage_2"] = None if stage_2 else round(time.perf_counter() - start, 1)
        histories.append(history.assign(stage=2))
        print(f"Stage 2: best validation accuracy {history['val_accuracy'].max():.4f}")
    history = pd.concat(histories, ignore_index=True)
    history.to_csv(args.run_dir / "history.csv", index=False)
    return history, seconds


def count_trainable(model):
    """Number of single weights that training may change."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def color_histogram(file):
    """How often each of 512 colours (8 levels of red, of green, of blue) stands in a photograph."""
    red, green, blue = (read_photo(file, 64).reshape(-1, 3) // 32).T.astype("int64")
    return np.sqrt(np.bincount(64 * red + 8 * green + blue, minlength=512) / len(red))


def color_histograms(files):
    """The histograms of many photographs, (n, 512)."""
    with ThreadPoolExecutor(READERS) as pool:
        results = pool.map(color_histogram, files)
        return np.array(list(tqdm(results, "Colour histograms", len(files), unit="photo")))


def fit_baselines(data, args):
    """Test accuracy of simpler models on the same photographs."""
    X = {part: color_histograms(data[f"{part}_X"]) for part in ("train", "test")}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(X["train"], data["train_y"])
    accuracy = {"color_histogram_accuracy": model.score(X["test"], data["test_y"])}
    if args.random_baseline:
        accuracy |= fit_random_baseline(data, args)
    return accuracy


def fit_random_baseline(data, args):
    """Test accuracy of stage 1 on a backbone with random weights: what transfer is worth.

    Random layers hand on very small numbers, from which the new layers hardly learn. So that the
    comparison is not about size, the same layers are also trained on features that are scaled.
    """
    print("Baseline: the same network on random weights …")
    keras.utils.set_random_seed(args.seed)  # the weights, and so the cache, of --weights none
    extractor, _ = split_model(build_model_feature_extraction("none", args.image_size))
    X = {part: extract_features(extractor, data, part, args.cache_dir) for part in PARTS}
    scaler = StandardScaler().fit(X["train"])
    scaled = {part: scaler.transform(X[part]) for part in PARTS}
    return {
        "random_weights_accuracy": fit_head(X, data, args),
        "random_weights_scaled_accuracy": fit_head(scaled, data, args),
    }


def fit_head(X, data, args):
    """Test accuracy of the two new layers, trained on features `X` and at their best epoch."""
    inputs = keras.Input(shape=X["train"].shape[1:])
    x = layers.Dense(1024, activation="relu")(inputs)
    head = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    compile_for(head, keras.optimizers.Adam(learning_rate=0.001))
    seeds = {"train": args.seed, "val": None, "test": None}
    batches = {p: Batches(X[p], data[f"{p}_y"], args.batch_size, seed=seeds[p]) for p in PARTS}
    path = args.run_dir / "baseline.weights.h5"
    best = keras.callbacks.ModelCheckpoint(
        path, monitor="val_accuracy", save_best_only=True, save_weights_only=True
    )
    head.fit(
        batches["train"],
        epochs=args.epochs,
        shuffle=False,
        validation_data=batches["val"],
        callbacks=[best],
        verbose=0,
    )
    head.load_weights(path)
    path.unlink()
    return head.evaluate(batches["test"], verbose=0, return_dict=True)["accuracy"]


def plot_history(history, path):
    """Loss and accuracy by epoch, both stages one after the other, as a picture."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    epochs = np.arange(1, len(history) + 1)
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.plot(epochs, history[metric], marker=".", label="training")
        ax.plot(epochs, history["val_" + metric], marker=".", label="validation")
        ax.set(xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
        if (history["stage"] == 2).any():
            start = (history["stage"] == 1).sum() + 0.5
            ax.axvline(start, color="grey", linestyle=":", label="fine-tuning starts")
    axes[1].legend()
    save_figure(fig, path)


def plot_surest(data, probabilities, path):
    """The surest right answers and the surest wrong ones, as a grid of photographs."""
    names, y = data["class_names"], data["test_y"]
    guesses = (probabilities > 0.5).astype(int)
    sureness = np.abs(probabilities - 0.5) + 0.5
    fig, axes = plt.subplots(2, 5, figsize=(10, 5))
    for row, wanted in zip(axes, (guesses == y, guesses != y), strict=True):
        order = np.argsort(-sureness * wanted)
        for ax, i in zip(row, order, strict=False):
            ax.axis("off")
            if wanted[i]:
                ax.imshow(read_photo(data["test_X"][i], 160))
                color = "black" if guesses[i] == y[i] else "firebrick"
                ax.set_title(
                    f"{names[guesses[i]]} ({sureness[i]:.1%})\nis {names[y[i]]}",
                    fontsize=9,
                    color=color,
                )
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def load_best_model(run_dir):
    """The model saved in `run_dir` and the names of its classes.

    Raises:
        OSError: there is none. ValueError: it cannot be read.
    """
    path = run_dir / "model.keras"
    if not path.exists():
        raise OSError(
            f"{path} does not exist; train first: python chapter08/inceptionv3_dogs_cats.py"
        )
    try:
        model = keras.models.load_model(path, compile=False)  # safe mode: runs no code in it
        names = json.loads((run_dir / "settings.json").read_text())["class_names"]
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({first_line(error)}); train again") from error
    return model, names


def score_test(model, data, args):
    """Loss and accuracy of the test set, scored once; draws the picture of the surest answers."""
    y = data["test_y"]
    batches = Batches(data["test_X"], y, args.batch_size, model.input_shape[1])
    photos = tqdm(read_ahead(batches), "Test", len(batches), unit="batch")
    probabilities = np.concatenate([model.predict_on_batch(X)[:, 0] for X in photos])
    plot_surest(data, probabilities, args.run_dir / "surest.png")
    p = np.clip(np.where(y == 1, probabilities, 1 - probabilities), 1e-7, 1)
    return {
        "accuracy": float(np.mean((probabilities > 0.5) == y)),
        "loss": float(-np.log(p).mean()),
    }


def peak_memory_mb():
    """The most memory that this process has held so far; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1024), 1)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="SOURCE", help='"sample", or a folder with train, val and test'
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|PATH|none",
        help="of InceptionV3: from Keras, a .h5 file, or random",
    )
    parser.add_argument("--epochs", type=positive, default=10, help="of stage 1 (default: 10)")
    parser.add_argument(
        "--fine-tune-epochs", type=int, default=10, help="of stage 2; 0 skips it (default: 10)"
    )
    parser.add_argument("--batch-size", type=positive, default=30, help="default: 30")
    parser.add_argument(
        "--image-size", type=int, default=IMAGE_SIZE, help="side in pixels, 75 or more"
    )
    parser.add_argument(
        "--no-cache", dest="cache", action="store_false", help="the book's way: stage 1 on photos"
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=RUNS_DIR / "features",
        help="for the frozen network's features",
    )
    parser.add_argument(
        "--random-baseline", action="store_true", help="also train on a backbone of random weights"
    )
    parser.add_argument(
        "--run-dir", type=Path, help="default: runs/chapter08/inceptionv3_dogs_cats"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    if args.image_size < 75:
        parser.error("--image-size must be 75 or more for InceptionV3")
    if args.fine_tune_epochs < 0:
        parser.error("--fine-tune-epochs must be 0 or more")
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        name = "inceptionv3_dogs_cats" + ("_sample" if args.data == "sample" else "")
        args.run_dir = RUNS_DIR / name
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def describe(data, source):
    """Print what there is and what was left out; returns the name of the source."""
    for file, reason in data["left_out"]:
        print(f"left out: {file} ({reason})")
    name = Path(source).name if source else "dogs-vs-cats"
    if source == "sample":
        name = "sample (a stand-in for dogs-vs-cats, drawn from emoji)"
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in PARTS]
    print(f"Data: {name}: {', '.join(counts)} photographs of {' and '.join(data['class_names'])}")
    return name


def main():
    args = parse_arguments()
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # about unused EXIF
    logging.getLogger("tensorflow").setLevel("ERROR")  # not a word about each model's own graph
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    device += f" ({os.cpu_count()} cores)" if device.startswith("cpu") else ""
    print(f"Keras {keras.__version__} on {backend}, device: {device}")
    try:
        if args.evaluate:
            model, _ = load_best_model(args.run_dir)
        else:
            model = build_model_feature_extraction(args.weights, args.image_size)
        data = load_data(args.data, args.run_dir)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = describe(data, args.data)
    if args.evaluate:
        test = score_test(model, data, args)
        print(f"test accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}")
        print(f"The picture is in {args.run_dir}")
        return

    weights = args.weights if args.weights in ("imagenet", "none") else Path(args.weights).name
    settings = {
        "data": str(Path(args.data).resolve()) if args.data else source,
        "photographs": len(data["train_y"]),
        "class_names": data["class_names"],
        "weights": weights,
        "weights_sha256": hash_weights(model.get_layer("inception_v3")),
        "image_size": args.image_size,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "cache": args.cache,
    }
    try:
        history, seconds = train(model, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_history(history, args.run_dir / "learning_curves.png")
    best = history.loc[history["val_accuracy"].idxmax()]
    best_model, _ = load_best_model(args.run_dir)
    metrics = {
        "script": "chapter08/inceptionv3_dogs_cats.py",
        "data": source,
        "photographs": {part: len(data[f"{part}_y"]) for part in PARTS},
        "left_out": len(data["left_out"]),
        "weights": weights,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "epochs": len(history),
        "best_epoch": int(history["val_accuracy"].idxmax()) + 1,
        "best_stage": int(best["stage"]),
        "seconds": seconds,
        "parameters": model.count_params(),
        # Of the best epoch, as `fit` reports them: on training photographs, the mean over the epoch
        "train": {"accuracy": best["accuracy"], "loss": best["loss"]},
        "val": {"accuracy": best["val_accuracy"], "loss": best["val_loss"]}
        | {
            f"stage_{stage}_accuracy": rows["val_accuracy"].max()
            for stage, rows in history.groupby("stage")
        },
        "test": score_test(best_model, data, args),
        "peak_memory_mb": peak_memory_mb(),  # before the baselines, which are not the script's task
        "baselines": fit_baselines(data, args),
    }
    write_whole(args.run_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    (args.run_dir / "stage1.json").unlink()  # finished: the next run starts afresh
    print(f"\nThe best of {len(history)} epochs is number {metrics['best_epoch']}:")
    for part in ("train", "val", "test"):
        print(f"{part:>5} accuracy {metrics[part]['accuracy']:.4f}")
    for name, accuracy in metrics["baselines"].items():
        print(f" test accuracy {accuracy:.4f} with {name.removesuffix('_accuracy')}")
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
