"""Chapter 3: what TensorBoard gets to see, the broken network and how it gives itself away."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import load_script
from contract import run_to_end
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def
from tensorboard.util.tensor_util import make_ndarray

MLP, DNN = "chapter03/mlp_wine_tensorboard.py", "chapter03/dnn_wine_tensorboard.py"
BROKEN, COPIES = "chapter03/dnn_wine_broken.py", "chapter03/find_copies.py"
HIDDEN = [f"hidden{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, slow_training):
    """Two runs on the sample side by side in one folder, the author's broken network on all."""
    log_dir = tmp_path_factory.mktemp("runs")
    scripts = {
        "dnn": (DNN, "--data", "sample", "--batch-size", 8),
        "dnn_broken": (BROKEN, "--data", "sample", "--batch-size", 8),
        "author": (BROKEN, "--start", 0, 1, "--batch-size", 16),
    }
    for name, arguments in scripts.items():
        run_to_end(*arguments, "--epochs", 4, "--run-dir", log_dir / name)
    return log_dir


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


def test_curves_histograms_and_graph_are_in_the_log(runs):
    train, val = (read_events(runs / "dnn" / "tb" / part) for part in ("train", "validation"))
    history = pd.read_csv(runs / "dnn" / "history.csv")
    for events, column in ((train, "loss"), (val, "val_loss")):
        curve = [float(make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_loss")]
        np.testing.assert_allclose(curve, history[column], rtol=1e-5)
    layers = [*HIDDEN, "final"]
    for tag in [f"{name}/{kind}/histogram" for name in layers for kind in ("kernel", "bias")]:
        assert [event.step for event in train.Tensors(tag)] == history["epoch"].tolist()
        assert train.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
    # TensorBoard can turn the logged network into the graph that it draws, layer after layer.
    config = json.loads(make_ndarray(train.Tensors("keras")[0].tensor_proto).item())
    nodes = {node.name: list(node.input) for node in keras_model_to_graph_def(config).node}
    chain = [f"dnn/{layer}" for layer in ["input", "scale", *layers, "alcohol"]]
    assert [nodes[name] for name in chain[1:]] == [[name] for name in chain[:-1]]


def test_the_broken_network_is_stuck_and_its_histogram_shows_why(runs):
    """Random weights fill the histogram; 320 equal starts leave at most ten different values."""
    counts = {}
    for run in ("dnn", "dnn_broken"):
        events = read_events(runs / run / "tb" / "train").Tensors("hidden1/kernel/histogram")
        histogram = make_ndarray(events[-1].tensor_proto)  # rows of left edge, right edge, count
        counts[run] = np.count_nonzero(histogram[:, 2])
    assert counts["dnn_broken"] <= 10 < counts["dnn"]
    stuck, median = (read_metrics(runs / "dnn_broken")[part] for part in ("test", "baselines"))
    assert stuck["mae"] == pytest.approx(median["median_mae"], rel=0.02)
    assert stuck["mae"] > 0.7 and read_metrics(runs / "dnn")["val"]["mae"] < 0.5


def test_find_copies_tells_broken_from_sound_by_the_weights_alone(runs, run_script):
    """Also the author's network, kernels 0 and biases 1, whose loss looks healthy today."""
    folders = [runs / "dnn_broken", runs / "author", runs / "dnn" / "model.keras"]
    result = run_script(COPIES, *folders)
    assert result.returncode == 0, result.stderr
    broken, sound = result.stdout.split(str(folders[2]))
    assert broken.count(f"copies of each other in {', '.join(HIDDEN)}") == 2
    assert "No copies" in sound and "0.00000" not in sound
    assert read_metrics(folders[1])["val"]["mae"] < 0.5


def test_copies_are_found_layer_by_layer():
    script, layers = load_script(COPIES), keras.layers
    keras.utils.set_random_seed(1)
    image, flatten = keras.Input((8, 8, 3)), layers.Flatten()
    convolution, dense = layers.Conv2D(16, 3, name="convolution"), layers.Dense(32, name="dense")
    model = keras.Sequential([image, convolution, flatten, dense, layers.Dense(1, name="final")])
    spread = script.unit_spread(model)
    assert list(spread) == ["convolution", "dense"] and script.find_copies(model) == []
    for name, fans in (("convolution", 3 * 3 * (3 + 16)), ("dense", 6 * 6 * 16 + 32)):
        assert spread[name][1:] == pytest.approx([np.sqrt(2 / fans)] * 2, rel=0.1)
    convolution.kernel.assign(np.repeat(convolution.kernel[..., :1], 16, axis=-1))
    assert script.find_copies(model) == ["convolution"]


@pytest.mark.parametrize("script", [MLP, DNN, BROKEN])
def test_same_wines_and_layers_as_chapter_2(script, tmp_path):
    """What the README promises: only the callbacks (and the fault) are new."""
    origin = f"chapter02/{'mlp' if script == MLP else 'dnn'}_wine.py"
    ours, theirs = load_script(script), load_script(origin)
    data, expected = ours.load_data("sample"), theirs.load_data("sample")
    assert all(np.array_equal(data[name], expected[name]) for name in {*data, *expected})
    networks = [module.build_network(data["train_X"], data["train_y"]) for module in (ours, theirs)]
    shapes = [[(layer.name, layer.output.shape) for layer in model.layers] for model in networks]
    assert shapes[0] == shapes[1]
    new, *_ = ours.create_callbacks(networks[0], tmp_path)
    assert new.__class__.__name__ == "TensorBoard" and new.histogram_freq == 1
