"""Chapter 2: the split, the two networks on the wines, prediction, bad input, resume, JAX."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script, run_python
from PIL import Image

MLP, DNN = "chapter02/mlp_wine.py", "chapter02/dnn_wine.py"
PREP, PREDICT = "chapter02/data_prep.py", "chapter02/predict.py"
REAL = ROOT / "data" / "wine" / "winequality-white.csv"  # part of the repository
SAMPLE = ROOT / "data" / "samples" / "winequality-white.csv"
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def mlp():
    return load_script(MLP)


@pytest.fixture(scope="module")
def dnn():
    return load_script(DNN)


@pytest.fixture(scope="module")
def data_prep():
    return load_script(PREP)


@pytest.fixture
def run_main(monkeypatch, capsys):
    """`main()` of a script in this process: what a test of messages needs, without a start-up."""

    def run(script, *args):
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        capsys.readouterr()
        try:
            load_script(script).main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The perceptron, trained from its own folder as a user would: (process, run directory)."""
    run_dir = tmp_path_factory.mktemp("mlp") / "run"
    arguments = ["--data", "sample", "--epochs", 12, "--run-dir", run_dir]
    return run_python(MLP, *arguments, cwd=ROOT / "chapter02"), run_dir


# --- networks and data ------------------------------------------------------------------------


def test_networks_are_the_books(mlp, dnn):
    assert mlp.build_network().count_params() == 10 * 32 + 32 + 32 + 1 == 385
    # The book's 4,033 has nine inputs; its text says ten.
    assert dnn.build_network().count_params() == 4065
    assert dnn.build_network(input_features=9).count_params() == 4033
    assert [layer.name for layer in mlp.build_network().layers] == ["input", "hidden", "final"]
    names = ["input", *(f"hidden{number}" for number in range(1, 6)), "final"]
    assert [layer.name for layer in dnn.build_network().layers] == names
    model = dnn.build_network(learning_rate=0.01)
    assert model.loss == "mean_absolute_error"
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_split_is_80_10_10_without_overlap_and_repeatable(mlp):
    wines = mlp.read_wines(REAL)
    parts = mlp.split_wines(wines)
    assert [len(part) for part in parts] == [3918, 490, 490]
    assert sorted(np.concatenate([part.index for part in parts])) == list(range(4898))
    for part, again in zip(parts, mlp.split_wines(wines), strict=True):
        assert part.equals(again)
    # random, not the file's order
    assert list(parts[0].index) != sorted(parts[0].index)
    assert parts[0]["alcohol"].mean() == pytest.approx(parts[1]["alcohol"].mean(), abs=0.15)


def test_drop_duplicates_leaves_no_test_wine_in_train(mlp):
    parts = mlp.split_wines(mlp.read_wines(REAL), drop_duplicates=True)
    assert [len(part) for part in parts] == [3169, 396, 396]
    rows = pd.concat(parts)
    assert not rows.duplicated().any()
    kept = mlp.split_wines(mlp.read_wines(REAL))
    train = set(kept[0].itertuples(index=False, name=None))
    for part in kept[1:]:  # the reason for the switch
        shared = np.mean([row in train for row in part.itertuples(index=False, name=None)])
        assert 0.25 < shared < 0.35


