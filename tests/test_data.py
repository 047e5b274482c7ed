"""data/: the files that come with the repository, and fetch.py against broken downloads.

No test here needs a network: downloads go to a server on 127.0.0.1.
"""

import errno
import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error
from PIL import Image

DATA = ROOT / "data"
SAMPLES = DATA / "samples"


# --- what comes with the repository -----------------------------------------------------------


def test_wine_is_the_whole_real_file():
    path = DATA / "wine/winequality-white.csv"
    checksum = "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    assert pd.read_csv(path, sep=";").shape == (4898, 12)


def test_samples_are_small_and_match_their_checksums():
    listed = dict(
        re.findall(
            r"^\| `([^`]+)` \| [\d,]+ \| `(\w{64})` \|$", (SAMPLES / "README.md").read_text(), re.M
        )
    )
    files = [path for path in SAMPLES.iterdir() if path.name != "README.md"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == listed
    assert sum(path.stat().st_size for path in files) < 20_000_000


@pytest.mark.parametrize(
    ("name", "side", "n_train", "n_test"),
    [("mnist", (28, 28), 4000, 1000), ("cifar10", (32, 32, 3), 2000, 500)],
)
def test_image_samples_have_keras_keys_and_even_classes(name, side, n_train, n_test):
    sample = np.load(SAMPLES / f"{name}.npz")
    assert sorted(sample) == ["x_test", "x_train", "y_test", "y_train"]
    for split, count in (("train", n_train), ("test", n_test)):
        x, y = sample[f"x_{split}"], sample[f"y_{split}"]
        assert x.shape == (count, *side) and x.dtype == y.dtype == np.uint8
        assert y.shape == ((count, 1) if name == "cifar10" else (count,))
        assert (np.bincount(y.ravel(), minlength=10) == count // 10).all()
        assert len(set(y.ravel()[:30])) > 5, "not shuffled"
        assert x.std() > 30, "blank pictures"


def test_wine_sample_is_drawn_from_the_real_file():
    sample = (SAMPLES / "winequality-white.csv").read_text().splitlines()
    real = (DATA / "wine/winequality-white.csv").read_text().splitlines()
    assert len(sample) == 601 and sample[0] == real[0]
    assert set(sample) <= set(real)


def test_eeg_sample_has_the_real_format():
    sample = pd.read_csv(SAMPLES / "eeg.csv")
    assert list(sample.columns[1:]) == [*(f"X{i}" for i in range(1, 179)), "y"]
    assert (sample.iloc[:, 1:].dtypes == np.int64).all()
    assert (sample["y"].value_counts() == 414).all() and set(sample["y"]) == {1, 2, 3, 4, 5}
    ids = sample.iloc[:, 0].str.extract(r"^X(\d+)\.([A-Z]\d{3})$")
    assert ids.notna().all(axis=None) and ids[1].nunique() == 90
    loudness = sample.iloc[:, 1:-1].std(axis=1).groupby(sample["y"]).median()
    assert loudness[1] > 3 * loudness[2:].max(), "seizures are not louder than the rest"


def test_bitcoin_sample_has_kaggles_columns_and_gaps():
    sample = pd.read_csv(SAMPLES / "bitcoin.csv")
    assert list(sample.columns) == [
        *("Timestamp", "Open", "High", "Low", "Close"),
        *("Volume_(BTC)", "Volume_(Currency)", "Weighted_Price"),
    ]  # fmt: skip
    times = pd.to_datetime(sample["Timestamp"], unit="s")
    assert times.is_monotonic_increasing and times.is_unique
    assert (times < "2017-06-01").sum() > 10_000 and (times >= "2017-06-01").sum() > 10_000
    assert times.diff().max() > pd.Timedelta("5min") and sample["Close"].isna().any()
    rows = sample.dropna()
    assert (rows["High"] >= rows[["Open", "Close"]].max(axis=1)).all()
    assert (rows["Low"] <= rows[["Open", "Close"]].min(axis=1)).all() and rows["Low"].min() > 0


def read_tar(name):
    with tarfile.open(SAMPLES / name) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_newsgroup_sample_has_the_cmu_layout():
    posts = read_tar("20_newsgroup.tar.gz")
    groups = [re.fullmatch(r"20_newsgroup/([a-z.-]+)/\d+", name)[1] for name in posts]
    assert len(set(groups)) == 20 and all(groups.count(group) == 30 for group in set(groups))
    for group, post in zip(groups, posts.values(), strict=True):
        header, body = post.decode("latin-1").split("\n\n", 1)
        assert f"Newsgroups: {group}" in header and group not in body and len(body) > 80


def test_review_sample_has_the_stanford_layout():
    reviews = read_tar("aclImdb.tar.gz")
    for split in ("train", "test"):
        for sentiment, stars in (("neg", range(1, 5)), ("pos", range(7, 11))):
            names = [name for name in reviews if f"/{split}/{sentiment}/" in name]
            assert len(names) == 250
            assert {int(re.search(r"_(\d+)\.txt$", name)[1]) for name in names} <= set(stars)
    train = {text for name, text in reviews.items() if "/train/" in name}
    assert not train & {text for name, text in reviews.items() if "/test/" in name}


def test_sentence_pairs_are_sorted_and_unique():
    lines = (SAMPLES / "fra.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    assert len(rows) == 1500 and all(len(row) == 3 and "made-up" in row[2] for row in rows)
    assert [len(row[0]) for row in rows] == sorted(len(row[0]) for row in rows)
    assert len({(row[0], row[1]) for row in rows}) == 1500 > len({row[0] for row in rows})


def test_neighbours_in_the_vector_sample_make_sense():
    vectors = {}
    for line in (SAMPLES / "glove.sample.50d.txt").read_text(encoding="utf-8").splitlines():
        word, *values = line.split()
        vectors[word] = np.array(values, dtype=float)
    assert {vector.shape for vector in vectors.values()} == {(50,)}

    def cosine(a, b):
        a, b = vectors[a], vectors[b]
        return a @ b / np.sqrt((a @ a) * (b @ b))

    assert cosine("cat", "dog") > cosine("cat", "lizard") > cosine("cat", "cipher")
    assert cosine("hockey", "goalie") > cosine("hockey", "baseball") > cosine("hockey", "church")


def test_dog_and_cat_drawings_open():
    with zipfile.ZipFile(SAMPLES / "dogs-vs-cats.zip") as archive:
        names = [f"train/{animal}.{n}.jpg" for animal in ("cat", "dog") for n in range(60)]
        assert archive.namelist() == names
        sizes = {Image.open(io.BytesIO(archive.read(name))).size for name in names}
    assert len(sizes) > 50 and min(map(min, sizes)) >= 160 and max(map(max, sizes)) <= 240


# --- fetch.py ---------------------------------------------------------------------------------


def load_fetch(data_dir):
    """fetch.py as a module that writes to DATA_DIR."""
    spec = importlib.util.spec_from_file_location("fetch", DATA / "fetch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DATA_DIR = data_dir
    return module


@pytest.fixture
def fetch(tmp_path):
    """fetch.py writing to an empty folder, with small sets in its table (no URL answers)."""
    module = load_fetch(tmp_path / "data")
    module.DATA_DIR.mkdir()
    nowhere = "http://127.0.0.1:9/"  # nothing listens there: refused at once
    files = [(r"(.*/)?([^/]+\.txt)", r"texts/\2")]
    common = {"about": "", "files": files, "target": "texts", "megabytes": (1, 2)}
    module.SETS = {
        "zipped": {**common, "urls": [(nowhere + "zipped.zip", None)]},
        "tarred": {**common, "urls": [(nowhere + "tarred.tar.gz", None)]},
        "table": {
            "about": "",
            "urls": [(nowhere + "raw.csv", None)],
            "files": [(r"(.*/)?[^/]+\.csv", "table.csv")],
            "target": "table.csv",
            "header": "a,b",
            "megabytes": (1, 2),
        },
    }
    return module


@pytest.fixture
def server(tmp_path):
    """A web server on 127.0.0.1: the folder it serves, and its URL."""
    folder = tmp_path / "served"
    folder.mkdir()

    seen = set()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            if "/cut-once/" in self.path and self.path in seen:
                self.path = "/" + self.path.rsplit("/", 1)[-1]
            if "/cut" not in self.path:
                return super().do_GET()
            seen.add(self.path)
            # Promises the whole file, sends half of it, hangs up.
            content = (folder / self.path.rsplit("/", 1)[-1]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

    handler = functools.partial(Handler, directory=str(folder))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def run_main(fetch, capsys, *args):
    """main() with ARGS; returns something that assert_clear_error understands."""
    code = 0
    old, sys.argv = sys.argv, ["fetch.py", *map(str, args)]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        fetch.main()
    except SystemExit as exit_:
        code = exit_.code
    finally:
        sys.argv = old
        signal.signal(signal.SIGTERM, handler)
    out = capsys.readouterr()
    return subprocess.CompletedProcess(args, code, out.out, out.err)


def leftovers(fetch):
    return [str(path.relative_to(fetch.DATA_DIR)) for path in fetch.DATA_DIR.rglob("*")]


def test_list_names_every_set_from_any_folder(run_script, tmp_path):
    result = run_script("data/fetch.py", "--list", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in (
        *("wine", "eeg", "newsgroups", "glove", "fra-eng", "dogs-vs-cats", "bitcoin"),
        *("mnist", "cifar10", "imdb"),
    ):  # fmt: skip
        assert re.search(rf"^{name} ", result.stdout, re.M)


def test_wine_is_already_there(run_script):
    result = run_script("data/fetch.py", "wine")
    assert result.returncode == 0 and "already there" in result.stdout


def test_unknown_set_and_no_set_are_clear_errors(run_script):
    assert_clear_error(run_script("data/fetch.py", "whine"), "whine", "wine", "eeg")
    assert_clear_error(run_script("data/fetch.py"), "--all", "--list")


def test_missing_folder_is_a_clear_error_that_names_the_login_page(fetch, capsys, tmp_path):
    fetch.SETS["table"]["by_hand"] = "https://www.kaggle.com/datasets/x/y"
    result = run_main(fetch, capsys, "table", "--from", tmp_path / "nowhere")
    assert_clear_error(
        result, "nowhere is neither a file", "kaggle.com/datasets/x/y", "login", "--from"
    )
    result = run_main(fetch, capsys, "table", "--from", fetch.DATA_DIR)
    assert_clear_error(result, "raw.csv", "table.csv")
    assert leftovers(fetch) == []


def test_every_registered_pattern_fits_its_set():
    sets = load_fetch(DATA).SETS
    cases = {
        "wine": ("winequality-white.csv", "winequality-white.csv"),
        "eeg": ("archive/Epileptic Seizure Recognition.csv", "eeg.csv"),
        "newsgroups": ("x/20_newsgroups/comp.os.ms-windows.misc/9141", None),
        "glove": ("glove/glove.6B.100d.txt", "glove.6B.100d.txt"),
        "fra-eng": ("fra-eng/fra.txt", "fra.txt"),
        "dogs-vs-cats": ("PetImages/Dog/17.jpg", "train/dog.17.jpg"),
        "bitcoin": ("btcusd_bitstamp_1min_2012-2025.csv", "bitcoin.csv"),
    }
    assert set(cases) == set(sets)
    for name, (inside, expected) in cases.items():
        matches = [(re.fullmatch(pattern, inside), new) for pattern, new in sets[name]["files"]]
        ((match, new),) = [(match, new) for match, new in matches if match]
        target = match.expand(new)
        assert target == (expected or "20_newsgroup/comp.os.ms-windows.misc/9141")
    headers = {
        "wine": '"fixed acidity";"volatile acidity"',
        "eeg": '"","X1","X2","X3"',
        "glove": "the " + " ".join(["-0.1"] * 50),
        "fra-eng": "Go.\tVa !\tCC-BY 2.0",
        "bitcoin": "timestamp,open,high,low,close,volume",
    }
    for name, header in headers.items():
        assert re.match(sets[name]["header"], header)
        assert not re.match(sets[name]["header"], "<!DOCTYPE html>")


def test_archives_and_plain_files_come_from_a_folder(fetch, capsys, tmp_path):
    source = tmp_path / "downloads"
    source.mkdir()
    write_zip(
        source / "zipped.zip", {"a/one.txt": "1", "b/two.txt": "2", "readme.md": "", "0.txt": ""}
    )
    write_tar(source / "tarred.tar.gz", {"three.txt": "3"})
    (source / "table.csv").write_text("a,b\n1,2\n")
    result = run_main(fetch, capsys, "zipped", "tarred", "table", "--from", source)
    assert result.returncode == 0, result.stderr
    assert sorted(name for name in leftovers(fetch) if "." in name) == [
        "table/table.csv",
        "tarred/texts/three.txt",
        "zipped/texts/one.txt",
        "zipped/texts/two.txt",
    ]
    assert (fetch.DATA_DIR / "zipped/texts/two.txt").read_text() == "2"
    before = (fetch.DATA_DIR / "table/table.csv").stat()
    result = run_main(fetch, capsys, "table", "--from", source)
    assert "already there" in result.stdout
    assert (fetch.DATA_DIR / "table/table.csv").stat() == before


def test_unpacked_folders_and_nested_archives_are_taken_too(fetch, capsys, tmp_path):
    (tmp_path / "mirror/zipped/texts").mkdir(parents=True)
    (tmp_path / "mirror/zipped/texts/one.txt").write_text("1")
    inner = write_tar(tmp_path / "tarred.tar.gz", {"x/three.txt": "3"})
    fetch.SETS["tarred"]["names"] = ["outer.zip"]
    write_zip(tmp_path / "mirror/outer.zip", {"deep/tarred.tar.gz": inner.read_bytes()})
    result = run_main(fetch, capsys, "zipped", "tarred", "--from", tmp_path / "mirror")
    assert result.returncode == 0, result.stderr
    assert (fetch.DATA_DIR / "zipped/texts/one.txt").read_text() == "1"
    assert (fetch.DATA_DIR / "tarred/texts/three.txt").read_text() == "3"
    assert (tmp_path / "mirror/zipped/texts/one.txt").exists(), "the source was moved, not copied"


def test_bitcoin_mirror_gets_kaggles_column_names(tmp_path):
    fetch = load_fetch(tmp_path)
    fetch.SETS["bitcoin"]["urls"] = [("http://127.0.0.1:9/small.csv.gz", None)]
    plain = b"timestamp,open,high,low,close,volume\n1325376060,4.58,4.58,4.58,4.58,0.0\n"
    (tmp_path / "small.csv.gz").write_bytes(gzip.compress(plain))
    fetch.fetch("bitcoin", str(tmp_path), partial=True)
    lines = (tmp_path / "bitcoin/bitcoin.csv").read_text().splitlines()
    assert lines == ["Timestamp,Open,High,Low,Close,Volume", "1325376060,4.58,4.58,4.58,4.58,0.0"]


def test_a_partial_set_is_refused_and_told(fetch, capsys, tmp_path):
    fetch.SETS["table"]["least"] = fetch.SETS["zipped"]["least"] = 3, "rows"
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    write_zip(tmp_path / "zipped.zip", {"1.txt": "1", "2.txt": "2"})
    for name, target in (("table", "table.csv"), ("zipped", "texts")):
        result = run_main(fetch, capsys, name, "--from", tmp_path)
        assert_clear_error(result, f"{target} has 2 of 3 rows", "--partial")
        assert leftovers(fetch) == []
        result = run_main(fetch, capsys, name, "--from", tmp_path, "--partial")
        assert result.returncode == 0, result.stderr
        result = run_main(fetch, capsys, name)
        assert_clear_error(result, "already there, but", "2 of 3 rows", "remove")
        assert run_main(fetch, capsys, name, "--partial").returncode == 0
        shutil.rmtree(fetch.DATA_DIR / name)


def test_what_is_no_file_does_not_hang(fetch, capsys, tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    for source in (tmp_path, tmp_path / "table.csv"):
        assert_clear_error(run_main(fetch, capsys, "table", "--from", source), "table")
    assert leftovers(fetch) == []


def test_archives_of_windows_and_mac(fetch, capsys, tmp_path):
    """Backslashes in names; what macOS adds to an archive."""
    odd = {"__MACOSX/._1.txt": "no", ".hidden.txt": "no", "__MACOSX/2.txt": "no"}
    write_zip(tmp_path / "zipped.zip", {"folder\\1.txt": "yes", **odd})
    result = run_main(fetch, capsys, "zipped", "--from", tmp_path)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (fetch.DATA_DIR / "zipped/texts").iterdir()] == ["1.txt"]


def test_git_lfs_pointer_is_named(fetch, capsys, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name, file in (("table", "table.csv"), ("tarred", "tarred.tar.gz")):
        (tmp_path / file).write_text(pointer)
        assert_clear_error(run_main(fetch, capsys, name, "--from", tmp_path), "Git LFS", "pull")
    assert leftovers(fetch) == []


def test_no_set_comes_over_plain_http_without_a_checksum():
    for name, spec in load_fetch(DATA).SETS.items():
        for url, checksum in spec["urls"]:
            assert url.startswith("https://") or checksum, name


@pytest.mark.parametrize("published", ["sha256", "sha1"])
def test_wrong_checksum_leaves_nothing(fetch, capsys, tmp_path, published):
    path = write_zip(tmp_path / "zipped.zip", {"one.txt": "1"})
    right = hashlib.new(published, path.read_bytes()).hexdigest()
    prefix = "" if published == "sha256" else published + ":"
    url = fetch.SETS["zipped"]["urls"][0][0]
    fetch.SETS["zipped"]["urls"] = [(url, prefix + "0" * len(right))]
    assert_clear_error(run_main(fetch, capsys, "zipped", "--from", tmp_path), "wrong checksum")
    assert leftovers(fetch) == []
    fetch.SETS["zipped"]["urls"] = [(url, prefix + right)]
    assert run_main(fetch, capsys, "zipped", "--from", tmp_path).returncode == 0


def test_two_versions_under_one_name_are_not_checked_against_each_other(fetch, tmp_path):
    # As fra-eng.zip: a frozen copy with a checksum, and today's file from the site itself.
    path = write_zip(tmp_path / "zipped.zip", {"one.txt": "today's"})
    urls = [("http://127.0.0.1:9/frozen/zipped.zip", "0" * 64), *fetch.SETS["zipped"]["urls"]]
    for fetch.SETS["zipped"]["urls"] in (urls, urls[::-1]):
        fetch.fetch("zipped", str(path))
        assert (fetch.DATA_DIR / "zipped/texts/one.txt").read_text() == "today's"
        shutil.rmtree(fetch.DATA_DIR / "zipped")


EVIL_NAMES = ["../evil.txt", "a/../../evil.txt", "{root}/evil.txt", "..\\evil.txt", "C:\\evil.txt"]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("kind", ["zipped.zip", "tarred.tar.gz"])
def test_archives_write_nothing_outside(fetch, capsys, tmp_path, kind, name):
    write = write_zip if kind.endswith("zip") else write_tar
    name = name.format(root=tmp_path)
    write(tmp_path / kind, {"good.txt": "1", name: "bad"})
    if kind.endswith("zip"):  # ZipInfo tidies names up when it is written; the bytes must be evil
        assert name in zipfile.ZipFile(tmp_path / kind).namelist()
    result = run_main(fetch, capsys, kind.split(".")[0], "--from", tmp_path)
    assert_clear_error(result, "unsafe entry", "evil.txt")
    assert leftovers(fetch) == []
    assert not list(tmp_path.rglob("*evil*"))


def test_tar_files_of_the_1990s_are_taken(fetch, tmp_path):
    with tarfile.open(tmp_path / "tarred.tar.gz", "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("three.txt")
        member.type, member.size = tarfile.AREGTYPE, 1
        archive.addfile(member, io.BytesIO(b"3"))
    fetch.fetch("tarred", str(tmp_path))
    assert (fetch.DATA_DIR / "tarred/texts/three.txt").read_text() == "3"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(fetch, capsys, tmp_path, kind):
    with tarfile.open(tmp_path / "tarred.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("texts")
        link.type, link.linkname = kind, str(tmp_path)
        archive.addfile(link)
        member = tarfile.TarInfo("texts/evil.txt")
        archive.addfile(member)
    result = run_main(fetch, capsys, "tarred", "--from", tmp_path)
    assert_clear_error(result, "unsafe entry")
    assert leftovers(fetch) == [] and not (tmp_path / "evil.txt").exists()


def test_links_in_zip_are_refused(fetch, capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        link = zipfile.ZipInfo("one.txt")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert_clear_error(run_main(fetch, capsys, "zipped", "--from", tmp_path), "unsafe entry")
    assert leftovers(fetch) == []


@pytest.mark.parametrize("name", ["zipped.zip", "tarred.tar.gz", "raw.csv.gz", "raw.csv"])
def test_decompression_bombs_are_stopped(fetch, capsys, tmp_path, name):
    content = "a,b\n" + "0" * 3_000_000  # the bound is 2 MB
    path = tmp_path / name
    if name.endswith(".zip"):
        write_zip(path, {"big.txt": content})
    elif name.endswith(".tar.gz"):
        write_tar(path, {"big.txt": content})
    else:
        path.write_bytes(
            gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode()
        )
    result = run_main(fetch, capsys, name.split(".")[0].replace("raw", "table"), "--from", path)
    assert_clear_error(result, "unpacks to more than 2 MB")
    assert leftovers(fetch) == []


@pytest.mark.parametrize("name", ["zipped.zip", "tarred.tar.gz", "raw.csv.gz"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped"])
def test_damaged_archives_leave_nothing(fetch, capsys, tmp_path, name, damage):
    noise = "a,b\n" + np.random.default_rng(0).bytes(30_000).hex()
    path = tmp_path / name
    if name.endswith(".zip"):
        write_zip(path, {"one.txt": noise, "two.txt": noise})
    elif name.endswith(".tar.gz"):
        write_tar(path, {"one.txt": noise, "two.txt": noise})
    else:
        path.write_bytes(gzip.compress(noise.encode()))
    whole = bytearray(path.read_bytes())
    if damage == "truncated":
        whole = whole[: len(whole) * 2 // 3]
    elif damage == "garbage":
        whole = bytearray(b"<html>not found</html>")
    else:
        whole[len(whole) // 3 : len(whole) // 3 + 8] = b"\xff" * 8
    path.write_bytes(whole)
    result = run_main(fetch, capsys, name.split(".")[0].replace("raw", "table"), "--from", path)
    assert_clear_error(result, "damaged archive")
    assert leftovers(fetch) == []


def test_gzip_of_something_else_is_not_a_tar(fetch, capsys, tmp_path):
    (tmp_path / "tarred.tar.gz").write_bytes(gzip.compress(b"no tar" * 1000))
    result = run_main(fetch, capsys, "tarred", "--from", tmp_path)
    assert_clear_error(result, "damaged archive")
    assert leftovers(fetch) == []


def test_two_tables_in_one_archive_are_not_guessed_between(fetch, capsys, tmp_path):
    path = write_zip(tmp_path / "archive.zip", {"old.csv": "a,b\n", "new.csv": "a,b\n"})
    assert_clear_error(run_main(fetch, capsys, "table", "--from", path), "more than one file")
    assert leftovers(fetch) == []


def test_error_page_is_not_taken_for_the_data(fetch, capsys, tmp_path):
    (tmp_path / "raw.csv").write_text("<!DOCTYPE html><title>Sign in</title>\n")
    result = run_main(fetch, capsys, "table", "--from", tmp_path)
    assert_clear_error(result, "not the data set", "DOCTYPE")
    assert leftovers(fetch) == []


def test_too_little_disk_is_said_before_anything_is_downloaded(fetch, capsys):
    fetch.SETS["table"]["megabytes"] = (10**9, 10**9)
    assert_clear_error(run_main(fetch, capsys, "table"), "2,000,000,000 MB of disk")
    assert leftovers(fetch) == []


def test_disk_full_half_way_leaves_nothing(fetch, capsys, tmp_path, monkeypatch):
    (tmp_path / "raw.csv").write_text("a,b\n")

    def full(spec, folder, out):
        out.mkdir()
        (out / "table.csv").write_text("a,b")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "collect", full)
    assert_clear_error(run_main(fetch, capsys, "table", "--from", tmp_path), "No space left")
    assert leftovers(fetch) == []


def test_folder_that_cannot_be_written_is_a_clear_error(fetch, capsys, tmp_path):
    (tmp_path / "raw.csv").write_text("a,b\n")
    (fetch.DATA_DIR / "table").write_text("a file in the way")
    assert_clear_error(run_main(fetch, capsys, "table", "--from", tmp_path), "exists")
    assert leftovers(fetch) == ["table"]


def test_download_falls_back_to_the_next_mirror(fetch, capsys, server):
    folder, url = server
    write_zip(folder / "zipped.zip", {"one.txt": "1"})
    (folder / "other").mkdir()
    write_zip(folder / "other/zipped.zip", {"one.txt": "an older version"})
    checksum = hashlib.sha256((folder / "zipped.zip").read_bytes()).hexdigest()
    fetch.SETS["zipped"]["urls"] = [
        ("http://127.0.0.1:9/zipped.zip", checksum),  # refused
        (f"{url}/gone/zipped.zip", checksum),  # 404
        (f"{url}/other/zipped.zip", checksum),  # another file
        (f"{url}/cut/zipped.zip", checksum),  # breaks off
        (f"{url}/zipped.zip", checksum),
    ]
    result = run_main(fetch, capsys, "zipped")
    assert result.returncode == 0, result.stderr
    assert (fetch.DATA_DIR / "zipped/texts/one.txt").read_text() == "1"
    assert "%" in result.stderr, "no progress bar"
    fetch.SETS["zipped"]["urls"].pop()
    shutil.rmtree(fetch.DATA_DIR / "zipped")
    result = run_main(fetch, capsys, "zipped")
    assert_clear_error(result, "no connection", "HTTP 404", "wrong checksum", "broke off", "--from")
    assert leftovers(fetch) == []


def test_download_that_breaks_off_is_tried_once_more(fetch, capsys, server):
    folder, url = server
    write_zip(folder / "zipped.zip", {"one.txt": "1"})
    fetch.SETS["zipped"]["urls"] = [(f"{url}/cut-once/zipped.zip", None)]
    result = run_main(fetch, capsys, "zipped")
    assert result.returncode == 0, result.stderr
    checksum = hashlib.sha256((folder / "zipped.zip").read_bytes()).hexdigest()
    assert checksum in result.stdout, "no checksum is published, and none is shown"


def test_from_takes_the_url_of_a_mirror(fetch, capsys, server):
    folder, url = server
    write_tar(folder / "tarred.tar.gz", {"three.txt": "3"})
    (folder / "table.csv").write_text("a,b\n1,2\n")
    result = run_main(fetch, capsys, "tarred", "table", "--from", url + "/")
    assert result.returncode == 0, result.stderr
    assert (fetch.DATA_DIR / "tarred/texts/three.txt").read_text() == "3"
    assert (fetch.DATA_DIR / "table/table.csv").exists()
    write_zip(folder / "zipped.zip", {"one.txt": "1"})
    assert run_main(fetch, capsys, "zipped", "--from", url + "/zipped.zip").returncode == 0


def test_without_a_network_the_hint_comes_soon(run_script, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/fetch.py").write_bytes((DATA / "fetch.py").read_bytes())
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"))
    env = {**dict.fromkeys(proxies, "http://127.0.0.1:9"), "NO_PROXY": "", "no_proxy": ""}
    start = time.monotonic()
    result = run_script(tmp_path / "data/fetch.py", "eeg", cwd=tmp_path, env=env, timeout=60)
    assert time.monotonic() - start < 30
    assert_clear_error(result, "no connection", "kaggle.com", "--from", "--data sample")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["fetch.py"]


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_download_leaves_nothing_that_looks_whole(tmp_path, kill):
    """A server sends half a file and waits; the fetch is stopped there, then started again."""
    content = b"a,b\n" + b"1,2\n" * 100_000
    stop_half_way = threading.Event()
    half_sent = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            half_sent.set()
            stop_half_way.wait(100)
            self.wfile.write(content[half:])

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}/raw.csv"
    checksum = hashlib.sha256(content).hexdigest()
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import signal, sys; sys.path.insert(0, {str(DATA)!r})\n"
        # A shell starts its background jobs deaf to Ctrl-C, and they pass that on.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "import fetch\n"
        f"fetch.DATA_DIR = Path({str(tmp_path / 'data')!r})\n"
        f"fetch.SETS = {{'table': {{'about': '', 'urls': [({url!r}, {checksum!r})],\n"
        "    'files': [(r'(.*/)?[^/]+\\.csv', 'table.csv')], 'target': 'table.csv',\n"
        "    'header': 'a,b', 'megabytes': (1, 2)}}\n"
        "sys.argv = ['fetch.py', 'table']\n"
        "fetch.main()\n"
    )
    (tmp_path / "data").mkdir()
    command = [sys.executable, str(driver)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert half_sent.wait(60)
        time.sleep(0.3)
        process.send_signal(kill)
        out, err = process.communicate(timeout=60)
        assert not (tmp_path / "data/table").exists()
        left = list((tmp_path / "data").iterdir())
        if kill == signal.SIGKILL:  # nobody can clean up after that, but it is hidden and marked
            assert all(path.name.startswith(".") and path.suffix == ".part" for path in left)
        else:
            result = subprocess.CompletedProcess(command, process.returncode, out, err)
            assert_clear_error(result, "interrupted")
            assert left == []
        stop_half_way.set()
        again = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert again.returncode == 0, again.stderr
        assert (tmp_path / "data/table/table.csv").read_bytes() == content
    finally:
        stop_half_way.set()
        process.kill()
        web.shutdown()
        web.server_close()


def test_leftovers_of_a_killed_run_are_removed_a_day_later(fetch, tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n")
    old, young = fetch.DATA_DIR / ".table-old.part", fetch.DATA_DIR / ".table-young.part"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    fetch.fetch("table", str(tmp_path))
    assert not old.exists() and young.exists()


def test_real_sets_come_from_the_folder_of_real_data(real_data_dir, tmp_path):
    fetch = load_fetch(tmp_path)
    for name, target in (("eeg", "eeg.csv"), ("bitcoin", "bitcoin.csv"), ("fra-eng", "fra.txt")):
        fetch.fetch(name, str(real_data_dir), partial=name == "bitcoin")
        assert (tmp_path / name / target).stat().st_size > 1_000_000


def test_keras_sets_without_network(run_script, tmp_path):
    env = {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    result = run_script("data/fetch.py", "cifar10", env=env)
    assert_clear_error(result, "cifar10", "--data sample")
    assert not [path for path in tmp_path.rglob("*cifar*") if path.is_file()]
