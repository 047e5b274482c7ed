"""Make the .npz that cnn_cifar10.py reads of your own photographs, one folder for each class.

Beyond the book. What my_photos/ants/, my_photos/bees/ and so on hold becomes small squares: four
fifths of each class to train on, the rest to test.

    python chapter07/photos_to_npz.py my_photos my_photos.npz    # --image-size 64: larger ones
    python chapter07/cnn_cifar10.py --data my_photos.npz
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from sklearn.model_selection import train_test_split


def read_photo(path, image_size):
    """A picture of Pillow's formats, upright, on white, as uint8 (image_size, image_size, 3)."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F"):
            raise ValueError(f"of its numbers (mode {image.mode}), which is white?")
        if image.mode.startswith("I;16"):  # all above 255 would become white
            image = Image.fromarray((np.asarray(image) // 256).astype("uint8"))
        image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(image.resize((image_size, image_size)))


def read_folder(folder, image_size):
    """The photographs in FOLDER/<class>/: images (n, size, size, 3), labels (n,), class names.

    What cannot be read is left out, and named. ValueError: fewer than two classes, or than ten
    photographs of one.
    """
    images, labels = [], []
    class_folders = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(class_folders) < 2:
        raise ValueError("needs two folders or more, one of photographs for each class")
    for label, class_folder in enumerate(class_folders):
        for path in sorted(class_folder.glob("[!.]*")):
            try:
                images.append(read_photo(path, image_size))
                labels.append(label)
            except Exception as error:  # Pillow raises a dozen kinds
                print(f"left out: {path}: {error}")
        print(f"{class_folder}: {labels.count(label)} photographs")
        if labels.count(label) < 10:
            raise ValueError(f"needs ten photographs or more in {class_folder}")
    return np.stack(images), np.array(labels), [path.name for path in class_folders]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds one folder of photographs per class")
    parser.add_argument("output", type=Path, help="the .npz to write")
    parser.add_argument("--image-size", type=int, default=32, help="side in pixels (default: 32)")
    args = parser.parse_args()
    if args.image_size < 10:
        parser.error("--image-size must be 10 or more for the book's network")
    return args


def main():
    args = parse_arguments()
    try:
        new = args.output.with_name(f"new_{args.output.name}")
        if args.output.exists() or new.exists():
            raise ValueError(f"{args.output} or {new} exists already")
        new.parent.mkdir(parents=True, exist_ok=True)
        images, labels, class_names = read_folder(args.folder, args.image_size)
        parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
        names = ("x_train", "x_test", "y_train", "y_test")
        with new.open("wb") as file:  # a kill must not leave half of the output
            np.savez(file, class_names=class_names, **dict(zip(names, parts, strict=True)))
        new.rename(args.output)
    except Exception as error:
        sys.exit(f"error: {args.folder}: {' '.join(str(error).split())[:500]}")
    print(f"{args.output}: {len(parts[0])} photographs to train on, {len(parts[1])} to test")


if __name__ == "__main__":
    main()
