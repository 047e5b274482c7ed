"""What every trainer does, once, for all of them: by its command line, on small data of its kind.

A row of TRAINERS is held to all of it; searches, agents and GANs to what fits them.
"""

import ast
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python, start_python
from PIL import Image
from sklearn.metrics import roc_auc_score

WINE, EEG, DIGITS, IMAGES = "wine.csv", "eeg.csv", "digits.npz", "images.npz"
PHOTOS = "photos"  # a folder
PRICES = "prices.csv"
WEIGHTS = Path("mobilenet.weights.h5")  # beside the data
POSTS, REVIEWS = "posts.tar.gz", "reviews.tar.gz"
PAIRS = "pairs.txt"
VECTORS = ROOT / "data" / "samples" / "glove.sample.50d.txt"
EPOCHS = 4  # of the runs below

# script: its kind of data, lines at most, the figure that chooses the best epoch
TRAINERS = {
    "chapter02/mlp_wine.py": (WINE, 170, "val_loss"),
    "chapter02/dnn_wine.py": (WINE, 170, "val_loss"),
    "chapter03/mlp_wine_tensorboard.py": (WINE, 165, "val_loss"),
    "chapter03/dnn_wine_tensorboard.py": (WINE, 170, "val_loss"),
    "chapter03/dnn_wine_broken.py": (WINE, 170, "val_loss"),
    "chapter04/dnn_eeg.py": (EEG, 255, "val_roc_auc"),
    "chapter05/mlp_mnist.py": (DIGITS, 220, "val_accuracy"),
    "chapter05/mlp_mnist_dropout.py": (DIGITS, 210, "val_accuracy"),
    "chapter05/mlp_mnist_l2.py": (DIGITS, 215, "val_accuracy"),
    "chapter07/cnn_cifar10.py": (IMAGES, 220, "val_accuracy"),
    "chapter07/cnn_cifar10_augmented.py": (IMAGES, 220, "val_accuracy"),
    "chapter08/inceptionv3_dogs_cats.py": (PHOTOS, 312, "val_loss"),
    "chapter09/lstm_bitcoin.py": (PRICES, 220, "val_loss"),
    "chapter10/cnn_newsgroups.py": (POSTS, 220, "val_accuracy"),
    "chapter10/cnn_newsgroups_glove.py": (POSTS, 165, "val_accuracy"),
    "chapter10/lstm_imdb.py": (REVIEWS, 220, "val_accuracy"),
    "chapter10/lstm_newsgroups.py": (POSTS, 110, "val_accuracy"),
    "chapter11/train_char_seq2seq.py": (PAIRS, 280, "val_loss"),
    "chapter11/train_transformer_seq2seq.py": (PAIRS, 225, "val_loss"),
}
# Searches train many networks; what goes on after a kill is their list of finished evaluations.
# script: lines at most, options of a small search, its evaluations
SEARCHES = {
    "chapter06/random_search_mnist.py": (192, ["--n-iter", 3, "--cv", 2, "--epochs", 8], 6),
    "chapter06/hyperband_mnist.py": (200, ["--max-iter", 3], 6),
}
# Agents train by steps, and what they learn from is an environment. script: options of a short run
AGENTS = {
    "chapter12/dqn_breakout.py": ["--nb-steps", 400, "--memory-limit", 300],
    "chapter12/dqn_cartpole.py": ["--nb-steps", 1200],  # the first 1,000 without an update
    "chapter12/dqn_lunar_lander.py": ["--nb-steps", 1200],
}
# Two networks, no best epoch. script: its kind of data, lines at most
GANS = {
    "chapter13/gan_mnist.py": (DIGITS, 300),
    "chapter13/gan_cifar10.py": (IMAGES, 300),
    "chapter13/gan_mnist_conditional.py": (DIGITS, 140),
}
SCRIPTS = [*TRAINERS, *SEARCHES, *AGENTS, *GANS]
KINDS = {script: row[0] for script, row in (TRAINERS | GANS).items()}
KINDS |= dict.fromkeys(SEARCHES, DIGITS)
# Options of a short run.
OPTIONS = dict.fromkeys(TRAINERS, ["--epochs", EPOCHS])
OPTIONS |= dict.fromkeys(GANS, ["--epochs", 2, "--ema", 0.9])
OPTIONS |= {script: row[1] for script, row in SEARCHES.items()}
OPTIONS |= AGENTS
# Without these they would need the network, or minutes.
OPTIONS["chapter08/inceptionv3_dogs_cats.py"] = [
    *("--epochs", EPOCHS, "--backbone", "mobilenet", "--weights", WEIGHTS, "--image-size", 32),
    *("--unfreeze-after", 2),
]
OPTIONS["chapter10/cnn_newsgroups_glove.py"] = ["--epochs", EPOCHS, "--vectors", VECTORS]
# Copied along with the script that imports them: modules that the book itself splits off, and the
# script that another one changes.
MODULES = {
    "chapter04/dnn_eeg.py": ["roc_callback.py"],
    "chapter06/hyperband_mnist.py": ["hyperband.py"],
    "chapter06/random_search_mnist.py": ["hyperband.py"],
    "chapter08/inceptionv3_dogs_cats.py": ["data_setup.py"],
    "chapter10/cnn_newsgroups_glove.py": ["cnn_newsgroups.py"],
    "chapter10/lstm_newsgroups.py": ["cnn_newsgroups.py"],
    "chapter11/train_transformer_seq2seq.py": ["train_char_seq2seq.py"],
    "chapter13/gan_mnist_conditional.py": ["gan_mnist.py"],
} | dict.fromkeys(AGENTS, ["rl"])
# These change the network of another script of their chapter, and import the rest.
CHANGED = {
    "chapter10/cnn_newsgroups_glove.py",
    "chapter10/lstm_newsgroups.py",
    "chapter11/train_transformer_seq2seq.py",
}
# Files of the chapters that call fit and are no trainers: lessons and comparisons.
NO_TRAINERS = {
    "chapter01/check_gpu.py",
    "chapter01/holdout_and_kfold.py",
    "chapter05/softmax.py",
    "chapter06/hyperband_keras_tuner.py",
    "chapter07/cnn_cifar10_hosts.py",
    "chapter09/baselines.py",
    "chapter09/lstm_bitcoin_stateful.py",
    "chapter10/average_texts.py",
    "chapter10/vectorize_text.py",
    "chapter10/word2vec_imdb.py",
    "chapter11/infer_char_seq2seq.py",
    "chapter13/evaluate_gan.py",
    "chapter13/how_gans_fail.py",
}

