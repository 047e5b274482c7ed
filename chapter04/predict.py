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
from sklearn.utils import check_array


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a CSV file")
    parser.add_argument("--run-dir", type=Path, default="runs/dnn_eeg", help="of a trained one")
    parser.add_argument("--output", type=Path, help="write the file with two columns added")
    args = parser.parse_args()
    try:
        head = args.table.read_text().partition("\n")[0]
        # As text, so that what is passed through stays as it is.
        table = pd.read_csv(
            args.table, sep=max(",;\t", key=head.count), index_col=False, dtype=str, na_filter=False
        )
        trained = json.loads((args.run_dir / "metrics.json").read_text())
        X = check_array(table[trained["columns"]], dtype="float32")  # numbers, none missing
        p = keras.models.load_model(args.run_dir / "model.keras").predict(X, verbose=0)[:, 0]
        negative, positive = trained["class_names"]
        table["predicted_probability"] = p
        table["predicted_class"] = np.where(p >= trained["operating_point"], positive, negative)
        if args.output:
            table.to_csv(args.output, index=False, mode="x")  # x: nothing is overwritten
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.table}: {' '.join(str(error).split())[:500]}")
    print(table[["predicted_probability", "predicted_class"]])


if __name__ == "__main__":
    main()
