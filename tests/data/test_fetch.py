"""Downloads, against a server on this machine that does everything a server can do wrong."""

import gzip
import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest

from lib.data import fetch, files, images
from lib.paths import root

CONTENT = bytes([0, 0, 8, 3, 0, 0, 0, 60, 0, 0, 0, 28, 0, 0, 0, 28]) + np.random.RandomState(
    0
).bytes(60 * 784)
PACKED = gzip.compress(CONTENT, mtime=0)
HALF = len(PACKED) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how to behave."""

    def do_GET(self):
        how = self.path.split("/")[1]
        asked = self.headers.get("Range")
        self.server.asked.append((how, asked))
        getattr(self, how)(int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0)

    def give(self, body, status=200, length=None, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if length is not False:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def rest(self, start, send=None):
        body = PACKED[start:]
        span = f"bytes {start}-{len(PACKED) - 1}/{len(PACKED)}"
        self.give(body[:send], 206 if start else 200, len(body), Content_Range=span)

    def good(self, start):
        if start >= len(PACKED):
            self.give(b"", 416)
        else:
            self.rest(start)

    def slow(self, start):
        time.sleep(0.5)
        self.rest(start)

    def whole(self, start):  # knows no ranges
        self.give(PACKED)

    def chunks(self, start):  # says no length
        self.give(PACKED, length=False)

    def breaks(self, start):  # a third each time, then the connection ends
        self.rest(start, len(PACKED) // 3)

    def short(self, start):  # half, always the same half
        self.give(PACKED[:HALF], length=len(PACKED))

    def stall(self, start):
        self.rest(start, HALF if not start else 0)
        self.server.end.wait(120)

    def trickle(self, start):
        self.rest(start, 0)
        while not self.server.end.wait(0.02):
            self.wfile.write(b"x")

    def corrupt(self, start):
        self.give(PACKED[:-9] + b"corrupt!!")

    def other(self, start):  # a good file, and not the one
        self.give(gzip.compress(CONTENT[:-1] + b"x"))

    def page(self, start):  # what a captive portal sends
        self.give(b"<html>Log in</html>")

    def rest_unsaid(self, start):  # goes on, and says no length
        whole = f"bytes {start}-{len(PACKED) - 1}/{len(PACKED)}"
        self.give(PACKED[start:], 206, length=False, Content_Range=whole)

    def elsewhere(self, start):
        self.give(PACKED, 206, Content_Range=f"bytes 0-{len(PACKED) - 1}/{len(PACKED)}")

    def big(self, start):
        self.give(b"", length=10**12)

    def endless(self, start):
        self.give(b"", length=False)
        while not self.server.end.is_set():
            self.wfile.write(bytes(1 << 16))

    def moved(self, start):
        self.give(b"", 302, Location=self.path.replace("moved", "good"))

    def circle(self, start):
        self.give(b"", 302, Location=self.path)

    def local(self, start):
        self.give(b"", 302, Location="file:///etc/hostname")

    def missing(self, start):
        self.give(b"no", 404)

    def broken(self, start):
        self.give(b"no", 500)

    def archive(self, start):
        self.give(self.server.tar)

    def text(self, start):
        self.give(self.server.text)

    def handle(self):
        try:
            super().handle()
        except OSError:  # the reader has had enough: that is what is tested
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked, made.end = [], threading.Event()
    made.url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}).start()
    yield made
    made.end.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def shelf(tmp_path, monkeypatch, server):
    """An empty cache, one file that we know, and `mirrors(...)` to say where it is."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "BOOK_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path))
    entry = (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(files.KNOWN, "set/images", entry)

    def mirrors(*ways):
        urls = tuple(f"{server.url}/{way}/{{}}.gz" for way in ways)
        monkeypatch.setitem(files.MIRRORS, "set", urls)
        return tmp_path / "data" / "set"

    return mirrors


def _left(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


@pytest.mark.parametrize("way", ["good", "whole", "chunks", "moved", "breaks", "slow"])
def test_a_file_comes_and_is_kept(shelf, server, way):
    folder = shelf(way)
    assert files.idx("set/images").shape == (60, 28, 28)
    assert _left(folder) == ["images.gz"] and (folder / "images.gz").read_bytes() == PACKED
    if way == "breaks":  # each connection went on where the last one ended
        starts = [int(a[6:-1]) if a else 0 for _, a in server.asked]
        assert starts[0] == 0 and len(starts) > 2 and starts == sorted(set(starts))
    asked = len(server.asked)
    files.idx("set/images")
    assert len(server.asked) == asked  # the second time it is there


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("missing", "404 "),
        ("broken", "500 "),
        ("stall", "timed out"),
        ("trickle", r"only \d+ bytes in 2 s"),
        ("short", "ended after .* of .* bytes"),
        ("corrupt", "sent something else than the published file"),
        ("other", "sent something else than the published file"),
        ("page", "sent something else than the published file"),
        ("big", "has 1,000,000,000,000 bytes"),
        ("endless", "longer than the published file"),
        ("circle", "redirect"),
        ("local", "Redirection to url .* is not allowed"),
    ],
)
def test_a_bad_mirror_is_named_and_the_next_one_serves(shelf, server, monkeypatch, way, said):
    if way in ("stall", "trickle"):
        monkeypatch.setattr(fetch, "SILENCE", 1.0)
    folder = shelf(way)
    with pytest.raises(FileNotFoundError, match=said) as caught:
        files.read("set/images")
    text = str(caught.value)
    for part in (f"{server.url}/{way}/images.gz", str(folder), "BOOK_DATA", "images"):
        assert part in text
    assert files.KNOWN["set/images"][1] in text
    # Bytes that were wrong are gone; the beginning of a file that stopped may stay, to be continued.
    left = _left(folder)
    assert left in ([], ["images.gz.part"])
    if left:
        assert PACKED.startswith((folder / left[0]).read_bytes()) or way == "trickle"
    shelf(way, "good")
    assert files.read("set/images") == CONTENT
    assert _left(folder) == ["images.gz"]


