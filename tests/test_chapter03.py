"""Chapter 3: what TensorBoard gets to see, the broken network and how it gives itself away."""

import inspect
import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, load_script, run_python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def
from tensorboard.util.tensor_util import make_ndarray

MLP, DNN = "chapter03/mlp_wine_tensorboard.py", "chapter03/dnn_wine_tensorboard.py"
BROKEN = "chapter03/dnn_wine_broken.py"
HIDDEN = [f"hidden{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def broken():
    return load_script(BROKEN)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, slow_training):
    """Three runs on the sample side by side in one folder: their names → their processes.

    The broken one starts in the script's own folder.
    """
    log_dir = tmp_path_factory.mktemp("tb")
    jobs = {
        "mlp": (MLP, ROOT, 4),
        "dnn": (DNN, ROOT, 12),
        "dnn_broken": (BROKEN, ROOT / "chapter03", 12),
    }
    output = {}
    for name, (script, cwd, epochs) in jobs.items():
        arguments = ["--data", "sample", "--epochs", epochs, "--run-dir", log_dir / name]
        process = run_python(script, *arguments, cwd=cwd)
        assert process.returncode == 0, process.stderr
        output[name] = process.stdout
    return log_dir, output


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def read_histogram(events, tag):
    """Of the last epoch: rows of left edge, right edge, count."""
    return make_ndarray(events.Tensors(tag)[-1].tensor_proto)


