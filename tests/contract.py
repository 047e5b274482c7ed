"""What every trainer does, once, for all of them: by its command line, on small data of its kind.

A row of TRAINERS is held to all of it; searches, agents and GANs to what fits them.
"""

import ast
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

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
    "chapter02/mlp_wine.py": (WINE, 165, "val_loss"),
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
    "chapter08/inceptionv3_dogs_cats.py": (PHOTOS, 325, "val_loss"),
    "chapter09/lstm_bitcoin.py": (PRICES, 215, "val_loss"),
    "chapter10/cnn_newsgroups.py": (POSTS, 225, "val_accuracy"),
    "chapter10/cnn_newsgroups_glove.py": (POSTS, 280, "val_accuracy"),
    "chapter10/lstm_imdb.py": (REVIEWS, 230, "val_accuracy"),
    "chapter10/lstm_newsgroups.py": (POSTS, 225, "val_accuracy"),
    "chapter11/train_char_seq2seq.py": (PAIRS, 245, "val_loss"),
    "chapter11/train_attention_seq2seq.py": (PAIRS, 265, "val_loss"),
    "chapter11/train_transformer_seq2seq.py": (PAIRS, 290, "val_loss"),
}
# Options without which a script would need the network, or minutes.
OPTIONS = {
    "chapter08/inceptionv3_dogs_cats.py": [
        *("--backbone", "mobilenet", "--weights", WEIGHTS, "--image-size", 32),
        *("--unfreeze-after", 2),
    ],
    "chapter10/cnn_newsgroups_glove.py": ["--vectors", VECTORS],
}
# Searches train many networks; what goes on after a kill is their list of finished evaluations.
# script: lines at most, options of a small search, its evaluations
SEARCHES = {
    "chapter06/random_search_mnist.py": (210, ["--n-iter", 3, "--cv", 2, "--epochs", 8], 6),
    "chapter06/hyperband_mnist.py": (205, ["--max-iter", 3], 6),
}
# Agents train by steps, and what they learn from is an environment. script: options of a short run
AGENTS = {
    "chapter12/dqn_breakout.py": ["--memory-limit", 300],
    "chapter12/dqn_cartpole.py": [],
    "chapter12/dqn_lunar_lander.py": [],
}
# Two networks, no best epoch. script: its kind of data, lines at most
GANS = {
    "chapter13/gan_mnist.py": (DIGITS, 300),
    "chapter13/gan_cifar10.py": (IMAGES, 300),
    "chapter13/gan_mnist_conditional.py": (DIGITS, 140),
}
# Modules that the book itself splits off: copied along with the script that imports them.
MODULES = {
    "chapter04/dnn_eeg.py": ["roc_callback"],
    "chapter06/hyperband_mnist.py": ["hyperband"],
    "chapter08/inceptionv3_dogs_cats.py": ["data_setup"],
    "chapter13/gan_mnist_conditional.py": ["gan_mnist"],
} | dict.fromkeys(AGENTS, ["rl"])
# Files of the chapters that call fit and are no trainers: lessons and comparisons.
NO_TRAINERS = {
    "chapter01/check_gpu.py",
    "chapter01/holdout_and_kfold.py",
    "chapter05/softmax.py",
    "chapter06/hyperband_keras_tuner.py",
    "chapter07/cnn_cifar10_hosts.py",
    "chapter08/how_much_data.py",
    "chapter09/baselines.py",
    "chapter09/lstm_bitcoin_stateful.py",
    "chapter10/average_texts.py",
    "chapter10/vectorize_text.py",
    "chapter10/word2vec_imdb.py",
    "chapter11/infer_char_seq2seq.py",
    "chapter13/evaluate_gan.py",
    "chapter13/how_gans_fail.py",
}
# Where a script may be killed: callbacks, in the order in which an epoch's end runs them.
KILL_POINTS = ["line half", "line whole", "last half", "last whole", "best half", "best whole"]

every_trainer = pytest.mark.parametrize("script", TRAINERS)
every_search = pytest.mark.parametrize("script", SEARCHES)
every_agent = pytest.mark.parametrize("script", AGENTS)
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
    """One small file of each kind, made once."""
    folder = tmp_path_factory.mktemp("data")
    for name in (WINE, EEG, DIGITS, IMAGES, PHOTOS, PRICES, POSTS, REVIEWS, PAIRS):
        write_data(folder / name)
    write_weights(folder / WEIGHTS)
    return folder


def write_weights(path):
    """Random weights of a small network, large enough for its features to be more than 0."""
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    network.set_weights([5 * w if w.ndim == 4 else w for w in network.get_weights()])
    network.save_weights(path)


def options_of(script, data_dir):
    options = OPTIONS.get(script, [])
    return [data_dir / option if isinstance(option, Path) else option for option in options]


_runs = {}


