"""Chapter 4: the split by recordings, the ROC AUC callback, the operating point, prediction."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python
from PIL import Image
from sklearn.metrics import roc_auc_score

DNN, PREP, PREDICT = (f"chapter04/{name}.py" for name in ("dnn_eeg", "data_prep", "predict"))
SAMPLE = ROOT / "data" / "samples" / "eeg.csv"
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def dnn():
    return load_script(DNN)


@pytest.fixture(scope="module")
def roc():
    return load_script("chapter04/roc_callback.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    """The run folder of six epochs on the sample, and what it printed."""
    folder = tmp_path_factory.mktemp("eeg") / "run"
    result = run_python(DNN, "--data", "sample", "--epochs", 6, "--run-dir", folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    """Call a script's `main` as from a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        return load_script(script).main()

    return run


def make_rows(n=100, rows=7, **columns):
    """A table of `n` rows of noise, with these columns behind it."""
    noise = np.random.default_rng(0).normal(size=(n, rows)).round(3)
    return pd.DataFrame(noise, columns=[f"a{i}" for i in range(rows)]).assign(**columns)


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
def test_split_has_each_row_once_and_recordings_whole(dnn, grouped):
    data = dnn.load_data("sample", group_by_recording=grouped)
    again = dnn.load_data("sample", group_by_recording=grouped)
    assert all(np.array_equal(data[key], again[key]) for key in data)
    other = dnn.load_data("sample", group_by_recording=grouped, split=1)
    assert not np.array_equal(other["test_groups"], data["test_groups"])
    sizes = np.array([len(data[f"{part}_y"]) for part in PARTS])
    np.testing.assert_allclose(sizes / 2070, [0.8, 0.1, 0.1], atol=0.03)
    rows = np.concatenate([np.c_[data[f"{part}_X"], data[f"{part}_y"]] for part in PARTS])
    table = pd.read_csv(SAMPLE)
    expected = table.iloc[:, 1:].assign(y=table["y"] == 1).to_numpy("float32")
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    for part in PARTS:
        assert data[f"{part}_y"].mean() == pytest.approx(0.2, abs=0.03 if grouped else 0.003)
    known = {tuple(row): id_.split(".")[1] for id_, *row in table.iloc[:, :-1].itertuples(False)}
    train, val, test = ({known[tuple(row)] for row in data[f"{part}_X"]} for part in PARTS)
    assert (train | val).isdisjoint(test) and train.isdisjoint(val) if grouped else test < train
    assert set(data["test_groups"]) == test if grouped else len(data["test_groups"]) == sizes[2]


def test_split_of_the_real_set_has_the_books_sizes(dnn, real_data_dir):
    for grouped in (False, True):
        data = dnn.load_data(real_data_dir / "eeg.csv", group_by_recording=grouped)
        assert [len(data[f"{part}_y"]) for part in PARTS] == [9200, 1150, 1150]
        assert [data[f"{part}_y"].sum() for part in PARTS] == [1840, 230, 230]