def test_an_unreachable_address(shelf, monkeypatch):
    shelf()
    monkeypatch.setitem(files.MIRRORS, "set", ("http://127.0.0.1:9/{}.gz",))
    with pytest.raises(FileNotFoundError, match=r"127\.0\.0\.1:9/images\.gz: .*refused"):
        files.read("set/images")


def test_what_is_left_of_an_earlier_download_is_continued(shelf, server):
    folder = shelf("good")
    folder.mkdir(parents=True)
    (folder / "images.gz.part").write_bytes(PACKED[:HALF])
    assert files.read("set/images") == CONTENT
    assert server.asked == [("good", f"bytes={HALF}-")]


@pytest.mark.parametrize(
    "old", [b"rubbish", bytes(HALF), PACKED, PACKED + b"more"], ids=["text", "zeros", "all", "long"]
)
@pytest.mark.parametrize("way", ["good", "whole", "elsewhere"])
def test_a_wrong_beginning_does_no_harm(shelf, way, old):
    folder = shelf(way, "good")
    folder.mkdir(parents=True)
    (folder / "images.gz.part").write_bytes(old)
    assert files.read("set/images") == CONTENT
    assert _left(folder) == ["images.gz"]


@pytest.mark.parametrize("way", ["good", "broken"])
def test_a_whole_download_whose_installation_was_interrupted_is_not_loaded_again(
    shelf, server, way
):
    folder = shelf(way)
    folder.mkdir(parents=True)
    (folder / "images.gz.part").write_bytes(PACKED)
    assert files.read("set/images") == CONTENT
    assert _left(folder) == ["images.gz"] and not server.asked


def test_a_beginning_longer_than_the_file_and_no_length(shelf):
    folder = shelf("rest_unsaid")
    folder.mkdir(parents=True)
    (folder / "images.gz.part").write_bytes(bytes(2 * len(PACKED) + 100_000))
    with pytest.raises(FileNotFoundError, match=r"has \d.*bytes, and the published file at most"):
        files.read("set/images")
    assert files.read("set/images") == CONTENT  # the wrong beginning is gone


def test_a_folder_of_another_user_is_named(shelf, monkeypatch):
    folder = shelf("good")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fetch, "alone", refuse)  # root, whom tests may run as, may write anywhere
    with pytest.raises(PermissionError, match="another user: .*BOOK_CACHE") as caught:
        files.read("set/images")
    assert str(folder) in str(caught.value)


def test_a_given_folder_is_not_written_to(shelf, server, monkeypatch, tmp_path):
    shelf("good")
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "mine"))
    with pytest.raises(FileNotFoundError, match="mine: set the environment variable BOOK_DATA"):
        files.read("set/images")
    assert not server.asked and not os.listdir(tmp_path / "mine")


CHILD = """
import sys
from lib.data import files
files.KNOWN["set/images"] = ({size}, "{sha}")
files.MIRRORS["set"] = ("{url}/{way}/{{}}.gz",)
print(len(files.read("set/images")), flush=True)
"""


def _child(server, tmp_path, way):
    size, sha = files.KNOWN["set/images"]
    text = CHILD.format(size=size, sha=sha, url=server.url, way=way)
    env = {**os.environ, "BOOK_CACHE": str(tmp_path), "PYTHONPATH": str(root())}
    return subprocess.Popen(
        [sys.executable, "-c", text], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_two_processes_make_one_download(shelf, server, tmp_path):
    shelf("slow")
    with fetch.alone(
        _made(tmp_path / "data" / "set") / ".lock"
    ):  # both arrive before either starts
        both = [_child(server, tmp_path, "slow") for _ in range(2)]
        for child in both:
            assert child.stdout.readline().startswith(b"waiting for another process")
        assert not server.asked
    for child in both:
        out, err = child.communicate(timeout=120)
        assert out.split()[-1] == str(len(CONTENT)).encode(), err
    assert server.asked == [("slow", None)]


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_a_killed_download_is_continued_and_its_lock_is_free(shelf, server, tmp_path):
    folder = shelf("stall")
    child = _child(server, tmp_path, "stall")
    end = time.monotonic() + 120
    while not (folder / "images.gz.part").is_file() or not server.asked:
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=120)
    assert not (folder / "images.gz").exists()
    (folder / "images.gz.part").write_bytes(PACKED[:HALF])  # what was on disk depends on the moment
    shelf("good")
    assert files.read("set/images") == CONTENT
    assert server.asked[-1] == ("good", f"bytes={HALF}-")


