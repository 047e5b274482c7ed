"""Chapter 4: the split, the ROC AUC callback, the classifier of EEG, bad input, resume, JAX."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script, run_python
from PIL import Image
from sklearn.metrics import roc_auc_score

PREP, DNN = "chapter04/data_prep.py", "chapter04/dnn_eeg.py"
SAMPLE = ROOT / "data" / "samples" / "eeg.csv"
PARTS = ("train", "val", "test")
SPLITS = [f"split_{seed}" for seed in range(1, 5)]
PICTURES = ("learning_curves.png", "curves.png", "traces.png")


@pytest.fixture(scope="module")
def prep():
    return load_script(PREP)


@pytest.fixture(scope="module")
def dnn():
    """dnn_eeg.py, which finds its two neighbours as if it were started from the command line."""
    sys.path.insert(0, str(ROOT / "chapter04"))
    try:
        return load_script(DNN)
    finally:
        sys.path.remove(str(ROOT / "chapter04"))
        sys.modules.pop("data_prep", None)  # another chapter has a file of that name


@pytest.fixture(scope="module")
def sample(prep):
    return prep.read_eeg(SAMPLE)


@pytest.fixture
def run_main(monkeypatch, capsys, dnn):
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
def trained(tmp_path_factory, slow_training):
    """A training run from its own folder as a user would start it: (process, run directory)."""
    run_dir = tmp_path_factory.mktemp("dnn") / "run"
    arguments = ["--data", "sample", "--epochs", 6, "--run-dir", run_dir]
    return run_python("chapter04/dnn_eeg.py", *arguments, cwd=ROOT / "chapter04"), run_dir


# --- data -------------------------------------------------------------------------------------


def test_reads_the_sample_and_a_file_with_other_ids_the_same(prep, sample, tmp_path):
    assert list(sample) == ["recording", *prep.FEATURES, "y"] and len(sample) == 2070
    assert sample["recording"].nunique() == 90 and set(sample["y"]) == {1, 2, 3, 4, 5}
    # UCI's ids have a dot more, the id column has a name or none, the separator may differ.
    table = pd.read_csv(SAMPLE).head(40)
    table.iloc[:, 0] = [f"X{number}.V1.{number % 3}" for number in range(40)]
    table.columns = ["Unnamed", *table.columns[1:]]
    table.to_csv(tmp_path / "uci.csv", sep=";", index=False, encoding="utf-8-sig")
    eeg = prep.read_eeg(tmp_path / "uci.csv")
    assert list(eeg["recording"][:4]) == ["V1.0", "V1.1", "V1.2", "V1.0"]
    assert eeg[prep.FEATURES].equals(sample[prep.FEATURES].head(40))


@pytest.mark.parametrize("grouped", [False, True])
def test_split_is_stratified_disjoint_and_repeatable(prep, sample, grouped):
    parts = prep.split_eeg(sample, grouped)
    counts = np.array([len(part) for part in parts]) / len(sample)
    np.testing.assert_allclose(counts, [0.8, 0.1, 0.1], atol=0.03)
    rows = np.concatenate([part.index for part in parts])
    assert sorted(rows) == list(range(len(sample)))
    for part, again in zip(parts, prep.split_eeg(sample, grouped), strict=True):
        assert part.equals(again)
        assert part["y"].mean() == pytest.approx(0.2, abs=0.03 if grouped else 0.003)
        assert np.array_equal(part["y"] == 1, sample["y"][part.index] == 1)
    assert not parts[2].equals(prep.split_eeg(sample, grouped, seed=1)[2])
    train, val, test = (set(part["recording"]) for part in parts)
    shared = (train & val) | (train & test) | (val & test)
    assert not shared if grouped else test < train


def test_split_of_the_real_set_has_the_books_sizes(prep, real_data_dir):
    eeg = prep.read_eeg(real_data_dir / "eeg.csv")
    for grouped in (False, True):
        parts = prep.split_eeg(eeg, grouped)
        assert [len(part) for part in parts] == [9200, 1150, 1150]
        assert [part["y"].sum() for part in parts] == [1840, 230, 230]
    assert set(parts[0]["recording"]).isdisjoint(parts[2]["recording"])


@pytest.mark.parametrize("switches", [[], ["--group-by-recording"]])
def test_data_prep_writes_the_rows_the_script_splits_off(dnn, run_main, tmp_path, switches):
    result = run_main(PREP, "--data", "sample", "--output", tmp_path, *switches)
    assert result.returncode == 0
    shared = re.search(r"(\d+) of the (\d+) test recordings are in the training", result.stdout)
    assert (int(shared[1]) == 0) == bool(switches)
    expected, data = dnn.load_data("sample", bool(switches)), dnn.load_data(tmp_path)
    for part in PARTS:
        assert np.array_equal(data[f"{part}_X"], expected[f"{part}_X"])
        assert np.array_equal(data[f"{part}_y"], expected[f"{part}_y"])
    with pytest.raises(ValueError, match="give --group-by-recording to data_prep"):
        dnn.load_data(tmp_path, group_by_recording=True)


def test_data_prep_as_a_user_runs_it(prep, sample, run_script, tmp_path):
    result = run_script(PREP, "--data", "sample", "--seed", 7, "--output", "here", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1,656 rows, 20.0% of them seizures" in result.stdout
    train = pd.read_csv(tmp_path / "here" / "train" / "train_data.csv")
    assert list(train) == [*prep.FEATURES, "y"] and set(train["y"]) == {0, 1}
    assert np.array_equal(train["X1"], prep.split_eeg(sample, seed=7)[0]["X1"])


def test_scaler_is_fitted_on_the_training_rows_only(prep, dnn, sample):
    data = dnn.load_data("sample")
    train, val, _ = prep.split_eeg(sample)
    assert data["train_X"].shape == (1656, 178) and data["train_X"].dtype == np.float32
    assert data["test_y"].shape == (207,) and data["test_y"].dtype == np.int64
    np.testing.assert_allclose(data["train_X"].mean(axis=0), 0, atol=1e-5)
    expected = (val["X7"] - train["X7"].mean()) / train["X7"].std(ddof=0)
    np.testing.assert_allclose(data["val_X"][:, 6], expected, rtol=1e-4, atol=1e-5)


# --- network, callback, operating point -------------------------------------------------------


def test_network_is_the_books(dnn):
    model = dnn.build_network()
    sizes = [178, 128, 64, 64, 32, 16, 1]
    assert model.count_params() == 37_953
    assert model.count_params() == sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))
    names = ["input", *(f"hidden{number}" for number in range(1, 6)), "final"]
    assert [layer.name for layer in model.layers] == names
    assert model.layers[1].activation.__name__ == "relu" and model.loss == "binary_crossentropy"
    assert model.layers[-1].activation.__name__ == "sigmoid"
    assert float(dnn.build_network(learning_rate=0.01).optimizer.learning_rate) == pytest.approx(
        0.01
    )


def record_predictions(data, rows):
    """A callback that collects (training, validation) probabilities at the end of each epoch."""
    import keras

    def collect(epoch, logs):
        model = recorder.model
        rows.append([np.asarray(model(data[f"{part}_X"]))[:, 0] for part in ("train", "val")])

    recorder = keras.callbacks.LambdaCallback(on_epoch_end=collect)
    return recorder


def fit_two_epochs(dnn, data, callbacks):
    import keras

    keras.utils.set_random_seed(1)
    return dnn.build_network().fit(
        data["train_X"],
        data["train_y"],
        epochs=2,
        verbose=0,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=callbacks,
    )


def test_callback_equals_scikit_learn_and_the_others_see_it(dnn, tmp_path):
    import keras

    data, predictions = dnn.load_data("sample"), []
    roc_auc = dnn.RocAUCScore(
        (data["train_X"], data["train_y"]), (data["val_X"], data["val_y"]), batch_size=500
    )
    stop = keras.callbacks.EarlyStopping("val_roc_auc", mode="max", baseline=2)
    fit = fit_two_epochs(
        dnn,
        data,
        [
            roc_auc,
            record_predictions(data, predictions),
            stop,
            keras.callbacks.CSVLogger(tmp_path / "history.csv"),
            keras.callbacks.TensorBoard(tmp_path / "tb"),
        ],
    )
    table = pd.read_csv(tmp_path / "history.csv")
    for epoch, (train, val) in enumerate(predictions):
        for name, part, probabilities in (("roc_auc", "train", train), ("val_roc_auc", "val", val)):
            expected = roc_auc_score(data[f"{part}_y"], probabilities)
            assert fit.history[name][epoch] == pytest.approx(expected, abs=1e-9)
            assert table[name][epoch] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(roc_auc.predict(data["val_X"]), predictions[-1][1], rtol=1e-5)
    assert fit.history["roc_auc"][0] != fit.history["roc_auc"][1]  # measured anew
    assert stop.best in (2, *fit.history["val_roc_auc"])
    for part in ("train", "validation"):
        (events,) = (tmp_path / "tb" / part).glob("events.*")
        assert b"epoch_roc_auc" in events.read_bytes()


def test_callback_says_once_that_one_class_has_no_roc_auc(dnn, tmp_path, capsys, recwarn):
    import keras

    data = dnn.load_data("sample")
    one_class = np.zeros_like(data["val_y"])
    roc_auc = dnn.RocAUCScore((data["train_X"], data["train_y"]), (data["val_X"], one_class))
    log = keras.callbacks.CSVLogger(tmp_path / "history.csv")
    history = fit_two_epochs(dnn, data, [roc_auc, log]).history
    assert capsys.readouterr().out.count("val_roc_auc is undefined") == 1
    assert not [w for w in recwarn if "Undefined" in w.category.__name__]  # scikit-learn's, twice
    assert np.isnan(history["val_roc_auc"]).all() and np.isfinite(history["roc_auc"]).all()
    assert pd.read_csv(tmp_path / "history.csv")["val_roc_auc"].isna().all()


def test_class_from_prob_leaves_the_probabilities_alone(dnn):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    probabilities = np.clip(rng.normal(0.35 + 0.3 * y, 0.2), 0, 1)
    kept, auc = probabilities.copy(), roc_auc_score(y, probabilities)
    assert list(dnn.class_from_prob([[0.2], [0.5], [0.7]])[:, 0]) == [0, 1, 1]
    assert list(dnn.class_from_prob(np.array([0.2, 0.5, 0.7]), operating_point=0.6)) == [0, 0, 1]
    classes = dnn.class_from_prob(probabilities)
    assert np.array_equal(probabilities, kept)
    assert roc_auc_score(y, probabilities) == auc
    # What the book's version would leave to be scored: two values, and a smaller area.
    assert roc_auc_score(y, classes) < auc - 0.02


def test_operating_point_is_the_highest_with_the_recall_asked_for(dnn):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 301)
    probabilities = rng.normal(0.4 + 0.2 * y, 0.2)
    for recall in (0.5, 0.95, 1):
        point = dnn.choose_operating_point(y, probabilities, recall)
        assert dnn.class_from_prob(probabilities, point)[y == 1].mean() >= recall
        assert dnn.class_from_prob(probabilities, point + 1e-9)[y == 1].mean() < recall


# --- bad input --------------------------------------------------------------------------------


def write_text(text):
    def write(folder):
        (folder / "bad.csv").write_text(text)
        return folder / "bad.csv"

    return write


def write_changed(change):
    def write(folder):
        table = pd.read_csv(SAMPLE, dtype=str)
        table = change(table)
        table.to_csv(folder / "bad.csv", index=False)
        return folder / "bad.csv"

    return write


def write_cell(row, column, value):
    def change(table):
        table.loc[row - 1, column] = value
        return table

    return write_changed(change)


def write_binary(folder):
    Image.new("RGB", (40, 40), "red").save(folder / "bad.csv", format="PNG")
    return folder / "bad.csv"


def write_extra_cells(folder):
    lines = SAMPLE.read_text().splitlines()
    (folder / "bad.csv").write_text("\n".join([lines[0], *(f"{line},1" for line in lines[1:])]))
    return folder / "bad.csv"


def write_empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


HEADER = SAMPLE.read_text().splitlines()[0] + "\n"
BAD_EEG = {
    "missing path": (lambda folder: folder / "nowhere.csv", ["does not exist", "--data sample"]),
    "empty file": (write_text(""), ["not a readable csv", "no columns"]),
    "binary file": (write_binary, ["not a readable csv"]),
    "prose": (write_text("Dear reader,\nthis is a letter.\n"), ["179 columns missing", "X178"]),
    "header only": (write_text(HEADER), ["no rows"]),
    "no label": (write_changed(lambda t: t.drop(columns="y")), ["1 columns missing: y"]),
    "missing column": (write_changed(lambda t: t.drop(columns="X9")), ["missing: X9"]),
    "text": (write_cell(7, "X3", "loud"), ["row 7 ", "column X3", "'loud' is not a number"]),
    "empty cell": (write_cell(9, "X178", ""), ["row 9 ", "X178", "'' is not a number"]),
    "NaN": (write_cell(2, "X1", "NaN"), ["row 2 ", "X1", "not a number"]),
    "infinite": (write_cell(2, "X1", "1e999"), ["row 2 ", "X1"]),
    "state 0": (write_cell(12, "y", "0"), ["row 12 ", "column y", "'0' is not one of 1, 2"]),
    "state 6": (write_cell(3, "y", "6"), ["row 3 ", "'6' is not one of"]),
    "state 1.5": (write_cell(3, "y", "1.5"), ["row 3 ", "'1.5' is not one of"]),
    "no state": (write_cell(3, "y", "seizure"), ["row 3 ", "'seizure' is not one of"]),
    "single class": (write_changed(lambda t: t.assign(y=3)), ["0 rows with a seizure", "ROC AUC"]),
    "only seizures": (write_changed(lambda t: t.assign(y=1)), ["0 without"]),
    "nine rows": (write_changed(lambda t: t.head(9)), ["needs 10 of each"]),
    "more cells than names": (write_extra_cells, ["more cells"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_EEG)
def test_bad_input_is_one_clear_message(run_main, tmp_path, case):
    write, words = BAD_EEG[case]
    result = run_main(DNN, "--data", write(tmp_path), "--run-dir", tmp_path / "run")
    assert_clear_error(result, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", ["text", "single class", "empty file"])
def test_data_prep_refuses_it_too(run_main, tmp_path, case):
    write, words = BAD_EEG[case]
    result = run_main(PREP, "--data", write(tmp_path), "--output", tmp_path / "out")
    assert_clear_error(result, *words)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_split(run_main, tmp_path):
    folder = write_empty_folder(tmp_path)
    assert_clear_error(
        run_main(PREP, "--data", folder, "--output", tmp_path / "out"), "is a folder"
    )
    result = run_main(DNN, "--data", folder, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "train_data.csv does not exist")
    # A part without seizures: nothing to measure there.
    assert run_main(PREP, "--data", "sample", "--output", folder).returncode == 0
    path = folder / "val" / "val_data.csv"
    pd.read_csv(path).assign(y=0).to_csv(path, index=False)
    result = run_main(DNN, "--data", folder, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "val has a single class", "ROC AUC is undefined")
    pd.read_csv(path).assign(y=4).to_csv(path, index=False)
    result = run_main(DNN, "--data", folder, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "val_data.csv, row 1 ", "'4' is not one of 0, 1")
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_grouping_needs_ids_that_tell_the_recording(run_main, tmp_path):
    write = write_changed(lambda table: table.iloc[:, 1:])
    result = run_main(
        DNN, "--data", write(tmp_path), "--group-by-recording", "--run-dir", tmp_path / "run"
    )
    assert_clear_error(result, "--group-by-recording needs", "X7.F003")


def test_a_user_sees_one_message_and_status_2(run_script, tmp_path):
    write, words = BAD_EEG["text"]
    result = run_script(DNN, "--data", write(tmp_path), "--run-dir", tmp_path / "run")
    assert_clear_error(result, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--batch-size", "-1"]])
def test_bad_arguments(run_main, arguments):
    result = run_main(DNN, *arguments)
    assert result.returncode == 2 and arguments[0] in result.stderr


# --- training ---------------------------------------------------------------------------------


def test_training_writes_everything(trained):
    process, run_dir = trained
    assert process.returncode == 0, process.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["script"] == DNN and metrics["parameters"] == 37_953
    assert "stand-in" in metrics["data"] and metrics["epochs"] == 6 and metrics["seconds"] > 0
    history = pd.read_csv(run_dir / "history.csv")
    assert metrics["best_epoch"] == history["val_roc_auc"].idxmax() + 1
    assert metrics["val"]["roc_auc"] == pytest.approx(history["val_roc_auc"].max(), abs=1e-3)
    assert metrics["best_val_accuracy"] == history["val_accuracy"].max()
    for part in PARTS:
        assert {"loss", "accuracy", "roc_auc", "average_precision"} < metrics[part].keys()
        assert {"precision", "recall", "f1", "recall_op", "f1_op"} < metrics[part].keys()
    assert metrics["val"]["recall_op"] >= 0.95 and 0 < metrics["operating_point"] < 1
    # One checkpoint for each improvement of the validation accuracy, and none else.
    best = history["val_accuracy"].cummax()
    improved = history[best > best.shift(fill_value=-1)]
    names = [
        f"model-weights.{row.epoch + 1:02.0f}-{row.val_accuracy:.6f}.weights.h5"
        for row in improved.itertuples()
    ]
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == names
    assert all(name in process.stdout for name in names)
    for name in PICTURES:
        Image.open(run_dir / name).verify()
    assert list((run_dir / "tb").rglob("events.out.*")) and not (run_dir / "backup").exists()


def test_a_checkpoint_brings_its_epoch_back(trained, dnn):
    _, run_dir = trained
    data, model = dnn.load_data("sample"), dnn.build_network()
    path = sorted((run_dir / "checkpoints").iterdir())[-1]
    model.load_weights(path)
    accuracy = model.evaluate(data["val_X"], data["val_y"], verbose=0, return_dict=True)["accuracy"]
    assert f"-{accuracy:.6f}." in path.name


def test_it_learned(trained):
    """Far past logistic regression, whose AUC is near that of guessing."""
    metrics = json.loads((trained[1] / "metrics.json").read_text())
    assert metrics["test"]["roc_auc"] > 0.85
    assert metrics["test"]["roc_auc"] > metrics["baselines"]["logistic_regression_roc_auc"] + 0.15
    assert metrics["baselines"].keys() == {
        f"{model}_{score}"
        for model in ("logistic_regression", "swing_alone", "extra_trees")
        for score in ("accuracy", "roc_auc")
    }
    assert "logistic regression, worse than the network" in trained[0].stdout
    forest_wins = metrics["baselines"]["extra_trees_roc_auc"] > metrics["test"]["roc_auc"]
    verdict = "better" if forest_wins else "worse"
    assert f"extra trees, {verdict} than the network" in trained[0].stdout


def test_evaluate_repeats_the_scores(trained, run_main):
    _, run_dir = trained
    before = (run_dir / "metrics.json").read_text()
    (run_dir / "curves.png").unlink()
    result = run_main(DNN, "--data", "sample", "--run-dir", run_dir, "--evaluate")
    assert result.returncode == 0
    scores = json.loads(before)["test"]
    assert re.search(rf"test +{scores['accuracy']:.4f} +{scores['roc_auc']:.4f}", result.stdout)
    assert (run_dir / "curves.png").exists()
    assert (run_dir / "metrics.json").read_text() == before


def test_evaluate_refuses_other_rows_and_missing_models(trained, run_main, tmp_path):
    arguments = ("--data", "sample", "--evaluate", "--run-dir")
    result = run_main(DNN, "--group-by-recording", *arguments, trained[1])
    assert_clear_error(result, "other rows")
    assert_clear_error(run_main(DNN, *arguments, tmp_path / "none"), "does not exist", "train")
    assert not (tmp_path / "none").exists()
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04 damaged")
    assert_clear_error(run_main(DNN, *arguments, tmp_path), "cannot be loaded")


def test_best_so_far_survives_a_restart(dnn, tmp_path):
    """The first epoch after a restart must not replace a better one from before."""
    (tmp_path / "history.csv").write_text(
        "epoch,val_accuracy,val_roc_auc\n0,0.5,0.9\n1,0.75,0.8\n2,0.6,0.7\n"
    )
    dnn.build_network().save(tmp_path / "model.keras")
    data = dnn.load_data("sample")

    def thresholds(resuming):
        callbacks = dnn.create_callbacks(tmp_path, data, resuming)
        return [callback.best for callback in callbacks if hasattr(callback, "best")]

    assert thresholds(resuming=True) == [0.75, 0.9]
    assert all(best in (None, -np.inf) for best in thresholds(resuming=False))
    (tmp_path / "model.keras").write_bytes(b"half-written")
    assert all(best in (None, -np.inf) for best in thresholds(resuming=True))


def test_backup_of_other_settings_is_not_resumed(dnn, tmp_path, capsys):
    old = [tmp_path / "backup" / "training_metadata.json", tmp_path / "model.keras"]
    old.append(tmp_path / "checkpoints" / "model-weights.03-0.900000.weights.h5")
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"epoch": 3}')
    (tmp_path / "checkpoints" / "mine.txt").write_text("not ours, stays")
    settings = {"seed": 1, "scaler": dnn.describe_scaler(dnn.load_data("sample")["scaler"])}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert dnn.interrupted_run(tmp_path, settings)
    assert "after epoch 3" in capsys.readouterr().out and all(path.exists() for path in old)
    assert not dnn.interrupted_run(tmp_path, settings | {"seed": 2})
    assert "other settings" in capsys.readouterr().out
    assert not any(path.exists() for path in old)
    assert (tmp_path / "checkpoints" / "mine.txt").exists()


def test_readme_gives_the_figures_of_the_kept_results():
    """Scores of single runs as they are, those of the five splits as mean ± deviation."""
    folder = ROOT / "chapter04"
    readme = (folder / "README.md").read_text()
    results = {path.stem: json.loads(path.read_text()) for path in (folder / "results").iterdir()}
    assert not any("/" in metrics["data"] for metrics in results.values()), "a machine's path"
    for name in ("dnn_eeg", "dnn_eeg_grouped", "jax"):
        assert f"{results[name]['test']['roc_auc']:.3f}" in readme, name
    for suffix in ("", "_grouped"):
        runs = [results[name + suffix] for name in ("dnn_eeg", *SPLITS)]
        scores = {"network": [run["test"]["roc_auc"] for run in runs]}
        for model in ("extra_trees", "swing_alone"):
            scores[model] = [run["baselines"][f"{model}_roc_auc"] for run in runs]
        for model, values in scores.items():
            expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
            assert expected in readme, (model, suffix, expected)


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training; the same command goes on from the last finished epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--epochs", "40", "--run-dir", str(run_dir))
    done = kill_in_training(DNN, arguments, run_dir / "backup", after_epoch=4)
    before = pd.read_csv(run_dir / "history.csv")[:done]

    result = run_script(DNN, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}." in result.stdout
    assert f"Epoch {done + 1}/40" in result.stdout and f"Epoch {done}/40" not in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == list(range(40))
    # It learned on from its weights: no fresh network.
    assert history["loss"].iloc[done] < 0.8 * before["loss"].iloc[0]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None and metrics["epochs"] == 40
    assert metrics["val"]["roc_auc"] >= before["val_roc_auc"].max() - 1e-3


@pytest.mark.slow
def test_jax_backend(run_script, tmp_path):
    """The callback sees the weights of the running epoch there too."""
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        DNN,
        "--data", "sample", "--epochs", 4, "--run-dir", tmp_path / "run",
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["roc_auc"].nunique() > 1
    assert metrics["val"]["roc_auc"] == pytest.approx(history["val_roc_auc"].max(), abs=1e-3)


@pytest.mark.slow
def test_real_eeg(run_script, real_data_dir, tmp_path):
    """Eight of the twenty epochs are enough to be near the figures in the README."""
    result = run_script(
        DNN, "--data", real_data_dir / "eeg.csv", "--epochs", 8, "--run-dir", tmp_path / "run"
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["data"] == "eeg.csv"
    assert metrics["best_val_accuracy"] >= 0.97
    assert metrics["test"]["roc_auc"] >= 0.98
    assert metrics["baselines"]["extra_trees_roc_auc"] >= 0.995
    assert metrics["baselines"]["logistic_regression_roc_auc"] < 0.6
