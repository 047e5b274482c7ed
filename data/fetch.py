"""Bring the data sets that the book uses into data/<set>/.

    python data/fetch.py --list                     # what there is, and what is here already
    python data/fetch.py eeg bitcoin                # fetch some
    python data/fetch.py --all                      # fetch everything (about 1.8 GB)
    python data/fetch.py eeg --from ~/Downloads     # no network, or a site that wants a login:
                                                    # a folder, a file, or the URL of a mirror
    python data/fetch.py eeg --from part.csv --partial      # a set of less than its full size

A set appears under data/ only once it is downloaded, checked and unpacked; until then everything
lies in a hidden data/.<set>-….part folder, which is removed on any error and on Ctrl-C.
"""

import argparse
import gzip
import os
import re
import shutil
import signal
import socket
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import pooch
import requests

DATA_DIR = Path(__file__).resolve().parent
CONNECT_SECONDS, READ_SECONDS = 5, 20
GIVE_UP_SECONDS = 15  # with no connection for so long, further mirrors are not tried
MB = 1_000_000

# urls      mirrors, tried in order, each with the checksum published for it, or None
# names     other file names that --from accepts, such as those of Kaggle's downloads
# files     which files to keep: pattern of the path in the archive, path under data/<set>/
# target    what the scripts read; where this is, the set is here
# header    what the first line of the target looks like (an error page does not)
# least     files that a whole set has, or lines where the target is a file, and what they are
# megabytes size of the download, and a bound on the size of what is unpacked
UCI = "https://archive.ics.uci.edu"
SETS = {
    "wine": {
        "about": "white wine quality, UCI, CC BY 4.0 (comes with this repository)",
        "urls": [
            (
                f"{UCI}/ml/machine-learning-databases/wine-quality/winequality-white.csv",
                "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
            ),
            (f"{UCI}/static/public/186/wine+quality.zip", None),
        ],
        "files": [(r"(.*/)?winequality-white\.csv", "winequality-white.csv")],
        "target": "winequality-white.csv",
        "header": r'"fixed acidity";',
        "least": (4_899, "lines"),
        "megabytes": (0.3, 1),
    },
    "eeg": {
        "about": "epileptic seizure recognition, Bonn/UCI (withdrawn there), terms: cite the paper",
        "urls": [
            (
                "https://web.archive.org/web/20200318000445id_/http://archive.ics.uci.edu/ml/"
                "machine-learning-databases/00388/data.csv",
                None,
            ),
            (f"{UCI}/ml/machine-learning-databases/00388/data.csv", None),
        ],
        "by_hand": "https://www.kaggle.com/datasets/harunshimanto/epileptic-seizure-recognition",
        "names": ["Epileptic Seizure Recognition.csv", "archive.zip"],
        "files": [(r"(.*/)?[^/]+\.csv", "eeg.csv")],
        "target": "eeg.csv",
        "header": r'.*,"?X1"?,"?X2"?,',
        "least": (11_501, "lines"),
        "megabytes": (7.6, 40),
    },
    "newsgroups": {
        "about": "20 newsgroups, the original 19,997 posts, CC BY 4.0 (UCI)",
        "urls": [
            ("https://www.cs.cmu.edu/afs/cs.cmu.edu/project/theo-20/www/data/news20.tar.gz", None),
            (f"{UCI}/ml/machine-learning-databases/20newsgroups-mld/20_newsgroups.tar.gz", None),
        ],
        "names": ["twenty+newsgroups.zip", "20_newsgroup.tar.gz", "20news-19997.tar.gz"],
        "files": [(r"(.*/)?20_newsgroups?/([a-z.-]+/\d+)", r"20_newsgroup/\2")],
        "target": "20_newsgroup",
        "least": (19_997, "posts"),
        "megabytes": (17.3, 200),
    },
    "glove": {
        "about": "GloVe 6B word vectors in 50 to 300 dimensions, Stanford, PDDL 1.0",
        "urls": [
            (url, "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb")
            for url in (
                "https://nlp.stanford.edu/data/glove.6B.zip",
                "https://huggingface.co/stanfordnlp/glove/resolve/main/glove.6B.zip",
            )
        ],
        "files": [(r"(.*/)?(glove\.6B\.\d+d\.txt)", r"\2")],
        "target": "glove.6B.*d.txt",
        "header": r"\S+( -?\d\S*){50}",
        "least": (400_000, "words"),
        "megabytes": (862, 2500),
    },
    "fra-eng": {
        "about": "English-French sentence pairs, Tatoeba, CC BY 2.0 FR",
        "urls": [
            (
                "http://d2l-data.s3-accelerate.amazonaws.com/fra-eng.zip",
                "sha1:94646ad1522d915e7b0f9296181140edcf86a4f5",
            ),
            ("https://www.manythings.org/anki/fra-eng.zip", None),
        ],
        "by_hand": "http://www.manythings.org/anki/",
        "files": [(r"(.*/)?fra\.txt", "fra.txt")],
        "target": "fra.txt",
        "header": r"[^\t]+\t[^\t]+",
        "least": (167_130, "pairs"),
        "megabytes": (8, 100),
    },
    "dogs-vs-cats": {
        "about": "25,000 photographs, Microsoft Research/Petfinder, for research use",
        "urls": [
            (
                "https://download.microsoft.com/download/3/E/1/"
                "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
                "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
            )
        ],
        "by_hand": "https://www.kaggle.com/c/dogs-vs-cats/data",
        "names": ["dogs-vs-cats.zip", "train.zip"],
        "files": [
            (r"(.*/)?PetImages/Cat/(\d+\.jpg)", r"train/cat.\2"),
            (r"(.*/)?PetImages/Dog/(\d+\.jpg)", r"train/dog.\2"),
            (r"(.*/)?train/((cat|dog)\.\d+\.jpg)", r"train/\2"),
        ],
        "target": "train",
        "least": (24_998, "photographs"),
        "megabytes": (825, 2000),
    },
    "bitcoin": {
        "about": "bitcoin prices by the minute, Bitstamp/Kaggle (mczielinski), CC BY-SA 4.0",
        "urls": [
            (
                f"https://github.com/ff137/bitstamp-btcusd-minute-data/raw/{version}/data/"
                "historical/btcusd_bitstamp_1min_2012-2025.csv.gz",
                "1be152060b39327b669cbed236eeb283191fadaf3862f76c1e974be54ceb1a20",
            )
            for version in ("ade95e4166226b162a1a9ffa822f51e1b09ab8ef", "main")
        ],
        "by_hand": "https://www.kaggle.com/datasets/mczielinski/bitcoin-historical-data",
        "names": ["bitcoin-historical-data.zip", "archive.zip", "btcusd_1-min_data.csv"],
        "files": [(r"(.*/)?[^/]+\.csv", "bitcoin.csv")],
        "target": "bitcoin.csv",
        "header": r"[Tt]imestamp,[Oo]pen,[Hh]igh,[Ll]ow,[Cc]lose,",
        "least": (1_000_000, "minutes"),
        "megabytes": (89, 1000),
    },
}
# These come through keras.datasets, which keeps them in ~/.keras/datasets.
KERAS_SETS = {
    "mnist": "70,000 handwritten digits, 11 MB",
    "cifar10": "60,000 images in 10 classes, 170 MB",
    "imdb": "50,000 film reviews as word numbers, 17 MB",
}

