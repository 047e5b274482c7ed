"""Classify new rows with a network that dnn_eeg.py has trained.

Book: chapter 4, "Measuring precision, recall, and f1-score", on rows without an answer.

    python chapter04/predict.py new.csv --run-dir runs/dnn_eeg --output classified.csv

new.csv has the columns that the network was trained on, in any order; others are passed through.
The saved network takes numbers as they were measured: it holds its scales.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd


def predict_probability(run_dir, table):
    """Of the positive class, (n,), by the network in `run_dir`; `table`: a DataFrame of n rows."""
    columns = json.loads((run_dir / "settings.json").read_text())["columns"]
    X = table[columns].to_numpy("float32")
    if not np.isfinite(X).all():
        raise ValueError("a cell is not a number")
    return keras.models.load_model(run_dir / "model.keras").predict(X, verbose=0)[:, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a CSV file")
    parser.add_argument("--run-dir", type=Path, default="runs/dnn_eeg", help="of a trained one")
    parser.add_argument("--operating-point", type=float, help="default: the one chosen in training")
    parser.add_argument("--output", type=Path, help="write the file with two columns added")
    args = parser.parse_args()
    try:
        with args.table.open(encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline().count)
        # As text, so that what is passed through stays as it is.
        options = {"dtype": str, "keep_default_na": False, "index_col": False}
        table = pd.read_csv(args.table, sep=separator, encoding="utf-8-sig", **options)
        trained = json.loads((args.run_dir / "metrics.json").read_text())
        point = args.operating_point or trained["operating_point"]
        p = predict_probability(args.run_dir, table)
        table["probability"] = p
        table["class"] = np.where(p >= point, *reversed(trained["class_names"]))
        if args.output:
            table.to_csv(args.output, index=False, mode="x")  # x: nothing is overwritten
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.table}: {' '.join(str(error).split())}")
    print(table[["probability", "class"]])


if __name__ == "__main__":
    main()
