"""Read the EEG, or another table, and split it into training, validation and test rows.

Book: chapter 4, "Model inputs and outputs". dnn_eeg.py imports `load_data`. For readers who follow
the book's listing, which reads three files: this writes them, with y 1 for a seizure.

    python chapter04/data_prep.py                         # 9,200 + 1,150 + 1,150 rows
    python chapter04/data_prep.py --group-by-recording --output runs/eeg_grouped
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

EEG = Path(__file__).resolve().parent.parent / "data" / "eeg" / "eeg.csv"
SAMPLE = EEG.parent.parent / "samples" / "eeg.csv"
PARTS = ("train", "val", "test")


def load_data(source=None, label=None, group_by_recording=False, split=0):
    """Rows of a table, split 80 : 10 : 10, each part with its share of both classes.

    `source` is None for the EEG of Bonn (Andrzejak et al., 2001) as UCI cut it up, "sample", or a
    CSV file; `label` its column of classes (y, or the last). Class 1 is positive (a seizure),
    without a 1 the rarer of two. `group_by_recording`: the first column has X7.F003, second 7 of
    recording F003, and no recording is in two parts. `split`: which one.

    Returns a dict: train_X, val_X, test_X, float32 (n, columns), as measured; train_y, val_y,
    test_y, int64 (n,), 1 for positive; test_groups (n,); columns; class_names, positive last.
    """
    path = Path({None: EEG, "sample": SAMPLE}.get(source, source))
    with path.open() as file:
        separator = max(",;\t", key=file.readline().count)
    table = pd.read_csv(path, sep=separator, index_col=False)
    label = label or ("y" if "y" in table else table.columns[-1])
    X, y = table.drop(columns=label), table[label]
    classes, ids = y.value_counts().index.tolist(), X.iloc[:, 0].astype(str)  # the rarest last
    if y.isna().any() or (len(classes) != 2 and not {1} < set(classes) <= {1, 2, 3, 4, 5}):
        raise ValueError(f"{label} has {len(classes)} classes, not two or 1 to 5, or empty cells")
    positive = 1 if 1 in classes else classes[-1]
    y = (y == positive).to_numpy("int64")
    if ids.name.startswith("Unnamed") or pd.to_numeric(ids, errors="coerce").isna().all():
        X = X.drop(columns=ids.name)
    columns, X = X.columns.tolist(), X.to_numpy("float32")
    if X.size == 0 or not (abs(X) < 1e18).all():
        raise ValueError("it has no numbers, or an empty or huge cell")
    groups = ids.str.extract(r"^X\d+\.(.+)$", expand=False) if group_by_recording else ids.index
    units = pd.Series(y).groupby(groups).max()
    if groups.isna().any() or units.value_counts().min() < 10:
        raise ValueError("not ten rows, or recordings, of each class, or an id not like X7.F003")
    train, rest = train_test_split(units, test_size=0.2, stratify=units, random_state=split)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest, random_state=split)
    print(f"{label} = {positive}: {y.mean():.1%} of {len(y)} rows; {columns[0]} to {columns[-1]}")
    data = {"columns": columns, "class_names": [f"not {positive}", str(positive)]}
    for part, some in zip(PARTS, (train, val, test), strict=True):
        rows = groups.isin(some.index)
        data |= {f"{part}_X": X[rows], f"{part}_y": y[rows], f"{part}_groups": groups[rows]}
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument("--group-by-recording", action="store_true", help="keep recordings whole")
    parser.add_argument("--output", type=Path, default="runs/eeg", help="a folder")
    args = parser.parse_args()
    try:
        data = load_data(args.data, group_by_recording=args.group_by_recording)
        for part in PARTS:
            path = args.output / part / f"{part}_data.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = pd.DataFrame(data[f"{part}_X"], columns=data["columns"])
            rows.assign(y=data[f"{part}_y"]).to_csv(path, index=False, mode="x")  # x: a new file
            print(f"{len(rows):5} rows in {path}, {data[f'{part}_y'].mean():.1%} of them seizures")
    except Exception as error:  # pandas raises several kinds
        sys.exit(f"error: {args.data or 'data/fetch.py eeg'}: {' '.join(str(error).split())[:500]}")


if __name__ == "__main__":
    main()