# What the standard library raises on broken archives (RuntimeError: encrypted or unknown method).
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error),
    *(EOFError, RuntimeError),
)


class FetchError(Exception):
    """A set could not be brought here; the message says why, for the reader."""


def archive_names(spec):
    """The usual file names of a set's download, official ones first."""
    return [url.rsplit("/", 1)[-1] for url, _ in spec["urls"]] + spec.get("names", [])


def checksums_by_name(spec):
    """{usual file name: its published checksum}, None where another version has the same name."""
    checksums = {}
    for url, checksum in spec["urls"]:
        file_name = url.rsplit("/", 1)[-1]
        checksums[file_name] = checksum if checksums.get(file_name, checksum) == checksum else None
    return checksums


def find_present(name):
    """The files or folders of a set under data/<name>/ that the scripts read; [] if none."""
    return sorted((DATA_DIR / name).glob(SETS[name]["target"]))


def find_missing(spec, path):
    """What a set lies short of, in words, or "": files below a folder, or lines of a file."""
    least, what = spec.get("least", (0, ""))
    if path.is_dir():
        there = sum(1 for file in path.rglob("*") if file.is_file())
    else:
        with path.open("rb") as file:
            there = sum(1 for _ in file)
    return f"{path.name} has {there:,} of {least:,} {what}" if there < least else ""