# What is published in another form than the one we read


def _tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


@pytest.fixture
def archive(shelf, server, monkeypatch, tmp_path):
    batches = {name: f"content of {name}".encode() for name in BATCHES}
    for name, content in batches.items():
        entry = (len(content), hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(files.KNOWN, f"cifar10/{name}", entry)
    monkeypatch.setitem(files.MIRRORS, "cifar10", (f"{server.url}/archive/cifar.tar.gz",))
    return batches, tmp_path / "data" / "cifar10"


def test_an_archive_gives_its_batches_and_nothing_else(archive, server):
    batches, folder = archive
    inside = [(f"cifar-10-batches-py/{k}", v) for k, v in batches.items()]
    outside = [("../../evil", b"x"), ("/tmp/evil", b"x"), ("cifar-10-batches-py/readme", b"x")]
    server.tar = _tar([("cifar-10-batches-py/data_batch_1", None), *outside, *inside])
    assert files.read("cifar10/data_batch_3") == batches["data_batch_3"]
    assert _left(folder) == sorted(BATCHES)
    assert not (folder.parents[1] / "evil").exists()
    assert files.read("cifar10/test_batch") == batches["test_batch"] and len(server.asked) == 1


@pytest.mark.parametrize("fault", ["lacks", "changed", "cut", "not one"])
def test_a_wrong_archive_is_refused(archive, server, fault):
    batches, folder = archive
    inside = [(f"cifar-10-batches-py/{k}", v) for k, v in batches.items()]
    if fault == "lacks":
        inside.pop()
    elif fault == "changed":
        inside[-1] = (inside[-1][0], b"content of test_batcx")
    server.tar = _tar(inside)
    if fault == "cut":
        server.tar = server.tar[:-30]
    elif fault == "not one":
        server.tar = b"<html>"
    with pytest.raises(FileNotFoundError, match="lacks test_batch|not the published|is damaged"):
        files.read("cifar10/test_batch")
    assert "test_batch" not in _left(folder) and not list(folder.glob("*.part"))


def test_binarised_mnist_as_text_and_packed(shelf, server, monkeypatch, tmp_path):
    rows = np.random.RandomState(1).randint(0, 2, (5, 784), dtype=np.uint8)
    server.text = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    name = "binarized-mnist/binarized_mnist_test.amat"
    entry = (len(server.text), hashlib.sha256(server.text).hexdigest())
    monkeypatch.setitem(files.KNOWN, name, entry)
    monkeypatch.setitem(files.MIRRORS, "binarized-mnist", (f"{server.url}/text/{{}}",))
    got = images.binarized_mnist("test")
    assert got.shape == (5, 1, 28, 28) and got.flatten(1).numpy().tolist() == rows.tolist()
    packed = io.BytesIO()
    np.savez(packed, test=np.packbits(rows, axis=1))
    content = packed.getvalue()
    name = "binarized-mnist/binarized_mnist.npz"
    monkeypatch.setitem(files.KNOWN, name, (len(content), hashlib.sha256(content).hexdigest()))
    (tmp_path / "data" / name).write_bytes(content)
    (tmp_path / "data" / "binarized-mnist" / "binarized_mnist_test.amat").unlink()
    assert (images.binarized_mnist("test") == got).all() and len(server.asked) == 1


@pytest.mark.skipif(
    not files.find("binarized-mnist/binarized_mnist.npz"), reason="BOOK_DATA does not hold it"
)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_our_packed_rows_written_out_are_the_published_text(split):
    rows = files.binarized(split)
    text = np.full((len(rows), 2 * 784), ord(" "), np.uint8)
    text[:, ::2] = rows + ord("0")
    text[:, -1] = ord("\n")
    size, sha256 = files.KNOWN[f"binarized-mnist/binarized_mnist_{split}.amat"]
    assert text.size == size and hashlib.sha256(text.tobytes()).hexdigest() == sha256


def test_whole_sets_are_brought_by_name(shelf, server, capsys):
    shelf("good")
    assert files.main(["set"]) == 0
    assert "images.gz: as published" in capsys.readouterr().out
    assert files.main(["nothing"]) == 2 and files.main([]) == 2
    assert "mnist, fashion-mnist, cifar10, binarized-mnist" in capsys.readouterr().out