def test_ids_with_and_without_a_name_are_no_numbers_to_learn_from(dnn, tmp_path):
    expected = dnn.load_data("sample", group_by_recording=True)
    assert expected["columns"] == [f"X{i}" for i in range(1, 179)]
    table = pd.read_csv(SAMPLE)
    ids = table.iloc[:, 0]
    for separator, name, column in (
        (",", "id", ids),
        (";", "", ids.str.replace(".", ".V1.", n=1)),
        ("\t", "", ids.index),
    ):
        table.columns = [name, *table.columns[1:]]
        table[name] = column
        table.to_csv(tmp_path / "x.csv", sep=separator, index=False, encoding="utf-8-sig")
        data = dnn.load_data(tmp_path / "x.csv", group_by_recording=column is not ids.index)
        assert data["columns"] == expected["columns"]
        if column is not ids.index:
            assert np.array_equal(data["test_X"], expected["test_X"])


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([0, 1, 1, 1], ["not 1", "1"]),  # 1, though it is not the rarer
        (["well", "well", "ill", "well"], ["not ill", "ill"]),  # the rarer of two
        (["yes", "no", "yes", "yes"], ["not no", "no"]),
        ([5, 2, 1, 3], ["not 1", "1"]),  # the book's states
        ([True, False, False, False], ["not 1", "1"]),
    ],
)
def test_own_tables_with_other_columns_and_labels(dnn, tmp_path, classes, names):
    make_rows(kind=np.tile(classes, 25)).to_csv(tmp_path / "last.csv", index=False)
    table = make_rows(kind=np.tile(classes, 25), more=1.5)
    table.to_csv(tmp_path / "named.csv", index=False)
    for file, label, columns in (("last.csv", None, 7), ("named.csv", "kind", 8)):
        data = dnn.load_data(tmp_path / file, label)
        assert data["class_names"] == names and len(data["columns"]) == columns
        y = np.concatenate([data[f"{part}_y"] for part in PARTS])
        assert y.sum() == 25 * sum(str(kind).replace("True", "1") == names[1] for kind in classes)
        first = {tuple(row): kind for *row, kind in table.drop(columns="more").itertuples(False)}
        for row, answer in zip(data["val_X"], data["val_y"], strict=True):
            (kind,) = [k for key, k in first.items() if np.allclose(key, row[:7])]
            assert (str(kind).replace("True", "1") == names[1]) == answer


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (make_rows(y=np.arange(100) % 2), {"group_by_recording": True}, "ten recordings"),
        (make_rows(y=np.arange(100) % 2), {"label": "ill"}, "no column ill"),
        (make_rows(y=np.arange(100) % 3), {}, "3 classes"),
        (make_rows(y=np.arange(100) < 9), {}, "ten rows"),
        (make_rows(y=["a", None] * 50), {}, "a class in each row"),
    ],
)
def test_tables_that_are_refused(dnn, tmp_path, table, options, words):
    table.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match=words):
        dnn.load_data(tmp_path / "x.csv", **options)


def test_data_prep_writes_the_rows_the_script_splits_off(dnn, tmp_path, run_main):
    run_main(PREP, "--data", "sample", "--group-by-recording")
    expected = dnn.load_data("sample", group_by_recording=True)
    for part in PARTS:
        rows = pd.read_csv(tmp_path / "runs" / "eeg" / part / f"{part}_data.csv")
        assert list(rows) == [*expected["columns"], "y"]
        assert np.array_equal(rows.pop("y"), expected[f"{part}_y"])
        assert np.array_equal(rows.to_numpy("float32"), expected[f"{part}_X"])
    with pytest.raises(SystemExit, match="error: .*File exists"):
        run_main(PREP, "--data", "sample")


# --- network, callback, operating point -------------------------------------------------------


def test_network_is_the_books_and_takes_rows_as_measured(dnn):
    import keras

    X = dnn.load_data("sample")["train_X"]
    model = dnn.build_network(X)
    assert sum(weight.shape.num_elements() for weight in model.trainable_weights) == 37_953
    names = ["input", "scale", *(f"hidden{number}" for number in range(1, 6)), "final"]
    assert [layer.name for layer in model.layers] == names
    assert [layer.units for layer in model.layers[2:]] == [128, 64, 64, 32, 16, 1]
    activations = [layer.activation.__name__ for layer in model.layers[2:]]
    assert activations == ["relu"] * 5 + ["sigmoid"] and model.loss == "binary_crossentropy"
    scaled = keras.Model(model.input, model.get_layer("scale").output).predict(X, verbose=0)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)


def test_callback_equals_scikit_learn_and_the_others_see_it(dnn, roc, tmp_path):
    import keras

    data, seen = {name: rows[:160] for name, rows in dnn.load_data("sample").items()}, []

    def collect(epoch, logs):
        for part, name in (("train", "roc_auc"), ("val", "val_roc_auc")):
            p = recorder.model.predict(data[f"{part}_X"], verbose=0)
            seen.append((logs[name], roc_auc_score(data[f"{part}_y"], p)))

    recorder = keras.callbacks.LambdaCallback(on_epoch_end=collect)
    roc_auc = roc.RocAUCScore(*((data[f"{part}_X"], data[f"{part}_y"]) for part in PARTS[:2]))
    log = keras.callbacks.CSVLogger(tmp_path / "history.csv")
    keras.utils.set_random_seed(1)
    model = dnn.build_network(data["train_X"])
    options = {"epochs": 2, "verbose": 0, "callbacks": [roc_auc, recorder, log]}
    history = model.fit(data["train_X"], data["train_y"], **options).history
    logged, expected = np.array(seen).T
    np.testing.assert_allclose(logged, expected, atol=1e-6)
    table = pd.read_csv(tmp_path / "history.csv")
    assert table["val_roc_auc"].tolist() == history["val_roc_auc"] == logged[1::2].tolist()
    assert logged[0] != logged[2]  # measured anew


