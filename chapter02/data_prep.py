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

import pandas as pd
from mlp_wine import load_data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument("--drop-duplicates", action="store_true", help="keep each wine once")
    parser.add_argument("--output", type=Path, default="runs/wines", help="a folder")
    args = parser.parse_args()
    try:
        data, parts = load_data(args.data, args.drop_duplicates), {}
        if any(args.output.glob("*/*_data.csv")):
            raise ValueError(f"{args.output} has such files already; give another --output")
        for name in ("train", "val", "test"):
            path = args.output / name / f"{name}_data.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            part = pd.DataFrame(data[f"{name}_X"], columns=data["columns"])
            parts[name] = part.assign(alcohol=data[f"{name}_y"])
            parts[name].to_csv(path, index=False)
            print(f"{len(part):5} wines in {path}")
    except Exception as error:  # pandas raises several kinds
        sys.exit(f"error: {args.data or 'wine'}: {' '.join(str(error).split())[:500]}")
    for name, part in (("validation", parts["val"]), ("test", parts["test"])):
        known = part.merge(parts["train"].drop_duplicates())  # on all columns
        print(f"{len(known) / len(part):.0%} of the {name} wines are in the training file, too")


if __name__ == "__main__":
    main()
