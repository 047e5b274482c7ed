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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a CSV file")
    parser.add_argument("--run-dir", type=Path, default="runs/dnn_eeg", help="of a trained one")
    parser.add_argument("--operating-point", type=float, help="default: the one chosen in training")
    parser.add_argument("--output", type=Path, help="write the file with two columns added")
    args = parser.parse_args()
    try:
        with args.table.open() as file:
            separator = max(",;\t", key=file.readline().count)
        # As text, so that what is passed through stays as it is.
        table = pd.read_csv(args.table, sep=separator, dtype=str, na_filter=False, index_col=False)
        trained = json.loads((args.run_dir / "metrics.json").read_text())
        X = table[trained["columns"]].to_numpy("float32")
        if not np.isfinite(X).all():
            raise ValueError("a cell is not a number")
        p = keras.models.load_model(args.run_dir / "model.keras").predict(X, verbose=0)[:, 0]
        point = trained["operating_point"] if args.operating_point is None else args.operating_point
        table["predicted_probability"] = p
        table["predicted_class"] = np.where(p >= point, *reversed(trained["class_names"]))
        if args.output:
            table.to_csv(args.output, index=False, mode="x")  # x: nothing is overwritten
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.table}: {' '.join(str(error).split())[:500]}")
    print(table[["predicted_probability", "predicted_class"]])


if __name__ == "__main__":
    main()
