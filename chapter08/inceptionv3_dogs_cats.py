"""Tell dogs from cats with a network that was trained on a million other photographs, ImageNet.

Book: chapter 8, "Transfer learning in Keras".

    python chapter08/data_setup.py                # once: sorts the photographs into folders
    python chapter08/inceptionv3_dogs_cats.py     # the book's backbone, fetched once (88 MB)
    python chapter08/inceptionv3_dogs_cats.py --backbone mobilenet --run-dir runs/mobilenet  # 2 MB
    python chapter08/inceptionv3_dogs_cats.py --data sample --weights none    # needs no network

Stage 1, feature extraction: the pretrained network, the backbone, is frozen, and two new layers on
top of it learn. Stage 2, fine-tuning: its last blocks learn, too, slowly.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from data_setup import FETCHED, SAMPLE, set_up
from keras import layers
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PARTS = ("train", "val", "test")
LOSS = {"loss": "binary_crossentropy", "metrics": ["accuracy"]}
# name: network, side of its images, does it want -1 to 1 (or 0 to 255), the last layer that stays
# frozen: in the book's network layer 248
BACKBONES = {
    "inceptionv3": (keras.applications.InceptionV3, 299, True, "mixed8"),
    "efficientnetv2b0": (keras.applications.EfficientNetV2B0, 224, False, "block5e_add"),
    "convnexttiny": (keras.applications.ConvNeXtTiny, 224, False, "convnext_tiny_stage_2_block_8"),
    "mobilenet": (partial(keras.applications.MobileNet, alpha=0.25), 224, True, "conv_pw_11_relu"),
}


def build_model_feature_extraction(backbone="inceptionv3", weights="imagenet", image_size=None):
    """The book's network, compiled for stage 1: pixels, 0-255, to the second class's probability.

    `weights` of the backbone: "imagenet", a file, or "none", which are random.
    """
    application, side, rescale, _ = BACKBONES[backbone]
    shape = (image_size or side, image_size or side, 3)
    weights = None if weights == "none" else weights
    base_model = application(include_top=False, weights=weights, input_shape=shape)
    base_model.trainable = False
    inputs = keras.Input(shape=shape, name="input")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs) if rescale else inputs
    x = base_model(x, training=False)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(1024, activation="relu", name="fc1")(x)
    predictions = layers.Dense(1, activation="sigmoid", name="predictions")(x)
    model = keras.Model(inputs=inputs, outputs=predictions, name="dogs_cats")
    model.compile(keras.optimizers.Adam(), **LOSS)
    return model


def build_model_fine_tuning(model, last_frozen="mixed8", learning_rate=0.0001, momentum=0.9):
    """The same network, compiled for stage 2: what follows layer `last_frozen` learns, too."""
    base_model = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    names = [layer.name for layer in base_model.layers]
    first = max(i for i, name in enumerate(names) if name.startswith(last_frozen)) + 1
    base_model.trainable = True
    for i, layer in enumerate(base_model.layers):
        # Statistics of a million photographs must not follow small batches of ours. In `fit`
        # Keras overrides the training=False above, so the layer itself has to be frozen.
        layer.trainable = i >= first and not isinstance(layer, layers.BatchNormalization)
    model.compile(keras.optimizers.SGD(learning_rate, momentum=momentum), **LOSS)
    return model


def setup_data(folder, image_size, batch_size, seed=None):
    """Batches of pixels (n, image_size, image_size, 3), 0-255, labels (n, 1); `seed`: shuffled."""
    return keras.utils.image_dataset_from_directory(
        folder,
        label_mode="binary",
        image_size=(image_size, image_size),
        batch_size=batch_size,
        shuffle=seed is not None,
        seed=seed,
    )


def load_data(source=None, image_size=299, batch_size=30):
    """Photographs of two classes, which stay on disk: JPEG, PNG, BMP or GIF.

    `source` is None for what data_setup.py has sorted, "sample", or a folder with train, val and
    test, and in each of them a folder for each class.
    Returns a dict: train, val, test, of setup_data; train_y, val_y, test_y, int64 (n,), 0 or 1;
    class_names; folder; checksum of all files.
    """
    folder = Path({None: FETCHED[1], "sample": SAMPLE[1]}.get(source, source))
    if source == "sample" and not folder.exists():
        set_up(*SAMPLE)
    data, seen = {"folder": folder}, {}
    for part in PARTS:
        data[part] = setup_data(folder / part, image_size, batch_size)
        names, files = data[part].class_names, [Path(file) for file in data[part].file_paths]
        y = data[f"{part}_y"] = np.array([names.index(file.parent.name) for file in files])
        if names != data.setdefault("class_names", names) or len(set(y)) < 2:
            raise ValueError(f"{folder / part} needs photographs of both {data['class_names']}")
        with ThreadPoolExecutor() as pool:
            digests = dict(zip(pool.map(check_photo, files), files, strict=True))
        for digest in seen.keys() & digests.keys():
            raise ValueError(f"{digests[digest]} is also {seen[digest]}: trained and tested on")
        seen |= digests
    return data | {"checksum": zlib.crc32(f"{list(seen)} {data['train_y'].tolist()}".encode())}


def check_photo(file):
    """The MD5 of a photograph's file. Raises ValueError for what Keras cannot read."""
    content = file.read_bytes()
    try:
        tf.io.decode_image(content, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"{file} is no photograph that Keras can read") from None
    return hashlib.md5(content).hexdigest()