def test_callback_takes_the_second_of_two_softmax_units(roc):
    rng = np.random.default_rng(0)
    y, logs = np.arange(200) % 2, {}
    X = (rng.normal(size=(200, 2)) + 2 * y[:, None]).astype("float32")
    callback = roc.RocAUCScore((X, y), (X[:50], y[:50]))
    for outputs in (2, 3):  # "probabilities" of which the last tells the class
        network = SimpleNamespace(
            predict=lambda X, n=outputs, **_: np.c_[np.zeros((len(X), n - 1)), X[:, 1]]
        )
        callback.set_model(network)
        if outputs == 2:
            callback.on_epoch_end(0, logs)
    assert logs["roc_auc"] == pytest.approx(roc_auc_score(y, X[:, 1])) and logs["roc_auc"] > 0.9
    with pytest.raises(ValueError, match="one or two outputs"):
        callback.on_epoch_end(0, logs)
    with pytest.raises(ValueError, match="val_roc_auc is defined for two classes"):
        roc.RocAUCScore((X, y), (X, y * 0))


def test_class_from_prob_leaves_the_probabilities_alone(dnn):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    probabilities = np.clip(rng.normal(0.35 + 0.3 * y, 0.2), 0, 1)
    kept, auc = probabilities.copy(), roc_auc_score(y, probabilities)
    assert list(dnn.class_from_prob([[0.2], [0.5], [0.7]])[:, 0]) == [0, 1, 1]
    assert list(dnn.class_from_prob(np.array([0.2, 0.5, 0.7]), operating_point=0.6)) == [0, 0, 1]
    classes = dnn.class_from_prob(probabilities)
    assert np.array_equal(probabilities, kept)
    # What the book's version would leave to be scored: two values, and a smaller area.
    assert roc_auc_score(y, classes) < auc - 0.02


@pytest.mark.parametrize("found", [0.15, 0.35, 0.45, 0.8, 0.999])
def test_operating_point_never_finds_fewer_than_a_half_would(dnn, found):
    """However sure the network is of its validation rows: on a good one 0.999 found 95 % there."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 301)
    probabilities = np.clip(rng.normal(found * y, 0.1), 0, 1).astype("float32")
    point = dnn.choose_operating_point(y, probabilities)

    def recall(at):
        return dnn.class_from_prob(probabilities, at)[y == 1].mean()

    if found > 0.7:
        assert recall(0.5) > 0.95 and point == 0.5
    else:  # lower, but no lower than it must be
        assert recall(0.5) < 0.95 <= recall(point) and point < 0.5
        assert recall(point * 1.0001) < 0.95


def test_compare_aucs_knows_its_error(roc):
    """Against DeLong and others (1988); rows that repeat in a group tell nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(500) % 5 == 0
    signal = y + rng.normal(size=500)
    ours, theirs = signal + rng.normal(0, 0.3, 500), signal + rng.normal(0, 0.6, 500)
    gap, error = roc.compare_aucs(y, ours, theirs, np.arange(500))
    assert gap == pytest.approx(roc_auc_score(y, ours) - roc_auc_score(y, theirs))
    wins = [np.subtract.outer(p[y], p[~y]) > 0 for p in (ours, theirs)]
    more = wins[0] * 1.0 - wins[1]
    delong = np.sqrt(more.mean(1).var(ddof=1) / y.sum() + more.mean(0).var(ddof=1) / (~y).sum())
    assert error == pytest.approx(delong, rel=0.15)
    rows = np.repeat(np.arange(500), 4)
    grouped = roc.compare_aucs(y[rows], ours[rows], theirs[rows], rows)
    assert grouped == pytest.approx((gap, error))
    alone = roc.compare_aucs(y[rows], ours[rows], theirs[rows], np.arange(2000))
    assert alone[1] == pytest.approx(error / 2, rel=0.3)


@pytest.mark.parametrize("switches", [[], ["--balanced"]])
def test_balanced_weighs_both_classes_alike(dnn, run_main, monkeypatch, switches):
    import keras

    given = {}

    def fit(model, *args, **options):
        given.update(options)
        sys.exit()

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(SystemExit):
        run_main(DNN, "--data", "sample", *switches)
    weights = pytest.approx({0: 1, 1: 4}, rel=1e-3) if switches else None
    assert given["class_weight"] == weights


