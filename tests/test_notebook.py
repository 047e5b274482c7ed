"""The scripts' functions in a notebook, by a real Jupyter kernel, as README.md describes it."""

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELLS = [
    f"""
import sys
sys.path += ["{ROOT}/chapter05", "{ROOT}/chapter07"]
import matplotlib.pyplot as plt
import mlp_mnist
from cnn_cifar10 import build_network, load_data
""",
    """
data = load_data("sample")
model = build_network()
history = model.fit(data["train_X"][:320], data["train_y"][:320], epochs=1, verbose=0)
""",
    """
plt.imshow(data["train_X"][0])
plt.title(history.history["loss"])
plt.show()
""",
    f'%run "{ROOT}/chapter01/optimizers.py" --steps 100',
]


@pytest.mark.slow
def test_a_notebook_imports_trains_and_shows_its_figures(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel sets its own
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    shown = [
        output for output in notebook.cells[2].outputs if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 1, notebook.cells[2].outputs
    assert not notebook.cells[0].outputs or "data" not in notebook.cells[0].outputs[0]
    assert (tmp_path / "runs/optimizers/optimizers.png").exists()