def extract_features(model, data, path):
    """What the frozen backbone makes of all photographs, in each epoch the same: kept in `path`.

    Returns a dict: train_X, val_X, test_X, float32 (n, channels); train_y, val_y, test_y (n,).
    """
    if not path.exists():
        extractor = keras.Model(model.input, model.get_layer("avg_pool").output)
        features = {f"{part}_y": data[f"{part}_y"] for part in PARTS}
        features |= {f"{part}_X": extractor.predict(data[part]) for part in PARTS}
        np.savez(path.with_stem("new_features"), **features)
        path.with_stem("new_features").replace(path)  # a kill leaves all of it or nothing
    return dict(np.load(path, allow_pickle=False))


def create_datagen():
    """Random changes of photographs, as they could as well have been taken."""
    turn = layers.RandomRotation(0.05, fill_mode="nearest")
    zoom = layers.RandomZoom((-0.2, 0), fill_mode="nearest")
    return layers.Pipeline([layers.RandomFlip("horizontal"), turn, zoom])


def create_callbacks(model, run_dir, name, first_epoch=0):
    """TensorBoard, a log, `model` saved after each epoch: last, best of all and of stage `name`."""
    log, new = run_dir / "history.csv", run_dir / "new.keras"

    def save(epoch, logs):  # renamed when whole: a kill leaves the files of the epoch before
        model.save(new)
        losses = pd.read_csv(log)["val_loss"]
        for file, those in (("model.keras", losses), (f"{name}.keras", losses[first_epoch:])):
            if those.idxmin() == epoch:
                shutil.copy(new, run_dir / f"new_{file}").replace(run_dir / file)
        new.replace(run_dir / "last.keras")

    return [
        keras.callbacks.TensorBoard(run_dir / "tb" / name),
        keras.callbacks.CSVLogger(log, append=(run_dir / "last.keras").exists()),
        keras.callbacks.LambdaCallback(on_epoch_end=save),
    ]


def open_run(args, settings, data):
    """The last model of the same run in --run-dir, or a new one; the epochs that it has done."""
    run_dir = args.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    noted, log, last = (run_dir / name for name in ("settings.json", "history.csv", "last.keras"))
    if any(run_dir.iterdir()) and (not noted.exists() or json.loads(noted.read_text()) != settings):
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    if not last.exists():
        model = build_model_feature_extraction(args.backbone, args.weights, args.image_size)
        noted.write_text(json.dumps(settings))  # now that the weights are there
        return model, 0
    lines = log.read_bytes().splitlines(keepends=True)
    keras.utils.set_random_seed((args.seed + len(lines)) % 2**32)  # not epoch 1's numbers again
    model = keras.models.load_model(last)
    model.evaluate(data["val"].take(1), verbose=0)  # is it a network for photographs like these?
    done = int(model.optimizer.iterations) // len(data["train"])
    if isinstance(model.optimizer, keras.optimizers.SGD):  # it began anew with stage 2
        done += args.unfreeze_after
    if len(lines) <= done:
        raise ValueError(f"{log} has not all of the {done} epochs of last.keras")
    os.truncate(log, len(b"".join(lines[: done + 1])))  # no epoch that was cut off
    return model, done


def train(model, data, args, done):
    """Both stages, of which `done` epochs are done."""
    switch = min(args.epochs, args.unfreeze_after)
    if done < switch:
        # The two new layers alone, as a model that shares layers and optimizer with the whole one
        head = keras.Model(model.get_layer("avg_pool").output, model.output, name="head")
        head.compile(model.optimizer, **LOSS)
        rows = tf.data.Dataset.from_tensor_slices((data["train_X"], data["train_y"]))
        head.fit(
            rows.shuffle(len(rows), seed=args.seed + done).batch(args.batch_size),
            epochs=switch,
            initial_epoch=done,
            validation_data=(data["val_X"], data["val_y"]),
            callbacks=create_callbacks(model, args.run_dir, "feature_extraction"),
            shuffle=False,  # the rows are, anew in each epoch
        )
        done = switch
    if done == switch < args.epochs:  # from stage 1's best epoch on
        model = keras.models.load_model(args.run_dir / "feature_extraction.keras")
        model = build_model_fine_tuning(model, BACKBONES[args.backbone][3])
    if done < args.epochs:
        datagen, side = create_datagen(), args.image_size
        photos = setup_data(data["folder"] / "train", side, args.batch_size, args.seed + done)
        model.fit(
            photos.map(lambda X, y: (datagen(X, training=True), y)).prefetch(2),
            epochs=args.epochs,
            initial_epoch=done,
            validation_data=data["val"],
            callbacks=create_callbacks(model, args.run_dir, "fine_tuning", switch),
            shuffle=False,
        )


