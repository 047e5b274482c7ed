"""Say for photographs of yours whether each shows a cat or a dog, and how sure the network is.

Book: chapter 8, "Transfer learning in Keras".

    python chapter08/classify_photo.py rex.jpg scan.png      # by runs/…/inceptionv3_dogs_cats
    python chapter08/classify_photo.py photos/*.jpg --run-dir runs/chapter08/mine

Any format that Pillow reads, turned as the camera held it, grey or with transparency; a file that
is no photograph is named and skipped. What to look for: photographs are read by the very function
that read the training set (`read_photo`), since a network that was trained on one scaling or
turning and is used on another fails silently. And what a two-class network cannot say: "neither".
Show it a bicycle, and it will be a cat or a dog, perhaps with 99 %.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from inceptionv3_dogs_cats import RUNS_DIR, first_line, load_best_model, positive, read_photo


def classify(model, class_names, files, batch_size=30):
    """Label each file, in batches, so that memory stays flat.

    Returns:
        list of (file, label, probability of that label), and (file, None, reason) for a file that
        cannot be read; in the order of `files`.
    """
    import numpy as np

    results = []
    for start in range(0, len(files), batch_size):
        photos, rows = [], []
        for file in files[start : start + batch_size]:
            try:
                photos.append(read_photo(file, model.input_shape[1]))
                rows.append([file, None, None])
            except Exception as error:  # Pillow raises a dozen kinds on damaged files
                rows.append([file, None, first_line(error)])
        if photos:
            probabilities = iter(model.predict_on_batch(np.stack(photos))[:, 0])
            for row in rows:
                if row[2] is None:
                    p = float(next(probabilities))
                    row[1:] = class_names[p > 0.5], max(p, 1 - p)
        results += [tuple(row) for row in rows]
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files")
    parser.add_argument(
        "--run-dir", type=Path, default=RUNS_DIR / "inceptionv3_dogs_cats", help="of the training"
    )
    parser.add_argument("--batch-size", type=positive, default=30, help="default: 30")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # about unused EXIF
    try:
        model, class_names = load_best_model(args.run_dir)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    skipped = 0
    for file, label, value in classify(model, class_names, args.photos, args.batch_size):
        if label:
            print(f"{file}: {label} ({value:.1%})")
        else:
            print(f"skipped: {file}: {value}", file=sys.stderr)
            skipped += 1
    if skipped == len(args.photos):
        print("error: none of the files is a photograph that can be read", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