def mirror_urls(spec, base):
    """URLs to try on a mirror: BASE, if it ends with a usual file name, or each name under BASE."""
    checksums = checksums_by_name(spec)
    names = [*archive_names(spec), spec["target"]]
    names = [name for name in names if Path(name).suffix and "*" not in name]
    if base.endswith(tuple("/" + name for name in names)):
        return [(base, checksums.get(base.rsplit("/", 1)[-1]))]
    return [(f"{base.rstrip('/')}/{name}", checksums.get(name)) for name in names]


def download(urls, folder):
    """Download from the first of URLS that works; return the file, whose checksum was right.

    Raises FetchError with every mirror's reason.
    """
    downloader = pooch.HTTPDownloader(
        progressbar=True,
        chunk_size=1 << 16,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        headers={"User-Agent": "deep-learning-quick-reference data/fetch.py"},
    )
    pooch.get_logger().setLevel("ERROR")
    reasons, start = [], time.monotonic()
    for url, checksum in urls:
        print(f"downloading {url}", flush=True)
        for _ in range(2):  # once more when the connection breaks off
            try:
                path = Path(pooch.retrieve(url, checksum, Path(url).name, folder, None, downloader))
                if checksum is None:
                    print(f"no checksum is published; SHA-256 {pooch.file_hash(str(path))}")
                return path
            except ValueError:
                reason = "wrong checksum"
            except requests.exceptions.ChunkedEncodingError:
                reason = "broke off"
            except requests.exceptions.ConnectionError as error:
                reason = "broke off" if "Read timed out" in str(error) else "no connection"
            except requests.exceptions.RequestException as error:
                answer = error.response
                reason = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
            if reason != "broke off":
                break
        reasons.append(f"{url} ({reason})")
        if reason == "no connection" and time.monotonic() - start > GIVE_UP_SECONDS:
            break
    raise FetchError("could not download " + ", ".join(reasons))


def find_local(name, source):
    """The files of set NAME in folder SOURCE: its archive, or what the scripts read, unpacked."""
    spec = SETS[name]
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FetchError(f"{source} is neither a file nor a folder")
    for file_name in archive_names(spec):
        if (source / file_name).is_file():
            return [source / file_name]
    found = sorted(source.glob(spec["target"])) or sorted(source.glob(f"{name}/{spec['target']}"))
    found = [path for path in found if path.is_file() or path.is_dir()]  # a pipe would never end
    if not found:
        looked_for = ", ".join([*archive_names(spec), spec["target"]])
        raise FetchError(f"nothing of this set in {source}; looked for {looked_for}")
    return found


