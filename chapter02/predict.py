"""Predict the alcohol of new wines with a network that mlp_wine.py or dnn_wine.py has trained.

Book: chapter 2, "Saving and loading a trained Keras model".

    python chapter02/predict.py wines.csv
    python chapter02/predict.py wines.csv --run-dir runs/dnn_wine --output predicted.csv

wines.csv has the columns that the network was trained on, in any order; others are passed through.
The saved network takes measurements as they are: it holds its scales.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd


def predict_alcohol(run_dir, path):
    """The wines in `path` and their alcohol in %, by the network in `run_dir`: a DataFrame."""
    columns = json.loads((run_dir / "settings.json").read_text())["columns"]
    wines = pd.read_csv(path, sep=None, engine="python", index_col=False, encoding="utf-8-sig")
    X = wines[columns].to_numpy("float32")
    if not np.isfinite(X).all():
        raise ValueError("a cell is not a number")
    model = keras.models.load_model(run_dir / "model.keras")
    return wines.assign(**{"predicted alcohol": model.predict(X, verbose=0)[:, 0].round(3)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wines", type=Path, help="a CSV file")
    parser.add_argument("--run-dir", type=Path, default="runs/mlp_wine", help="of a trained one")
    parser.add_argument("--output", type=Path, help="write the file with the prediction added")
    args = parser.parse_args()
    try:
        wines = predict_alcohol(args.run_dir, args.wines)
        if args.output:
            wines.to_csv(args.output, index=False, mode="x")  # x: nothing is overwritten
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.wines}: {' '.join(str(error).split())[:500]}")
    print(wines.filter(["alcohol", "predicted alcohol"]))


if __name__ == "__main__":
    main()