# --- runs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learned_what_a_linear_model_cannot(trained):
    run_dir, output = trained
    metrics = read_metrics(run_dir)
    assert metrics["test"]["roc_auc"] > 0.95
    assert metrics["test"]["roc_auc"] > metrics["logistic_regression"]["roc_auc"] + 0.3
    assert metrics["swing_alone"]["roc_auc"] > 0.95
    assert metrics["test"]["recall_at_operating_point"] >= metrics["test"]["recall_at_half"]
    assert metrics["operating_point"] <= 0.5
    history = pd.read_csv(run_dir / "history.csv")
    assert metrics["best_val_accuracy"] == history["val_accuracy"].max()
    assert metrics["val"]["roc_auc"] == pytest.approx(history["val_roc_auc"].max(), abs=1e-6)
    assert "X1 to X178" in output and "minus that of extra_trees" in output
    for name in ("learning_curves", "curves"):
        with Image.open(run_dir / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.slow
def test_evaluate_refuses_rows_it_was_trained_on(trained, run_main):
    """Another split would have training rows among its test rows."""
    for switches in (["--group-by-recording"], ["--split", 1]):
        with pytest.raises(SystemExit, match="other columns, classes or rows"):
            run_main(DNN, "--data", "sample", "--evaluate", "--run-dir", trained[0], *switches)


@pytest.mark.slow
def test_predict_classifies_rows_as_they_come(trained, dnn, run_main, tmp_path, capsys):
    import keras

    run_dir, _ = trained
    table = pd.read_csv(SAMPLE, dtype=str).iloc[:40]
    table = table[table.columns[::-1]].assign(note="NA")  # another order, and more columns
    table.to_csv(tmp_path / "new.csv", sep=";", index=False)
    usual = [PREDICT, "new.csv", "--run-dir", run_dir]
    run_main(*usual, "--output", "out.csv")
    out = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    given = pd.read_csv(tmp_path / "new.csv", sep=";", dtype=str, keep_default_na=False)
    assert out[list(given)].equals(given)
    model = keras.models.load_model(run_dir / "model.keras")
    X = table[dnn.load_data("sample")["columns"]].to_numpy("float32")
    p = model.predict(X, verbose=0)[:, 0]
    np.testing.assert_allclose(out["probability"].astype(float), p, rtol=1e-4, atol=1e-9)
    point = read_metrics(run_dir)["operating_point"]
    assert out["class"].tolist() == np.where(p >= point, "1", "not 1").tolist()
    assert (out["class"] == "1").sum() > 0
    capsys.readouterr()
    run_main(*usual, "--operating-point", 1.1)
    assert capsys.readouterr().out.count("not 1") > 5
    table.drop(columns="X7").to_csv(tmp_path / "less.csv", index=False)
    for words, arguments in (
        ("File exists", [*usual, "--output", "out.csv"]),  # its file stays
        ("X7", [PREDICT, "less.csv", "--run-dir", run_dir]),
        ("No such file", [PREDICT, "none.csv", "--run-dir", run_dir]),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{words}"):
            run_main(*arguments)


@pytest.mark.slow
def test_jax_backend(run_script, tmp_path):
    """The callback sees the weights of the running epoch there too."""
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    arguments = ["--data", "sample", "--epochs", 3, "--balanced", "--run-dir", tmp_path / "run"]
    result = run_script(DNN, *arguments, env={"KERAS_BACKEND": "jax"})
    assert result.returncode == 0, result.stderr
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["roc_auc"].nunique() > 1
    best = read_metrics(tmp_path / "run")["val"]["roc_auc"]
    assert best == pytest.approx(history["val_roc_auc"].max(), abs=1e-6)


@pytest.mark.slow
def test_real_eeg(run_script, real_data_dir, tmp_path):
    """Eight of the twenty epochs are enough to be near the figures in the README."""
    arguments = ["--data", real_data_dir / "eeg.csv", "--epochs", 8, "--run-dir", tmp_path / "run"]
    result = run_script(DNN, *arguments)
    assert result.returncode == 0, result.stderr
    metrics = read_metrics(tmp_path / "run")
    assert metrics["best_val_accuracy"] >= 0.97 and metrics["test"]["roc_auc"] >= 0.98
    assert metrics["extra_trees"]["roc_auc"] >= 0.995
    assert metrics["logistic_regression"]["roc_auc"] < 0.6