every_script = pytest.mark.parametrize("script", SCRIPTS)
every_trainer = pytest.mark.parametrize("script", TRAINERS)
every_search = pytest.mark.parametrize("script", SEARCHES)
every_gan = pytest.mark.parametrize("script", GANS)


def write_data(path, seed=0, classes=3):
    """A small file of the kind that its suffix and name tell."""
    if path.suffix == ".gz":
        return write_tar(path, make_texts(path.name, seed, classes))
    rng = np.random.default_rng(seed)
    if "photos" in path.name:  # dark ones and bright ones
        for part, n in (("train", 12), ("val", 4), ("test", 4)):
            for i in range(2 * n):
                file = path / part / f"kind {i % 2}" / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 120, (40, 30, 3)) + 120 * (i % 2)
                Image.fromarray(pixels.astype("uint8")).save(file)
        return path
    if "eeg" in path.name:  # the fewer seconds a state has, the louder
        states = np.arange(300) % 5 + 1
        X = rng.normal(size=(300, 20)) * np.where(states == 1, 5, 1)[:, None]
        table = pd.DataFrame(X.round(3), columns=[f"X{i}" for i in range(1, 21)])
        table.insert(0, "", [f"X{i // 60}.F{i % 60:03}" for i in range(300)])
        table.assign(y=states).to_csv(path, index=False)
        return path
    if "prices" in path.name:
        times = pd.date_range("2017-05-30", "2017-06-01 12:00", freq="min", name="time")
        noise = rng.normal(size=len(times))
        close = (2000 + 0.2 * noise.cumsum() + noise).round(2)  # most of a change is taken back
        pd.DataFrame({"close": close}, index=times).to_csv(path)
        return path
    if "pairs" in path.name:
        words = ["the a one", "cat dog hen pig ant", "sees eats hears", "it us him", "today now."]
        words = [part.split() for part in words]
        english = [" ".join(rng.choice(part) for part in words) for _ in range(300)]
        path.write_text("".join(f"{text}\t{text[::-1].upper()}\n" for text in english))
        return path
    if path.suffix == ".csv":
        X = rng.normal(size=(300, 10))
        columns = {f"measurement {i}": X[:, i].round(3) for i in range(10)}
        columns |= {"alcohol": (10 + X[:, 0] + X[:, 1] ** 2).round(3), "quality": 5}
        pd.DataFrame(columns).to_csv(path, sep=";", index=False)
        return path
    shape = (28, 28) if "digits" in path.name else (12, 12, 3)
    arrays = {"class_names": np.array([f"kind {i}" for i in range(classes)])}
    for part, n in (("train", 240), ("test", 60)):
        y = np.arange(n) % classes
        bright = (y * 60).reshape(-1, *[1] * len(shape))
        arrays[f"x_{part}"] = (rng.integers(0, 120, (n, *shape)) + bright).astype("uint8")
        arrays[f"y_{part}"] = y.astype("uint8")
    np.savez(path, **arrays)
    return path


def make_texts(kind, seed=0, classes=3):
    """{path: bytes} of short texts; most words of each class are its own, all have a vector."""
    rng = np.random.default_rng(seed)
    words = [line.split()[0] for line in VECTORS.read_text().splitlines()]
    folders = [f"kind {i}" for i in range(classes)]
    if kind == REVIEWS:
        folders = ["train/neg", "train/pos", "test/neg", "test/pos"]
        classes = 2
    texts = {}
    for number, folder in enumerate(folders):
        first = 20 * (number % classes)
        for i in range(160):
            text = " ".join(rng.choice(words[first : first + 30], 20))
            texts[f"top/{folder}/{i}.txt"] = text.encode()
    return texts


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """One small file of each kind, made once, and a network of another shape than any script's."""
    import keras

    folder = tmp_path_factory.mktemp("data")
    for name in (WINE, EEG, DIGITS, IMAGES, PHOTOS, PRICES, POSTS, REVIEWS, PAIRS):
        write_data(folder / name)
    write_weights(folder / WEIGHTS)
    inputs = keras.Input((3,))
    other = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(1)(inputs)])
    other.compile("adam", ["mse", "mse"])
    other.save(folder / "other.keras")
    return folder


