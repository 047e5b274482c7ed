"""What every trainer does, once, for all of them: by its command line, on small data of its kind.

A row of TRAINERS is held to all of it. PENDING names the trainers that are not yet in this shape.
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

WINE, DIGITS, IMAGES = "wine.csv", "digits.npz", "images.npz"
POSTS, REVIEWS = "posts.tar.gz", "reviews.tar.gz"
VECTORS = ROOT / "data" / "samples" / "glove.sample.50d.txt"
EPOCHS = 4  # of the runs below

# script: its kind of data, lines at most, the figure that chooses the best epoch
TRAINERS = {
    "chapter02/mlp_wine.py": (WINE, 180, "val_loss"),
    "chapter02/dnn_wine.py": (WINE, 180, "val_loss"),
    "chapter03/mlp_wine_tensorboard.py": (WINE, 180, "val_loss"),
    "chapter03/dnn_wine_tensorboard.py": (WINE, 180, "val_loss"),
    "chapter03/dnn_wine_broken.py": (WINE, 180, "val_loss"),
    "chapter05/mlp_mnist.py": (DIGITS, 230, "val_accuracy"),
    "chapter05/mlp_mnist_dropout.py": (DIGITS, 220, "val_accuracy"),
    "chapter05/mlp_mnist_l2.py": (DIGITS, 220, "val_accuracy"),
    "chapter07/cnn_cifar10.py": (IMAGES, 230, "val_accuracy"),
    "chapter07/cnn_cifar10_augmented.py": (IMAGES, 270, "val_accuracy"),
    "chapter10/cnn_newsgroups.py": (POSTS, 250, "val_accuracy"),
    "chapter10/cnn_newsgroups_glove.py": (POSTS, 300, "val_accuracy"),
    "chapter10/lstm_imdb.py": (REVIEWS, 250, "val_accuracy"),
    "chapter10/lstm_newsgroups.py": (POSTS, 250, "val_accuracy"),
}
OPTIONS = {"chapter10/cnn_newsgroups_glove.py": ["--vectors", VECTORS]}  # without which none runs
PENDING = {
    "chapter04/dnn_eeg.py",
    "chapter06/hyperband_mnist.py",
    "chapter06/random_search_mnist.py",
    "chapter08/inceptionv3_dogs_cats.py",
    "chapter09/lstm_bitcoin.py",
    "chapter11/train_attention_seq2seq.py",
    "chapter11/train_char_seq2seq.py",
    "chapter12/dqn_breakout.py",
    "chapter12/dqn_cartpole.py",
    "chapter12/dqn_lunar_lander.py",
    "chapter13/gan_cifar10.py",
    "chapter13/gan_mnist.py",
}
# Files of the chapters that call fit and are no trainers: lessons and comparisons.
NO_TRAINERS = {
    "chapter01/check_gpu.py",
    "chapter01/holdout_and_kfold.py",
    "chapter05/softmax.py",
    "chapter06/hyperband.py",
    "chapter07/cnn_cifar10_hosts.py",
    "chapter08/how_much_data.py",
    "chapter09/baselines.py",
    "chapter10/average_texts.py",
    "chapter10/vectorize_text.py",
    "chapter10/word2vec_imdb.py",
    "chapter13/evaluate_gan.py",
    "chapter13/how_gans_fail.py",
}
# Where a script may be killed: callbacks, in the order in which an epoch's end runs them.
KILL_POINTS = ["best half", "best whole", "line half", "line whole", "last half", "last whole"]

every_trainer = pytest.mark.parametrize("script", TRAINERS)


def write_data(path, seed=0, classes=3):
    """A small file of the kind that its suffix and name tell."""
    if path.suffix == ".gz":
        return write_tar(path, make_texts(path.name, seed, classes))
    rng = np.random.default_rng(seed)
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
    for name in (WINE, DIGITS, IMAGES, POSTS, REVIEWS):
        write_data(folder / name)
    return folder


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
    kind = TRAINERS[script][0]
    usual = ["--data", data_dir / kind, "--run-dir", run_dir, "--epochs", EPOCHS]
    return [script, *OPTIONS.get(script, []), *usual, *options]


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
    best = history[kind[2]].max() if kind[2] == "val_accuracy" else history[kind[2]].min()
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
    assert scripts <= {*TRAINERS, *PENDING, *NO_TRAINERS}, "give each a row of TRAINERS"
    assert all((ROOT / script).exists() for script in {*TRAINERS, *PENDING})


@every_trainer
def test_short_and_its_network_near_the_top(script):
    text = (ROOT / script).read_text()
    functions = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    }
    assert text.count("\n") <= TRAINERS[script][1]
    assert functions["main"].end_lineno - functions["main"].lineno < 40
    network = functions.get("build_network") or functions["build_model"]  # the book has both
    assert network.lineno < (150 if "glove" in script else 110)  # the texts are read before it
    vocabulary = {"load_data", "create_callbacks", "parse_arguments", "report"}
    assert vocabulary <= set(functions)


@every_trainer
def test_imports_nothing_of_the_project(script):
    """Copied alone it must run: the standard library and packages of requirements.txt only."""
    names = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn", "pandas"}
    for node in ast.walk(ast.parse((ROOT / script).read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.split(".")[0] in names | sys.stdlib_module_names, module


def test_import_has_no_side_effect(tmp_path):
    """Nothing printed or written, no backend of plots, time-out, seed or variable set."""
    code = f"""
import importlib.util, os, random, socket
import keras, matplotlib, numpy
for script in {list(TRAINERS)!r}:
    before = dict(os.environ), random.getstate(), numpy.random.get_state()[1].tolist()
    spec = importlib.util.spec_from_file_location("script", {str(ROOT)!r} + "/" + script)
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
    data = load_script(script).load_data(data_dir / TRAINERS[script][0])
    scores = model.evaluate(data["val_X"], data["val_y"], verbose=0, return_dict=True)
    figure = TRAINERS[script][2]
    best = history[figure].max() if figure == "val_accuracy" else history[figure].min()
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
    copy = shutil.copy(data_dir / TRAINERS[script][0], tmp_path / f"moved_{TRAINERS[script][0]}")
    output = train(script, data_dir, run, "--data", copy)
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
    shutil.copy(ROOT / script, tmp_path)
    shutil.copy(data_dir / kind, tmp_path)
    before = contents(ROOT / Path(script).parent)
    options = [*OPTIONS.get(script, []), "--data", kind, "--epochs", 1]
    result = run_python(tmp_path / Path(script).name, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    name = f"{Path(script).stem}_{Path(kind).stem}"
    assert (tmp_path / "runs" / name / "model.keras").exists()
    assert {path.name for path in tmp_path.iterdir()} == {Path(script).name, kind, "runs"}
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
    if kind == WINE:
        table = pd.read_csv(data_dir / kind, sep=";")
        other = tmp_path / "renamed.csv"
        table.rename(columns={"measurement 0": "x"}).to_csv(other, index=False)
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
    bad = {}
    for name in ("text", "empty", "cut", "keys", "values", "labels"):
        bad[name] = folder / f"{name}{Path(kind).suffix}"
    whole = write_data(folder / kind)
    bad["text"].write_text("neither a table nor an archive\n" * 3)
    bad["empty"].write_bytes(b"")
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
