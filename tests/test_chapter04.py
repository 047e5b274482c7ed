"""Chapter 4: the split by recordings, the ROC AUC callback, the operating point, prediction."""

import json
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script
from sklearn.metrics import roc_auc_score

dnn, roc = (load_script(f"chapter04/{name}.py") for name in ("dnn_eeg", "roc_callback"))
SAMPLE = ROOT / "data" / "samples" / "eeg.csv"
PARTS = ("train", "val", "test")
NOISE = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 7))).add_prefix("a")


def run_main(script, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        load_script(f"chapter04/{script}.py").main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    folder = tmp_path_factory.mktemp("run")
    run_main("dnn_eeg", "--data", "sample", "--epochs", 4, "--run-dir", folder)
    return folder


@pytest.mark.parametrize("grouped", [False, True])
def test_split_has_each_row_once_and_recordings_whole(grouped):
    data = dnn.load_data("sample", group_by_recording=grouped)
    other = dnn.load_data("sample", group_by_recording=grouped, split=1)
    assert not np.array_equal(other["test_groups"], data["test_groups"])
    sizes = np.array([len(data[f"{part}_y"]) for part in PARTS])
    np.testing.assert_allclose(sizes / 2070, [0.8, 0.1, 0.1], atol=0.03)
    rows = np.concatenate([np.c_[data[f"{part}_X"], data[f"{part}_y"]] for part in PARTS])
    table = pd.read_csv(SAMPLE)
    assert data["columns"] == [f"X{i}" for i in range(1, 179)]
    expected = table.iloc[:, 1:].assign(y=table["y"] == 1).to_numpy("float32")
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    for part in PARTS:
        assert data[f"{part}_y"].mean() == pytest.approx(0.2, abs=0.03 if grouped else 0.003)
    known = {tuple(row): id_.split(".")[1] for id_, *row in table.iloc[:, :-1].itertuples(False)}
    train, val, test = ({known[tuple(row)] for row in data[f"{part}_X"]} for part in PARTS)
    assert (train | val).isdisjoint(test) and train.isdisjoint(val) if grouped else test < train


@pytest.mark.parametrize("name", ["", "id"])
def test_ids_are_no_numbers_to_learn_from(tmp_path, name):
    table = pd.read_csv(SAMPLE).rename(columns={"Unnamed: 0": name})
    table[name] = table[name].str.replace(".", ".V1.", n=1)
    table.to_csv(tmp_path / "x.csv", sep=";", index=False, encoding="utf-8-sig")
    found = dnn.load_data(tmp_path / "x.csv", group_by_recording=True)
    expected = dnn.load_data("sample", group_by_recording=True)
    assert np.array_equal(found["test_X"], expected["test_X"])


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        ([0, 1, 1, 1], 1),  # though it is not the rarer
        (["well", "well", "ill", "well"], "ill"),  # the rarer of two
        ([5, 2, 1, 3], 1),  # the book's states
    ],
)
def test_own_tables_with_other_columns_and_labels(tmp_path, classes, positive):
    kinds = np.tile(classes, 25)
    is_positive = dict(zip(NOISE["a0"].astype("float32"), kinds == positive, strict=True))
    for more, label in (({}, None), ({"more": 1.5}, "kind")):  # the last column, or named
        NOISE.assign(kind=kinds, **more).to_csv(tmp_path / "own.csv", index=False)
        data = dnn.load_data(tmp_path / "own.csv", label)
        assert data["class_names"] == [f"not {positive}", str(positive)]
        assert len(data["columns"]) == 7 + len(more)
        for part in PARTS:
            answers = [is_positive[x] for x in data[f"{part}_X"][:, 0]]
            assert data[f"{part}_y"].tolist() == answers


def test_tables_that_are_refused(tmp_path):
    y = np.arange(100) % 2
    for answers, options, words in (
        (y, {"group_by_recording": True}, "an id is not like X7.F003"),
        (y, {"label": "ill"}, "'ill'] not found"),
        (["a", None] * 50, {}, "or empty cells"),
    ):
        NOISE.assign(y=answers).to_csv(tmp_path / "x.csv", index=False)
        with pytest.raises((ValueError, KeyError), match=words):
            dnn.load_data(tmp_path / "x.csv", **options)


