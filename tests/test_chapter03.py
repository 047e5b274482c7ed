"""Chapter 3: what TensorBoard gets to see, the broken network and how it gives itself away."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import load_script, run_python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def
from tensorboard.util.tensor_util import make_ndarray

MLP, DNN = "chapter03/mlp_wine_tensorboard.py", "chapter03/dnn_wine_tensorboard.py"
BROKEN, COPIES = "chapter03/dnn_wine_broken.py", "chapter03/find_copies.py"
HIDDEN = [f"hidden{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def broken():
    return load_script(BROKEN)


@pytest.fixture(scope="module")
def find_copies():
    return load_script(COPIES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, slow_training):
    """Three runs on the sample side by side in one folder, the author's broken network on all."""
    log_dir = tmp_path_factory.mktemp("runs")
    jobs = {
        "mlp": (MLP, "--data", "sample", "--epochs", 2),
        "dnn": (DNN, "--data", "sample", "--epochs", 12),
        "dnn_broken": (BROKEN, "--data", "sample", "--epochs", 12),
        "author": (BROKEN, "--start", 0, 1, "--epochs", 8),
    }
    for name, arguments in jobs.items():
        process = run_python(*arguments, "--run-dir", log_dir / name)
        assert process.returncode == 0, process.stderr
    return log_dir


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("run", "epochs", "hidden"),
    [("mlp", 2, ["hidden"]), ("dnn", 12, HIDDEN), ("dnn_broken", 12, HIDDEN)],
)
def test_curves_histograms_and_graph_are_in_the_log(runs, run, epochs, hidden):
    train, val = (read_events(runs / run / "tb" / part) for part in ("train", "validation"))
    history = pd.read_csv(runs / run / "history.csv")
    for events, column in ((train, "loss"), (val, "val_loss")):
        curve = [float(make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_loss")]
        np.testing.assert_allclose(curve, history[column], rtol=1e-5)
    for layer in [*hidden, "final"]:
        for weights in ("kernel", "bias"):
            tag = f"{layer}/{weights}/histogram"
            assert [event.step for event in train.Tensors(tag)] == list(range(epochs))
            assert train.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
    # TensorBoard can turn the logged network into the graph that it draws, layer after layer.
    config = json.loads(make_ndarray(train.Tensors("keras")[0].tensor_proto).item())
    nodes = {node.name: list(node.input) for node in keras_model_to_graph_def(config).node}
    chain = [f"{run}/{layer}" for layer in ["input", "scale", *hidden, "final", "alcohol"]]
    assert list(nodes) == chain
    assert [nodes[name] for name in chain[1:]] == [[name] for name in chain[:-1]]


def test_histograms_show_the_fault(runs):
    """Random weights fill the histogram; 320 equal starts leave at most ten different values."""
    counts = {}
    for run in ("dnn", "dnn_broken"):
        events = read_events(runs / run / "tb" / "train").Tensors("hidden1/kernel/histogram")
        histogram = make_ndarray(events[-1].tensor_proto)  # rows of left edge, right edge, count
        assert histogram[:, 2].sum() == 320
        counts[run] = np.count_nonzero(histogram[:, 2])
    assert counts["dnn_broken"] <= 10 < counts["dnn"]


def test_the_sound_network_learns_and_the_broken_one_is_stuck_at_the_median(runs):
    sound, stuck = read_metrics(runs / "dnn"), read_metrics(runs / "dnn_broken")
    assert sound["val"]["mae"] < 0.5
    median = stuck["baselines"]["median_mae"]
    assert stuck["val"]["mae"] > 0.7 and stuck["test"]["mae"] == pytest.approx(median, rel=0.02)


def test_the_authors_broken_network_learns_with_units_that_stay_equal(runs, find_copies):
    """Kernels 0 and biases 1: its loss looks healthy, only the spread of the units does not."""
    import keras

    assert read_metrics(runs / "author")["val"]["mae"] < 0.5
    model = keras.models.load_model(runs / "author" / "model.keras")
    assert find_copies.find_copies(model) == HIDDEN
    assert model.get_layer("hidden1").get_weights()[0].std() > 0.01  # it did move


def test_find_copies_tells_broken_from_sound(runs, run_script):
    result = run_script(COPIES, runs / "dnn_broken", runs / "dnn" / "model.keras")
    assert result.returncode == 0, result.stderr
    stuck, sound = result.stdout.split(str(runs / "dnn" / "model.keras"))
    assert f"copies of each other in {', '.join(HIDDEN)}" in stuck
    assert "No copies" in sound and "0.00000" not in sound
    result = run_script(COPIES, runs / "nothing")
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: ")


def test_copies_are_found_layer_by_layer(broken, find_copies):
    """Random, equal, and equal in one layer only: each is told from the weights alone."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(16, 3, name="convolution"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(32, name="dense"),
            keras.layers.Dense(1, name="final"),
        ]
    )
    spread = find_copies.unit_spread(model)
    assert list(spread) == ["convolution", "dense"]
    for units, measured, random_start in spread.values():
        assert units in (16, 32)
        assert measured == pytest.approx(random_start, rel=0.1)
    assert spread["dense"][2] == pytest.approx(np.sqrt(2 / (6 * 6 * 16 + 32)))
    assert find_copies.find_copies(model) == []
    kernel, bias = model.get_layer("convolution").get_weights()
    model.get_layer("convolution").set_weights([np.repeat(kernel[..., :1], 16, axis=-1), bias])
    assert find_copies.find_copies(model) == ["convolution"]
    data = broken.load_data("sample")
    equal = broken.build_network(data["train_X"], data["train_y"], kernel=0.5)
    assert find_copies.find_copies(equal) == HIDDEN
    assert {0.5} == {*np.unique(equal.get_layer("hidden3").get_weights()[0])}


def test_same_wines_and_layers_as_chapter_2():
    """What the README promises: only the callbacks (and the fault) are new."""
    for script, origin in ((MLP, "mlp_wine"), (DNN, "dnn_wine"), (BROKEN, "dnn_wine")):
        networks = []
        for module in (load_script(script), load_script(f"chapter02/{origin}.py")):
            data = module.load_data("sample")
            model = module.build_network(data["train_X"], data["train_y"])
            shapes = [(layer.name, layer.output.shape) for layer in model.layers]
            networks.append((shapes, {key: np.asarray(data[key]).tolist() for key in data}))
        assert networks[0] == networks[1]