@pytest.fixture
def finished(script, data_dir, tmp_path_factory):
    """The folder and the output of a finished run of `script`, made once; look, do not touch."""
    if script not in _runs:
        folder = tmp_path_factory.mktemp("finished") / "run {1}"  # Keras fills braces in
        _runs[script] = folder, train(script, data_dir, folder)
    return _runs[script]


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to do with as one likes."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def command(script, data_dir, run_dir, *options):
    usual = ["--data", data_dir / TRAINERS[script][0], "--run-dir", run_dir, "--epochs", EPOCHS]
    return [script, *usual, *options_of(script, data_dir), *options]


def copy(source, target):
    """Copy a file or a folder; returns the path of the copy."""
    return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))


def train(script, data_dir, run_dir, *options):
    """Run `script` to its end; returns what it has printed."""
    result = run_python(*command(script, data_dir, run_dir, *options))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def contents(folder):
    """Every file below `folder` with a hash of what is in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def history_of(folder):
    return pd.read_csv(folder / "history.csv")


def assert_whole(script, folder, epochs=EPOCHS):
    """The run in `folder` has every epoch once, and its best model is the history's."""
    history, kind = history_of(folder), TRAINERS[script]
    assert history["epoch"].tolist() == list(range(epochs))
    assert np.isfinite(history.to_numpy("float64")).all()
    metrics = json.loads((folder / "metrics.json").read_text())
    best = history[kind[2]].min() if "loss" in kind[2] else history[kind[2]].max()
    assert metrics["epochs"] == epochs
    assert history[kind[2]].iloc[metrics["best_epoch"] - 1] == best


def refuse(script, argument_lists, cwd):
    """The messages of `script`, one for each list of arguments, all refused, in one process."""
    lists = [[str(argument) for argument in arguments] for arguments in argument_lists]
    result = run_python("tests/each.py", ROOT / script, json.dumps(lists), cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    outcomes = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(outcomes) == len(lists), result.stdout + result.stderr
    messages = []
    for arguments, outcome in zip(lists, outcomes, strict=True):
        assert outcome["status"] in (1, 2), (arguments, outcome)
        lines = outcome["stderr"].splitlines()
        errors = [line for line in lines if "error: " in line]
        assert len(errors) == 1 and "Traceback" not in outcome["stderr"], (arguments, outcome)
        assert len(errors[0]) > len("error: x: y"), outcome
        messages.append(errors[0])
    return messages


# What a script looks like -------------------------------------------------------------------------


def test_every_trainer_is_held_to_this():
    scripts = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("chapter*/*.py")
        if ".fit(" in path.read_text() and "argparse" in path.read_text()
    }
    known = {*TRAINERS, *SEARCHES, *AGENTS, *GANS, *NO_TRAINERS}
    assert scripts <= known, "give each a row of TRAINERS"
    assert all((ROOT / script).exists() for script in known)


@every_trainer
def test_short_and_its_network_near_the_top(script):
    text = (ROOT / script).read_text()
    functions = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    }
    assert text.count("\n") <= TRAINERS[script][1]
    assert functions["main"].end_lineno - functions["main"].lineno < 40
    # One thing, one name: the book prints chapter 8's and chapter 10's.
    names = {"build_network", "build_model", "build_model_feature_extraction"} & set(functions)
    assert len(names) == 1
    # In chapter 10 texts and word vectors are read before it.
    first_line = 150 if "glove" in script else 110 if "chapter10" in script else 100
    assert functions[names.pop()].lineno < first_line
    vocabulary = {"load_data", "create_callbacks", "parse_arguments", "report"}
    assert vocabulary <= set(functions)


@pytest.mark.parametrize("script", [*TRAINERS, *SEARCHES, *AGENTS, *GANS])
def test_imports_nothing_of_the_project(script):
    """Copied alone it must run: the standard library and packages of requirements.txt only."""
    names = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn", "pandas", "scipy"}
    names |= set(MODULES.get(script, []))
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
for script in {[*TRAINERS, *SEARCHES, *AGENTS, *GANS]!r}:
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
@every_trainer
def test_trains_and_keeps_the_best_epoch(script, finished, data_dir):
    import keras

    folder, _ = finished
    assert_whole(script, folder)
    history = history_of(folder)
    if "broken" not in script:
        assert history["loss"].iloc[-1] < 0.95 * history["loss"].iloc[0]
    model = keras.models.load_model(folder / "model.keras")
    size = [model.input_shape[1]] if TRAINERS[script][0] == PHOTOS else []
    data = load_script(script).load_data(data_dir / TRAINERS[script][0], *size)
    if TRAINERS[script][0] == PAIRS:
        data["val"] = load_script(script).make_batches(data, "val", 256)
    rows = [data["val"]] if "val" in data else [data["val_X"], data["val_y"]]
    scores = model.evaluate(*rows, verbose=0, return_dict=True)
    figure = TRAINERS[script][2]
    best = history[figure].min() if "loss" in figure else history[figure].max()
    if figure == "val_roc_auc":
        scores["roc_auc"] = roc_auc_score(data["val_y"], model.predict(data["val_X"], verbose=0))
    np.testing.assert_allclose(scores[figure.removeprefix("val_")], best, rtol=1e-4)


