"""A published file is fetched once, compared with its hash, and kept as safetensors; over loopback."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from hub_server import serving as loopback
from pickle_files import Tensor, archive

from fae_jax.files import retry
from fae_jax.weights import open_tensors
from fae_jax.weights.releases import ORIGIN, Release, read_arrays

VALUES = np.arange(300_000, dtype=np.float32)


def serving(files, log):
    """{path: bytes, or (bytes, announced length)} at an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            log.append(self.path)
            content = files.get(self.path)
            body, length = content if isinstance(content, tuple) else (content or b"", len(content or b""))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return loopback(Handler)


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    archive(tmp_path / "w.pth", {"w": Tensor("0", (len(VALUES),), (1,))}, {"0": VALUES.tobytes()})
    return (tmp_path / "w.pth").read_bytes()


def release(address, content, *paths):
    urls = tuple(address + path for path in paths or ("/w.pth",))
    return Release(name="net", urls=urls, sha256=hashlib.sha256(content).hexdigest())


def convert(path):
    assert path.name == "w.pth"
    return {"w": {"kernel": 2 * read_arrays(path)["w"]}}


def test_it_is_fetched_once_and_kept_with_its_origin(published):
    log = []
    with serving({"/w.pth": published}, log) as address:
        made = release(address, published)
        with pytest.raises(
            FileNotFoundError,
            match=r"bring them: fae weights pull net2 \(a file that you have: fae weights pull FILE --as",
        ):
            made.folder("net2")
        folder, fetched = made.pull(convert)
        assert fetched == len(published) and made.pull(convert) == (folder, 0) and log == ["/w.pth"]
    assert folder == made.folder("net") and sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        ORIGIN,
    ]
    np.testing.assert_array_equal(open_tensors(folder).read("w.kernel"), 2 * VALUES)
    origin = json.loads((folder / ORIGIN).read_text())
    assert origin == {"source": made.urls[0], "sha256": made.sha256, "hash": open_tensors(folder).hash()}
    assert list(folder.parent.iterdir()) == [folder]  # the published file itself is gone


def test_the_second_address_is_taken_where_the_first_has_nothing_or_something_else(published):
    log = []
    with serving({"/w.pth": published[:-1], "/b/w.pth": published}, log) as address:
        folder, _ = release(address, published, "/a/w.pth", "/w.pth", "/b/w.pth").pull(convert)
    assert log == ["/a/w.pth", "/w.pth", "/b/w.pth"]
    assert json.loads((folder / ORIGIN).read_text())["source"] == f"{address}/b/w.pth"


def test_another_file_than_the_published_one_is_never_read(published):
    with serving({"/w.pth": published[:-1] + b"x"}, []) as address:
        made = release(address, published)
        with pytest.raises(OSError, match=r"its hash is .* instead of .*fae weights pull FILE --as net"):
            made.pull(lambda path: pytest.fail("it was read"))
        with pytest.raises(FileNotFoundError, match="fae weights pull net"):
            made.folder("net")


def test_a_broken_connection_and_nobody_there(published):
    log = []
    with serving({"/w.pth": (published[:1000], len(published))}, log) as address:
        with pytest.raises(OSError, match="the connection broke after 1000 of"):
            release(address, published).pull(convert)
        assert len(log) == retry.ATTEMPTS
    with pytest.raises(OSError, match=r"net could not be fetched \(http.*[Rr]efused"):
        release(address, published).pull(convert)


def test_what_changed_on_disk_is_refused(published):
    with serving({"/w.pth": published}, []) as address:
        made = release(address, published)
        folder, _ = made.pull(convert)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"have changed since they were fetched; remove .* fae weights pull net"):
        made.folder("net")


def test_a_file_that_came_by_other_means(published, tmp_path):
    made = release("http://127.0.0.1:9", b"what is published")
    folder, fetched = made.pull(convert, tmp_path / "w.pth")
    assert fetched == 0 and made.folder("net") == folder
    origin = json.loads((folder / ORIGIN).read_text())
    assert (origin["source"], origin["sha256"]) == ("w.pth", hashlib.sha256(published).hexdigest())
    np.save(tmp_path / "other.npy", VALUES)
    with pytest.raises(ValueError, match="no safetensors file"):
        made.pull(lambda path: read_arrays(path), tmp_path / "other.npy")
    assert made.folder("net") == folder  # what was there is kept


def test_offline(published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE forbids"):
        release("http://127.0.0.1:9", published).pull(convert)