@pytest.mark.parametrize(
    ("run", "epochs", "weighted"),
    [
        ("mlp", 4, ["hidden", "final"]),
        ("dnn", 12, [*HIDDEN, "final"]),
        ("dnn_broken", 12, [*HIDDEN, "final"]),
    ],
)
def test_curves_histograms_and_graph_are_in_the_log(runs, run, epochs, weighted):
    log_dir, _ = runs
    train, val = read_events(log_dir / run / "train"), read_events(log_dir / run / "validation")
    history = pd.read_csv(log_dir / run / "history.csv")
    for events, column in ((train, "loss"), (val, "val_loss")):
        curve = [float(make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_loss")]
        np.testing.assert_allclose(curve, history[column], rtol=1e-5)
    for layer in weighted:
        for weights in ("kernel", "bias"):
            tag = f"{layer}/{weights}/histogram"
            assert [event.step for event in train.Tensors(tag)] == list(range(epochs))
            assert train.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
    # TensorBoard can turn the logged network into the graph that it draws, layer after layer.
    config = json.loads(make_ndarray(train.Tensors("keras")[0].tensor_proto).item())
    nodes = {node.name: list(node.input) for node in keras_model_to_graph_def(config).node}
    chain = [f"{run}/{layer}" for layer in ["input", *weighted]]
    assert list(nodes) == chain
    assert [nodes[name] for name in chain[1:]] == [[name] for name in chain[:-1]]


def test_histograms_show_the_fault(runs):
    """Random weights fill the histogram; 320 equal starts leave at most ten different values."""
    log_dir, _ = runs
    counts = {}
    for run in ("dnn", "dnn_broken"):
        histogram = read_histogram(read_events(log_dir / run / "train"), "hidden1/kernel/histogram")
        assert histogram[:, 2].sum() == 320
        counts[run] = np.count_nonzero(histogram[:, 2])
    assert counts["dnn_broken"] <= 10 < counts["dnn"]


def test_metrics_and_summary(runs):
    log_dir, output = runs
    for run, script, parameters in (
        ("mlp", MLP, 385),
        ("dnn", DNN, 4065),
        ("dnn_broken", BROKEN, 4065),
    ):
        metrics = json.loads((log_dir / run / "metrics.json").read_text())
        assert metrics["script"] == script and metrics["parameters"] == parameters
        assert {"mae", "rmse", "mae_abv", "rmse_abv"} == metrics["test"].keys()
        assert metrics["baselines"].keys() == {"median_mae", "linear_regression_mae"}
        assert metrics["epochs"] == len(pd.read_csv(log_dir / run / "history.csv"))
        assert f"tensorboard --logdir {log_dir} --port 6006" in output[run]
        assert (log_dir / run / "model.keras").exists()
        assert not (log_dir / run / "backup").exists()


def test_the_sound_network_learns_and_the_broken_one_does_not(runs):
    log_dir, output = runs
    sound, broken = (
        json.loads((log_dir / run / "metrics.json").read_text()) for run in ("dnn", "dnn_broken")
    )
    assert sound["val"]["mae"] < 0.5
    assert broken["val"]["mae"] > 0.7
    assert max(broken["unit_spread"].values()) < 1e-4
    assert f"copies of each other in {', '.join(HIDDEN)}" in " ".join(output["dnn_broken"].split())


def test_the_verdict_follows_the_measurement(broken, capsys):
    """Sound, broken, and broken in one layer only: each is told from the weights alone."""
    sound = broken.build_network(kernel_initializer="glorot_uniform")
    spread = broken.unit_spread(sound)
    # Glorot's uniform weights have a standard deviation of sqrt(2 / (inputs + units)).
    assert spread["hidden1"] == pytest.approx(np.sqrt(2 / (10 + 32)), rel=0.15)
    assert list(spread) == HIDDEN
    suspect = broken.build_network(kernel_initializer="glorot_uniform")
    assert broken.find_copies(suspect, sound) == []
    assert "symmetry is not what is wrong" in capsys.readouterr().out
    assert broken.find_copies(broken.build_network(), sound) == HIDDEN
    layer = suspect.get_layer("hidden3")
    kernel, bias = layer.get_weights()
    layer.set_weights([np.repeat(kernel[:, :1], 32, axis=1), bias])
    assert broken.find_copies(suspect, sound) == ["hidden3"]
    assert "copies of each other in hidden3" in capsys.readouterr().out


@pytest.mark.slow
def test_units_stay_equal_through_training_only_when_they_start_equal(broken):
    import keras

    data = broken.load_data("sample")
    after = {}
    for start in ("glorot_uniform", broken.SAME_VALUE):
        keras.utils.set_random_seed(1)
        model = broken.build_network(kernel_initializer=start)
        before = model.get_weights()
        model.fit(data["train_X"], data["train_y"], epochs=2, verbose=0)
        assert not np.allclose(before[0], model.get_weights()[0])  # it did move
        after[str(start)] = broken.unit_spread(model)
    sound, same = after.values()
    for name in HIDDEN:
        assert same[name] < 1e-5 < 0.1 < sound[name]


def test_same_data_and_networks_as_chapter_2():
    """What the README promises: only the callbacks (and the fault) are new."""
    for script, origin in ((MLP, "mlp_wine"), (DNN, "dnn_wine"), (BROKEN, "dnn_wine")):
        chapter_2 = load_script(f"chapter02/{origin}.py")
        for function in ("load_data", "read_wines", "split_wines"):
            here = inspect.getsource(getattr(load_script(script), function))
            assert here == inspect.getsource(getattr(chapter_2, function))
        names = [layer.name for layer in load_script(script).build_network().layers]
        assert names == [layer.name for layer in chapter_2.build_network().layers]


def test_a_new_run_does_not_draw_into_the_old_curves(broken, tmp_path):
    settings = {"seed": 2, "scaler": broken.describe_scaler(broken.load_data("sample")["scaler"])}
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.out.tfevents.1").write_text("of an earlier run")
    assert not broken.interrupted_run(tmp_path, settings)
    assert not list(tmp_path.rglob("events.out*"))


def test_evaluate_judges_the_saved_network(runs, broken, monkeypatch, capsys):
    log_dir, _ = runs
    arguments = ["--data", "sample", "--run-dir", str(log_dir / "dnn_broken"), "--evaluate"]
    monkeypatch.setattr(sys, "argv", [BROKEN, *arguments])
    broken.main()
    assert "copies of each other" in capsys.readouterr().out
    # The sound network's run: same layers, other verdict.
    monkeypatch.setattr(sys, "argv", [BROKEN, *arguments[:3], str(log_dir / "dnn"), "--evaluate"])
    broken.main()
    assert "symmetry is not what is wrong" in capsys.readouterr().out


@pytest.mark.parametrize("script", [MLP, DNN, BROKEN])
def test_bad_input(monkeypatch, capsys, tmp_path, script):
    """One case for each: chapter 2 has them all, and the readers are the same (see above)."""
    (tmp_path / "bad.csv").write_text("pH;alcohol\n3;sour\n")
    arguments = ["--data", str(tmp_path / "bad.csv"), "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as stop:
        load_script(script).main()
    result = SimpleNamespace(returncode=stop.value.code, stdout="", stderr=capsys.readouterr().err)
    assert_clear_error(result, "bad.csv", "column missing")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_jax_backend_logs_the_same(run_script, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        BROKEN,
        "--data", "sample", "--epochs", 3, "--run-dir", tmp_path / "run",
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "copies of each other" in result.stdout
    train = read_events(tmp_path / "run" / "train")
    assert len(train.Tensors("hidden1/kernel/histogram")) == 3
    assert len(train.Tensors("keras")) == 1