def test_data_prep_writes_the_rows_the_script_splits_off(tmp_path):
    usual = ["data_prep", "--data", "sample", "--group-by-recording", "--output", tmp_path]
    run_main(*usual)
    expected = dnn.load_data("sample", group_by_recording=True)
    for part in PARTS:
        rows = pd.read_csv(tmp_path / part / f"{part}_data.csv")
        assert list(rows) == [*expected["columns"], "y"]
        assert np.array_equal(rows, np.c_[expected[f"{part}_X"], expected[f"{part}_y"]])
    with pytest.raises(SystemExit, match="error: .*File exists"):
        run_main(*usual)


def test_network_is_the_books_and_takes_rows_as_measured():
    X = 100 * np.random.default_rng(0).normal(1, 1, (50, 178)).astype("float32")
    model = dnn.build_network(X)
    assert sum(weight.shape.num_elements() for weight in model.trainable_weights) == 37_953
    names = ["input", "scale", *(f"hidden{number}" for number in range(1, 6)), "final"]
    assert [layer.name for layer in model.layers] == names
    assert [layer.activation.__name__ for layer in model.layers[2:]] == ["relu"] * 5 + ["sigmoid"]
    scaled = np.asarray(model.get_layer("scale")(X))
    np.testing.assert_allclose([scaled.mean(axis=0), scaled.std(axis=0) - 1], 0, atol=1e-4)


def test_callback_equals_scikit_learn_and_the_others_see_it(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(60, 5)).astype("float32"), np.arange(60) % 2
    model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(0.5), "binary_crossentropy", run_eagerly=True)
    roc_auc = roc.RocAUCScore((X[:40], y[:40]), (X[40:], y[40:]))
    log = keras.callbacks.CSVLogger(tmp_path / "history.csv")
    model.fit(X, y, epochs=3, verbose=0, callbacks=[roc_auc, log])
    found, p = pd.read_csv(tmp_path / "history.csv"), model.predict(X, verbose=0)
    for name, rows in (("roc_auc", slice(40)), ("val_roc_auc", slice(40, 60))):
        assert found[name].iloc[-1] == pytest.approx(roc_auc_score(y[rows], p[rows]), abs=1e-6)
    assert found["roc_auc"].nunique() > 1  # measured anew


def test_callback_takes_the_second_of_two_softmax_units():
    y, logs = np.arange(200) % 2, {}
    X = np.random.default_rng(0).normal(size=(200, 1)) + 2 * y[:, None]
    callback = roc.RocAUCScore((X, y), (X[:50], y[:50]))
    callback.set_model(SimpleNamespace(predict=lambda X, **_: np.c_[-X, X]))
    callback.on_epoch_end(0, logs)
    assert logs["roc_auc"] == pytest.approx(roc_auc_score(y, X)) and logs["roc_auc"] > 0.9
    callback.set_model(SimpleNamespace(predict=lambda X, **_: np.c_[-X, X, X]))
    with pytest.raises(ValueError, match="one or two outputs"):
        callback.on_epoch_end(0, logs)
    for wrong in (y * 0, np.eye(2)[y]):
        with pytest.raises(ValueError, match="val_roc_auc needs a label a row, of two classes"):
            roc.RocAUCScore((X, y), (X, wrong))


@pytest.mark.parametrize("found", [0.15, 0.45, 0.8, 0.999])
def test_operating_point_never_finds_fewer_than_a_half_would(found):
    """However sure the network is of its validation rows: on a good one 0.999 found 95 % there."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 301)
    probabilities = np.clip(rng.normal(found * y, 0.1), 0, 1).astype("float32")
    point = dnn.choose_operating_point(y, probabilities)

    answers = [dnn.class_from_prob(probabilities, at) for at in (0.5, point, point * 1.0001)]
    assert len(set(probabilities)) > 2  # the book's function writes its answers over them
    half, chosen, higher = (answer[y == 1].mean() for answer in answers)
    if found > 0.7:
        assert half > 0.95 and point == 0.5
    else:  # lower, but no lower than it must be
        assert half < 0.95 <= chosen and higher < 0.95 and point < 0.5


def test_compare_aucs_knows_its_error():
    """Against DeLong and others (1988); rows that repeat in a group tell nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 5 == 0
    signal = y + rng.normal(size=300)
    ours, theirs = signal + rng.normal(0, 0.3, 300), signal + rng.normal(0, 0.6, 300)
    gap, error = roc.compare_aucs(y, ours, theirs, np.arange(300))
    assert gap == pytest.approx(roc_auc_score(y, ours) - roc_auc_score(y, theirs))
    wins = [np.subtract.outer(p[y], p[~y]) > 0 for p in (ours, theirs)]
    more = wins[0] * 1.0 - wins[1]
    delong = np.sqrt(more.mean(1).var(ddof=1) / y.sum() + more.mean(0).var(ddof=1) / (~y).sum())
    assert error == pytest.approx(delong, rel=0.15)
    rows = np.repeat(np.arange(300), 2)
    assert roc.compare_aucs(y[rows], ours[rows], theirs[rows], rows) == pytest.approx((gap, error))