def verify(path, spec):
    """Raise FetchError for a Git LFS pointer, and for a file that lacks its published checksum."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise FetchError(f"a Git LFS pointer, not the data (`git lfs pull`): {path}")
    checksum = checksums_by_name(spec).get(path.name)
    if checksum:
        algorithm, _, digest = checksum.rpartition(":")
        if pooch.file_hash(str(path), algorithm or "sha256") != digest:
            raise FetchError(f"wrong checksum, so damaged or another version: {path}")


def unpack(path, folder, limit):
    """Unpack a .zip, .tar.gz or .gz into FOLDER; copy a folder or any other file there.

    Raises FetchError if that takes more than LIMIT bytes or the archive holds links or a path that
    leads out of FOLDER.
    """
    if path.is_dir():
        shutil.copytree(path, folder / path.name)
        return
    folder.mkdir(parents=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [
                (m.filename, m.file_size, stat.S_ISLNK(m.external_attr >> 16))
                for m in archive.infolist()
            ]
            check_members(members, limit)
            archive.extractall(folder)
        return
    # Read to the very end, also a .tar.gz: only there gzip keeps the checksum of what it holds.
    plain = folder / (path.stem if path.suffix == ".gz" else path.name)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as source, plain.open("wb") as copy:
        while block := source.read(1 << 20):
            copy.write(block)
            if copy.tell() > limit:
                raise FetchError(f"unpacks to more than {limit / MB:,.0f} MB: {path.name}")
    if plain.suffix == ".tar":
        with tarfile.open(plain) as archive:
            members = [(m.name, m.size, not (m.isfile() or m.isdir())) for m in archive]
            check_members(members, limit)
            archive.extractall(folder, filter="data")
        plain.unlink()


def check_members(members, limit):
    """Refuse an archive by its (name, size, is_link) entries, before anything of it is written."""
    for name, _, is_link in members:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0] or is_link:
            raise FetchError(f"unsafe entry in the archive: {name}")
    if sum(size for _, size, _ in members) > limit:
        raise FetchError(f"the archive unpacks to more than {limit / MB:,.0f} MB")


def collect(spec, folder, out):
    """Move the set's files from FOLDER to OUT, under the names that the scripts read."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder).as_posix().replace("\\", "/")  # of a zip from Windows
        if re.search(r"(^|/)(\.|__MACOSX/)", inside):  # what a Mac adds to archives
            continue
        for pattern, replacement in spec["files"]:
            match = re.fullmatch(pattern, inside)
            if match and path.stat().st_size:  # two of Microsoft's photographs are empty files
                target = out / match.expand(replacement)
                if target.exists():
                    raise FetchError(f"more than one file for {target.name}: {path.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    if not list(out.glob(spec["target"])):
        raise FetchError(f"no {spec['target']} in the download")
    for path in out.glob(spec["target"]) if "header" in spec else ():
        with path.open("r+b") as file:
            header = file.readline(10_000)
            if not re.match(spec["header"], header.decode(errors="replace")):
                raise FetchError(f"not the data set: {path.name} begins with {header[:40]!r}")
            if header.startswith(b"timestamp,"):  # the bitcoin mirror; Kaggle writes Timestamp,Open
                file.seek(0)
                file.write(header.title())


def assemble(name, source, part):
    """Build what will become data/<name>/ as PART/out, from SOURCE or from the set's mirrors."""
    spec = SETS[name]
    limit = spec["megabytes"][1] * MB
    if source and not re.match("https?://", source):
        paths = find_local(name, Path(source).expanduser())
    else:
        paths = [download(mirror_urls(spec, source) if source else spec["urls"], part)]
    print(f"unpacking {', '.join(path.name for path in paths)}", flush=True)
    for path in paths:
        verify(path, spec)
        unpack(path, part / "in" / path.stem, limit)
    for path in sorted(part.glob("in/**/*")):  # Kaggle and UCI put archives into archives
        if path.name in archive_names(spec) and path.suffix in (".zip", ".gz"):
            unpack(path, path.with_suffix(".d"), limit)
    collect(spec, part / "in", part / "out")


def fetch(name, source=None, partial=False):
    """Bring set NAME to data/<name>/, from its mirrors or from SOURCE: a folder, a file, a URL.

    Does nothing when it is there already. Raises FetchError when it fails, or when the set lacks
    some of its files or lines and is not to be `partial`, and then leaves nothing behind.
    """
    spec = SETS[name]
    if found := find_present(name):
        missing = [] if partial else list(filter(None, (find_missing(spec, p) for p in found)))
        if missing:
            remove = f"remove {DATA_DIR / name} and fetch it anew, or keep it with --partial"
            raise FetchError(f"already there, but {', '.join(missing)}: {remove}")
        print(f"{name}: already there: {', '.join(map(str, found))}")
        return
    for stale in DATA_DIR.glob(f".{name}-*.part"):  # of a run that was killed a day ago or more
        if time.time() - stale.stat().st_mtime > 86_400:
            shutil.rmtree(stale, ignore_errors=True)
    packed, unpacked = spec["megabytes"]
    free = shutil.disk_usage(DATA_DIR).free / MB
    if free < packed + unpacked:
        raise FetchError(f"needs {packed + unpacked:,.0f} MB of disk, and {free:,.0f} MB are free")
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{name}-", suffix=".part", dir=DATA_DIR, ignore_cleanup_errors=True
        ) as part:
            assemble(name, source, Path(part))
            for path in Path(part, "out").glob(spec["target"]) if not partial else ():
                if missing := find_missing(spec, path):
                    raise FetchError(f"{missing}; --partial takes it as it is")
            (DATA_DIR / name).mkdir(exist_ok=True)
            for path in Path(part, "out").iterdir():
                path.replace(DATA_DIR / name / path.name)
    except DAMAGED as error:
        raise FetchError(f"damaged archive: {error}") from error
    except OSError as error:
        raise FetchError(str(error)) from error
    print(f"{name}: {', '.join(map(str, find_present(name)))}")


