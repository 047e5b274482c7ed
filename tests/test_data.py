"""data/: the files that come with the repository, and fetch.py against broken downloads."""

import gzip
import hashlib
import http.server
import io
import os
import re
import shutil
import signal
import socket
import sys
import tarfile
import time
import zipfile
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, assert_clear_error, load_script, start_python

DATA = ROOT / "data"
WINE = DATA / "wine" / "winequality-white.csv"
fetch = load_script("data/fetch.py")
NOWHERE = "http://127.0.0.1:9"  # nothing listens there: refused at once


def test_wine_and_the_samples_are_small_and_match_their_checksums():
    """So nothing about them changes unseen; the chapters' tests read them."""
    text = (DATA / "samples/README.md").read_text()
    listed = dict(re.findall(r"^\| `([^`]+)` \| [\d,]+ \| `(\w{64})` \|$", text, re.M))
    files = [path for path in (DATA / "samples").iterdir() if path.name != "README.md"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == listed
    assert sum(path.stat().st_size for path in files) < 20_000_000
    checksum = "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836"
    assert hashlib.sha256(WINE.read_bytes()).hexdigest() == checksum


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    """The empty folder that fetch.py writes to."""
    monkeypatch.setattr(fetch, "DATA_DIR", tmp_path / "data")
    fetch.DATA_DIR.mkdir()
    return fetch.DATA_DIR


@pytest.fixture
def sets(monkeypatch):
    """Small sets in fetch.py's table; no URL answers."""
    files = [(r"(.*/)?([^/]+\.txt)", r"texts/\2")]
    common = {"about": "", "files": files, "target": "texts", "megabytes": (1, 2)}
    table = {"files": [(r"(.*/)?[^/]+\.csv", "table.csv")], "target": "table.csv"}
    sets = {
        "zipped": {**common, "urls": [(f"{NOWHERE}/zipped.zip", None)]},
        "tarred": {**common, "urls": [(f"{NOWHERE}/tarred.tar.gz", None)]},
        "table": {**common, **table, "header": "time", "urls": [(f"{NOWHERE}/raw.csv", None)]},
    }
    monkeypatch.setattr(fetch, "SETS", sets)
    return sets


@pytest.fixture
def take(capsys, monkeypatch):
    """A function: main() with ARGS works, or ends with WORDS; returns what it has printed."""

    def run(*args, words=()):
        monkeypatch.setattr(sys, "argv", ["fetch.py", *map(str, args)])
        monkeypatch.setattr(signal, "signal", lambda *handler: None)
        status = 0
        try:
            fetch.main()
        except SystemExit as exit_:
            status = exit_.code
        out, errors = capsys.readouterr()
        result = SimpleNamespace(returncode=status, stdout=out, stderr=errors)
        if words:
            assert_clear_error(result, *words)
        assert bool(words) == bool(status), errors
        return out + errors

    return run


@pytest.fixture
def server():
    """A web server on 127.0.0.1: its `url`, the `files` {path: bytes}, the `requests` it has had.

    Below /cut it sends half of a file and hangs up; below /slow it waits half way for `go_on`.
    """
    state = SimpleNamespace(files={}, requests=[], half_sent=Event(), go_on=Event())

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            state.requests.append(self.path)

        def do_GET(self):
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            state.half_sent.set()
            if "/slow" in self.path:
                state.go_on.wait(100)
            if "/cut" not in self.path:
                self.wfile.write(content[half:])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        Thread(target=web.serve_forever, args=[0.05], daemon=True).start()
        state.url = f"http://127.0.0.1:{web.server_port}"
        yield state
        state.go_on.set()
        web.shutdown()


def pack(kind, members):
    """The bytes of a zip or tar of {name: its text, or a tarfile type for a link or a device}."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in members.items():
                member = zipfile.ZipInfo(name)
                member.external_attr = 0o120777 << 16 if text == tarfile.SYMTYPE else 0
                archive.writestr(member, text, zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in members.items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.AREGTYPE, "/etc/passwd"  # as in the 1990s
                if isinstance(text, bytes):
                    member.type, text = text, ""
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def written():
    paths = sorted(path for path in fetch.DATA_DIR.rglob("*") if path.is_file())
    return [str(path.relative_to(fetch.DATA_DIR)) for path in paths]


def test_every_set_keeps_what_its_mirrors_have(take):
    cases = {
        "wine": ("winequality-white.csv", "winequality-white.csv", '"fixed acidity";"volatile'),
        "eeg": ("archive/Epileptic Seizure Recognition.csv", "eeg.csv", '"","X1","X2","X3"'),
        "newsgroups": ("x/20_newsgroups/sci.med/9141", "20_newsgroup/sci.med/9141", None),
        "glove": ("a/glove.6B.100d.txt", "glove.6B.100d.txt", "the " + " ".join(["-0.1"] * 50)),
        "fra-eng": ("fra-eng/fra.txt", "fra.txt", "Go.\tVa !\tCC-BY 2.0"),
        "dogs-vs-cats": ("PetImages/Dog/17.jpg", "train/dog.17.jpg", None),
        "bitcoin": ("btcusd_1min_2012-2025.csv", "bitcoin.csv", "timestamp,open,high,low,close,"),
    }
    assert set(cases) == set(fetch.SETS)
    for name, (inside, expected, header) in cases.items():
        spec = fetch.SETS[name]
        assert expected in [re.sub(f"^{old}$", new, inside) for old, new in spec["files"]]
        assert not header or re.match(spec["header"], header)
        assert all(url.startswith("https://") or checksum for url, checksum in spec["urls"])
        assert re.search(f"^{name} ", take("--list"), re.M)
    take("whine", words=["whine", "wine", "eeg"])


def test_archives_folders_and_plain_files_are_taken(sets, take, data_dir, tmp_path):
    """Of archives only what belongs to the set, also with a Windows's and a Mac's odd names."""
    odd = {"__MACOSX/._1.txt": "no", ".hidden.txt": "no", "__MACOSX/2.txt": "no", "0.txt": ""}
    members = {"a/one.txt": "1", "b\\two.txt": "2", "readme.md": "", **odd}
    (tmp_path / "zipped.zip").write_bytes(pack("zip", members))
    (tmp_path / "raw.csv").write_text("timestamp,open\n1,2\n")
    sets["tarred"]["names"] = ["outer.zip"]  # an archive in an archive
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("deep/tarred.tar.gz", pack("tar", {"three.txt": "3"}))
    take("zipped", "tarred", "table", "--from", tmp_path)
    texts = ["tarred/texts/three.txt", "zipped/texts/one.txt", "zipped/texts/two.txt"]
    assert written() == ["table/table.csv", *texts]
    assert (data_dir / "table/table.csv").read_text() == "Timestamp,Open\n1,2\n"  # as Kaggle's
    assert "already there" in take("table", "--from", tmp_path)
    unpacked = (data_dir / "zipped").rename(tmp_path / "unpacked")
    take("zipped", "--from", unpacked)
    assert written()[-1] == texts[-1]
    assert (unpacked / "texts/two.txt").exists(), "the source was moved, not copied"


def test_a_partial_set_is_refused_and_told(sets, take, data_dir, tmp_path):
    sets["table"]["least"] = sets["zipped"]["least"] = 3, "rows"
    (tmp_path / "table.csv").write_text("time,b\n1,2\n")
    (tmp_path / "zipped.zip").write_bytes(pack("zip", {"1.txt": "1", "2.txt": "2"}))
    for name, target in (("table", "table.csv"), ("zipped", "texts")):
        take(name, "--from", tmp_path, words=[f"{target} has 2 of 3 rows", "--partial"])
        assert not (data_dir / name).exists()
        take(name, "--from", tmp_path, "--partial")
        take(name, words=["already there, but", "2 of 3 rows", "remove"])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
NOISE = "time" + np.random.default_rng(0).bytes(30_000).hex()
ZIP, TAR = pack("zip", {"1": NOISE}), pack("tar", {"1": NOISE})
BOMB = "time" + "0" * 3_000_000  # the bound is 2 MB


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("table", "raw.csv", LFS, "Git LFS"),
        ("table", "raw.csv", b"<!DOCTYPE html>\n", "not the data set: table.csv begins with b'<!"),
        ("table", "raw.zip", pack("zip", {"1.csv": "time", "2.csv": "time"}), "more than one file"),
        ("zipped", "1.zip", ZIP[:20_000] + b"\xff" * 8 + ZIP[20_008:], "damaged archive"),
        ("tarred", "1.tar.gz", TAR[:20_000], "damaged archive"),
        ("tarred", "1.tar.gz", gzip.compress(b"no tar" * 1000), "damaged archive"),
        ("zipped", "1.zip", pack("zip", {"1.txt": BOMB}), "unpacks to more than 2 MB"),
        ("table", "raw.csv.gz", gzip.compress(BOMB.encode()), "unpacks to more than 2 MB"),
        ("zipped", "1.zip", pack("zip", {"1.txt": "", "../evil.txt": ""}), "unsafe entry"),
        ("zipped", "1.zip", pack("zip", {"..\\evil.txt": ""}), "unsafe entry"),
        ("zipped", "1.zip", pack("zip", {"C:\\evil.txt": ""}), "unsafe entry"),
        ("zipped", "1.zip", pack("zip", {"1.txt": tarfile.SYMTYPE}), "unsafe entry"),
        ("tarred", "1.tar.gz", pack("tar", {"a/../../evil.txt": ""}), "unsafe entry"),
        ("tarred", "1.tar.gz", pack("tar", {"/evil.txt": ""}), "unsafe entry"),
        ("tarred", "1.tar.gz", pack("tar", {"texts": tarfile.SYMTYPE}), "unsafe entry"),
    ],
    ids=lambda value: value[:16] if isinstance(value, str) else "bytes",
)
def test_what_is_not_the_data_leaves_nothing(sets, take, tmp_path, name, file, content, words):
    (tmp_path / file).write_bytes(content)
    take(name, "--from", tmp_path / file, words=[words])
    assert list(fetch.DATA_DIR.iterdir()) == [] and not list(tmp_path.rglob("*evil*"))


def test_checksums(sets, take, tmp_path):
    """A wrong one leaves nothing; of two versions under one name, as fra-eng.zip, none counts."""
    path = tmp_path / "zipped.zip"
    path.write_bytes(pack("zip", {"one.txt": "1"}))
    for prefix, algorithm in (("", "sha256"), ("sha1:", "sha1")):
        right = prefix + hashlib.new(algorithm, path.read_bytes()).hexdigest()
        wrong = right[:-4] + "0bad"
        for checksums in ([wrong], [right], [wrong, None], [None, wrong]):
            sets["zipped"]["urls"] = [(f"{NOWHERE}/zipped.zip", each) for each in checksums]
            take("zipped", "--from", path, words=["wrong checksum"] * (checksums == [wrong]))
            assert bool(written()) == (checksums != [wrong])
            shutil.rmtree(fetch.DATA_DIR / "zipped", ignore_errors=True)


def test_no_file_no_room(sets, take, data_dir, tmp_path):
    """A clear error each, that names the page to log in to; a named pipe does not hang."""
    sets["table"]["by_hand"] = "https://www.kaggle.com/datasets/x/y"
    words = ["nowhere is neither a file", "kaggle.com/datasets/x/y", "login", "--from"]
    take("table", "--from", tmp_path / "nowhere", words=words)
    take("table", "--from", tmp_path, words=["looked for raw.csv, table.csv"])
    os.mkfifo(tmp_path / "table.csv")
    for source in (tmp_path, tmp_path / "table.csv"):
        take("table", "--from", source, words=["table"])
    (tmp_path / "raw.csv").write_text("time\n")
    (data_dir / "table").write_text("a file in the way")
    take("table", "--from", tmp_path, words=["exists"])
    sets["table"]["megabytes"] = (10**9, 10**9)
    take("table", words=["2,000,000,000 MB of disk"])  # before anything is downloaded
    assert [path.name for path in data_dir.iterdir()] == ["table"]


def test_download_falls_back_to_the_next_mirror(sets, take, server):
    """One that breaks off is tried once more; where no checksum is published, it shows one."""
    content = pack("zip", {"one.txt": "1"})
    checksum = hashlib.sha256(content).hexdigest()
    server.files = {"/zipped.zip": content, "/cut/zipped.zip": content, "/other/zipped.zip": b"old"}
    mirrors = [NOWHERE, *(f"{server.url}/{kind}" for kind in ("gone", "other", "cut"))]
    urls = [(f"{mirror}/zipped.zip", checksum) for mirror in mirrors]
    sets["zipped"]["urls"] = urls
    take("zipped", words=["no connection", "HTTP 404", "wrong checksum", "broke off", "--from"])
    assert server.requests.count("/cut/zipped.zip") == 2 and written() == []
    urls.append((f"{server.url}/zipped.zip", None))
    printed = take("zipped")
    assert f"SHA-256 {checksum}" in printed and "%" in printed, "no progress bar"
    server.files["/table.csv"] = b"time\n"
    take("table", "--from", server.url + "/")
    assert written() == ["table/table.csv", "zipped/texts/one.txt"]


def test_without_a_network_the_hint_comes_soon(take, monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    take("eeg", words=["no connection", "kaggle.com", "--from", "--data sample"])
    keras = SimpleNamespace(datasets=SimpleNamespace())  # to ask it for cifar10 raises
    monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: None)
    take("cifar10", words=["cifar10: Keras could not fetch it", "--data sample"])
    assert written() == []


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_download_leaves_nothing_that_looks_whole(take, server, data_dir, kill):
    """A server sends half a file and waits; the fetch is stopped there, then started again."""
    script = shutil.copy(DATA / "fetch.py", data_dir)
    server.files["/slow/winequality-white.csv"] = WINE.read_bytes()
    arguments = ["wine", "--from", f"{server.url}/slow/{WINE.name}"]
    process = start_python(script, *arguments, stderr=data_dir.parent / "errors")
    assert server.half_sent.wait(300)
    time.sleep(0.3)  # it waits for the other half
    process.send_signal(kill)
    status = process.wait(300)
    left = {path for path in data_dir.iterdir() if path.name != "fetch.py"}
    if kill == signal.SIGKILL:  # nobody can clean up after that, but it is hidden and marked
        assert all(path.name.startswith(".") and path.suffix == ".part" for path in left)
    else:
        errors = (data_dir.parent / "errors").read_text()
        assert status == 2 and "interrupted, nothing of it is kept" in errors and not left
    server.go_on.set()
    old = data_dir / ".wine-old.part"  # a leftover stays for a day, no longer
    old.mkdir()
    os.utime(old, (0, 0))
    take(*arguments)
    assert (data_dir / "wine" / WINE.name).read_bytes() == WINE.read_bytes()
    assert not old.exists() and all(path.exists() for path in left)


def test_real_sets_come_from_the_folder_of_real_data(real_data_dir, data_dir):
    for name, target in (("eeg", "eeg.csv"), ("bitcoin", "bitcoin.csv"), ("fra-eng", "fra.txt")):
        fetch.fetch(name, str(real_data_dir), partial=name == "bitcoin")
        assert (data_dir / name / target).stat().st_size > 1_000_000