def test_balanced_weighs_both_classes_alike(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **options: given.append(options) or 1 / 0)
    for name, switches in (("plain", []), ("balanced", ["--balanced"])):
        with pytest.raises(ZeroDivisionError):
            run_main("dnn_eeg", "--data", "sample", "--run-dir", tmp_path / name, *switches)
    plain, balanced = (options["class_weight"] for options in given)
    assert plain is None and balanced == pytest.approx({0: 1, 1: 4}, rel=1e-3)


def test_it_learned_what_a_linear_model_cannot(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test"]["roc_auc"] > max(0.95, metrics["logistic_regression"]["roc_auc"] + 0.3)
    assert metrics["test"]["recall_at_operating_point"] >= metrics["test"]["recall_at_half"]
    assert metrics["roc_auc_gap_error"] > 0 and metrics["operating_point"] <= 0.5
    history = pd.read_csv(trained / "history.csv")
    assert metrics["best_val_accuracy"] == history["val_accuracy"].max()
    # Another split would have training rows among its test rows.
    for switches in (["--group-by-recording"], ["--split", 1]):
        with pytest.raises(SystemExit, match="other columns, classes or rows"):
            run_main("dnn_eeg", "--data", "sample", "--evaluate", "--run-dir", trained, *switches)


def test_predict_classifies_rows_as_they_come(trained, tmp_path):
    table = pd.read_csv(SAMPLE, dtype=str).iloc[:40]
    X = table.iloc[:, 1:-1].to_numpy("float32")
    table = table[table.columns[::-1]].assign(note="NA")  # another order, and more columns
    table.to_csv(tmp_path / "new.csv", sep=";", index=False)
    usual = ["predict", tmp_path / "new.csv", "--run-dir", trained]
    run_main(*usual, "--output", tmp_path / "out.csv")
    out = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    assert np.array_equal(out.iloc[:, :-2], table)  # as it was given
    p = keras.models.load_model(trained / "model.keras").predict(X, verbose=0)[:, 0]
    np.testing.assert_allclose(out["predicted_probability"].astype(float), p, rtol=1e-4, atol=1e-9)
    point = json.loads((trained / "metrics.json").read_text())["operating_point"]
    assert out["predicted_class"].tolist() == np.where(p >= point, "1", "not 1").tolist()
    assert 0 < (p >= point).sum() < 40
    with pytest.raises(SystemExit, match="^error: .*File exists"):
        run_main(*usual, "--output", tmp_path / "out.csv")
    table.drop(columns="X7").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(SystemExit, match="^error: .*X7"):
        run_main(*usual)


@pytest.mark.slow
def test_real_eeg(real_data_dir, tmp_path):
    """The book's sizes; eight of the twenty epochs are near the figures in the README."""
    for grouped in (False, True):
        data = dnn.load_data(real_data_dir / "eeg.csv", group_by_recording=grouped)
        assert [len(data[f"{part}_y"]) for part in PARTS] == [9200, 1150, 1150]
        assert [data[f"{part}_y"].sum() for part in PARTS] == [1840, 230, 230]
    run_main("dnn_eeg", "--data", real_data_dir / "eeg.csv", "--epochs", 8, "--run-dir", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["best_val_accuracy"] >= 0.97 and metrics["test"]["roc_auc"] >= 0.98
    assert metrics["extra_trees"]["roc_auc"] >= 0.995
