"""Sort the photographs of dogs vs. cats into folders for training, validation and test.

Book: chapter 8, "Data preparation".

    python chapter08/data_setup.py                                # what data/fetch.py has brought
    python chapter08/data_setup.py --data ~/Downloads/train.zip   # Kaggle's zip, or Microsoft's
    python chapter08/data_setup.py --data photos/ --output sorted/    # a folder
    python chapter08/data_setup.py --data sample --output sorted/     # stand-in, needs no network

What to expect: data/dogs-vs-cats/{train,val,test}/{cat,dog}/, 80/10/10, and two lists beside them:
split.csv (which photograph went where) and left_out.csv (which one did not, and why). What to look
for in the code: a photograph's place follows from its content alone, so names and order do not
matter and no content can stand in two sets; files that do not decode are listed, not trained on;
and everything is built in a hidden folder first, so that an interrupted run leaves nothing that
looks whole and the same command goes on. The originals stay where they are. Two minutes or so for
25,000 photographs.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
PARTS = ("train", "val", "test")
CLASSES = ("cat", "dog")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
HELD_OUT = 0.1  # the share of each class that goes to val, and to test
MIN_PER_CLASS = 10
MAX_BYTES = 50_000_000  # of one photograph,
MAX_PIXELS = 50_000_000  # decoded,
MAX_TOTAL_BYTES = 4_000_000_000  # of all together: Kaggle's 25,000 take 570 MB
STAGING = ".setup"


def find_source(source):
    """The zip or folder that `source` means: None, "sample" or a path.

    Raises:
        OSError: it is not there; the message says how to bring it.
    """
    if source == "sample":
        return DATA_DIR / "samples" / "dogs-vs-cats.zip"
    path = Path(source).expanduser() if source else DATA_DIR / "dogs-vs-cats" / "train"
    if not path.exists():
        if source:
            raise OSError(f"{path} does not exist; give a zip file or a folder of photographs")
        raise OSError(
            f"{path} does not exist. `python data/fetch.py dogs-vs-cats` fetches the photographs "
            "(825 MB); `--data train.zip` takes Kaggle's download "
            "(https://www.kaggle.com/c/dogs-vs-cats/data); `--data sample` works now"
        )
    return path


def class_of(name, classes=CLASSES):
    """The class that a path names: by its folder ("PetImages/Cat/1.jpg") or its own first word."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return None
    for word in (path.parent.name, path.name.split(".")[0]):
        for label in classes:
            if word.lower() in (label, label + "s"):
                return label
    return None


def list_folder(folder, target):
    """{name: function that reads its bytes} for the photographs below `folder`."""
    own = [target / STAGING] + [target / part / label for part in PARTS for label in CLASSES]
    own = {path.resolve() for path in own}  # what an earlier run has written is no source
    photos = {}
    for path in folder.rglob("*"):
        name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        if class_of(name) and path.is_file() and own.isdisjoint(path.resolve().parents):
            photos[name] = lambda path=path: read_limited(path.open("rb"))
    return photos


def list_zip(archive):
    """{name: function that reads its bytes} for the photographs in an open zip.

    Raises:
        ValueError: an entry leads out of the archive's folder, or it would unpack to too much.
    """
    photos, total = {}, 0
    for entry in archive.infolist():
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0]:
            raise ValueError(f"{archive.filename}: unsafe entry in the archive: {entry.filename}")
        if class_of(entry.filename):
            photos[entry.filename] = lambda entry=entry: read_limited(archive.open(entry))
            total += entry.file_size
    if total > MAX_TOTAL_BYTES:
        raise ValueError(
            f"{archive.filename} unpacks to {total / 1e9:,.0f} GB of photographs; "
            f"{MAX_TOTAL_BYTES / 1e9:.0f} GB is the limit"
        )
    return photos


def read_limited(file):
    """The bytes of an open file, which is closed; ValueError if there are too many."""
    with file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 1_000_000} MB")
    return content


def unpack_inner_zip(archive, folder):
    """Kaggle's dogs-vs-cats.zip holds train.zip: copy it to `folder`; None without one."""
    for entry in archive.infolist():
        if PurePosixPath(entry.filename).name == "train.zip":
            if entry.file_size > MAX_TOTAL_BYTES:
                raise ValueError(f"{archive.filename}: the train.zip in it is too large")
            with archive.open(entry) as source, (folder / "train.zip").open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            return folder / "train.zip"
    return None


def examine(read):
    """(SHA-256, None) of a photograph that decodes to its last pixel, else (None, reason)."""
    try:
        content = read()
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            image.load()
    except Exception as error:  # Pillow and zipfile raise a dozen kinds on damaged files
        return None, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return hashlib.sha256(content).hexdigest(), None