@pytest.mark.slow
@every_trainer
def test_the_same_command_twice_gives_the_same_figures(script, finished, data_dir, tmp_path):
    train(script, data_dir, tmp_path / "again")
    pd.testing.assert_frame_equal(history_of(tmp_path / "again"), history_of(finished[0]))


@pytest.mark.slow
@every_trainer
def test_each_epoch_has_its_own_order(script, run, data_dir, tmp_path):
    """Seeded fit on arrays shuffles alike in every epoch (tensorflow/tensorflow#35682).

    A run that goes on does not begin with the first epoch's order again.
    """
    orders = []
    for folder in (tmp_path / "new", run):
        arguments = command(script, data_dir, folder, "--epochs", EPOCHS + 1)
        result = run_python("tests/orders.py", ROOT / script, *arguments[1:])
        assert result.returncode == 0, result.stdout + result.stderr
        orders += json.loads(result.stdout.splitlines()[-1])
    assert len(orders) == len(set(orders)) == 6


@pytest.mark.slow
@every_trainer
def test_finished_it_only_reports(script, run, data_dir, tmp_path):
    """Where the report was cut off it comes again; the same data in another place are the same."""
    metrics = (run / "metrics.json").read_text()
    for path in [*run.glob("*.png"), run / "metrics.json"]:
        path.unlink()
    kept = {name: contents(run)[name] for name in ("model.keras", "last.keras", "history.csv")}
    kind = TRAINERS[script][0]
    output = train(script, data_dir, run, "--data", copy(data_dir / kind, tmp_path / f"my_{kind}"))
    assert "Epoch " not in output
    assert kept.items() <= contents(run).items()
    assert (run / "metrics.json").read_text() == metrics


@pytest.mark.slow
@every_trainer
def test_more_epochs_go_on(script, run, data_dir):
    before = history_of(run)
    train(script, data_dir, run, "--epochs", EPOCHS + 1)
    assert_whole(script, run, EPOCHS + 1)
    pd.testing.assert_frame_equal(history_of(run)[:EPOCHS], before)


