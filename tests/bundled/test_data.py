"""Where data files come from: a folder, a cache, or a server that may give anything."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rightbatch.bundled.data import DataFile, cache_folder, find, local
from rightbatch.bundled.fashion_mnist import _load
from rightbatch.errors import DataError

CONTENT = bytes(range(256)) * 20_000
"""Five megabytes: several blocks."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
        elif kind == "garbage":
            self.wfile.write(b"this is no web server\r\n\r\n")
        elif kind == "chunks":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.wfile.write(b"ffff\r\n" + CONTENT[:100])
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if kind == "good" else CONTENT[:-1000])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, server) -> Path:
    """An empty cache of our own, no folder of data, and no proxy before the local server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.asked.clear()
    return tmp_path / "cache" / "rightbatch"


def file_at(server: HTTPServer, kind: str, sha256: str | tuple[str, ...] = SHA256) -> DataFile:
    return DataFile("set/file.bin", f"http://127.0.0.1:{server.server_port}/{kind}", sha256)


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_downloaded_once_and_kept_in_the_cache(server, cache):
    for _ in range(2):
        path = find(file_at(server, "good"))
        assert path == cache / "set" / "file.bin"
        assert path.read_bytes() == CONTENT
    assert server.asked == ["/good"]
    assert left_in(cache) == [path]


def test_a_wrong_checksum_is_told_and_leaves_nothing(server, cache):
    wrong = "0" * 64
    with pytest.raises(DataError, match=rf"SHA-256 {SHA256}, expected {wrong}\. Nothing was kept.*set/file\.bin"):
        find(file_at(server, "good", wrong))
    assert left_in(cache) == []


def test_a_file_that_is_published_in_several_forms_is_accepted_in_each(server, cache):
    others = ("0" * 64, "1" * 64)
    with pytest.raises(DataError, match=rf"SHA-256 {SHA256}, expected {others[0]} or {others[1]}\."):
        find(file_at(server, "good", others))
    assert find(file_at(server, "good", (*others, SHA256))).read_bytes() == CONTENT


def test_what_is_local_is_found_without_asking_the_network(server, cache, tmp_path, monkeypatch):
    assert local("set/file.bin") is None
    cached = find(file_at(server, "good"))
    assert local("set/file.bin") == cached
    monkeypatch.setenv("RIGHTBATCH_DATA", str(tmp_path / "mine"))
    assert local("set/file.bin") == cached
    (tmp_path / "mine" / "set").mkdir(parents=True)
    (tmp_path / "mine" / "set" / "file.bin").write_bytes(b"mine")
    assert local("set/file.bin") == tmp_path / "mine" / "set" / "file.bin"
    assert server.asked == ["/good"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "could not be downloaded from .*404.*Set RIGHTBATCH_DATA"),
        ("truncated", "SHA-256"),
        ("chunks", "could not be downloaded"),
        ("garbage", "could not be downloaded"),
    ],
)
def test_what_a_bad_server_gives_is_told_and_leaves_nothing(server, cache, kind, message):
    with pytest.raises(DataError, match=message):
        find(file_at(server, kind))
    assert left_in(cache) == []
    assert find(file_at(server, "good")).read_bytes() == CONTENT  # and does not stand in the way of a good one


def test_a_server_that_is_not_there_is_told(cache):
    with serving() as gone:
        nowhere = file_at(gone, "good")
    with pytest.raises(DataError, match=r"set/file\.bin is not on this machine and could not be downloaded"):
        find(nowhere)
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written_is_told(server, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(DataError, match="RIGHTBATCH_DATA"):
        find(file_at(server, "good"))


def test_the_named_folder_has_precedence_over_cache_and_network(server, cache, tmp_path, monkeypatch):
    find(file_at(server, "good"))
    mine = tmp_path / "mine" / "set" / "file.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    monkeypatch.setenv("RIGHTBATCH_DATA", str(tmp_path / "mine"))
    assert find(file_at(server, "good")) == mine
    mine.unlink()
    assert find(file_at(server, "good")) == cache / "set" / "file.bin"
    assert server.asked == ["/good"]


def test_the_cache_is_below_the_home_folder_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "rightbatch"


def idx(dimensions: tuple[int, ...], content: bytes) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in dimensions)
    return b"\x00\x00\x08" + bytes([len(dimensions)]) + sizes + content


IMAGES = idx((2, 28, 28), bytes(784) + bytes([255]) * 784)
LABELS = idx((2,), bytes([7, 3]))


@pytest.fixture
def fashion(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    monkeypatch.setenv("RIGHTBATCH_DATA", str(tmp_path / "data"))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(IMAGES))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(LABELS))
    return folder


def test_images_and_labels_are_read_from_the_idx_format(fashion):
    images, labels = _load("train")
    assert images.shape == (2, 1, 28, 28)
    assert images[0].unique().tolist() == pytest.approx([-0.2860 / 0.3530], rel=1e-6)
    assert images[1].unique().tolist() == pytest.approx([(1 - 0.2860) / 0.3530], rel=1e-6)
    assert labels.tolist() == [7, 3]


DAMAGES = {
    "not packed": IMAGES,
    "cut packed": gzip.compress(IMAGES)[:40],
    "another format": gzip.compress(b"\x00\x00\x0d\x03" + IMAGES[4:]),
    "cut short": gzip.compress(IMAGES[:-5]),
    "nothing": gzip.compress(b""),
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_named(fashion, content):
    (fashion / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        _load("train")
