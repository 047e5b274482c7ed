"""Turn the EEG file into the book's three: seizure or not; training, validation and test.

Book: chapter 4, "Model inputs and outputs". dnn_eeg.py needs none of it: given the original file
it splits it by the same rule.

    python chapter04/data_prep.py                         # 9,200 + 1,150 + 1,150 rows
    python chapter04/data_prep.py --group-by-recording    # whole recordings: the honest score
    python chapter04/data_prep.py --data sample --seed 7 --output /tmp/other_split
    python chapter04/dnn_eeg.py --data data/eeg_split

State 1 becomes class 1 (seizure), states 2 to 5 become class 0; each file has the same share of
seizures. The rows are seconds of 500 recordings, 23 from each, so a random split puts seconds of
nearly every test recording into the training file. `--group-by-recording` keeps them apart.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

DATA_DIR = Path(__file__).resolve().parent.parent / "data"
FEATURES = [f"X{number}" for number in range(1, 179)]  # one second of one electrode
SEIZURE = 1  # of the states 1 to 5
PARTS = ("train", "val", "test")


def read_eeg(path, states=(1, 2, 3, 4, 5)):
    """Read and check a CSV file.

    Returns:
        DataFrame: `recording` (str, or None where the first column does not tell), `FEATURES`
        (float64) and `y` (one of `states`).
    """
    columns = [*FEATURES, "y"]
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline().count)
        table = pd.read_csv(
            path, sep=separator, encoding="utf-8-sig", keep_default_na=False, low_memory=False
        )
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist; `python data/fetch.py eeg` brings the real set, and "
            "data_prep.py makes a folder of it (--data sample works now)"
        ) from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; give a CSV file") from None
    except ValueError as error:  # not text, no text at all, or rows of different lengths
        raise ValueError(f"{path} is not a readable CSV file ({error})") from error
    missing = [column for column in columns if column not in table]
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ValueError(
            f"{path}: {len(missing)} columns missing: {names} (expected an id, X1 to X178 and y)"
        )
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path}: its rows have more cells than its first line has column names")
    if table.empty:
        raise ValueError(f"{path} has a header but no rows below it")
    eeg = table[columns].apply(pd.to_numeric, errors="coerce").astype("float64")
    wrong = ~np.isfinite(eeg.to_numpy())
    wrong[:, -1] |= ~eeg["y"].isin(states).to_numpy()
    for row, column in np.argwhere(wrong)[:1]:
        expected = f"one of {', '.join(map(str, states))}" if column == 178 else "a number"
        raise ValueError(
            f"{path}, row {row + 1} below the header, column {columns[column]}: "
            f"{str(table[columns].iat[row, column])!r} is not {expected}"
        )
    # X7.F003 is second 7 of recording F003. The column has no name, or another in each copy.
    recording = table.iloc[:, 0].astype(str).str.extract(r"^X\d+\.(.+)$", expand=False)
    eeg.insert(0, "recording", None if recording.isna().any() else recording)
    return eeg


def split_eeg(eeg, group_by_recording=False, seed=0):
    """Three DataFrames, 80, 10 and 10 % of the rows, with `y` 1 for a seizure and 0 for none.

    Stratified: the classes have the same share in each. `group_by_recording` deals out whole
    recordings instead of rows.
    """
    eeg = eeg.assign(y=(eeg["y"] == SEIZURE).astype("int64"))
    units = eeg["y"]
    if group_by_recording:
        if eeg["recording"].isna().any():
            raise ValueError(
                "--group-by-recording needs a first column such as X7.F003 (second 7 of F003)"
            )
        units = eeg.groupby("recording")["y"].max()
    counts = units.value_counts()
    if len(counts) < 2 or counts.min() < 10:  # the least that an 80/10/10 split can share out
        what = "recordings" if group_by_recording else "rows"
        raise ValueError(
            f"{counts.get(1, 0)} {what} with a seizure and {counts.get(0, 0)} without; the split "
            "needs 10 of each (with a single class there is no ROC AUC either)"
        )
    train, rest = train_test_split(units, test_size=0.2, stratify=units, random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest, random_state=seed)
    key = eeg["recording"] if group_by_recording else eeg.index
    return [eeg[key.isin(part.index)] for part in (train, val, test)]


def write_parts(parts, out):
    """Write OUT/train/train_data.csv and so on: the columns `FEATURES` and `y`.

    Returns:
        list of the paths written.
    """
    paths = [Path(out) / part / f"{part}_data.csv" for part in PARTS]
    for path, eeg in zip(paths, parts, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        eeg.drop(columns="recording").to_csv(path, index=False)
    return paths


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file')
    parser.add_argument(
        "--output", type=Path, default=DATA_DIR / "eeg_split", help="folder to fill"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0, as in dnn_eeg.py")
    parser.add_argument(
        "--group-by-recording", action="store_true", help="keep each recording in one file"
    )
    args = parser.parse_args()

    path = DATA_DIR / "eeg" / "eeg.csv" if args.data is None else Path(args.data)
    if args.data == "sample":
        path = DATA_DIR / "samples" / "eeg.csv"
    try:
        parts = split_eeg(read_eeg(path), args.group_by_recording, args.seed)
        paths = write_parts(parts, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for file, eeg in zip(paths, parts, strict=True):
        print(f"{file}: {len(eeg):,} rows, {eeg['y'].mean():.1%} of them seizures")
    if parts[0]["recording"].notna().all():
        train, _, test = (set(part["recording"]) for part in parts)
        print(
            f"{len(test & train)} of the {len(test)} test recordings are in the training file too"
        )


if __name__ == "__main__":
    main()
