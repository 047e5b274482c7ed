"""Chapter 2: the split and its duplicates, the two networks on the wines, prediction."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python

MLP, DNN = "chapter02/mlp_wine.py", "chapter02/dnn_wine.py"
PREP, PREDICT, KNOWN = (f"chapter02/{n}.py" for n in ("data_prep", "predict", "known_wines"))
REAL = ROOT / "data" / "wine" / "winequality-white.csv"  # part of the repository
SAMPLE = ROOT / "data" / "samples" / "winequality-white.csv"
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def mlp():
    return load_script(MLP)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    """Both networks after some epochs on all wines: {script: run directory}."""
    runs = {}
    for script, epochs in ((MLP, 20), (DNN, 12)):
        runs[script] = tmp_path_factory.mktemp("wine") / "run"
        result = run_python(script, "--epochs", epochs, "--run-dir", runs[script])
        assert result.returncode == 0, result.stdout + result.stderr
    return runs


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


# --- networks and data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "hidden", "ten", "nine"),
    [
        (MLP, ["hidden"], 385, 353),
        # The book's 4,033 has nine inputs; its text says ten.
        (DNN, [f"hidden{number}" for number in range(1, 6)], 4065, 4033),
    ],
)
def test_networks_are_the_books(script, hidden, ten, nine):
    data = load_script(script).load_data("sample")
    X, y = data["train_X"], data["train_y"]
    model = load_script(script).build_network(X, y)
    assert model.count_params() == ten
    assert load_script(script).build_network(X[:, :9], y).count_params() == nine
    names = [layer.name for layer in model.layers]
    assert names == ["input", "scale", *hidden, "final", "alcohol"]
    assert model.loss == "mean_absolute_error"


def test_networks_take_wines_as_they_were_measured(mlp):
    """Inputs are scaled inside; 0 for the last Dense layer is the mean wine, 1 a deviation more."""
    import keras

    data = mlp.load_data()
    model = mlp.build_network(data["train_X"], data["train_y"])
    scaled = keras.Model(model.input, model.get_layer("scale").output).predict(
        data["train_X"], verbose=0
    )
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-3)
    final = model.get_layer("final")
    for bias in (0, 1):
        final.set_weights([np.zeros((32, 1)), np.array([bias])])
        alcohol = data["train_y"].mean() + bias * data["train_y"].std()
        predicted = model.predict(data["test_X"], verbose=0)
        np.testing.assert_allclose(predicted, alcohol, rtol=1e-6)


@pytest.mark.parametrize(("drop", "sizes"), [(False, [3918, 490, 490]), (True, [3169, 396, 396])])
def test_split_is_80_10_10_of_all_wines_and_repeatable(mlp, drop, sizes):
    data, again = (mlp.load_data(drop_duplicates=drop) for _ in range(2))
    assert [len(data[f"{part}_y"]) for part in PARTS] == sizes
    assert all(np.array_equal(data[key], again[key]) for key in data)
    assert data["train_X"].shape[1] == 10 and "sulphates" in data["columns"]
    table = pd.read_csv(REAL, sep=";").drop(columns="quality").astype("float32")
    table = table.drop_duplicates() if drop else table
    rows = np.concatenate([np.c_[data[f"{part}_X"], data[f"{part}_y"]] for part in PARTS])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, table.to_numpy()))
    assert not np.array_equal(rows, table.to_numpy())  # not the file's order
    train = set(map(tuple, rows[: sizes[0]]))
    known = np.mean([tuple(row) in train for row in rows[sizes[0] :]])
    assert known == 0 if drop else 0.25 < known < 0.35  # the reason for the switch


def test_other_separators_byte_order_mark_and_trailing_cells(mlp, tmp_path):
    text = pd.read_csv(SAMPLE, sep=";").to_csv(sep="\t", index=False).replace("\n", "\t\n")
    (tmp_path / "mine.csv").write_text(text.replace("quality\t", "quality"), encoding="utf-8-sig")
    data, expected = mlp.load_data(tmp_path / "mine.csv"), mlp.load_data("sample")
    assert all(np.array_equal(data[key], expected[key]) for key in data)


@pytest.mark.parametrize("switches", [[], ["--drop-duplicates"]])
def test_data_prep_writes_the_rows_the_scripts_split_off(mlp, tmp_path, run_script, switches):
    result = run_script(PREP, *switches, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert ("0% of the validation" in result.stdout) == bool(switches)
    expected = mlp.load_data(drop_duplicates=bool(switches))
    for part in PARTS:
        wines = pd.read_csv(tmp_path / "runs" / "wines" / part / f"{part}_data.csv")
        assert list(wines) == [*expected["columns"], "alcohol"]  # the book: train[:, 10]
        rows = np.c_[expected[f"{part}_X"], expected[f"{part}_y"]]
        assert np.array_equal(wines.to_numpy("float32"), rows)
    result = run_script(PREP, *switches, cwd=tmp_path)
    assert result.returncode == 1 and "File exists" in result.stderr


# --- what they learn --------------------------------------------------------------------------


def test_networks_learn_alcohol(trained):
    """A few of the epochs: ahead of linear regression, and the deep network fits more closely."""
    shallow, deep = read_metrics(trained[MLP]), read_metrics(trained[DNN])
    assert shallow["baselines"]["linear_regression_mae"] == pytest.approx(0.234, abs=0.0005)
    assert shallow["test"]["mae"] < 0.215  # a linear network: 0.221
    assert deep["train"]["mae"] < shallow["train"]["mae"]
    assert deep["baselines"]["gradient_boosting_mae"] < deep["test"]["mae"] < 0.215
    assert (trained[DNN] / "predictions.png").stat().st_size > 5000


def test_errors_are_in_standard_deviations_and_in_percent(trained, mlp):
    """As the book computes them: mean_absolute_error of scaled alcohol."""
    import keras
    from sklearn.metrics import mean_absolute_error
    from sklearn.preprocessing import StandardScaler

    data, metrics = mlp.load_data(), read_metrics(trained[MLP])
    scaler = StandardScaler().fit(data["train_y"].reshape(-1, 1))
    model = keras.models.load_model(trained[MLP] / "model.keras")
    for part in PARTS:
        alcohol = data[f"{part}_y"].reshape(-1, 1), model.predict(data[f"{part}_X"], verbose=0)
        assert metrics[part]["abv"] == pytest.approx(mean_absolute_error(*alcohol), rel=1e-4)
        scaled = [scaler.transform(values) for values in alcohol]
        assert metrics[part]["mae"] == pytest.approx(mean_absolute_error(*scaled), rel=1e-4)


def test_known_wines_flatter_the_trees(trained, run_script, tmp_path):
    """Boosted trees remember the wines that they have seen; on new ones they are not ahead."""
    result = run_script(KNOWN, "--run-dirs", trained[MLP], trained[DNN], cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line.split() for line in result.stdout.splitlines()[1:]]
    groups = [(int(line[0]), " ".join(line[3:])) for line in lines[::4]]
    assert groups == [(490, "all:"), (155, "in the training rows:"), (335, "new:")]
    trees = [float(line[2]) for line in lines[1::4]]
    shallow, more, error = (
        np.array([line[position] for line in lines[2::4]], dtype=float) for position in (1, 4, 6)
    )
    assert trees[1] < 0.05 and trees[2] > 0.15
    np.testing.assert_allclose(shallow - trees, more, atol=0.0016)
    assert more[1] > 3 * error[1] and abs(more[2]) < 3 * error[2]
    np.testing.assert_allclose(shallow[0], (155 * shallow[1] + 335 * shallow[2]) / 490, atol=0.001)
    other = run_script(KNOWN, "--data", "sample", "--run-dirs", trained[MLP], cwd=tmp_path)
    assert other.returncode == 1 and "other wines" in other.stderr.splitlines()[-1]


# --- prediction -------------------------------------------------------------------------------


def test_prediction_equals_the_model(trained, run_script, tmp_path):
    """A saved run, another process, other order and text beside: the same alcohol."""
    import keras

    wines = pd.read_csv(SAMPLE, sep=";")
    columns = json.loads((trained[MLP] / "settings.json").read_text())["columns"]
    mine = wines[wines.columns[::-1]].drop(columns="alcohol").assign(maker="Ch\u00e2teau")
    mine.to_csv(tmp_path / "new.csv", index=False)
    result = run_script(
        PREDICT, "new.csv", "--run-dir", trained[MLP], "--output", "predicted.csv", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    predicted = pd.read_csv(tmp_path / "predicted.csv")
    pd.testing.assert_frame_equal(predicted.drop(columns="predicted alcohol"), mine)
    model = keras.models.load_model(trained[MLP] / "model.keras")
    expected = model.predict(wines[columns].to_numpy("float32"), verbose=0)[:, 0]
    np.testing.assert_allclose(predicted["predicted alcohol"], expected, atol=0.001)
    assert np.abs(predicted["predicted alcohol"] - wines["alcohol"]).mean() < 0.3


@pytest.mark.parametrize(
    ("cell", "word"),
    [(None, "pH"), ("sour", "sour"), ("", "not a number"), ("inf", "not a number")],
)
def test_prediction_says_what_is_wrong(trained, tmp_path, cell, word):
    wines = pd.read_csv(SAMPLE, sep=";", dtype=str)
    wines = wines.drop(columns="pH") if cell is None else wines.assign(pH=["3", cell] * 300)
    wines.to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises((KeyError, ValueError), match=word):
        load_script(PREDICT).predict_alcohol(trained[MLP], tmp_path / "new.csv")


def test_prediction_without_a_run_ends_in_a_line(run_script, tmp_path):
    result = run_script(PREDICT, SAMPLE, "--run-dir", tmp_path)
    assert result.returncode == 1 and "settings.json" in result.stderr.splitlines()[-1]
