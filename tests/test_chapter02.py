"""Chapter 2: the split and its duplicates, the two networks on the wines, prediction."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script
from contract import run_to_end

MLP, DNN = "chapter02/mlp_wine.py", "chapter02/dnn_wine.py"
PREP, PREDICT, KNOWN = (f"chapter02/{n}.py" for n in ("data_prep", "predict", "known_wines"))
REAL = ROOT / "data" / "wine" / "winequality-white.csv"  # part of the repository
SAMPLE = ROOT / "data" / "samples" / "winequality-white.csv"
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    """Both networks after some epochs on all wines: {script: run directory}."""
    runs = {}
    for script, epochs in ((MLP, 12), (DNN, 8)):
        runs[script] = tmp_path_factory.mktemp("wine") / "run"
        run_to_end(script, "--epochs", epochs, "--batch-size", 16, "--run-dir", runs[script])
    return runs


@pytest.mark.parametrize(
    ("script", "hidden", "ten", "nine"),
    [
        (MLP, ["hidden"], 385, 353),
        # The book's 4,033 has nine inputs; its text says ten.
        (DNN, [f"hidden{number}" for number in range(1, 6)], 4065, 4033),
    ],
)
def test_networks_are_the_books_and_take_wines_as_measured(script, hidden, ten, nine):
    """0 from the last Dense layer is the mean wine, 1 a standard deviation more."""
    X, y = (load_script(script).load_data("sample")[f"train_{name}"] for name in "Xy")
    assert load_script(script).build_network(X[:, :9], y).count_params() == nine
    model = load_script(script).build_network(X, y)
    assert model.count_params() == ten and model.loss == "mean_absolute_error"
    names = [layer.name for layer in model.layers]
    assert names == ["input", "scale", *hidden, "final", "alcohol"]
    scaled = np.asarray(model.get_layer("scale")(X))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-3)
    weights = np.zeros(model.get_layer("final").kernel.shape)
    for bias in (0, 1):
        model.get_layer("final").set_weights([weights, np.array([bias])])
        np.testing.assert_allclose(model(X), y.mean() + bias * y.std(), rtol=1e-6)


@pytest.mark.parametrize(("drop", "sizes"), [(False, [3918, 490, 490]), (True, [3169, 396, 396])])
def test_split_is_80_10_10_and_that_of_data_prep(run_script, tmp_path, drop, sizes):
    data, rows = load_script(MLP).load_data(drop_duplicates=drop), []
    switches = ["--drop-duplicates"] * drop
    result = run_script(PREP, *switches, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for part, size in zip(PARTS, sizes, strict=True):
        rows.append(np.c_[data[f"{part}_X"], data[f"{part}_y"]])
        wines = pd.read_csv(tmp_path / "runs" / "wines" / part / f"{part}_data.csv")
        assert list(wines) == [*data["columns"], "alcohol"] and len(wines) == size
        assert np.array_equal(wines.to_numpy("float32"), rows[-1])
    table = pd.read_csv(REAL, sep=";").drop(columns="quality").astype("float32")
    table = (table.drop_duplicates() if drop else table).to_numpy()
    assert sorted(map(tuple, np.concatenate(rows))) == sorted(map(tuple, table))
    assert not np.array_equal(np.concatenate(rows), table)  # not the file's order
    train, others = set(map(tuple, rows[0])), np.concatenate(rows[1:])
    known = np.mean([tuple(row) in train for row in others])
    assert known == 0 if drop else 0.25 < known < 0.35  # the reason for the switch
    assert ("\n0% of the validation" in result.stdout) == drop
    again = run_script(PREP, *switches, cwd=tmp_path)
    assert again.returncode == 1 and "give another --output" in again.stderr


def test_other_separators_byte_order_mark_and_trailing_cells(tmp_path):
    mlp = load_script(MLP)
    text = pd.read_csv(SAMPLE, sep=";").to_csv(sep="\t", index=False).replace("\n", "\t\n")
    (tmp_path / "mine.csv").write_text(text.replace("quality\t", "quality"), encoding="utf-8-sig")
    data, expected = mlp.load_data(tmp_path / "mine.csv"), mlp.load_data("sample")
    assert all(np.array_equal(data[key], expected[key]) for key in data)


def test_networks_learn_alcohol(trained):
    """Ahead of linear regression, the deep one fits more closely; errors as the book has them."""
    shallow, deep = (
        json.loads((trained[script] / "metrics.json").read_text()) for script in (MLP, DNN)
    )
    assert shallow["baselines"]["linear_regression_mae"] == pytest.approx(0.234, abs=0.0005)
    assert shallow["test"]["mae"] < 0.219  # a linear network: 0.221
    assert deep["train"]["mae"] < shallow["train"]["mae"]
    assert deep["baselines"]["gradient_boosting_mae"] < deep["test"]["mae"] < 0.219
    data, model = (
        load_script(MLP).load_data(),
        keras.models.load_model(trained[MLP] / "model.keras"),
    )
    for part in PARTS:  # in % and in standard deviations of the training wines
        error = abs(model.predict(data[f"{part}_X"], verbose=0)[:, 0] - data[f"{part}_y"]).mean()
        expected = {"abv": error, "mae": error / data["train_y"].std()}
        assert shallow[part] == pytest.approx(expected, rel=1e-4)


def test_known_wines_flatter_the_trees(trained, run_script, tmp_path):
    """Boosted trees remember the wines that they have seen; on new ones they are not ahead."""
    result = run_script(KNOWN, "--run-dirs", trained[MLP], cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line.split() for line in result.stdout.splitlines()[1:]]
    groups = [(int(line[0]), " ".join(line[3:])) for line in lines[::3]]
    assert groups == [(490, "all:"), (155, "in the training rows:"), (335, "new:")]
    trees = [float(line[2]) for line in lines[1::3]]
    assert trees[1] < 0.05 and trees[2] > 0.15
    mae, more, error = pd.DataFrame(lines[2::3])[[1, 4, 6]].astype(float).to_numpy().T
    np.testing.assert_allclose(mae - trees, more, atol=0.0016)
    assert more[1] > 3 * error[1] and abs(more[2]) < 3 * error[2]
    leak = run_script(MLP, "--evaluate", "--drop-duplicates", "--run-dir", trained[MLP])
    assert leak.returncode == 1 and "duplicates" in leak.stderr.splitlines()[-1]
    other = run_script(KNOWN, "--data", "sample", "--run-dirs", trained[MLP], cwd=tmp_path)
    assert other.returncode == 1 and "other wines" in other.stderr.splitlines()[-1]


def test_prediction_equals_the_model(trained, run_script, tmp_path):
    """A saved run, another process, other order and text beside: the same alcohol."""
    wines = pd.read_csv(SAMPLE, sep=";")
    columns = json.loads((trained[MLP] / "settings.json").read_text())["columns"]
    mine = wines[wines.columns[::-1]].drop(columns="alcohol").assign(maker="Ch\u00e2teau")
    mine.to_csv(tmp_path / "new.csv", index=False)
    options = ["new.csv", "--output", "predicted.csv", "--run-dir"]
    result = run_script(PREDICT, *options, trained[MLP], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    predicted = pd.read_csv(tmp_path / "predicted.csv")
    pd.testing.assert_frame_equal(predicted.drop(columns="predicted alcohol"), mine)
    model = keras.models.load_model(trained[MLP] / "model.keras")
    expected = model.predict(wines[columns].to_numpy("float32"), verbose=0)[:, 0]
    np.testing.assert_allclose(predicted["predicted alcohol"], expected, atol=0.001)
    again = run_script(PREDICT, *options, trained[MLP], cwd=tmp_path)
    assert again.returncode == 1 and "File exists" in again.stderr.splitlines()[-1]
    without = run_script(PREDICT, *options, tmp_path, cwd=tmp_path)
    assert without.returncode == 1 and "settings.json" in without.stderr.splitlines()[-1]
    for cell, word in ((None, "pH"), ("sour", "sour"), ("", "not a number")):
        bad = mine.drop(columns="pH") if cell is None else mine.assign(pH=["3", cell] * 300)
        bad.to_csv(tmp_path / "new.csv", index=False)
        with pytest.raises((KeyError, ValueError), match=word):
            load_script(PREDICT).predict_alcohol(trained[MLP], tmp_path / "new.csv")
