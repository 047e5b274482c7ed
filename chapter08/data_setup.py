"""Sort photographs of dogs and cats into folders for training, validation and test.

Book: chapter 8, "Data preparation".

    python chapter08/data_setup.py                                  # what data/fetch.py has brought
    python chapter08/data_setup.py --data ~/Downloads/train.zip     # Kaggle's zip, or Microsoft's
    python chapter08/data_setup.py --data photos --classes ant bee --output data/ants_and_bees

What comes out: data/dogs-vs-cats/sorted/{train,val,test}/{cat,dog}/, 80 : 10 : 10, and split.csv:
where each file went, or why it was left out. What cannot be decoded is left out, and so is what
stands there twice: none is trained on under one name and tested on under another.
"""

import argparse
import contextlib
import hashlib
import io
import shutil
import sys
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

DATA = Path(__file__).resolve().parent.parent / "data"
# What --data means, and where it goes without --output
FETCHED = DATA / "dogs-vs-cats" / "train", DATA / "dogs-vs-cats" / "sorted"
SAMPLE = DATA / "samples" / "dogs-vs-cats.zip", Path("runs", "dogs-vs-cats_sample")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".heif"}
CLASSES = ("cat", "dog")


def read_photo(file):
    """A picture in any format that Pillow opens, as an upright RGB image.

    What is transparent lies on white. `file` is a path or an open file. Raises ValueError for
    numbers without a scale, and what Pillow raises for a file that is damaged or no picture.
    """
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        raise ValueError("no picture (HEIC of telephones: pip install pillow-heif)") from None
    with image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F"):
            raise ValueError(f"of its numbers (mode {image.mode}), which is white?")
        if image.mode.startswith("I;16"):  # all above 255 would become white
            image = Image.fromarray((np.asarray(image) // 256).astype("uint8"))
        image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def class_of(name, classes=CLASSES):
    """The class that a file's folder ("PetImages/Cat/1.jpg") or first word tells; None: neither."""
    path = PurePosixPath(name.replace("\\", "/"))  # some zips are made on Windows
    if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts):
        names = {name: label for label in classes for name in (label.lower(), f"{label.lower()}s")}
        return names.get(path.parent.name.lower()) or names.get(path.name.lower().split(".")[0])
    return None


def list_photos(source, classes=CLASSES):
    """{name: function that reads its bytes} of the photographs in a folder or a zip."""
    if source.is_dir():
        files = {path.relative_to(source).as_posix(): path.read_bytes for path in source.rglob("*")}
    else:
        archive = zipfile.ZipFile(source)
        files = {name: partial(archive.read, name) for name in archive.namelist()}
    return {name: read for name, read in files.items() if class_of(name, classes)}


def examine(read):
    """The SHA-256 of a photograph and "", or "" and the reason why it cannot be used."""
    try:
        content = read()
        read_photo(io.BytesIO(content))
    except Exception as error:  # Pillow and zipfile raise a dozen kinds
        return "", f"{type(error).__name__}: {error}"
    return hashlib.sha256(content).hexdigest(), ""


def plan_split(photos, classes=CLASSES, seed=1):
    """Where each photograph goes: a DataFrame of source, label, place ("" if nowhere), reason.

    Within a class the order is that of a hash of seed and content: the first tenth becomes the test
    set, the next the validation set. Raises ValueError for fewer than ten photographs of a class.
    """
    names = sorted(photos)
    # In threads: Pillow decodes outside Python's lock.
    found = thread_map(examine, [photos[name] for name in names], desc="Checking photographs")
    table = pd.DataFrame(found, columns=["digest", "reason"]).assign(source=names, place="")
    table["label"] = [class_of(name, classes) for name in names]
    good = table["reason"] == ""
    table.loc[good & table["digest"].duplicated(), "reason"] = "the same content as another file"
    for label in classes:
        digests = table.loc[(table["label"] == label) & (table["reason"] == ""), "digest"]
        if len(digests) < 10:
            like = f"{label}.0.jpg or {label}/0.jpg"
            raise ValueError(f"{len(digests)} readable {like}, not ten; unpack zips in it first")
        order = digests.map(lambda x: hashlib.sha256(f"{seed} {x}".encode()).hexdigest())
        tenth = round(0.1 * len(digests))
        for i, row in enumerate(order.sort_values().index):
            part = "test" if i < tenth else "val" if i < 2 * tenth else "train"
            table.loc[row, "place"] = f"{part}/{label}/{label}.{i}.jpg"
    return table[["source", "label", "place", "reason"]]


def set_up(source, output, classes=CLASSES, seed=1):
    """Sort the photographs in `source`, a zip or a folder, into `output`, which must be new.

    Written as they are, or as new JPEGs where Keras would not read them as a person sees them.
    """
    if output.exists():
        raise ValueError(f"{output} exists already; give another --output")
    photos = list_photos(source, classes)
    table = plan_split(photos, classes, seed)
    new = output.with_name(f".{output.name}.part")  # an interrupted run leaves nothing else
    shutil.rmtree(new, ignore_errors=True)
    for name, place in tqdm(table.loc[table["place"] != "", ["source", "place"]].to_numpy()):
        (new / place).parent.mkdir(parents=True, exist_ok=True)
        content = photos[name]()
        with Image.open(io.BytesIO(content)) as image:
            plain = image.format == "JPEG" and image.mode in ("L", "RGB")
            plain = plain and image.getexif().get(0x0112, 1) == 1  # as the camera was held
        if plain:
            (new / place).write_bytes(content)
        else:
            read_photo(io.BytesIO(content)).save(new / place, quality=95)
    table.to_csv(new / "split.csv", index=False)
    new.rename(output)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample", a zip file or a folder')
    parser.add_argument("--classes", nargs=2, default=CLASSES, help="default: cat dog")
    parser.add_argument("--output", type=Path, help=f"default: {FETCHED[1]}")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another split")
    args = parser.parse_args()
    source, output = {None: FETCHED, "sample": SAMPLE}.get(args.data, (args.data, FETCHED[1]))
    source, output = Path(source), args.output or output
    try:
        if not source.exists():
            raise ValueError("not there; `python data/fetch.py dogs-vs-cats` fetches photographs")
        table = set_up(source, output, args.classes, args.seed)
    except Exception as error:
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    for folder, count in table["place"].str.rpartition("/")[0].value_counts().items():
        print(f"{count:6,} {folder or 'left out'}")
    print(f"Photographs and split.csv are in {output}")


if __name__ == "__main__":
    main()