def fetch_keras_set(name):
    """Let Keras bring one of its own sets to ~/.keras/datasets; FetchError when it cannot."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # takes seconds, and no other set needs it

    socket.setdefaulttimeout(READ_SECONDS)
    try:
        getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise FetchError(f"Keras could not fetch it ({error})") from error
    print(f"{name}: in Keras's cache, ~/.keras/datasets")


def list_sets():
    """Print every set, its size, where it comes from and whether it is here."""
    for name, spec in SETS.items():
        here = "here" if find_present(name) else ""
        print(f"{name:13} {here:5} {spec['megabytes'][0]:>6} MB  {spec['about']}")
    for name, about in KERAS_SETS.items():
        print(f"{name:13} {'':15}  {about}: Keras fetches it on first use")


def explain(name, error):
    """The message for a set that could not be fetched: why, and what to do about it."""
    if name in KERAS_SETS:
        return f"{name}: {error}. Every script runs without it: --data sample"
    page = SETS[name].get("by_hand") or SETS[name]["urls"][0][0]
    login = " (wants a login)" if "kaggle.com" in page else ""
    return (
        f"{name}: {error}. By hand: download {page}{login} in a browser, then "
        f"`python data/fetch.py {name} --from FOLDER`. Every script runs without it: --data sample"
    )


def main():
    """Fetch the sets named on the command line; exit with status 2 if one could not be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*SETS, *KERAS_SETS]
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(known))
    parser.add_argument("--all", action="store_true", help="every set")
    parser.add_argument("--list", action="store_true", help="show the sets and stop")
    parser.add_argument("--from", dest="source", metavar="URL_OR_DIR", help="take the files there")
    parser.add_argument("--partial", action="store_true", help="take a set that lacks some of it")
    args = parser.parse_args()
    # A polite kill cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.list:
        return list_sets()
    names = known if args.all else args.sets
    problems = [f"no such set: {n}; there are {', '.join(known)}" for n in names if n not in known]
    if not names:
        problems = ["name a set, or --all, or --list; there are " + ", ".join(known)]
    for name in names if not problems else ():
        try:
            if name in KERAS_SETS:
                fetch_keras_set(name)
            else:
                fetch(name, args.source, args.partial)
        except FetchError as error:
            problems.append(explain(name, error))
        except KeyboardInterrupt:
            problems.append(f"{name}: interrupted, nothing of it is kept")
            break
    if problems:
        print("error: " + "; ".join(problems), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