@pytest.mark.slow
@every_trainer
def test_killed_it_goes_on(script, data_dir, tmp_path, finished):
    """kill -9 at no chosen moment: no gap, no repeat, the end of an unbroken run."""
    run_dir = tmp_path / "run"
    process = start_python(*command(script, data_dir, run_dir, "--epochs", 400))
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (run_dir / "last.keras").exists():
        time.sleep(0.01)
    time.sleep(0.05 * os.getpid() % 0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    lines = len((run_dir / "history.csv").read_text().splitlines()) - 1
    epochs = max(lines, EPOCHS) + 1
    user_file = run_dir / "notes.txt"
    user_file.write_text("mine")
    train(script, data_dir, run_dir, "--epochs", epochs)
    assert_whole(script, run_dir, epochs)
    assert user_file.read_text() == "mine"
    unbroken = history_of(finished[0])
    pd.testing.assert_frame_equal(history_of(run_dir)[:1], unbroken[:1])
    # New random numbers after the kill: as good as the unbroken run, not the same.
    assert history_of(run_dir)["loss"].iloc[-1] < 1.2 * unbroken["loss"].iloc[-1]


@pytest.mark.slow
@pytest.mark.parametrize("point", KILL_POINTS)
@pytest.mark.parametrize("script", ["chapter02/mlp_wine.py", "chapter07/cnn_cifar10.py"])
def test_killed_while_it_saves_it_goes_on(script, point, data_dir, tmp_path):
    run_dir = tmp_path / "run"
    arguments = command(script, data_dir, run_dir)
    process = start_python("tests/killed.py", point, *map(str, arguments))
    assert process.wait(300) == -signal.SIGKILL
    train(script, data_dir, run_dir)
    assert_whole(script, run_dir)
    import keras

    assert keras.models.load_model(run_dir / "model.keras")


@pytest.mark.slow
@every_trainer
def test_copied_alone_it_runs(script, data_dir, tmp_path):
    """In an empty folder, with a file of data: it writes there and nowhere else."""
    kind = TRAINERS[script][0]
    modules = [f"{Path(script).parent}/{name}.py" for name in MODULES.get(script, [])]
    for file in (script, *modules):
        shutil.copy(ROOT / file, tmp_path)
    copy(data_dir / kind, tmp_path / kind)
    copied = {path.name for path in tmp_path.iterdir()}
    before = contents(ROOT / Path(script).parent)
    options = ["--data", kind, "--epochs", 1, *options_of(script, data_dir)]
    result = run_python(tmp_path / Path(script).name, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    name = f"{Path(script).stem}_{Path(kind).stem}"
    assert (tmp_path / "runs" / name / "model.keras").exists()
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {*copied, "runs"}
    assert contents(ROOT / Path(script).parent) == before


# What it refuses ----------------------------------------------------------------------------------


@pytest.mark.slow
@every_trainer
def test_other_settings_are_refused_and_change_nothing(script, run, data_dir, tmp_path):
    """Another seed, batch size or file; and a folder that holds other things than a run."""
    kind = TRAINERS[script][0]
    other = write_data(tmp_path / kind, seed=1)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.keras").write_text("my own")
    before = contents(run)
    usual = command(script, data_dir, run)[1:]
    messages = refuse(
        script,
        [
            [*usual, "--seed", 2],
            [*usual, "--batch-size", 16],
            [*usual, "--data", other],
            [*usual, "--run-dir", mine],
        ],
        tmp_path,
    )
    assert all("--run-dir" in message for message in messages)
    assert contents(run) == before and contents(mine).keys() == {"model.keras"}


@pytest.mark.slow
@every_trainer
def test_evaluate_only_scores_and_refuses_other_classes(script, run, data_dir, tmp_path):
    kind = TRAINERS[script][0]
    before = {name: contents(run)[name] for name in ("model.keras", "last.keras", "history.csv")}
    output = train(script, data_dir, run, "--evaluate")
    assert "Epoch " not in output and "test" in output
    assert before.items() <= contents(run).items()
    if kind in (WINE, EEG):
        table = pd.read_csv(data_dir / kind, sep=None, engine="python")
        other = tmp_path / "renamed.csv"
        table.rename(columns={"measurement 0": "x", "X3": "x"}).to_csv(other, index=False)
    elif kind == PHOTOS:
        other = copy(data_dir / kind, tmp_path / kind)
        for part in other.iterdir():
            (part / "kind 1").rename(part / "kind 2")
    elif kind in (PRICES, PAIRS):  # it knows these minutes; it was trained on some of these
        other = write_data(tmp_path / kind, seed=1)
    elif kind in (POSTS, REVIEWS):
        other = write_data(tmp_path / POSTS, classes=4)
    else:
        with np.load(data_dir / kind) as arrays:
            names = np.array(["kind 0", "kind 2", "kind 1"])
            np.savez(tmp_path / kind, **(dict(arrays) | {"class_names": names}))
        other = tmp_path / kind
    usual = ["--run-dir", run, "--evaluate"]
    refuse(script, [[*usual, "--data", other], ["--evaluate", "--run-dir", "none"]], tmp_path)


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


@every_trainer
def test_bad_input_gives_one_line(script, tmp_path):
    """Bad data, bad numbers, an unusable run folder: said in a line, and nothing is left behind."""
    kind = TRAINERS[script][0]
    (tmp_path / "data").mkdir()
    files = [*write_bad_files(tmp_path / "data", kind), tmp_path / "nowhere.npz", tmp_path]
    good = [*OPTIONS.get(script, []), "--data", tmp_path / "data" / kind]
    (tmp_path / "file").write_text("no folder")
    messages = refuse(
        script,
        [
            *[["--data", file] for file in files],
            *[[*good, "--seed", seed] for seed in ("-1", 2**40, "one")],
            *[[*good, "--epochs", epochs] for epochs in ("0", "1.5")],
            [*good, "--batch-size", "0"],
            *[[*good, "--run-dir", tmp_path / name] for name in ("file", "file/below")],
        ],
        tmp_path,
    )
    assert len(set(messages)) > 8
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.slow
@every_trainer
def test_damaged_runs_give_one_line(script, run, data_dir, tmp_path):
    """Files of the run cut, emptied, garbled or of another network; nothing more is changed."""
    import keras

    inputs = keras.Input((3,))
    other = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(1)(inputs)])
    other.compile("adam", ["mse", "mse"])
    other.save(tmp_path / "other.keras")
    damages = {
        "last.keras": [b"", (run / "last.keras").read_bytes()[:3000]],
        "history.csv": [b"", b"epoch,x\n0,1\n"],
        "settings.json": [b"", b'{"seed": '],
    }
    damages["last.keras"].append((tmp_path / "other.keras").read_bytes())
    folders = []
    for name, texts in damages.items():
        for i, text in enumerate(texts):
            folder = Path(shutil.copytree(run, tmp_path / f"{name}-{i}"))
            (folder / name).write_bytes(text)
            folders.append(folder)
    before = [contents(folder) for folder in folders]
    usual = command(script, data_dir, run)[1:]
    refuse(script, [[*usual, "--run-dir", folder] for folder in folders], tmp_path)
    for folder, old in zip(folders, before, strict=True):
        changed = {name for name, hash_ in contents(folder).items() if old.get(name) != hash_}
        assert changed <= {"settings.json"}, (folder, changed)


# Searches -----------------------------------------------------------------------------------------


def search_options(script, data, run_dir, *options):
    return ["--data", data, "--run-dir", run_dir, *SEARCHES[script][1], *options]


