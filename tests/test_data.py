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
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, run_python, start_python

DATA = ROOT / "data"
SAMPLES = DATA / "samples"
WINE = DATA / "wine" / "winequality-white.csv"


# --- what comes with the repository -----------------------------------------------------------


def test_wine_is_the_whole_real_file_and_its_sample_drawn_from_it():
    checksum = "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836"
    assert hashlib.sha256(WINE.read_bytes()).hexdigest() == checksum
    sample = (SAMPLES / "winequality-white.csv").read_text().splitlines()
    real = WINE.read_text().splitlines()
    assert len(sample) == 601 and sample[0] == real[0] and set(sample) <= set(real)


def test_samples_are_small_and_match_their_checksums():
    """So nothing else about them changes unseen; the chapters' tests read them."""
    text = (SAMPLES / "README.md").read_text()
    listed = dict(re.findall(r"^\| `([^`]+)` \| [\d,]+ \| `(\w{64})` \|$", text, re.M))
    files = [path for path in SAMPLES.iterdir() if path.name != "README.md"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == listed
    assert sum(path.stat().st_size for path in files) < 20_000_000


@pytest.mark.parametrize(
    ("name", "n_train", "n_test"), [("mnist", 4000, 1000), ("cifar10", 2000, 500)]
)
def test_image_samples_have_even_classes_in_random_order(name, n_train, n_test):
    sample = np.load(SAMPLES / f"{name}.npz")
    for part, count in (("train", n_train), ("test", n_test)):
        x, y = sample[f"x_{part}"], sample[f"y_{part}"].ravel()
        assert (np.bincount(y, minlength=10) == count // 10).all()
        assert len(set(y[:30])) > 5, "not shuffled"
        assert len(x) == count and x.std() > 30, "blank pictures"


def test_seizures_are_louder_in_the_eeg_sample():
    sample = pd.read_csv(SAMPLES / "eeg.csv")
    assert (sample["y"].value_counts() == 414).all()
    loudness = sample.iloc[:, 1:-1].std(axis=1).groupby(sample["y"]).median()
    assert loudness[1] > 3 * loudness[2:].max()


def read_tar(name):
    with tarfile.open(SAMPLES / name) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_no_post_names_its_group_in_its_text():
    for name, post in read_tar("20_newsgroup.tar.gz").items():
        group = re.fullmatch(r"20_newsgroup/([a-z.-]+)/\d+", name)[1]
        header, body = post.decode("latin-1").split("\n\n", 1)
        assert f"Newsgroups: {group}" in header and group not in body and len(body) > 80


def test_no_review_is_in_both_parts():
    reviews = read_tar("aclImdb.tar.gz")
    train = {text for name, text in reviews.items() if "/train/" in name}
    assert not train & {text for name, text in reviews.items() if "/test/" in name}


def test_sentence_pairs_are_sorted_and_unique():
    lines = (SAMPLES / "fra.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    assert all(len(row) == 3 and "made-up" in row[2] for row in rows)
    assert [len(row[0]) for row in rows] == sorted(len(row[0]) for row in rows)
    assert len({(row[0], row[1]) for row in rows}) == 1500 > len({row[0] for row in rows})


# --- fetch.py ---------------------------------------------------------------------------------

# The download of each small set below.
ARCHIVES = {"zipped.zip": "zipped", "tarred.tar.gz": "tarred", "raw.csv": "table"}
ARCHIVES["raw.csv.gz"] = "table"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there: refused at once


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
    files = [(r"(.*/)?([^/]+\.txt)", r"texts/\2")]
    common = {"about": "", "files": files, "target": "texts", "megabytes": (1, 2)}
    table = {"files": [(r"(.*/)?[^/]+\.csv", "table.csv")], "target": "table.csv", "header": "a,b"}
    module.SETS = {
        "zipped": {**common, "urls": [(f"{NOWHERE}/zipped.zip", None)]},
        "tarred": {**common, "urls": [(f"{NOWHERE}/tarred.tar.gz", None)]},
        "table": {**common, **table, "urls": [(f"{NOWHERE}/raw.csv", None)]},
    }
    return module


@pytest.fixture
def server(tmp_path):
    """A web server on 127.0.0.1: the `folder` it serves, its `url`, and two events.

    Below /cut it sends half of a file and hangs up, below /cut-once only the first time; below
    /slow it waits half way for `go_on`, having set `half_sent`.
    """
    folder, seen = tmp_path / "served", set()
    folder.mkdir()
    half_sent, go_on = threading.Event(), threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            kind, _, name = self.path[1:].rpartition("/")
            if kind == "cut-once" and kind in seen:
                kind, self.path = "", f"/{name}"
            seen.add(kind)
            if kind not in ("cut", "cut-once", "slow"):
                return super().do_GET()
            content = (folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            half_sent.set()
            if kind == "slow":
                go_on.wait(100)
                self.wfile.write(content[half:])

    handler = functools.partial(Handler, directory=str(folder))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}"
    yield SimpleNamespace(folder=folder, url=url, half_sent=half_sent, go_on=go_on)
    go_on.set()
    web.shutdown()
    web.server_close()


def pack(path, members):
    """Write {name: text} as the archive that the suffix tells; .csv and .csv.gz hold one text."""
    texts = {name: text.encode() for name, text in members.items()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path, "w:gz") as archive:
            for name, text in texts.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
    else:
        (text,) = texts.values()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
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


def take(fetch, capsys, *args):
    """main() with ARGS, which works; returns what it has printed."""
    result = run_main(fetch, capsys, *args)
    assert result.returncode == 0, result.stderr
    return result.stdout


def leftovers(fetch):
    return [str(path.relative_to(fetch.DATA_DIR)) for path in fetch.DATA_DIR.rglob("*")]


@pytest.fixture
def assert_refused(fetch, capsys):
    """A function: `--from` of a download, or of the folder it is in, ends with WORDS."""

    def check(path, *words, name=None):
        result = run_main(fetch, capsys, name or ARCHIVES[path.name], "--from", path)
        assert_clear_error(result, *words)
        assert leftovers(fetch) == []

    return check


def test_the_command_names_every_set_and_says_what_it_wants(capsys):
    fetch = load_fetch(DATA)
    listed = take(fetch, capsys, "--list")
    for name in (*fetch.SETS, "mnist", "cifar10", "imdb"):
        assert re.search(rf"^{name} ", listed, re.M)
    assert "already there" in take(fetch, capsys, "wine")
    assert_clear_error(run_main(fetch, capsys, "whine"), "whine", "wine", "eeg")
    assert_clear_error(run_main(fetch, capsys), "--all", "--list")


def test_missing_folder_is_a_clear_error_that_names_the_login_page(fetch, assert_refused, tmp_path):
    fetch.SETS["table"]["by_hand"] = "https://www.kaggle.com/datasets/x/y"
    words = ("nowhere is neither a file", "kaggle.com/datasets/x/y", "login", "--from")
    assert_refused(tmp_path / "nowhere", *words, name="table")
    assert_refused(fetch.DATA_DIR, "raw.csv", "table.csv", name="table")


def test_every_registered_pattern_fits_its_set():
    sets = load_fetch(DATA).SETS
    post = "20_newsgroup/comp.os.ms-windows.misc/9141"
    cases = {
        "wine": ("winequality-white.csv", "winequality-white.csv"),
        "eeg": ("archive/Epileptic Seizure Recognition.csv", "eeg.csv"),
        "newsgroups": ("x/20_newsgroups/comp.os.ms-windows.misc/9141", post),
        "glove": ("glove/glove.6B.100d.txt", "glove.6B.100d.txt"),
        "fra-eng": ("fra-eng/fra.txt", "fra.txt"),
        "dogs-vs-cats": ("PetImages/Dog/17.jpg", "train/dog.17.jpg"),
        "bitcoin": ("btcusd_bitstamp_1min_2012-2025.csv", "bitcoin.csv"),
    }
    assert set(cases) == set(sets)
    for name, (inside, expected) in cases.items():
        matches = [(re.fullmatch(pattern, inside), new) for pattern, new in sets[name]["files"]]
        ((match, new),) = [(match, new) for match, new in matches if match]
        assert match.expand(new) == expected
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
    for spec in sets.values():
        assert all(url.startswith("https://") or checksum for url, checksum in spec["urls"])


def test_archives_and_plain_files_come_from_a_folder(fetch, capsys, tmp_path):
    """Of archives only what belongs to the set, also with a Windows's and a Mac's odd names."""
    odd = {"__MACOSX/._1.txt": "no", ".hidden.txt": "no", "__MACOSX/2.txt": "no", "0.txt": ""}
    pack(tmp_path / "zipped.zip", {"a/one.txt": "1", "b\\two.txt": "2", "readme.md": "", **odd})
    pack(tmp_path / "tarred.tar.gz", {"three.txt": "3"})
    pack(tmp_path / "table.csv", {"": "a,b\n1,2\n"})
    take(fetch, capsys, "zipped", "tarred", "table", "--from", tmp_path)
    assert sorted(name for name in leftovers(fetch) if "." in name) == [
        "table/table.csv",
        "tarred/texts/three.txt",
        "zipped/texts/one.txt",
        "zipped/texts/two.txt",
    ]
    assert (fetch.DATA_DIR / "zipped/texts/two.txt").read_text() == "2"
    before = (fetch.DATA_DIR / "table/table.csv").stat()
    assert "already there" in take(fetch, capsys, "table", "--from", tmp_path)
    assert (fetch.DATA_DIR / "table/table.csv").stat() == before


def test_unpacked_folders_and_nested_archives_are_taken_too(fetch, capsys, tmp_path):
    mirror = tmp_path / "mirror"
    (mirror / "zipped/texts").mkdir(parents=True)
    (mirror / "zipped/texts/one.txt").write_text("1")
    inner = pack(tmp_path / "tarred.tar.gz", {"x/three.txt": "3"})
    fetch.SETS["tarred"]["names"] = ["outer.zip"]
    with zipfile.ZipFile(mirror / "outer.zip", "w") as archive:
        archive.write(inner, "deep/tarred.tar.gz")
    take(fetch, capsys, "zipped", "tarred", "--from", mirror)
    assert (fetch.DATA_DIR / "zipped/texts/one.txt").read_text() == "1"
    assert (fetch.DATA_DIR / "tarred/texts/three.txt").read_text() == "3"
    assert (mirror / "zipped/texts/one.txt").exists(), "the source was moved, not copied"


def test_bitcoin_mirror_gets_kaggles_column_names(tmp_path):
    fetch = load_fetch(tmp_path)
    fetch.SETS["bitcoin"]["urls"] = [(f"{NOWHERE}/small.csv.gz", None)]
    row = "1325376060,4.58,4.58,4.58,4.58,0.0"
    pack(tmp_path / "small.csv.gz", {"": f"timestamp,open,high,low,close,volume\n{row}\n"})
    fetch.fetch("bitcoin", str(tmp_path), partial=True)
    lines = (tmp_path / "bitcoin/bitcoin.csv").read_text().splitlines()
    assert lines == ["Timestamp,Open,High,Low,Close,Volume", row]


def test_a_partial_set_is_refused_and_told(fetch, capsys, assert_refused, tmp_path):
    fetch.SETS["table"]["least"] = fetch.SETS["zipped"]["least"] = 3, "rows"
    pack(tmp_path / "table.csv", {"": "a,b\n1,2\n"})
    pack(tmp_path / "zipped.zip", {"1.txt": "1", "2.txt": "2"})
    for name, target in (("table", "table.csv"), ("zipped", "texts")):
        assert_refused(tmp_path, f"{target} has 2 of 3 rows", "--partial", name=name)
        take(fetch, capsys, name, "--from", tmp_path, "--partial")
        result = run_main(fetch, capsys, name)
        assert_clear_error(result, "already there, but", "2 of 3 rows", "remove")
        take(fetch, capsys, name, "--partial")
        shutil.rmtree(fetch.DATA_DIR / name)


def test_what_is_no_file_does_not_hang(assert_refused, tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    for source in (tmp_path, tmp_path / "table.csv"):
        assert_refused(source, "table", name="table")


@pytest.mark.parametrize("name", ["raw.csv", "tarred.tar.gz"])
def test_git_lfs_pointer_is_named(assert_refused, tmp_path, name):
    (tmp_path / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    assert_refused(tmp_path / name, "Git LFS", "pull")


@pytest.mark.parametrize("published", ["sha256", "sha1"])
def test_wrong_checksum_leaves_nothing(fetch, capsys, assert_refused, tmp_path, published):
    path = pack(tmp_path / "zipped.zip", {"one.txt": "1"})
    right = hashlib.new(published, path.read_bytes()).hexdigest()
    prefix = "" if published == "sha256" else published + ":"
    ((url, _),) = fetch.SETS["zipped"]["urls"]
    fetch.SETS["zipped"]["urls"] = [(url, prefix + "0" * len(right))]
    assert_refused(path, "wrong checksum")
    fetch.SETS["zipped"]["urls"] = [(url, prefix + right)]
    take(fetch, capsys, "zipped", "--from", path)


def test_two_versions_under_one_name_are_not_checked_against_each_other(fetch, tmp_path):
    # As fra-eng.zip: a frozen copy with a checksum, and today's file from the site itself.
    path = pack(tmp_path / "zipped.zip", {"one.txt": "today's"})
    urls = [(f"{NOWHERE}/frozen/zipped.zip", "0" * 64), *fetch.SETS["zipped"]["urls"]]
    for fetch.SETS["zipped"]["urls"] in (urls, urls[::-1]):
        fetch.fetch("zipped", str(path))
        assert (fetch.DATA_DIR / "zipped/texts/one.txt").read_text() == "today's"
        shutil.rmtree(fetch.DATA_DIR / "zipped")


EVIL_NAMES = ["../evil.txt", "a/../../evil.txt", "{root}/evil.txt", "..\\evil.txt", "C:\\evil.txt"]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("kind", ["zipped.zip", "tarred.tar.gz"])
def test_archives_write_nothing_outside(assert_refused, tmp_path, kind, name):
    name = name.format(root=tmp_path)
    pack(tmp_path / kind, {"good.txt": "1", name: "bad"})
    if kind.endswith("zip"):  # ZipInfo tidies names up when it is written; the bytes must be evil
        assert name in zipfile.ZipFile(tmp_path / kind).namelist()
    assert_refused(tmp_path / kind, "unsafe entry", "evil.txt")
    assert not list(tmp_path.rglob("*evil*"))


def test_tar_files_of_the_1990s_are_taken(fetch, tmp_path):
    with tarfile.open(tmp_path / "tarred.tar.gz", "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("three.txt")
        member.type, member.size = tarfile.AREGTYPE, 1
        archive.addfile(member, io.BytesIO(b"3"))
    fetch.fetch("tarred", str(tmp_path))
    assert (fetch.DATA_DIR / "tarred/texts/three.txt").read_text() == "3"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(assert_refused, tmp_path, kind):
    with tarfile.open(tmp_path / "tarred.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("texts")
        link.type, link.linkname = kind, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("texts/evil.txt"))
    assert_refused(tmp_path / "tarred.tar.gz", "unsafe entry")
    assert not (tmp_path / "evil.txt").exists()


def test_links_in_zip_are_refused(assert_refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        link = zipfile.ZipInfo("one.txt")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert_refused(tmp_path / "zipped.zip", "unsafe entry")


@pytest.mark.parametrize("name", ARCHIVES)
def test_decompression_bombs_are_stopped(assert_refused, tmp_path, name):
    path = pack(tmp_path / name, {"big.txt": "a,b\n" + "0" * 3_000_000})  # the bound is 2 MB
    assert_refused(path, "unpacks to more than 2 MB")


@pytest.mark.parametrize("name", ["zipped.zip", "tarred.tar.gz", "raw.csv.gz"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped"])
def test_damaged_archives_leave_nothing(assert_refused, tmp_path, name, damage):
    noise = "a,b\n" + np.random.default_rng(0).bytes(30_000).hex()
    path = pack(tmp_path / name, {"one.txt": noise})
    whole = path.read_bytes()
    third = len(whole) // 3
    damaged = {
        "truncated": whole[: 2 * third],
        "garbage": b"<html>not found</html>",
        "flipped": whole[:third] + b"\xff" * 8 + whole[third + 8 :],
    }
    path.write_bytes(damaged[damage])
    assert_refused(path, "damaged archive")


def test_gzip_of_something_else_is_not_a_tar(assert_refused, tmp_path):
    (tmp_path / "tarred.tar.gz").write_bytes(gzip.compress(b"no tar" * 1000))
    assert_refused(tmp_path / "tarred.tar.gz", "damaged archive")


def test_two_tables_in_one_archive_are_not_guessed_between(assert_refused, tmp_path):
    path = pack(tmp_path / "archive.zip", {"old.csv": "a,b\n", "new.csv": "a,b\n"})
    assert_refused(path, "more than one file", name="table")


def test_error_page_is_not_taken_for_the_data(assert_refused, tmp_path):
    path = pack(tmp_path / "raw.csv", {"": "<!DOCTYPE html><title>Sign in</title>\n"})
    assert_refused(path, "not the data set", "DOCTYPE")


def test_too_little_disk_is_said_before_anything_is_downloaded(fetch, capsys):
    fetch.SETS["table"]["megabytes"] = (10**9, 10**9)
    assert_clear_error(run_main(fetch, capsys, "table"), "2,000,000,000 MB of disk")
    assert leftovers(fetch) == []


def test_disk_full_half_way_leaves_nothing(fetch, assert_refused, tmp_path, monkeypatch):
    def full(spec, folder, out):
        out.mkdir()
        (out / "table.csv").write_text("a,b")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "collect", full)
    assert_refused(pack(tmp_path / "raw.csv", {"": "a,b\n"}), "No space left")


def test_folder_that_cannot_be_written_is_a_clear_error(fetch, capsys, tmp_path):
    pack(tmp_path / "raw.csv", {"": "a,b\n"})
    (fetch.DATA_DIR / "table").write_text("a file in the way")
    assert_clear_error(run_main(fetch, capsys, "table", "--from", tmp_path), "exists")
    assert leftovers(fetch) == ["table"]


def test_download_falls_back_to_the_next_mirror(fetch, capsys, server):
    path = pack(server.folder / "zipped.zip", {"one.txt": "1"})
    (server.folder / "other").mkdir()
    pack(server.folder / "other/zipped.zip", {"one.txt": "an older version"})
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    fetch.SETS["zipped"]["urls"] = [
        (f"{NOWHERE}/zipped.zip", checksum),  # refused
        (f"{server.url}/gone/zipped.zip", checksum),  # 404
        (f"{server.url}/other/zipped.zip", checksum),  # another file
        (f"{server.url}/cut/zipped.zip", checksum),  # breaks off
        (f"{server.url}/zipped.zip", checksum),
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
    path = pack(server.folder / "zipped.zip", {"one.txt": "1"})
    fetch.SETS["zipped"]["urls"] = [(f"{server.url}/cut-once/zipped.zip", None)]
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    shown = take(fetch, capsys, "zipped")
    assert checksum in shown, "no checksum is published, and none is shown"


def test_from_takes_the_url_of_a_mirror(fetch, capsys, server):
    pack(server.folder / "tarred.tar.gz", {"three.txt": "3"})
    pack(server.folder / "table.csv", {"": "a,b\n1,2\n"})
    take(fetch, capsys, "tarred", "table", "--from", server.url + "/")
    assert (fetch.DATA_DIR / "tarred/texts/three.txt").read_text() == "3"
    assert (fetch.DATA_DIR / "table/table.csv").exists()
    pack(server.folder / "zipped.zip", {"one.txt": "1"})
    take(fetch, capsys, "zipped", "--from", server.url + "/zipped.zip")


@pytest.fixture
def script(tmp_path):
    """fetch.py copied into a data folder of its own."""
    (tmp_path / "data").mkdir()
    return shutil.copy(DATA / "fetch.py", tmp_path / "data" / "fetch.py")


def test_without_a_network_the_hint_comes_soon(script):
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
    env = {**proxies, "NO_PROXY": "", "no_proxy": ""}
    result = run_python(script, "eeg", env=env, timeout=60)
    assert_clear_error(result, "no connection", "kaggle.com", "--from", "--data sample")
    assert [path.name for path in script.parent.iterdir()] == ["fetch.py"]


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_download_leaves_nothing_that_looks_whole(script, server, tmp_path, kill):
    """A server sends half a file and waits; the fetch is stopped there, then started again."""
    shutil.copy(WINE, server.folder)
    arguments = [script, "wine", "--from", f"{server.url}/slow/{WINE.name}"]
    process = start_python(*arguments, stderr=tmp_path / "errors")
    assert server.half_sent.wait(300)
    time.sleep(0.3)  # it waits for the other half
    process.send_signal(kill)
    status = process.wait(300)
    left = {path for path in script.parent.iterdir() if path != script}
    if kill == signal.SIGKILL:  # nobody can clean up after that, but it is hidden and marked
        assert all(path.name.startswith(".") and path.suffix == ".part" for path in left)
    else:
        errors = (tmp_path / "errors").read_text()
        assert_clear_error(subprocess.CompletedProcess([], status, "", errors), "interrupted")
        assert not left
    server.go_on.set()
    assert run_python(*arguments).returncode == 0
    assert (script.parent / "wine" / WINE.name).read_bytes() == WINE.read_bytes()


def test_leftovers_of_a_killed_run_are_removed_a_day_later(fetch, tmp_path):
    pack(tmp_path / "table.csv", {"": "a,b\n"})
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


def test_keras_sets_without_network(tmp_path):
    env = {"KERAS_HOME": str(tmp_path), "https_proxy": NOWHERE, "no_proxy": ""}
    result = run_python("data/fetch.py", "cifar10", env=env)
    assert_clear_error(result, "cifar10", "--data sample")
    assert not [path for path in tmp_path.rglob("*cifar*") if path.is_file()]