def write_weights(path):
    """Random weights of a small network, large enough for its features to be more than 0."""
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    network.set_weights([5 * w if w.ndim == 4 else w for w in network.get_weights()])
    network.save_weights(path)


_runs = {}


@pytest.fixture
def finished(script, data_dir, tmp_path_factory):
    """The run folder of a copy of `script`, run in an empty folder, once; look, do not touch."""
    if script not in _runs:
        folder = tmp_path_factory.mktemp("alone")
        alone = copy_alone(script, folder)
        arguments = command(script, data_dir)[1:]
        if script in KINDS:
            copy(data_dir / KINDS[script], folder / KINDS[script])
            arguments += ["--data", KINDS[script]]
        run_to_end(alone, *arguments, cwd=folder)
        (_runs[script],) = (folder / "runs").iterdir()
    return _runs[script]


def copy_alone(script, folder):
    """Copy a script and the modules that it needs; returns the path of the copy."""
    for name in (Path(script).name, *MODULES.get(script, [])):
        copy(ROOT / Path(script).parent / name, folder / name)
    return folder / Path(script).name


def copy(source, target):
    """Copy a file or a folder; returns the path of the copy."""
    if source.is_dir():
        return shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return shutil.copy(source, target)


def command(script, data_dir, run_dir=None, *options):
    """A short run of `script`: its path and arguments."""
    data = ["--data", data_dir / KINDS[script]] if script in KINDS else []
    folder = ["--run-dir", run_dir] if run_dir else []
    usual = [data_dir / part if isinstance(part, Path) else part for part in OPTIONS[script]]
    return [script, *data, *folder, *usual, *options]


