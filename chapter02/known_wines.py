"""Score the networks apart on test wines that are also in the training rows, and on new ones.

Book: chapter 2, "Measuring the performance of our model". The book keeps the set's duplicates.

    python chapter02/mlp_wine.py
    python chapter02/dnn_wine.py
    python chapter02/known_wines.py

What to expect: on wines they have seen the trees are far ahead, 0.024 against 0.179 of one layer,
and 0.135 of five (seed 1); on new wines not, 0.198 against 0.205 and 0.211, standard errors 0.009.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import dnn_wine
import keras
import numpy as np
import pandas as pd

RUN_DIRS = [Path("runs", "mlp_wine"), Path("runs", "dnn_wine")]


def find_known(data):
    """Which test wines are in the training rows, too, with the same alcohol: bool (n,)."""
    train, test = (np.c_[data[f"{part}_X"], data[f"{part}_y"]] for part in ("train", "test"))
    return (test[:, None] == train).all(axis=2).any(axis=1)


def load_run(run_dir, data):
    """The best network of the run in `run_dir`. ValueError: it was trained on other wines."""
    settings = json.loads((run_dir / "settings.json").read_text())
    if settings["data"] != zlib.crc32(data["train_X"].tobytes() + data["train_y"].tobytes()):
        raise ValueError(f"{run_dir} was trained on other wines")
    return keras.models.load_model(run_dir / "model.keras")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument("--run-dirs", type=Path, nargs="+", default=RUN_DIRS, help="of networks")
    args = parser.parse_args()
    try:
        data = dnn_wine.load_data(args.data)
        networks = {str(run_dir): load_run(run_dir, data) for run_dir in args.run_dirs}
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {' '.join(str(error).split())[:500]}")
    X, y = data["test_X"], data["test_y"]
    predictions = {"gradient boosting": dnn_wine.fit_baseline(data).predict(X)}
    predictions |= {name: model.predict(X, verbose=0)[:, 0] for name, model in networks.items()}
    errors = (pd.DataFrame(predictions).sub(y, axis=0) / data["train_y"].std()).abs()
    known = find_known(data)
    print("MAE ± its standard error, in standard deviations of alcohol; more than the trees' by")
    for group, rows in (("all", slice(None)), ("in the training rows", known), ("new", ~known)):
        print(f"{len(y[rows])} test wines, {group}:")
        for name, mae in errors[rows].items():
            more = mae - errors["gradient boosting"][rows]
            print(f"{name:>20} {mae.mean():.3f} ± {mae.sem():.3f}", end="")
            print(f"   {more.mean():+.3f} ± {more.sem():.3f}" if name in networks else "")


if __name__ == "__main__":
    main()