@pytest.fixture
def finished_search(script, data_dir, tmp_path_factory):
    """The folder of a finished search, made once by a copy of the script; look, do not touch."""
    if script not in _runs:
        folder = tmp_path_factory.mktemp("search")
        modules = [f"{Path(script).parent}/{name}.py" for name in MODULES.get(script, [])]
        for file in (ROOT / script, *(ROOT / module for module in modules), data_dir / DIGITS):
            shutil.copy(file, folder)
        arguments = [Path(script).name, "--data", DIGITS, *SEARCHES[script][1]]
        result = run_python(folder / arguments[0], *arguments[1:], cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr
        _runs[script] = folder / "runs" / f"{Path(script).stem}_{Path(DIGITS).stem}"
    return _runs[script]


def evaluations_of(folder):
    """The finished evaluations without the time that they took."""
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


@every_search
def test_search_is_short_and_its_network_near_the_top(script):
    text = (ROOT / script).read_text()
    functions = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    }
    assert text.count("\n") <= SEARCHES[script][0]
    assert functions["main"].end_lineno - functions["main"].lineno < 40
    assert functions["build_network"].lineno < 100
    assert {"load_data", "build_network", "parse_arguments", "report"} <= set(functions)


@pytest.mark.slow
@every_search
def test_search_copied_alone_runs_and_its_winner_is_trained_again(script, finished_search):
    """Nothing but its run folder is written; the saved network takes pixels."""
    import keras

    evaluations = evaluations_of(finished_search)
    assert len(evaluations) == SEARCHES[script][2]
    copied = {"runs", "__pycache__", DIGITS, Path(script).name, "hyperband.py"}
    assert {path.name for path in finished_search.parent.parent.iterdir()} <= copied
    metrics = json.loads((finished_search / "metrics.json").read_text())
    assert metrics["seconds"] > 0 and metrics["test"]["accuracy"] > 0.5  # by chance: 0.33
    model = keras.models.load_model(finished_search / "model.keras")
    with np.load(finished_search.parent.parent / DIGITS) as arrays:
        X, y = arrays["x_test"].reshape(60, -1), arrays["y_test"]
    accuracy = (model.predict(X, verbose=0).argmax(axis=1) == y).mean()
    assert accuracy == pytest.approx(metrics["test"]["accuracy"])


@pytest.mark.slow
@every_search
def test_finished_search_only_reports(script, finished_search, data_dir, tmp_path):
    run_dir = Path(shutil.copytree(finished_search, tmp_path / "run"))
    names = ("model.keras", "evaluations.jsonl", "metrics.json")
    before = {name: contents(run_dir)[name] for name in names}
    (run_dir / "metrics.json").unlink()
    (run_dir / "search.png").unlink()
    result = run_python(script, *search_options(script, data_dir / DIGITS, run_dir))
    assert result.returncode == 0, result.stdout + result.stderr
    assert before.items() <= contents(run_dir).items()
    assert (run_dir / "search.png").exists()