def test_scaler_is_fitted_on_the_training_rows_only(mlp):
    data = mlp.load_data()
    train, val, _ = mlp.split_wines(mlp.read_wines(REAL))
    assert data["train_X"].shape == (3918, 10) and data["train_X"].dtype == np.float32
    assert data["test_y"].shape == (490,) and data["test_y"].dtype == np.float32
    np.testing.assert_allclose(data["train_X"].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data["train_y"].std(), 1, rtol=1e-5)
    expected = (val["alcohol"] - train["alcohol"].mean()) / train["alcohol"].std(ddof=0)
    np.testing.assert_allclose(data["val_y"], expected, rtol=1e-4, atol=1e-5)
    sulphates = (val["sulphates"] - train["sulphates"].mean()) / train["sulphates"].std(ddof=0)
    np.testing.assert_allclose(data["val_X"][:, 9], sulphates, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switches", [[], ["--drop-duplicates"]])
def test_data_prep_writes_the_rows_the_scripts_split_off(
    mlp, dnn, data_prep, tmp_path, run_main, switches
):
    result = run_main(PREP, "--output", tmp_path, *switches)
    assert result.returncode == 0
    for script in (mlp, dnn):
        expected = script.load_data(drop_duplicates=bool(switches))
        data = script.load_data(tmp_path)
        for part in PARTS:
            assert np.array_equal(data[f"{part}_X"], expected[f"{part}_X"])
            assert np.array_equal(data[f"{part}_y"], expected[f"{part}_y"])
    assert ("0% of the validation" in result.stdout) == bool(switches)
    with pytest.raises(ValueError, match="data_prep"):
        mlp.load_data(tmp_path, drop_duplicates=True)


def test_data_prep_with_another_seed(data_prep, tmp_path, run_script):
    result = run_script(PREP, "--data", "sample", "--seed", 7, "--output", "here", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    train = pd.read_csv(tmp_path / "here" / "train" / "train_data.csv")
    assert train.shape == (480, 11) and list(train)[-1] == "alcohol"
    seed_0 = data_prep.split_wines(data_prep.read_wines(SAMPLE))[0]
    assert not np.array_equal(train["pH"], seed_0["pH"])


@pytest.mark.parametrize("separator", [",", "\t"])
def test_other_separators_byte_order_mark_and_column_order(mlp, tmp_path, separator):
    wines = pd.read_csv(SAMPLE, sep=";")
    wines[wines.columns[::-1]].to_csv(
        tmp_path / "mine.csv", sep=separator, index=False, encoding="utf-8-sig"
    )
    data, expected = mlp.load_data(tmp_path / "mine.csv"), mlp.load_data("sample")
    assert np.array_equal(data["test_X"], expected["test_X"])
    assert np.array_equal(data["test_y"], expected["test_y"])


# --- bad input --------------------------------------------------------------------------------


def write_text(text):
    def write(folder):
        (folder / "bad.csv").write_text(text)
        return folder / "bad.csv"

    return write


def write_first_lines(count):
    return write_text("".join(SAMPLE.read_text().splitlines(keepends=True)[:count]))


def write_binary(folder):
    Image.new("RGB", (40, 40), "red").save(folder / "bad.csv", format="PNG")
    return folder / "bad.csv"


def write_empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def write_changed_sample(row, column, value):
    def write(folder):
        wines = pd.read_csv(SAMPLE, sep=";", dtype=str)
        wines.loc[row - 1, column] = value
        wines.to_csv(folder / "bad.csv", sep=";", index=False)
        return folder / "bad.csv"

    return write


def write_without(column):
    def write(folder):
        pd.read_csv(SAMPLE, sep=";").drop(columns=column).to_csv(folder / "bad.csv", index=False)
        return folder / "bad.csv"

    return write


def write_decimal_commas(folder):
    pd.read_csv(SAMPLE, sep=";").to_csv(folder / "bad.csv", sep=";", decimal=",", index=False)
    return folder / "bad.csv"


def write_extra_cells(folder):
    lines = SAMPLE.read_text().splitlines()
    (folder / "bad.csv").write_text("\n".join([lines[0], *(f"{line};1" for line in lines[1:])]))
    return folder / "bad.csv"


def write_one_long_row(folder):
    (folder / "bad.csv").write_text(SAMPLE.read_text() + "1;2;3;4;5;6;7;8;9;10;11;12;13;14\n")
    return folder / "bad.csv"


BAD_WINES = {
    "missing path": (lambda folder: folder / "nowhere.csv", ["does not exist"]),
    "empty file": (write_text(""), ["not a readable csv", "no columns"]),
    "binary file": (write_binary, ["not a readable csv"]),
    "text in a number column": (write_changed_sample(7, "pH", "sour"), ["row 7", "pH", "sour"]),
    "empty cell": (write_changed_sample(9, "density", ""), ["row 9", "density", "not a number"]),
    "NaN": (write_changed_sample(2, "chlorides", "NaN"), ["row 2", "chlorides"]),
    "infinite": (write_changed_sample(2, "chlorides", "1e999"), ["row 2", "chlorides"]),
    "header only": (write_first_lines(1), ["no wines"]),
    "missing column": (write_without("sulphates"), ["column missing: sulphates"]),
    "wrong separator": (write_text("a|b|c\n1|2|3\n"), ["column missing", "a|b|c"]),
    "decimal commas": (write_decimal_commas, ["row 1 ", "'7,0'"]),
    "more cells than names": (write_extra_cells, ["more cells"]),
    "one long row": (write_one_long_row, ["not a readable csv", "602"]),
}  # fmt: skip
BAD_TRAINING_SETS = BAD_WINES | {
    "empty folder": (write_empty_folder, ["train_data.csv does not exist"]),
    "no target": (write_without("alcohol"), ["column missing: alcohol"]),
    "nine wines": (write_first_lines(10), ["9 wines are too few"]),
}


@pytest.mark.parametrize("case", BAD_TRAINING_SETS)
def test_bad_training_data_is_one_clear_message(run_main, tmp_path, case):
    write, words = BAD_TRAINING_SETS[case]
    source = write(tmp_path)
    result = run_main(MLP, "--data", source, "--run-dir", tmp_path / "run")
    assert_clear_error(result, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", [DNN, PREP])
def test_the_other_scripts_read_as_carefully(run_main, tmp_path, script):
    """Their readers are copies: one case shows that they are wired to the same messages."""
    write, words = BAD_WINES["text in a number column"]
    folder = {DNN: "--run-dir", PREP: "--output"}[script]
    result = run_main(script, "--data", write(tmp_path), folder, tmp_path / "run")
    assert_clear_error(result, *words)
    assert not (tmp_path / "run").exists()


def test_a_user_sees_one_message_and_status_2(run_script, tmp_path):
    write, words = BAD_WINES["missing column"]
    result = run_script(MLP, "--data", write(tmp_path), "--run-dir", tmp_path / "run")
    assert_clear_error(result, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--batch-size", "-1"]])
def test_bad_arguments(run_main, arguments):
    result = run_main(MLP, *arguments)
    assert result.returncode == 2 and arguments[0] in result.stderr


# --- training ---------------------------------------------------------------------------------


def test_training_writes_everything(trained):
    process, run_dir = trained
    assert process.returncode == 0, process.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["script"] == MLP and metrics["parameters"] == 385
    assert metrics["epochs"] == 12 and 1 <= metrics["best_epoch"] <= 12
    assert metrics["seconds"] > 0 and metrics["versions"]["keras"]
    for part in PARTS:
        scores = metrics[part]
        assert scores.keys() == {"mae", "rmse", "mae_abv", "rmse_abv"}
        assert scores["rmse"] > scores["mae"]
        std = json.loads((run_dir / "scaler.json").read_text())["scale"][-1]
        assert scores["mae_abv"] == pytest.approx(std * scores["mae"])
    history = pd.read_csv(run_dir / "history.csv")
    assert len(history) == 12
    assert metrics["val"]["mae"] == pytest.approx(history["val_loss"].min(), rel=1e-4)
    assert metrics["last_epoch"]["val_mae"] == pytest.approx(history["val_loss"].iloc[-1], rel=1e-4)
    for name in ("learning_curve.png", "predictions.png"):
        Image.open(run_dir / name).verify()
    assert not (run_dir / "backup").exists()
    # gradient boosting wins, and the script says so
    assert metrics["baselines"]["gradient_boosting_mae"] < metrics["test"]["mae"]
    assert "gradient boosting, better than the network" in process.stdout


def test_it_learned(trained, mlp):
    """Far better than the mean wine, which is what an untrained network comes to at best."""
    process, run_dir = trained
    data = mlp.load_data("sample")
    untrained = mlp.evaluate(mlp.build_network(), data, "val")["mae"]
    mean_wine = np.abs(data["val_y"] - data["train_y"].mean()).mean()
    mae = json.loads((run_dir / "metrics.json").read_text())["val"]["mae"]
    assert mae < 0.6 * min(untrained, mean_wine)


def test_evaluate_repeats_the_scores(trained, run_main):
    process, run_dir = trained
    before = (run_dir / "metrics.json").read_text()
    (run_dir / "predictions.png").unlink()
    result = run_main(MLP, "--data", "sample", "--run-dir", run_dir, "--evaluate")
    assert result.returncode == 0
    mae = json.loads(before)["test"]["mae"]
    assert re.search(rf"test +{mae:.3f}", result.stdout)
    assert (run_dir / "predictions.png").exists()
    assert (run_dir / "metrics.json").read_text() == before


def test_evaluate_refuses_other_wines_and_missing_models(trained, run_main, tmp_path):
    process, run_dir = trained
    result = run_main(MLP, "--run-dir", run_dir, "--evaluate")
    assert_clear_error(result, "other wines")
    result = run_main(MLP, "--run-dir", tmp_path / "none", "--evaluate")
    assert_clear_error(result, "does not exist", "train first")
    assert not (tmp_path / "none").exists()
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04 damaged")
    assert_clear_error(run_main(MLP, "--run-dir", tmp_path, "--evaluate"), "cannot be loaded")


def test_best_so_far_survives_a_restart(mlp, tmp_path):
    """The first epoch after a restart must not replace a better one from before."""
    (tmp_path / "history.csv").write_text("epoch,val_loss\n0,0.5\n1,0.25\n2,0.3\n")
    mlp.build_network().save(tmp_path / "model.keras")

    def threshold(resuming):
        callbacks = mlp.create_callbacks(tmp_path, 5, resuming)
        return next(callback.best for callback in callbacks if hasattr(callback, "best"))

    assert threshold(resuming=True) == 0.25
    assert threshold(resuming=False) in (None, np.inf)
    (tmp_path / "model.keras").write_bytes(b"half-written")
    assert threshold(resuming=True) in (None, np.inf)


def test_backup_of_other_settings_is_not_resumed(mlp, tmp_path, capsys):
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "training_metadata.json").write_text('{"epoch": 3}')
    settings = {"seed": 1, "scaler": mlp.describe_scaler(mlp.load_data("sample")["scaler"])}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "model.keras").write_text("of the interrupted run")
    assert mlp.interrupted_run(tmp_path, settings)
    assert "after epoch 3" in capsys.readouterr().out
    assert not mlp.interrupted_run(tmp_path, settings | {"seed": 2})
    assert "other settings" in capsys.readouterr().out
    assert not backup.exists() and not (tmp_path / "model.keras").exists()


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training; the same command goes on from the last finished epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--epochs", "60", "--run-dir", str(run_dir))
    done = kill_in_training(MLP, arguments, run_dir / "backup", after_epoch=5)
    before = pd.read_csv(run_dir / "history.csv")["val_loss"][:done]

    result = run_script(MLP, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}." in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == list(range(60))
    # The epochs from before are kept, and it learned on from them: no fresh network.
    np.testing.assert_allclose(history["val_loss"][:done], before)
    assert history["val_loss"].iloc[done] < 1.1 * before.iloc[-1] < before.iloc[0]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None and metrics["epochs"] == 60
    assert metrics["val"]["mae"] <= before.min() + 1e-6


@pytest.mark.slow
def test_deep_network_as_a_user_runs_it(run_script, tmp_path):
    result = run_script(DNN, "--data", "sample", "--epochs", 15, "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["script"] == DNN and metrics["parameters"] == 4065
    assert metrics["val"]["mae"] < 0.5
    for name in ("learning_curve.png", "predictions.png"):
        Image.open(tmp_path / "run" / name).verify()


@pytest.mark.slow
def test_jax_backend(run_script, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        MLP,
        "--data", "sample", "--epochs", 12, "--run-dir", tmp_path / "run",
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"
    assert metrics["val"]["mae"] < 0.5


@pytest.mark.slow
def test_perceptron_on_the_real_wines(run_script, tmp_path):
    """40 of the 200 epochs: already near the book's test MAE of 0.20, ahead of a linear model."""
    result = run_script(MLP, "--epochs", 40, "--run-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test"]["mae"] < 0.22
    assert metrics["test"]["mae"] < metrics["baselines"]["linear_regression_mae"]


# --- prediction -------------------------------------------------------------------------------


def test_prediction_equals_the_model(trained, run_script, mlp, tmp_path):
    """A saved run, another process, other column order: the same alcohol to a hundredth."""
    import keras

    process, run_dir = trained
    wines = pd.read_csv(SAMPLE, sep=";")
    shuffled = wines[wines.columns[::-1]].drop(columns="alcohol")
    shuffled.to_csv(tmp_path / "new.csv", index=False)
    result = run_script(
        PREDICT, "new.csv", "--run-dir", run_dir, "--output", "predicted.csv", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    predicted = pd.read_csv(tmp_path / "predicted.csv")
    assert list(predicted)[:-1] == list(shuffled) and len(predicted) == 600
    scaler = mlp.load_data("sample")["scaler"]
    scaled = scaler.transform(wines[[*mlp.FEATURES, mlp.TARGET]].to_numpy())
    model = keras.models.load_model(run_dir / "model.keras")
    expected = np.ravel(model(scaled[:, :-1].astype("float32"))) * scaler.scale_[-1]
    expected += scaler.mean_[-1]
    np.testing.assert_allclose(predicted["predicted alcohol"], expected, atol=0.001)
    assert np.abs(predicted["predicted alcohol"] - wines["alcohol"]).mean() < 0.8


def test_prediction_is_printed_beside_the_truth(trained, run_main):
    process, run_dir = trained
    result = run_main(PREDICT, SAMPLE, "--run-dir", run_dir)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["alcohol", "predicted", "alcohol"]
    assert "580 more" in lines[-1] and len(lines) == 22


@pytest.mark.parametrize("case", BAD_WINES)
def test_bad_wines_to_predict(trained, run_main, tmp_path, case):
    process, run_dir = trained
    write, words = BAD_WINES[case]
    source, out = write(tmp_path), tmp_path / "out.csv"
    result = run_main(PREDICT, source, "--run-dir", run_dir, "--output", out)
    assert_clear_error(result, str(source), *words)
    assert not out.exists()


def test_prediction_without_a_usable_run(trained, run_main, tmp_path):
    process, run_dir = trained
    assert_clear_error(
        run_main(PREDICT, SAMPLE, "--run-dir", tmp_path), "model.keras does not exist", "train"
    )
    (tmp_path / "model.keras").write_bytes((run_dir / "model.keras").read_bytes())
    assert_clear_error(
        run_main(PREDICT, SAMPLE, "--run-dir", tmp_path), "scaler.json does not exist"
    )
    (tmp_path / "scaler.json").write_text('{"columns": []')
    assert_clear_error(run_main(PREDICT, SAMPLE, "--run-dir", tmp_path), "cannot be loaded")