def fit_baseline(data):
    """Logistic regression on how often each of 512 colours occurs: its answers to `test`, (n,)."""
    X = {"train": [], "test": []}
    for part, rows in X.items():
        for photos, _ in data[part]:
            colours = (photos.numpy().astype("int64") // 32) @ [64, 8, 1]
            rows += [np.bincount(colour.ravel(), minlength=512) for colour in colours]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return model.fit(np.sqrt(X["train"]), data["train_y"]).predict(np.sqrt(X["test"]))


def report(data, run_dir):
    """Accuracies as a dict, on test photographs with standard errors; "test" is the best epoch's.

    The stages' are those of their best epochs, "gain" compares them photograph by photograph.
    """
    right = pd.DataFrame({"colour_histograms": fit_baseline(data) == data["test_y"]}, dtype=float)
    for name in ("feature_extraction", "fine_tuning", "model"):
        if (run_dir / f"{name}.keras").exists():
            model = keras.models.load_model(run_dir / f"{name}.keras")
            answers = model.predict(data["test"], verbose=0)[:, 0] > 0.5
            right[name] = (answers == data["test_y"]).astype(float)
    if "fine_tuning" in right:
        right["gain"] = right["fine_tuning"] - right["feature_extraction"]
    table = pd.DataFrame({"accuracy": right.mean(), "error": right.sem()})
    val = model.evaluate(data["val"], verbose=0, return_dict=True)
    print(f"On the test photographs:\n{table.round(4)}\nval accuracy {val['accuracy']:.4f}")
    scores = {"val": val} | table.to_dict("index")
    return scores | {"test": scores.pop("model")}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a folder')
    parser.add_argument("--backbone", choices=BACKBONES, default="inceptionv3", help="the book's")
    parser.add_argument("--weights", default="imagenet", help="imagenet, a file, or none: random")
    parser.add_argument("--image-size", type=int, help="side, default: the backbone's own")
    parser.add_argument("--epochs", type=int, default=20, help="of both stages, default: 20")
    parser.add_argument("--unfreeze-after", type=int, default=10, help="epochs, default: 10")
    parser.add_argument("--batch-size", type=int, default=30, help="default: 30")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/inceptionv3_dogs_cats")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    args = parser.parse_args()
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"inceptionv3_dogs_cats{suffix}")
    args.image_size = args.image_size or BACKBONES[args.backbone][1]
    if min(args.epochs, args.unfreeze_after, args.batch_size) < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs, --unfreeze-after and --batch-size begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    try:
        keras.utils.set_random_seed(args.seed)
        there = json.loads((args.run_dir / "settings.json").read_text()) if args.evaluate else {}
        data = load_data(args.data, there.get("image_size", args.image_size), args.batch_size)
        if args.evaluate:
            if there["class_names"] != data["class_names"]:
                raise ValueError(f"{args.run_dir} was trained on other classes")
            return report(data, args.run_dir)
        names = ("backbone", "weights", "image_size", "unfreeze_after", "batch_size", "seed")
        settings = {"script": "inceptionv3_dogs_cats", "class_names": data["class_names"]}
        settings |= {name: getattr(args, name) for name in names} | {"data": data["checksum"]}
        if Path(args.weights).is_file():
            settings["weights"] = zlib.crc32(Path(args.weights).read_bytes())
        model, done = open_run(args, settings, data)
        if done < args.unfreeze_after:
            data |= extract_features(model, data, args.run_dir / "features.npz")
    except Exception as error:  # TensorFlow, h5py, Keras and urllib raise a dozen kinds
        source = args.data or f"{FETCHED[1]} (python chapter08/data_setup.py)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    train(model, data, args, done)
    history = pd.read_csv(args.run_dir / "history.csv", index_col="epoch").rename(lambda n: n + 1)
    history.plot(subplots=[("loss", "val_loss"), ("accuracy", "val_accuracy")], grid=True)
    plt.savefig(args.run_dir / "learning_curves.png")
    metrics = settings | report(data, args.run_dir)
    metrics |= {"epochs": len(history), "best_epoch": int(history["val_loss"].idxmin())}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