@pytest.mark.slow
@every_search
def test_search_interrupted_and_killed_goes_on(script, finished_search, data_dir, tmp_path):
    """Ctrl-C after one evaluation, kill -9 after three: in the end what an unbroken one has."""
    run_dir = tmp_path / "run"
    log, options = run_dir / "evaluations.jsonl", search_options(script, data_dir / DIGITS, run_dir)
    kept = ""
    for lines, number in ((1, signal.SIGINT), (3, signal.SIGKILL)):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs, and what they start, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and log.read_text().count("\n") >= lines:
                break
            time.sleep(0.02)
        while process.poll() is None:  # Python loses a Ctrl-C that comes in its gc
            seen = log.read_text()
            time.sleep(0.3)  # into the next training
            process.send_signal(number)
            while process.poll() is None and log.read_text() == seen:
                time.sleep(0.02)
        errors = process.communicate()[1]
        if number == signal.SIGINT:
            assert process.returncode == 1 and "Traceback" not in errors
            assert errors.splitlines()[-1].startswith("Interrupted: the same command goes on")
        else:
            assert process.returncode == -signal.SIGKILL
        assert log.read_text().startswith(kept)
        kept = log.read_text()
        assert lines <= kept.count("\n") < SEARCHES[script][2]
    with log.open("a") as file:
        file.write(kept.splitlines()[0][:40])  # a line half written
    (run_dir / "notes.txt").write_text("mine")
    result = run_python(script, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert log.read_text().startswith(kept)
    assert evaluations_of(run_dir) == evaluations_of(finished_search)
    assert (run_dir / "notes.txt").read_text() == "mine"
    metrics = [json.loads((d / "metrics.json").read_text()) for d in (run_dir, finished_search)]
    assert metrics[0]["test"] == metrics[1]["test"]


@every_search
def test_search_refuses_bad_input_in_one_line(script, tmp_path):
    """Bad data and numbers, an unusable run folder, and a folder of other things or settings."""
    (tmp_path / "data").mkdir()
    files = [*write_bad_files(tmp_path / "data", DIGITS), tmp_path / "nowhere.npz", tmp_path]
    good = ["--data", tmp_path / "data" / DIGITS]
    (tmp_path / "file").write_text("no folder")
    for name, text in (("mine", None), ("other", '{"seed": 7}'), ("cut", '{"seed": ')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_text("my own")
        if text:
            (tmp_path / name / "settings.json").write_text(text)
    before = contents(tmp_path)
    messages = refuse(
        script,
        [
            *[["--data", file] for file in files],
            *[[*good, "--seed", seed] for seed in ("-1", 2**40, "one")],
            *[[*good, SEARCHES[script][1][0], number] for number in ("0", "1.5")],
            *[[*good, "--run-dir", tmp_path / name] for name in ("file", "file/below", "cut")],
            *[[*good, "--run-dir", tmp_path / name] for name in ("mine", "other")],
        ],
        tmp_path,
    )
    assert len(set(messages)) > 8
    assert all("--run-dir" in message for message in messages[-2:])
    assert not (tmp_path / "runs").exists() and contents(tmp_path) == before


@pytest.mark.slow
@every_search
def test_search_refuses_other_settings(script, finished_search, data_dir, tmp_path):
    """Another seed, size or file; a damaged log or network: a line, and nothing has changed."""
    other = write_data(tmp_path / DIGITS, seed=1)
    usual = search_options(script, data_dir / DIGITS, finished_search)
    for name, damaged in (("log", "evaluations.jsonl"), ("network", "model.keras")):
        shutil.copytree(finished_search, tmp_path / name)
        (tmp_path / name / damaged).write_text("no such thing\n")
    before = contents(finished_search), contents(tmp_path)
    messages = refuse(
        script,
        [
            [*usual, "--seed", 2],
            [*usual, SEARCHES[script][1][0], 4],
            [*usual, "--data", other],
            [*usual, "--run-dir", tmp_path / "log"],
            [*usual, "--run-dir", tmp_path / "network"],
        ],
        tmp_path,
    )
    assert all("--run-dir" in message for message in messages[:3])
    assert (contents(finished_search), contents(tmp_path)) == before


# Agents -------------------------------------------------------------------------------------------


def train_agent(script, steps, run_dir, cwd=ROOT, path=None):
    """Run it to its end; returns its output. Skips what an environment is missing for."""
    if "breakout" in script:
        pytest.importorskip("ale_py")
        pytest.importorskip("cv2")
    options = ["--nb-steps", steps, "--run-dir", run_dir, *AGENTS[script]]
    result = run_python(path or script, *options, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def assert_no_gap(run_dir):
    """Each episode is in the log once, and begins with the step after the one before."""
    log = json.loads((run_dir / "log.json").read_text())
    assert log["episode"] == list(range(len(log["episode"])))
    assert np.diff([0, *log["nb_steps"]]).tolist() == log["nb_episode_steps"]
    return log["nb_steps"]


@every_agent
def test_agent_is_short_and_its_network_near_the_top(script):
    text = (ROOT / script).read_text()
    functions = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    }
    assert text.count("\n") <= 150 and functions["build_model"].lineno < 100
    assert functions["main"].end_lineno - functions["main"].lineno < 45
    names = {"make_env", "build_agent", "build_callbacks", "report", "parse_arguments"}
    assert names <= set(functions)


@pytest.mark.slow
@every_agent
def test_agent_copied_alone_runs_and_goes_on(script, tmp_path):
    """With rl/ in an empty folder; finished it only reports; more steps go on after them."""
    shutil.copy(ROOT / script, tmp_path)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "chapter12" / "rl", tmp_path / "rl", ignore=without)
    here, name = {"cwd": tmp_path, "path": tmp_path / Path(script).name}, Path(script).stem
    train_agent(script, 400, f"runs/{name}", **here)
    assert {path.name for path in tmp_path.iterdir()} <= {f"{name}.py", "rl", "runs", "__pycache__"}
    run_dir = tmp_path / "runs" / name
    metrics, steps = json.loads((run_dir / "metrics.json").read_text()), assert_no_gap(run_dir)
    assert metrics["test"]["mean_reward"] > -1000 and len(metrics["baselines"]) >= 1
    (run_dir / "metrics.json").unlink()
    before = contents(run_dir)
    before.pop("rewards.png")
    if "cartpole" not in script:  # their test games take long
        return
    train_agent(script, 400, f"runs/{name}", **here)
    assert before.items() <= contents(run_dir).items()
    assert json.loads((run_dir / "metrics.json").read_text()) == metrics
    train_agent(script, 800, f"runs/{name}", **here)
    log = json.loads((run_dir / "log.json").read_text())
    assert log["nb_steps"][: len(steps)] == steps and 400 < log["nb_steps"][-1] <= 800
    assert log["episode"] == list(range(len(log["episode"])))
    assert not list(run_dir.glob("last_400*")) and (run_dir / "last_800.keras").exists()


@pytest.mark.slow
def test_agent_killed_again_and_again_goes_on(tmp_path):
    """kill -9 five times at no chosen moments: no gap, no repeat; the user's files stay."""
    script, run_dir = "chapter12/dqn_cartpole.py", tmp_path / "run"
    last = 0
    for kill in range(5):
        process = start_python(script, "--nb-steps", 10**6, "--run-dir", run_dir)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            steps = [int(path.stem[5:]) for path in run_dir.glob("last_*.keras")]
            if max(steps, default=0) > last:
                break
            time.sleep(0.01)
        time.sleep(0.07 * kill)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        last = max(steps)
        if kill == 0:
            for name in ("notes.txt", "checkpoint/mine", "tb/mine", "my.weights.h5"):
                (run_dir / name).parent.mkdir(exist_ok=True)
                (run_dir / name).write_text("mine")
    train_agent(script, last + 3000, run_dir)
    steps = assert_no_gap(run_dir)
    assert steps[-1] > last + 2000
    for name in ("notes.txt", "checkpoint/mine", "tb/mine", "my.weights.h5"):
        assert (run_dir / name).read_text() == "mine"
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test"]["mean_reward"] > 100, "it has learned to balance"


@every_agent
def test_agent_refuses_bad_input_in_one_line(script, tmp_path):
    """Bad numbers, unusable run folders, those of other runs or damaged; nothing is changed."""
    if "breakout" in script:
        pytest.importorskip("cv2")
    (tmp_path / "file").write_text("no folder")
    name = Path(script).stem
    settings = {"script": name, "seed": 1}
    settings |= {"env": "CartPole-v1", "max_episode_steps": 200} if "cartpole" in name else {}
    settings |= {"memory_limit": 300} if "breakout" in name else {}
    good = json.dumps(settings)
    folders = {
        "mine": {"model.keras": "my own"},
        "other": {"settings.json": json.dumps(settings | {"seed": 7})},
        "cut": {"settings.json": '{"seed": '},
        "log": {"settings.json": good, "last_9.keras": "none", "log.json": '{"nb_steps": [9'},
        "last": {"settings.json": good, "last_9.keras": "none", "log.json": '{"nb_steps": [9]}'},
    }
    for folder, files in folders.items():
        (tmp_path / folder).mkdir()
        for file, text in files.items():
            (tmp_path / folder / file).write_text(text)
    before = contents(tmp_path)
    usual = [*AGENTS[script], "--seed", 1]
    lists = [
        *[[*usual, "--seed", seed] for seed in ("-1", 2**40, "one")],
        *[[*usual, "--nb-steps", steps] for steps in ("0", "1.5")],
        *[[*usual, "--run-dir", tmp_path / name] for name in ("file", "file/below", *folders)],
        [*usual, "--evaluate", "--run-dir", tmp_path / "none"],
    ]
    if "cartpole" in name:
        lists += [["--env", env] for env in ("NoSuch-v0", "Pendulum-v1", "no_module:X-v0")]
        lists.append(["--max-episode-steps", "0"])
    messages = refuse(script, lists, tmp_path)
    assert len(set(messages)) > 8
    assert not (tmp_path / "runs").exists() and contents(tmp_path) == before


# GANs ---------------------------------------------------------------------------------------------


@pytest.fixture
def finished_gan(script, data_dir, tmp_path_factory):
    """The folder of a finished training of two epochs by a copy of the script; do not touch."""
    if script not in _runs:
        folder = tmp_path_factory.mktemp("gan")
        kind = GANS[script][0]
        modules = [f"{Path(script).parent}/{name}.py" for name in MODULES.get(script, [])]
        for file in (ROOT / script, *(ROOT / module for module in modules), data_dir / kind):
            shutil.copy(file, folder)
        arguments = ["--data", kind, "--epochs", 2, "--ema", 0.9]
        result = run_python(folder / Path(script).name, *arguments, cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr
        _runs[script] = folder / "runs" / f"{Path(script).stem}_{Path(kind).stem}"
    return _runs[script]


def gan_command(script, data_dir, run_dir, *options):
    usual = ["--data", data_dir / GANS[script][0], "--run-dir", run_dir, "--epochs", 2]
    return [script, *usual, "--ema", 0.9, *options]


@every_gan
def test_gan_is_short_and_its_networks_near_the_top(script):
    text = (ROOT / script).read_text()
    functions = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    }
    assert text.count("\n") <= GANS[script][1]
    assert functions["main"].end_lineno - functions["main"].lineno < 40
    assert functions["build_discriminator"].end_lineno < 110
    assert {"load_data", "build_generator", "parse_arguments"} <= set(functions)


@pytest.mark.slow
@every_gan
def test_gan_copied_alone_trains_both_networks(script, finished_gan):
    """Nothing but its run folder is written."""
    import keras

    kind = GANS[script][0]
    beside = {path.name for path in finished_gan.parent.parent.iterdir()}
    assert beside - {"gan_mnist.py", "__pycache__"} <= {"runs", kind, Path(script).name}
    assert history_of(finished_gan)["epoch"].tolist() == [0, 1]
    metrics = json.loads((finished_gan / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and 0 < metrics["d_accuracy"] < 1
    with Image.open(finished_gan / "training.gif") as film:
        assert film.n_frames == len(list((finished_gan / "images").iterdir()))
    first, last = (
        keras.models.load_model(finished_gan / name, compile=False)
        for name in ("moments/000001.keras", "generator.keras")
    )
    for old, new in zip(first.weights, last.weights, strict=True):
        assert not np.array_equal(old, new), new.path


@pytest.mark.slow
@every_gan
def test_gan_twice_gives_the_same_and_goes_on(script, finished_gan, data_dir, tmp_path):
    """Finished it only reports; with more epochs it goes on; files of the user stay."""
    run_dir = tmp_path / "run"
    for epochs in (1, 2):  # not in one go: the second epoch has other random numbers
        result = run_python(*gan_command(script, data_dir, run_dir, "--epochs", epochs))
        assert result.returncode == 0, result.stdout + result.stderr
    history, unbroken = history_of(run_dir), history_of(finished_gan)
    pd.testing.assert_frame_equal(history[:1], unbroken[:1])
    assert history["epoch"].tolist() == [0, 1]
    assert history["d_loss"][1] == pytest.approx(unbroken["d_loss"][1], rel=0.3)
    (run_dir / "notes.txt").write_text("mine")
    (run_dir / "metrics.json").unlink()
    before = contents(run_dir)
    result = run_python(*gan_command(script, data_dir, run_dir))
    assert result.returncode == 0 and "Epoch 3" not in result.stdout
    kept = ("notes.txt", "last.keras", "history.csv", "images/000001.png")
    assert all(contents(run_dir)[name] == before[name] for name in kept)
    assert json.loads((run_dir / "metrics.json").read_text())["epochs"] == 2


@pytest.mark.slow
@every_gan
def test_gan_killed_goes_on(script, data_dir, tmp_path):
    """kill -9 twice at no chosen moment: no gap, no repeat."""
    run_dir = tmp_path / "run"
    last = run_dir / "last.keras"
    for _ in range(2):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start_python(*gan_command(script, data_dir, run_dir, "--epochs", 400))
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if last.exists() and last.stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        time.sleep(0.05 * os.getpid() % 0.5)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    epochs = len((run_dir / "history.csv").read_text().splitlines())
    result = run_python(*gan_command(script, data_dir, run_dir, "--epochs", epochs))
    assert result.returncode == 0, result.stdout + result.stderr
    assert history_of(run_dir)["epoch"].tolist() == list(range(epochs))


@pytest.mark.slow
@every_gan
def test_gan_refuses_other_settings_and_damaged_runs(script, finished_gan, data_dir, tmp_path):
    """A line, and nothing has changed."""
    kind = GANS[script][0]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "generator.keras").write_text("my own")
    other = write_data(tmp_path / kind, seed=1)
    usual = gan_command(script, data_dir, finished_gan)[1:]
    for name in ("last.keras", "history.csv", "settings.json"):
        shutil.copytree(finished_gan, tmp_path / name)
        (tmp_path / name / name).write_text("no such thing\n")
    shutil.copytree(finished_gan, tmp_path / "other network")
    shutil.copy(finished_gan / "generator.keras", tmp_path / "other network" / "last.keras")
    before = contents(finished_gan), contents(tmp_path)
    messages = refuse(
        script,
        [
            *[[*usual, "--seed", 2], [*usual, "--batch-size", 16], [*usual, "--ema", 0.99]],
            *[[*usual, "--data", other], [*usual, "--run-dir", tmp_path / "mine"]],
            *[[*usual, "--run-dir", tmp_path / name] for name in ("last.keras", "history.csv")],
            *[
                [*usual, "--run-dir", tmp_path / name]
                for name in ("settings.json", "other network")
            ],
        ],
        tmp_path,
    )
    assert all("--run-dir" in message for message in messages[:5])
    assert (contents(finished_gan), contents(tmp_path)) == before


@every_gan
def test_gan_refuses_bad_input_in_one_line(script, tmp_path):
    """Bad files, folders and numbers; nothing is left behind."""
    kind = GANS[script][0]
    (tmp_path / "data").mkdir()
    needs_labels = "conditional" in script
    names = {"sizes.npz", "missing.npz", "labels.npz"}
    bad = [file for file in write_bad_files(tmp_path / "data", kind) if file.name not in names]
    good = ["--data", tmp_path / "data" / kind]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").write_bytes(b"no photograph")
    (tmp_path / "file").write_text("no folder")
    np.savez(tmp_path / "17.npz", x_train=np.zeros((99, 17, 17), "uint8"), y_train=np.zeros(99))
    if needs_labels:
        bad.append(tmp_path / "data" / "missing.npz")
    messages = refuse(
        script,
        [
            *[["--data", file] for file in bad],
            *[["--data", tmp_path / name] for name in ("nowhere.npz", "folder", "17.npz", "data")],
            *[[*good, "--seed", seed] for seed in ("-1", 2**40, "one")],
            *[[*good, "--epochs", "0"], [*good, "--batch-size", "1"], [*good, "--ema", "1"]],
            *[[*good, "--batch-size", "500"]],
            *[[*good, "--run-dir", tmp_path / name] for name in ("file", "file/below")],
        ],
        tmp_path,
    )
    assert len(set(messages)) > 8
    assert not (tmp_path / "runs").exists()
