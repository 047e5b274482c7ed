"""Predict the alcohol of new wines with a network that mlp_wine.py or dnn_wine.py has trained.

Book: chapter 2, "Saving and loading a trained Keras model".

    python chapter02/predict.py wines.csv                                   # by runs/…/mlp_wine
    python chapter02/predict.py wines.csv --run-dir runs/chapter02/dnn_wine
    python chapter02/predict.py wines.csv --output predicted.csv

wines.csv has a header line and the ten measurements the network was trained on, in any order,
separated by `;`, `,` or tabs; other columns are passed through. The run directory holds the network
(model.keras) and the means and scales of its training data (scaler.json): a network without its
scaler is worthless.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import numpy as np
import pandas as pd

RUN_DIR = Path(__file__).resolve().parent.parent / "runs" / "chapter02" / "mlp_wine"
PREDICTION = "predicted alcohol"  # the column that is added, in % by volume


def load_run(run_dir):
    """The network of the best epoch and its scaler: a dict of `columns`, `mean` and `scale`.

    Raises:
        OSError: there is none. ValueError: one of the two files cannot be read.
    """
    paths = [run_dir / "model.keras", run_dir / "scaler.json"]
    for path in paths:
        if not path.exists():
            raise OSError(f"{path} does not exist; train first: python chapter02/mlp_wine.py")
    try:
        model = keras.models.load_model(paths[0])  # safe mode: runs no code stored in the file
        scaler = json.loads(paths[1].read_text())
        mean, scale = np.array(scaler["mean"]), np.array(scaler["scale"])
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"the run in {run_dir} cannot be loaded ({error}); train again") from error
    return model, {"columns": scaler["columns"], "mean": mean, "scale": scale}


def read_wines(path, columns):
    """Read and check a CSV file.

    Returns:
        (table, X): the file as it is, text in every cell; its `columns` as float64 (n, columns).
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = max(";,\t", key=file.readline().count)
        table = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig").fillna("")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; give a CSV file of wines") from None
    except ValueError as error:  # not text, no text at all, or rows of different lengths
        raise ValueError(f"{path} is not a readable CSV file ({error})") from error
    missing = ", ".join(column for column in columns if column not in table)
    if missing:
        raise ValueError(f"{path}: column missing: {missing} (it has {', '.join(table)})")
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path}: its rows have more cells than its first line has column names")
    if table.empty:
        raise ValueError(f"{path} has a header but no wines below it")
    X = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy("float64")
    for row, column in np.argwhere(~np.isfinite(X))[:1]:
        raise ValueError(
            f"{path}, row {row + 1} below the header, column {columns[column]}: "
            f"{table[columns].iat[row, column]!r} is not a number"
        )
    return table, X


def predict_alcohol(model, scaler, X):
    """Alcohol in % by volume of wines measured in their natural units: (n, 10) to (n,)."""
    scaled = (X - scaler["mean"][:-1]) / scaler["scale"][:-1]
    predicted = model.predict(scaled.astype("float32"), batch_size=1024, verbose=0)[:, 0]
    return predicted * scaler["scale"][-1] + scaler["mean"][-1]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wines", type=Path, help="CSV file with the ten measurements")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="where the network is")
    parser.add_argument("--output", type=Path, help="write the file with the prediction added")
    args = parser.parse_args()
    try:
        model, scaler = load_run(args.run_dir)
        table, X = read_wines(args.wines, scaler["columns"][:-1])
        table[PREDICTION] = predict_alcohol(model, scaler, X).round(3)
        if args.output:
            table.to_csv(args.output, index=False)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if args.output:
        print(f"{len(table):,} predictions are in {args.output}")
        return
    shown = [column for column in (scaler["columns"][-1], PREDICTION) if column in table]
    print(table[shown].head(20).to_string())
    if len(table) > 20:
        print(f"… and {len(table) - 20:,} more; --output FILE writes them all")


if __name__ == "__main__":
    main()
