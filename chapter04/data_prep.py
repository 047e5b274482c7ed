"""Write the book's three files, training, validation and test rows, with y 1 for a seizure.

Book: chapter 4, "Model inputs and outputs". For readers who follow its listing, which reads them;
dnn_eeg.py needs none of them, it makes the same split by itself.

    python chapter04/data_prep.py                         # 9,200 + 1,150 + 1,150 rows
    python chapter04/data_prep.py --group-by-recording --output runs/eeg_grouped
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from dnn_eeg import PARTS, load_data


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
            rows.assign(y=data[f"{part}_y"]).to_csv(path, index=False, mode="x")
            print(f"{len(rows):5} rows in {path}, {data[f'{part}_y'].mean():.1%} of them seizures")
    except Exception as error:  # pandas raises several kinds
        source = args.data or "EEG (python data/fetch.py eeg)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")


if __name__ == "__main__":
    main()
