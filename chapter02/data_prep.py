"""Write the book's three files, training, validation and test wines, and look for duplicates.

Book: chapter 2, "Loading the dataset". For readers who follow its listing, which reads the files;
the scripts here need none of them, they split by the same rule.

    python chapter02/data_prep.py --output data        # 3,918 + 490 + 490 wines, as in the book
    python chapter02/data_prep.py --drop-duplicates    # each once, in runs/wines: 3,169 + 396 + 396

937 of the 4,898 wines repeat an earlier one, so that 30 % of the validation and test wines are in
the training file, too, with their answer. known_wines.py shows what that does.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "winequality-white.csv"


def split_wines(wines, drop_duplicates=False):
    """Training, validation and test wines: 80, 10 and 10 % of the rows, drawn at random."""
    wines = wines.drop(columns="quality", errors="ignore")
    wines = wines.drop_duplicates() if drop_duplicates else wines
    order = np.random.default_rng(0).permutation(len(wines))
    ends = [round(0.8 * len(wines)), round(0.9 * len(wines))]
    return [wines.iloc[rows] for rows in np.split(order, ends)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument("--drop-duplicates", action="store_true", help="keep each wine once")
    parser.add_argument("--output", type=Path, default="runs/wines", help="a folder")
    args = parser.parse_args()
    try:
        paths = {None: SAMPLE.parents[1] / "wine" / SAMPLE.name, "sample": SAMPLE}
        path = paths.get(args.data, args.data)
        wines = pd.read_csv(path, sep=None, engine="python", index_col=False, encoding="utf-8-sig")
        train, val, test = split_wines(wines, args.drop_duplicates)
        for name, part in (("train", train), ("val", val), ("test", test)):
            path = args.output / name / f"{name}_data.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            part.to_csv(path, index=False, mode="x")  # x: nothing is overwritten
            print(f"{len(part):5} wines in {path}")
    except Exception as error:  # pandas raises several kinds
        sys.exit(f"error: {args.data or 'wine'}: {' '.join(str(error).split())[:500]}")
    for name, part in (("validation", val), ("test", test)):
        known = part.merge(train.drop_duplicates())  # on all columns
        print(f"{len(known) / len(part):.0%} of the {name} wines are in the training file, too")


if __name__ == "__main__":
    main()
