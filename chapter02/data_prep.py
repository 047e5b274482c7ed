"""Split the white wines into the book's three files: training, validation and test.

Book: chapter 2, "Loading the dataset"; the split itself is chapter 1, "The train, val, and test
datasets". The training scripts need none of it: given one file they split it by the same rule.

    python chapter02/data_prep.py                      # 3,918 + 490 + 490 wines, in data/wine_split
    python chapter02/data_prep.py --drop-duplicates    # 3,169 + 396 + 396: each wine once
    python chapter02/data_prep.py --seed 7 --output /tmp/other_split
    python chapter02/mlp_wine.py --data data/wine_split

Duplicates are kept unless you say otherwise: the book keeps them, and only so can its figures be
compared. But 937 of the 4,898 rows repeat an earlier one, so about 30 % of the validation and test
wines stand in the training file too, answer included. `--drop-duplicates` gives the honest score.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

DATA_DIR = Path(__file__).resolve().parent.parent / "data"
FEATURES = ["fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides"]
FEATURES += ["free sulfur dioxide", "total sulfur dioxide", "density", "pH", "sulphates"]
TARGET = "alcohol"  # in % by volume
PARTS = ("train", "val", "test")


def read_wines(path):
    """Read and check a CSV file; returns a DataFrame of float64, `FEATURES` and then `TARGET`."""
    columns = [*FEATURES, TARGET]
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = max(";,\t", key=file.readline().count)
        table = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig").fillna("")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist; give a CSV file of wines (--data sample works now)"
        ) from None
    except ValueError as error:  # not text, no text at all, or rows of different lengths
        raise ValueError(f"{path} is not a readable CSV file ({error})") from error
    missing = ", ".join(column for column in columns if column not in table)
    if missing:
        raise ValueError(f"{path}: column missing: {missing} (it has {', '.join(table)})")
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path}: its rows have more cells than its first line has column names")
    if table.empty:
        raise ValueError(f"{path} has a header but no wines below it")
    wines = table[columns].apply(pd.to_numeric, errors="coerce").astype("float64")
    for row, column in np.argwhere(~np.isfinite(wines.to_numpy()))[:1]:
        raise ValueError(
            f"{path}, row {row + 1} below the header, column {columns[column]}: "
            f"{table[columns].iat[row, column]!r} is not a number"
        )
    return wines


def split_wines(wines, drop_duplicates=False, seed=0):
    """Training, validation and test wines: 80, 10 and 10 % of the rows, drawn at random."""
    if drop_duplicates:
        wines = wines.drop_duplicates()
    count = len(wines)
    if count < 10:  # one each for validation and test is the least an 80/10/10 split needs
        raise ValueError(f"{count} wines are too few to split; 10 or more are needed")
    order = np.random.default_rng(seed).permutation(count)
    rows = np.split(order, [round(0.8 * count), round(0.9 * count)])
    return [wines.iloc[part] for part in rows]


def write_parts(parts, out):
    """Write OUT/train/train_data.csv and so on: the columns `FEATURES` and `TARGET`.

    Returns:
        list of the paths written.
    """
    paths = [Path(out) / part / f"{part}_data.csv" for part in PARTS]
    for path, wines in zip(paths, parts, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        wines.to_csv(path, index=False)
    return paths


def share_in_train(parts):
    """Share of validation and of test wines of which an identical row is in the training part."""
    train, val, test = (list(part.itertuples(index=False, name=None)) for part in parts)
    known = set(train)
    return [np.mean([wine in known for wine in wines]) for wines in (val, test)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument(
        "--output", type=Path, default=DATA_DIR / "wine_split", help="folder to fill"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0, as in the scripts")
    parser.add_argument("--drop-duplicates", action="store_true", help="keep each wine once")
    args = parser.parse_args()

    path = DATA_DIR / "wine" / "winequality-white.csv" if args.data is None else Path(args.data)
    if args.data == "sample":
        path = DATA_DIR / "samples" / "winequality-white.csv"
    try:
        parts = split_wines(read_wines(path), args.drop_duplicates, args.seed)
        paths = write_parts(parts, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for file, wines in zip(paths, parts, strict=True):
        print(f"{file}: {len(wines):,} wines")
    val, test = share_in_train(parts)
    print(
        f"Also in the training file: {val:.0%} of the validation and {test:.0%} of the test wines"
    )


if __name__ == "__main__":
    main()