def run_to_end(*arguments, cwd=ROOT):
    """Run a script; returns what it has printed."""
    result = run_python(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_each(script, argument_lists, cwd, *patch):
    """Exit status, stdout and stderr of `script` for each list of arguments, in one process."""
    lists = json.dumps([[str(argument) for argument in arguments] for arguments in argument_lists])
    output = run_to_end("tests/each.py", ROOT / script, lists, *patch, cwd=cwd)
    outcomes = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(outcomes) == len(argument_lists), output
    return outcomes


def go_on(script, *arguments):
    """Run `script` to its end, eagerly."""
    (outcome,) = run_each(script, [arguments], ROOT)
    assert outcome["status"] == 0, outcome


def refuse(script, argument_lists, cwd):
    """The messages of `script`, one for each list of arguments, all refused."""
    messages = []
    outcomes = run_each(script, argument_lists, cwd)
    for arguments, outcome in zip(argument_lists, outcomes, strict=True):
        assert outcome["status"] in (1, 2), (arguments, outcome)
        errors = [line for line in outcome["stderr"].splitlines() if "error: " in line]
        assert len(errors) == 1 and "Traceback" not in outcome["stderr"], (arguments, outcome)
        assert len("error: x: y") < len(errors[0]) < 1000, outcome
        messages.append(errors[0])
    return messages


def kill_once(process, condition):
    """kill -9 at no chosen moment after `condition()` holds first."""
    wait_until(condition, process)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def wait_until(condition, process):
    """Wait while the process runs, five minutes at most."""
    deadline = time.monotonic() + 300
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def contents(folder):
    """Every file below `folder` with a hash of what is in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def history_of(folder):
    return pd.read_csv(folder / "history.csv")


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def best_of(script, history):
    figure = TRAINERS[script][2]
    return history[figure].min() if "loss" in figure else history[figure].max()


def assert_whole(script, folder, epochs=EPOCHS):
    """The run in `folder` has every epoch once, and its best model is the history's."""
    history, metrics = history_of(folder), metrics_of(folder)
    assert history["epoch"].tolist() == list(range(epochs))
    assert np.isfinite(history.to_numpy("float64")).all()
    assert metrics["epochs"] == epochs
    best = history[TRAINERS[script][2]].iloc[metrics["best_epoch"] - 1]
    assert best == best_of(script, history)


def steps_of(folder):
    """The training steps that the optimizer of last.keras has counted."""
    with zipfile.ZipFile(folder / "last.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        return int(file["optimizer/vars/0"][()])


# What a script looks like -------------------------------------------------------------------------


def test_every_trainer_is_held_to_this():
    scripts = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("chapter*/*.py")
        if ".fit(" in path.read_text() and "argparse" in path.read_text()
    }
    known = {*SCRIPTS, *NO_TRAINERS}
    assert scripts <= known, "give each a row of TRAINERS"
    assert all((ROOT / script).exists() for script in known)


@every_script
def test_short_and_its_network_near_the_top(script):
    """One thing, one name: what the book does not name has the same name in every script."""
    text = (ROOT / script).read_text()
    tree = ast.parse(text).body
    functions = {node.name: node for node in tree if isinstance(node, ast.FunctionDef)}
    lines, main_lines, network_from = 150, 40, 100
    networks = {"build_network", "build_model", "build_model_feature_extraction"}
    names = {"load_data", "parse_arguments", "report"}
    if script in TRAINERS:
        lines, names = TRAINERS[script][1], names | {"create_callbacks"}
        network_from = 110 if "chapter10" in script else 100  # texts are read before it
    elif script in SEARCHES:
        lines = SEARCHES[script][0]
    elif script in GANS:
        lines, networks = GANS[script][1], {"build_discriminator"}
        names = {"load_data", "parse_arguments", "build_generator"}
    else:
        main_lines = 45
        names = {"make_env", "build_agent", "build_callbacks", "parse_arguments", "report"}
    assert text.count("\n") <= lines
    assert functions["main"].end_lineno - functions["main"].lineno < main_lines
    if script in CHANGED:
        imports = [node.names for node in tree if isinstance(node, ast.ImportFrom)]
        names -= {alias.name for aliases in imports for alias in aliases}
    assert names <= set(functions)
    (network,) = networks & set(functions)
    assert functions[network].lineno < network_from


@every_script
def test_imports_nothing_of_the_project(script):
    """Copied alone it must run: the standard library and packages of requirements.txt only."""
    names = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn", "pandas", "scipy"}
    names |= {Path(name).stem for name in MODULES.get(script, [])}
    names |= {"gymnasium", "ale_py"} if script in AGENTS else set()
    for node in ast.walk(ast.parse((ROOT / script).read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.split(".")[0] in names | sys.stdlib_module_names, module


def test_import_has_no_side_effect(tmp_path):
    """Nothing printed or written, no backend of plots, time-out, seed or variable set."""
    code = f"""
import importlib.util, os, pathlib, random, socket, sys
import gymnasium.wrappers, keras, matplotlib, numpy
for script in {SCRIPTS!r}:
    before = dict(os.environ), random.getstate(), numpy.random.get_state()[1].tolist()
    path = pathlib.Path({str(ROOT)!r}, script)
    sys.path.insert(0, str(path.parent))  # as if it were run
    spec = importlib.util.spec_from_file_location("script", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    after = dict(os.environ), random.getstate(), numpy.random.get_state()[1].tolist()
    assert before == after, script
    assert socket.getdefaulttimeout() is None, script
    assert not isinstance(dict.__getitem__(matplotlib.rcParams, "backend"), str), script
"""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    result = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert not result.stdout and not list(tmp_path.iterdir())


# What a run does ----------------------------------------------------------------------------------


@pytest.mark.slow
@every_script
def test_copied_alone_it_runs(script, finished):
    """In an empty folder, with a file of data: it writes there, in its run folder only."""
    name, kind = Path(script).stem, KINDS.get(script, "")
    assert finished.name == f"{name}_{Path(kind).stem}" if kind else name
    assert (finished / "metrics.json").exists()
    beside = {path.name for path in finished.parent.parent.iterdir()} - {"__pycache__"}
    assert beside - {kind} == {f"{name}.py", "runs", *MODULES.get(script, [])}


@pytest.mark.slow
@every_trainer
def test_trains_and_keeps_the_best_epoch(script, finished, data_dir):
    import keras

    assert_whole(script, finished)
    history = history_of(finished)
    if "broken" not in script:
        assert history["loss"].iloc[-1] < 0.95 * history["loss"].iloc[0]
    model = keras.models.load_model(finished / "model.keras")
    kind, figure = TRAINERS[script][0], TRAINERS[script][2]
    size = [model.input_shape[1]] if kind == PHOTOS else []
    data = load_script(script).load_data(data_dir / kind, *size)
    if kind == PAIRS:
        data["val"] = load_script(script).make_batches(data, "val", 256)
    rows = [data["val"]] if "val" in data else [data["val_X"], data["val_y"]]
    scores = model.evaluate(*rows, verbose=0, return_dict=True)
    if figure == "val_roc_auc":
        scores["roc_auc"] = roc_auc_score(data["val_y"], model.predict(data["val_X"], verbose=0))
    score = scores[figure.removeprefix("val_")]
    np.testing.assert_allclose(score, best_of(script, history), rtol=1e-4)


@pytest.mark.slow
@every_trainer
def test_each_epoch_has_its_own_order(script, finished, data_dir, tmp_path):
    """Seeded fit on arrays shuffles alike in every epoch (tensorflow/tensorflow#35682).

    A run that goes on begins neither with the first epoch's order again nor with its dropout.
    """
    folders = tmp_path / "new", copy(finished, tmp_path / "run")
    lists = [command(script, data_dir, folder, "--epochs", EPOCHS + 1)[1:] for folder in folders]
    outcomes = run_each(script, lists, tmp_path, "orders")
    found = [json.loads(outcome["stdout"].splitlines()[-1]) for outcome in outcomes]
    orders = [order for *three, _ in found for order in three]
    assert len(orders) == len(set(orders)) == 6
    if re.search(r"layers\.(Dropout|Random)|dropout=", (ROOT / script).read_text()):
        assert found[0][-1] != found[1][-1], "the first epoch's dropout again"


@pytest.mark.slow
@pytest.mark.parametrize("script", [*TRAINERS, *SEARCHES, *GANS, "chapter12/dqn_cartpole.py"])
def test_finished_it_only_reports(script, finished, data_dir, tmp_path):
    """Where the report was cut off it comes again; the same data in another place are the same.

    A trainer's --evaluate only scores, and more --epochs go on.
    """
    again, more = (copy(finished, tmp_path / name) for name in ("again", "more"))
    (again / "notes.txt").write_text("mine")
    pictures = [path.name for path in again.glob("*.png")]
    for name in (*pictures, "metrics.json"):
        (again / name).unlink()
    lists = [command(script, data_dir, again)[1:]]
    if script in KINDS:
        lists[0] += ["--data", copy(data_dir / KINDS[script], tmp_path / f"my_{KINDS[script]}")]
    if "glove" in script:
        lists[0] += ["--vectors", copy(VECTORS, tmp_path / "my_vectors.txt")]
    if script in TRAINERS:
        lists.append(command(script, data_dir, again, "--evaluate")[1:])
        lists.append(command(script, data_dir, more, "--epochs", EPOCHS + 1)[1:])
    outcomes = run_each(script, lists, tmp_path)
    assert not any(outcome["status"] for outcome in outcomes), outcomes
    assert not any("Epoch " in outcome["stdout"] for outcome in outcomes[:2])
    changed = contents(finished).items() - contents(again).items()
    # A .keras file has its date; eagerly computed figures differ in the last digits.
    written = {*pictures, "generator.keras", "metrics.json", "forecasts.csv"}
    assert {name for name, _ in changed} <= written
    same = [pd.json_normalize(metrics_of(folder)) for folder in (finished, again)]
    pd.testing.assert_frame_equal(*same, rtol=1e-4)
    assert all((again / name).exists() for name in pictures)
    assert (again / "notes.txt").read_text() == "mine"
    if script in TRAINERS:
        assert "test" in outcomes[1]["stdout"]
        assert_whole(script, more, EPOCHS + 1)
        pd.testing.assert_frame_equal(history_of(more)[:EPOCHS], history_of(finished))


@pytest.mark.slow
@pytest.mark.parametrize("script", [*TRAINERS, *GANS])
def test_again_it_gives_the_same_figures_and_killed_it_goes_on(
    script, finished, data_dir, tmp_path
):
    """kill -9 at no chosen moment, once the finished run's epochs are done: no gap, no repeat."""
    run_dir, unbroken = tmp_path / "run {1}", history_of(finished)  # Keras fills braces in

    def epochs():
        log = run_dir / "history.csv"
        return log.read_text().count("\n") - 1 if log.exists() else 0

    process = start_python(*command(script, data_dir, run_dir, "--epochs", 400))
    kill_once(process, lambda: epochs() > len(unbroken))
    (run_dir / "notes.txt").write_text("mine")
    more = epochs() + 1
    go_on(*command(script, data_dir, run_dir, "--epochs", more))
    assert (run_dir / "notes.txt").read_text() == "mine"
    history = history_of(run_dir)
    pd.testing.assert_frame_equal(history[: len(unbroken)], unbroken)
    assert history["epoch"].tolist() == list(range(more))
    if script in TRAINERS:
        assert_whole(script, run_dir, more)
        # As many steps as its epochs have: a network that began anew has fewer.
        old = (
            2 if KINDS[script] == PHOTOS else 0
        )  # epochs of stage 1, which another optimizer counted
        steps = [steps_of(run_dir) / (more - old), steps_of(finished) / (len(unbroken) - old)]
        assert steps[0] == steps[1], "thrown back"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["half", "whole"])
@pytest.mark.parametrize("what", ["best", "line", "last"])
@pytest.mark.parametrize("script", ["chapter07/cnn_cifar10.py"])
def test_killed_while_it_saves_it_goes_on(script, what, how, data_dir, tmp_path):
    import keras

    arguments = command(script, data_dir, tmp_path)
    process = start_python("tests/killed.py", f"{what} {how}", *arguments)
    assert process.wait(300) == -signal.SIGKILL
    go_on(*arguments)
    assert_whole(script, tmp_path)
    assert keras.models.load_model(tmp_path / "model.keras")


# What it refuses ----------------------------------------------------------------------------------


def write_bad_files(folder, kind):
    """Six and more files that are not what the script reads."""
    if kind == PHOTOS:
        return write_bad_folders(folder)
    bad = {}
    for name in ("text", "empty", "cut", "keys", "values", "labels"):
        bad[name] = folder / f"{name}{Path(kind).suffix}"
    whole = write_data(folder / kind)
    bad["text"].write_text("neither a table nor an archive\n" * 3)
    bad["empty"].write_bytes(b"")
    if kind == EEG:
        table = pd.read_csv(whole).astype(object)
        bad["cut"].write_bytes(b"\xff\xfe\x00garbled\x00" * 9)
        table.drop(columns="y").to_csv(bad["keys"], index=False)
        table.assign(y=np.arange(300) % 6).to_csv(bad["labels"], index=False)
        table.loc[3, "X3"] = "n/a"
        table.to_csv(bad["values"], index=False)
        table.loc[3, "X3"] = "loud"
        table.to_csv(folder / "text in a cell.csv", index=False)
        table.assign(X3=1e308).to_csv(folder / "huge.csv", index=False)
        table.assign(X3=1, y=2).to_csv(folder / "one class.csv", index=False)
        table[:40].assign(X3=1).to_csv(folder / "few.csv", index=False)
        more = ("text in a cell", "huge", "one class", "few")
        return [*bad.values(), *(folder / f"{name}.csv" for name in more)]
    if kind == PAIRS:
        bad["cut"].write_bytes(whole.read_text().encode("utf-16"))
        bad["keys"].write_text(whole.read_text().replace("\t", "    "))
        bad["values"].write_text(whole.read_text() + "No translation.\t \n")
        bad["labels"].write_text("".join(f"Go.\tVa {i}\n" for i in range(50)))
        return list(bad.values())
    if kind == PRICES:
        table = pd.read_csv(whole)
        bad["cut"].write_bytes(b"\xff\xfe\x00garbled\x00" * 9)
        table.rename(columns={"close": "price"}).to_csv(bad["keys"], index=False)
        table.assign(close="free").to_csv(bad["values"], index=False)
        table[::60].to_csv(bad["labels"], index=False)  # hours
        return list(bad.values())
    if kind in (POSTS, REVIEWS):
        texts = make_texts(kind)
        first, *others = texts
        folder_of_first = first.rpartition("/")[0]
        bad["cut"].write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        write_tar(bad["keys"], {first: texts[first]})
        write_tar(bad["values"], texts | {first: "no UTF-8".encode("utf-16")})
        few = [name for name in others if not name.startswith(folder_of_first)]
        write_tar(bad["labels"], {name: texts[name] for name in [first, *few]})
        return list(bad.values())
    if kind == WINE:
        table = pd.read_csv(whole, sep=";").astype(object)
        bad["cut"].write_bytes(b"\xff\xfe\x00garbled\x00" * 9)
        table.drop(columns="alcohol").to_csv(bad["keys"], index=False)
        table.loc[3, "measurement 1"] = "n/a"
        table.to_csv(bad["values"], index=False)
        table.loc[3, "measurement 1"] = "1e308"
        table.to_csv(bad["labels"], index=False)
        return list(bad.values())
    arrays = dict(np.load(whole))
    bad["cut"].write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    np.savez(bad["keys"], x=arrays["x_train"])
    np.savez(bad["values"], **(arrays | {"x_train": arrays["x_train"] / 255.0}))
    np.savez(bad["labels"], **(arrays | {"y_train": arrays["y_train"] + 1}))
    np.savez(folder / "sizes.npz", **(arrays | {"x_test": arrays["x_test"][:, :-1]}))
    np.savez(folder / "missing.npz", **(arrays | {"y_train": arrays["y_train"][:-1]}))
    hostile = np.array([{"would": "unpickle"}] * 240, dtype=object)
    np.savez(folder / "pickle.npz", **(arrays | {"x_train": hostile}))
    return [*bad.values(), *(folder / f"{name}.npz" for name in ("sizes", "missing", "pickle"))]


def write_bad_folders(folder):
    """A file, an empty folder, and photographs that cannot be learned from."""
    whole = write_data(folder / PHOTOS)
    names = ("empty", "no val", "one class", "three classes", "other class", "broken", "twice")
    bad = [copy(whole, folder / name) for name in names]
    shutil.rmtree(bad[0] / "train")
    shutil.rmtree(bad[1] / "val")
    shutil.rmtree(bad[2] / "train" / "kind 1")
    shutil.copytree(whole / "train" / "kind 1", bad[3] / "train" / "kind 2")
    (bad[4] / "test" / "kind 1").rename(bad[4] / "test" / "kind 2")
    (bad[5] / "test" / "kind 0" / "5.jpg").write_bytes(b"no photograph")
    shutil.copy(bad[6] / "train" / "kind 0" / "0.png", bad[6] / "test" / "kind 0" / "9.png")
    (folder / "text").write_text("no folder")
    return [*bad, folder / "text"]


def write_bad_data(folder, script):
    """Files, and folders, that `script` cannot use."""
    folder.mkdir()
    if script in AGENTS:
        return []
    bad = [*write_bad_files(folder, KINDS[script]), folder / "nowhere.npz", folder.parent]
    if script not in GANS:
        return bad
    # They look at the training images alone, and the conditional one at their labels.
    good = ["sizes.npz", "labels.npz"] + ["missing.npz"] * ("conditional" not in script)
    size = folder / "size.npz"
    np.savez(size, x_train=np.zeros((99, 17, 17), "uint8"), y_train=np.zeros(99))
    photos = folder / "photos" / "a.jpg"
    photos.parent.mkdir()
    photos.write_bytes(b"no photograph")
    return [*[path for path in bad if path.name not in good], size, photos.parent]


def bad_options(script):
    """Numbers, and names, out of range."""
    options = [["--seed", seed] for seed in ("-1", 2**40, "one")]
    if script in GANS:
        sizes = [["--batch-size", size] for size in ("1", "500")]
        return [*options, *sizes, ["--epochs", "0"], ["--ema", "1"]]
    amount = OPTIONS[script][0]
    options += [[amount, "0"], [amount, "1.5"]]
    if script in TRAINERS:
        options += [["--batch-size", "0"]]
    if "lunar" in script:
        options += [["--units", "64", "0"]]
    if "cartpole" in script:
        options += [["--env", env] for env in ("NoSuch-v0", "Pendulum-v1", "no_module:X-v0")]
        options += [["--max-episode-steps", "0"]]
    if script not in (*SEARCHES, *GANS):
        options += [["--evaluate", "--run-dir", "none"]]
    return options


@every_script
def test_bad_input_gives_one_line(script, data_dir, tmp_path):
    """Bad data, bad numbers, unusable run folders: said in a line, and nothing has changed."""
    bad = [["--data", path] for path in write_bad_data(tmp_path / "data", script)]
    (tmp_path / "file").write_text("no folder")
    for name, settings in (("cut", '{"seed": '), ("mine", None), ("other", '{"seed": 7}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_text("my own")
        if settings:
            (tmp_path / name / "settings.json").write_text(settings)
    names = ("file", "file/below", "cut", "mine", "other")
    folders = [["--run-dir", tmp_path / name] for name in names]
    usual, before = command(script, data_dir)[1:], contents(tmp_path)
    options = [*bad, *bad_options(script), *folders]
    messages = refuse(script, [usual + more for more in options], tmp_path)
    assert len(set(messages)) > 8
    assert all("--run-dir" in message for message in messages[-2:])
    assert contents(tmp_path) == before


TO_FETCH = {script for script in TRAINERS if KINDS[script] in (EEG, PHOTOS, PRICES, POSTS, PAIRS)}


@pytest.mark.parametrize("script", sorted(TO_FETCH))
def test_a_set_that_is_not_there_is_named_with_its_cure(script, tmp_path):
    (message,) = refuse(copy_alone(script, tmp_path), [[]], tmp_path)
    assert "python data/fetch.py" in message or "data_setup.py" in message


def other_settings(script, folder):
    """Options that are not those of the finished run."""
    options = [["--seed", 2]]
    if script in SEARCHES:
        options += [[OPTIONS[script][0], 4]]
    if script in (*TRAINERS, *GANS):
        options += [["--batch-size", 16]]
    if script in GANS:
        options += [["--ema", 0.99]]
    if script in KINDS:
        options += [["--data", write_data(folder / KINDS[script], seed=1)]]
    if "chapter07" in script:  # other images to validate with
        with np.load(write_data(folder / f"same {IMAGES}")) as arrays:
            np.savez(folder / f"other {IMAGES}", **dict(arrays) | {"x_test": arrays["x_test"] // 2})
        options += [["--data", folder / f"other {IMAGES}"]]
    if "lunar" in script:
        options += [["--units", 8]]
    if "conditional" in script:  # the same images under other labels
        with np.load(write_data(folder / f"same {DIGITS}")) as arrays:
            relabelled = dict(arrays) | {"y_train": arrays["y_train"][::-1]}
        np.savez(folder / f"relabelled {DIGITS}", **relabelled)
        options += [["--data", folder / f"relabelled {DIGITS}"]]
    return options


def of_a_newer_keras(path):
    """The bytes of a .keras file whose layers have an argument that no Keras has."""
    new = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = content.replace(b'"config": {"name":', b'"config": {"newer": 1, "name":')
            archive.writestr(name, content)
    return new.getvalue()


def damage(script, run, other, folder):
    """Copies of `run`: in each, one file is garbled, empty, cut, or of another network or Keras."""
    names = ["last.keras", "history.csv", "settings.json"]
    if script in SEARCHES:
        names = ["model.keras", "evaluations.jsonl"]
    if script in AGENTS:
        names = [f"last_{AGENTS[script][1]}.keras", "log.json", "settings.json", "best.json"]
    copies = []
    for name in names:
        texts = [b"no such thing\n"]
        if script not in SEARCHES:  # theirs begin anew from an empty list
            whole = (run / name).read_bytes()
            texts += [b"", whole[: len(whole) // 2]]
        if name == "last.keras":
            texts += [other.read_bytes(), of_a_newer_keras(run / name)]
        for text in texts:
            copies.append(copy(run, folder / f"{name} {len(copies)}"))
            (copies[-1] / name).write_bytes(text)
    return copies


def other_classes(kind, data_dir, folder):
    """Data of other columns or classes; of other rows, where there are none."""
    folder.mkdir()
    if kind in (WINE, EEG):
        table = pd.read_csv(data_dir / kind, sep=None, engine="python")
        table.rename(columns={"measurement 0": "x", "X3": "x"}).to_csv(folder / kind, index=False)
        return folder / kind
    if kind == PHOTOS:
        copy(data_dir / kind, folder / kind)
        for part in (folder / kind).iterdir():
            (part / "kind 1").rename(part / "kind 2")
        return folder / kind
    return write_data(folder / (POSTS if kind == REVIEWS else kind), seed=1, classes=4)


@pytest.mark.slow
@every_script
def test_other_settings_and_damaged_runs_are_refused(script, finished, data_dir, tmp_path):
    """A line for each, and nothing has changed; --evaluate refuses other classes."""
    settings = other_settings(script, tmp_path)
    folders = damage(script, finished, data_dir / "other.keras", tmp_path)
    options = [*settings, *[["--run-dir", folder] for folder in folders]]
    if script in TRAINERS:
        other = other_classes(KINDS[script], data_dir, tmp_path / "other")
        options += [["--evaluate", "--data", other]]
    before = contents(finished), contents(tmp_path)
    usual = command(script, data_dir, finished)[1:]
    messages = refuse(script, [usual + more for more in options], tmp_path)
    assert all("--run-dir" in message for message in messages[: len(settings)])
    assert (contents(finished), contents(tmp_path)) == before


# Searches -----------------------------------------------------------------------------------------


def evaluations_of(folder):
    """The finished evaluations without the time that they took."""
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


@pytest.mark.slow
@every_search
def test_search_trains_its_winner_again(script, finished, data_dir):
    """The saved network takes pixels."""
    import keras

    assert len(evaluations_of(finished)) == SEARCHES[script][2]
    metrics = metrics_of(finished)
    assert metrics["seconds"] > 0 and metrics["test"]["accuracy"] > 0.5  # by chance: 0.33
    model = keras.models.load_model(finished / "model.keras")
    with np.load(data_dir / DIGITS) as arrays:
        X, y = arrays["x_test"].reshape(60, -1), arrays["y_test"]
    accuracy = (model.predict(X, verbose=0).argmax(axis=1) == y).mean()
    assert accuracy == pytest.approx(metrics["test"]["accuracy"])


@pytest.mark.slow
@every_search
def test_search_interrupted_and_killed_goes_on(script, finished, data_dir, tmp_path):
    """Ctrl-C after one evaluation, kill -9 after three: in the end what an unbroken one has."""
    run_dir, errors = tmp_path / "run", tmp_path / "errors"
    log, kept = run_dir / "evaluations.jsonl", ""
    arguments = command(script, data_dir, run_dir)

    def lines():
        return log.read_text().count("\n") if log.exists() else 0

    for _ in range(3):  # one that comes while TensorFlow traces may end as an error of its own
        process = start_python(*arguments, stderr=errors)
        wait_until(lambda kept=kept: lines() > kept.count("\n"), process)
        while process.poll() is None:  # Python loses a Ctrl-C that comes in its gc
            seen = lines()
            time.sleep(random.uniform(0.1, 1))  # into the next training
            process.send_signal(signal.SIGINT)
            wait_until(lambda seen=seen: lines() > seen, process)
        assert process.wait() == 1
        lost = r"Exception ignored .*?KeyboardInterrupt:?\s"  # Python's report of such a Ctrl-C
        assert "Traceback" not in re.sub(lost, "", errors.read_text(), flags=re.DOTALL)
        assert log.read_text().startswith(kept)
        kept = log.read_text()
        if "Failed to convert elements of (None,)" not in errors.read_text():
            break
    last = errors.read_text().splitlines()[-1]
    assert last.startswith("Interrupted: the same command goes on")
    process = start_python(*arguments)
    kill_once(process, lambda: lines() > max(2, kept.count("\n")))
    assert log.read_text().startswith(kept) and 3 <= lines() < SEARCHES[script][2]
    kept = log.read_text()
    with log.open("a") as file:
        file.write(kept.splitlines()[0][:40])  # a line half written
    run_to_end(*arguments)
    assert log.read_text().startswith(kept)
    assert evaluations_of(run_dir) == evaluations_of(finished)
    assert metrics_of(run_dir)["test"] == metrics_of(finished)["test"]


# Agents -------------------------------------------------------------------------------------------


def assert_no_gap(run_dir):
    """Each episode is in the log once, and begins with the step after the one before."""
    log = json.loads((run_dir / "log.json").read_text())
    assert log["episode"] == list(range(len(log["episode"])))
    assert np.diff([0, *log["nb_steps"]]).tolist() == log["nb_episode_steps"]
    return log["nb_steps"]


@pytest.mark.slow
@pytest.mark.parametrize("script", AGENTS)
def test_agent_is_compared_with_simple_rules(script, finished):
    assert_no_gap(finished)
    metrics = metrics_of(finished)
    assert metrics["test"]["mean_reward"] > -1000 and len(metrics["baselines"]) >= 1
    log = json.loads((finished / "log.json").read_text())
    assert "breakout" in script or log["loss"][-1] > 0, "not one update"


@pytest.mark.slow
@pytest.mark.parametrize("script", ["chapter12/dqn_cartpole.py"])
def test_agent_killed_again_and_again_goes_on(script, tmp_path):
    """kill -9 five times at no chosen moments: no gap, no repeat; the user's files stay."""
    mine = [tmp_path / name for name in ("notes.txt", "checkpoint/mine", "tb/mine", "w.weights.h5")]
    last = 0

    def saved():
        return max([int(path.stem[5:]) for path in tmp_path.glob("last_*.keras")], default=0)

    for _ in range(5):
        process = start_python(script, "--nb-steps", 10**6, "--run-dir", tmp_path)
        kill_once(process, lambda last=last: saved() > last)
        last = saved()
        for path in mine:
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
    steps = max(last + 3000, 15000)
    run_to_end(script, "--nb-steps", steps, "--run-dir", tmp_path)
    assert assert_no_gap(tmp_path)[-1] > steps - 1000
    kept = [path.name for path in tmp_path.glob("last_*")]
    assert f"last_{steps}.keras" in kept and len(kept) < 3  # a kill may leave one more
    assert all(path.read_text() == "mine" for path in mine)
    assert metrics_of(tmp_path)["test"]["mean_reward"] > 100, "it has learned to balance"


# GANs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_gan
def test_gan_trains_both_networks(script, finished):
    import keras

    assert history_of(finished)["epoch"].tolist() == [0, 1]
    metrics = metrics_of(finished)
    assert metrics["epochs"] == 2 and 0 < metrics["d_accuracy"] < 1
    with Image.open(finished / "training.gif") as film:
        assert film.n_frames == len(list((finished / "images").iterdir()))
    first, last = (
        keras.models.load_model(finished / name, compile=False)
        for name in ("moments/000001.keras", "generator.keras")
    )
    for old, new in zip(first.weights, last.weights, strict=True):
        assert not np.array_equal(old, new), new.path