def plan_split(photos, seed=1):
    """Decide for every photograph where it goes.

    Args:
        photos: {name: function that reads its bytes}.

    Returns:
        (rows, left_out): dicts with `part`, `label`, `name`, `sha256`, `source`; (name, reason)
        pairs. Within a class the order is that of a hash of seed and content: the first tenth
        becomes the test set, the second the validation set.
    """
    names = sorted(photos)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
        results = pool.map(examine, [photos[name] for name in names])
        results = list(tqdm(results, "Checking photographs", len(names), unit="file"))
    left_out, first, labels = [], {}, {}
    for name, (digest, reason) in zip(names, results, strict=True):
        if reason:
            left_out.append((name, reason))
        else:
            labels.setdefault(digest, set()).add(class_of(name))
            if first.setdefault(digest, name) != name:
                left_out.append((name, f"same content as {first[digest]}"))
    rows = []
    for label in CLASSES:
        chosen = [digest for digest in first if labels[digest] == {label}]
        chosen.sort(key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
        held_out = round(HELD_OUT * len(chosen))
        for place, digest in enumerate(chosen):
            part = "test" if place < held_out else "val" if place < 2 * held_out else "train"
            name = file_name(first[digest], label)
            row = {"part": part, "label": label, "name": name, "sha256": digest}
            rows.append(row | {"source": first[digest]})
    for digest, found in labels.items():
        if len(found) > 1:
            left_out.append((first[digest], "the same content is called cat and dog"))
    taken = {}
    for row in rows:  # two folders may hold files of one name
        key = (row["label"], row["name"].lower())
        if taken.setdefault(key, row) is not row:
            row["name"] = f"{row['sha256'][:12]}_{row['name']}"
    return rows, sorted(left_out)


def file_name(source, label):
    """Kaggle's kind of name: "cat.7.jpg" for "train/cat.7.jpg" as for "PetImages/Cat/7.jpg"."""
    name = PurePosixPath(source).name
    return name if name.lower().startswith(label) else f"{label}.{name}"


def write_staging(rows, left_out, photos, staging, settings):
    """Write all files below `staging`, those of an interrupted run excepted; lists come last."""
    for part in PARTS:
        for label in CLASSES:
            (staging / part / label).mkdir(parents=True, exist_ok=True)
    wanted = {staging / row["part"] / row["label"] / row["name"] for row in rows}
    for path in staging.rglob("*"):  # of an interrupted run with other settings
        if path.is_file() and path not in wanted:
            path.unlink()
    for row in tqdm(rows, "Writing", unit="file"):
        path = staging / row["part"] / row["label"] / row["name"]
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]:
            continue  # whole, from the interrupted run
        path.write_bytes(photos[row["source"]]())
    with (staging / "left_out.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "reason"), *left_out])
    with (staging / "split.csv.part").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["part", "label", "name", "sha256", "source"])
        writer.writeheader()
        writer.writerows(rows)
    (staging / "settings.json").write_text(json.dumps(settings))
    (staging / "split.csv.part").replace(staging / "split.csv")  # from here on it is complete


def move_into_place(staging, target):
    """Move the six folders and the lists from `staging`; can be interrupted and called again."""
    for part in PARTS:
        (target / part).mkdir(exist_ok=True)
        for label in CLASSES:
            if (staging / part / label).exists():
                (staging / part / label).rename(target / part / label)
    for name in ("left_out.csv", "settings.json", "split.csv"):
        if (staging / name).exists():
            (staging / name).replace(target / name)
    shutil.rmtree(staging)


def set_up(source, target, seed=1):
    """Sort the photographs of `source` into `target`/{train,val,test}/{cat,dog}.

    Does nothing when the same command has done it before.

    Args:
        source: None for what data/fetch.py has brought, "sample", a zip file or a folder.
        target: pathlib.Path of the folder to write to.

    Raises:
        OSError: the source is not there or cannot be read, or the disk is full.
        ValueError: it is there, but not what is expected, or `target` holds something else.
    """
    path, staging = find_source(source), target / STAGING
    settings = {"source": str(path.resolve()), "seed": seed}
    if (staging / "split.csv").exists():  # interrupted while moving
        move_into_place(staging, target)
    if (target / "split.csv").exists():
        if json.loads((target / "settings.json").read_text()) != settings:
            raise ValueError(f"{target} holds another split; remove it, or give another --output")
        print(f"{target} is set up already.")
        return
    for folder in (target / part / label for part in PARTS for label in CLASSES):
        if folder.exists():
            raise ValueError(f"{folder} is there already; remove it, or give another --output")
    try:
        with open_source(path, target) as photos:
            rows, left_out = plan_split(photos, seed)
            for label in CLASSES:
                count = sum(row["label"] == label for row in rows)
                if count < MIN_PER_CLASS:
                    why = f"; unreadable: {left_out[0][0]} ({left_out[0][1]})" if left_out else ""
                    raise ValueError(
                        f"{path} holds {count} readable photographs of a {label}, expected "
                        f"{MIN_PER_CLASS} or more named like train/{label}.0.jpg or {label}/0.jpg"
                        + why
                    )
            write_staging(rows, left_out, photos, staging, settings)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path} is not a readable zip ({error})") from error
    move_into_place(staging, target)
    for name, reason in left_out:
        print(f"left out: {name} ({reason})")
    for part in PARTS:
        counts = [
            f"{sum((row['part'], row['label']) == (part, label) for row in rows):,} {label}s"
            for label in CLASSES
        ]
        print(f"{part:>5}: {', '.join(counts)}")
    print(f"{len(left_out)} files left out (left_out.csv). All is in {target}")


@contextlib.contextmanager
def open_source(path, target):
    """Context that gives {name: function that reads its bytes} of a zip or a folder."""
    if path.is_dir():
        yield list_folder(path, target)
        return
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        photos = list_zip(archive)
        if not photos:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            if inner := unpack_inner_zip(archive, Path(scratch)):
                photos = list_zip(stack.enter_context(zipfile.ZipFile(inner)))
        yield photos


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", a zip file or a folder')
    parser.add_argument(
        "--output",
        type=Path,
        default=DATA_DIR / "dogs-vs-cats",
        metavar="DIR",
        help="folder to fill",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, another split")
    args = parser.parse_args()
    if args.data == "sample" and args.output == parser.get_default("output"):
        parser.error("--data sample needs --output: data/dogs-vs-cats is for the real photographs")
    warnings.simplefilter("ignore", UserWarning)  # Pillow's, about EXIF that we do not use
    try:
        set_up(args.data, args.output, args.seed)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on.")


if __name__ == "__main__":
    main()
