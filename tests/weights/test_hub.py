import json

import numpy as np
import pytest
from hub_server import COMMIT, Hub
from safetensors.numpy import save

from fae_jax.weights import hub, open_tensors

WEIGHTS = save({"x": np.arange(300_000, dtype=np.float32)})
NAME = "someone/small-vit"


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True, raising=False)
    files = {"config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": b"pickle", "README.md": b"#"}
    server = Hub({NAME: files})
    with server.serve() as endpoint:
        yield server, {"cache": tmp_path / "cache", "endpoint": endpoint}


def test_pull_takes_what_is_wanted_and_once(served):
    server, where = served
    pulled = hub.pull(NAME, **where)
    assert sorted(path.name for path in pulled.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert pulled.commit == COMMIT and pulled.fetched == len(WEIGHTS) + 2
    np.testing.assert_array_equal(open_tensors(pulled.folder).read("x")[-2:], [299_998, 299_999])
    server.log.clear()
    again = hub.pull(NAME, **where)
    assert again.folder == pulled.folder and again.fetched == 0
    assert not [entry for entry in server.log if entry[0] == "GET" and "resolve" in entry[1]]


def test_revisions(served):
    _, where = served
    assert hub.pull(f"{NAME}@{COMMIT}", **where).commit == COMMIT
    with pytest.raises(FileNotFoundError, match="no revision 'v9'"):
        hub.pull(f"{NAME}@v9", **where)


def test_a_broken_download_is_continued_not_repeated(served, monkeypatch):
    server, where = served
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    server.breaks["model.safetensors"] = 700_000
    for _ in range(2):  # the library may retry by itself; otherwise the same command continues
        try:
            pulled = hub.pull(NAME, **where)
            break
        except OSError as error:
            assert "whole files are kept" in str(error)
    ranges = [entry[2] for entry in server.log if entry[0] == "GET" and entry[1].endswith("model.safetensors")]
    begins = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in ranges if asked]
    assert any(begin > 0 for begin in begins), ranges
    assert open_tensors(pulled.folder).read("x")[-1] == 299_999


def test_a_wrong_file_is_refused_and_removed(served):
    server, where = served
    wrong = bytearray(WEIGHTS)
    wrong[-1] ^= 1
    server.lies["model.safetensors"] = bytes(wrong)
    with pytest.raises(ValueError, match="arrived with SHA-256"):
        hub.pull(NAME, **where)
    server.lies.clear()
    assert open_tensors(hub.pull(NAME, **where).folder).read("x")[-1] == 299_999


def test_a_file_that_changed_in_the_cache_is_found_on_request(served):
    _, where = served
    blob = (hub.pull(NAME, **where).folder / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(bytes(content))
    hub.pull(NAME, **where)
    with pytest.raises(ValueError, match="arrived with SHA-256"):
        hub.pull(NAME, verify=True, **where)


def test_not_there(served):
    _, where = served
    with pytest.raises(FileNotFoundError, match=r"someone/else does not exist on the hub \(404\)"):
        hub.pull("someone/else", **where)


def test_closed_without_token_and_open_with_it(served, monkeypatch):
    server, where = served
    server.private[NAME] = "hf_secret"
    with pytest.raises(ValueError, match="refuses access to .* .401.; set HF_TOKEN"):
        hub.pull(NAME, **where)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.pull(NAME, **where).fetched


def test_offline(served):
    server, where = served
    with pytest.raises(FileNotFoundError, match="not in the cache, and HF_HUB_OFFLINE forbids"):
        hub.pull(NAME, offline=True, **where)
    folder = hub.pull(NAME, **where).folder
    server.log.clear()
    assert hub.pull(NAME, offline=True, **where).folder == folder and server.log == []


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    with pytest.raises(OSError, match="cannot be reached|broke"):
        hub.pull(NAME, cache=tmp_path, endpoint="http://127.0.0.1:9")


def test_only_pickles(served):
    server, where = served
    server.repositories["someone/old"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(FileNotFoundError, match=r"no safetensors \(only pytorch_model.bin, which may run code"):
        hub.pull("someone/old", **where)


def test_shards(served):
    server, where = served
    first, second = save({"a": np.zeros(3, np.float32)}), save({"b": np.ones(2, np.float32)})
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    server.repositories["someone/large"] = {
        names[0]: first,
        names[1]: second,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    tensors = open_tensors(hub.pull("someone/large", **where).folder)
    assert sorted(tensors) == ["a", "b"] and tensors.read("b").sum() == 2


def test_hub_names():
    assert hub.is_hub_name("facebook/dinov2-giant") and hub.is_hub_name("a/b@v1.0")
    for text in ("dinov2", "/root/x", "./a/b", "a/b/c", "", "a b/c"):
        assert not hub.is_hub_name(text)
