import json

import numpy as np
import pytest
from hub_server import COMMIT, Hub
from safetensors.numpy import save

from fae_jax.weights import hub, open_tensors

WEIGHTS = save({"x": np.arange(300_000, dtype=np.float32)})
GIT_HASH = "9a94b2e733cc531802a974c7af7235d08fa35d88"
MIRRORS_HASH = "da9acaa787cf39483a00cc3a834b335ca0da1a6b"  # `sha1sum`
NAME = "someone/small-vit"


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True, raising=False)
    files = {"config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": b"pickle", "README.md": b"#"}
    server = Hub({NAME: files})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with server.serve() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield server


def test_pull_takes_what_is_wanted_and_once(served):
    pulled = hub.pull(NAME)
    assert sorted(path.name for path in pulled.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert pulled.commit == COMMIT and pulled.fetched == len(WEIGHTS) + 2
    np.testing.assert_array_equal(open_tensors(pulled.folder).read("x")[-2:], [299_998, 299_999])
    served.log.clear()
    again = hub.pull(NAME)
    assert again.folder == pulled.folder and again.fetched == 0
    assert not [entry for entry in served.log if entry[0] == "GET" and "resolve" in entry[1]]


def test_revisions(served):
    assert hub.pull(f"{NAME}@{COMMIT}").commit == COMMIT
    with pytest.raises(FileNotFoundError, match="no revision 'v9'"):
        hub.pull(f"{NAME}@v9")


def test_a_broken_download_is_continued_not_repeated(served, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    served.breaks["model.safetensors"] = 700_000
    for _ in range(2):  # the library may retry by itself; otherwise the same command continues
        try:
            pulled = hub.pull(NAME)
            break
        except OSError as error:
            assert "complete files are kept" in str(error)
    ranges = [entry[2] for entry in served.log if entry[0] == "GET" and entry[1].endswith("model.safetensors")]
    begins = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in ranges if asked]
    assert any(begin > 0 for begin in begins), ranges
    assert open_tensors(pulled.folder).read("x")[-1] == 299_999


def test_a_wrong_file_is_refused_and_removed(served):
    wrong = bytearray(WEIGHTS)
    wrong[-1] ^= 1
    served.lies["model.safetensors"] = bytes(wrong)
    with pytest.raises(ValueError, match="has the hash .* run the same command again to fetch it"):
        hub.pull(NAME)
    served.lies.clear()
    assert open_tensors(hub.pull(NAME).folder).read("x")[-1] == 299_999


@pytest.mark.parametrize("sha1", ["", GIT_HASH, MIRRORS_HASH])
def test_a_file_that_changed_in_the_cache_is_never_opened(served, sha1):
    """The hub gives `git hash-object` of small files."""
    folder = hub.pull(NAME).folder
    file = folder / "model.safetensors"
    blob = file.resolve()
    if sha1:
        file.unlink()
        blob = blob.rename(blob.with_name(sha1))
        file.symlink_to(blob)
        assert hub.pull(NAME).folder == folder
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"model.safetensors in .* has the hash"):
        hub.pull(NAME)
    assert not file.exists()
    assert open_tensors(hub.pull(NAME).folder).read("x")[-1] == 299_999


def test_not_there(served):
    with pytest.raises(FileNotFoundError, match=r"someone/else does not exist on the hub \(404\)"):
        hub.pull("someone/else")


def test_closed_without_token_and_open_with_it(served, monkeypatch):
    served.private[NAME] = "hf_secret"
    with pytest.raises(ValueError, match="refuses access to .* .401.; set HF_TOKEN"):
        hub.pull(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.pull(NAME).fetched


def test_offline(served, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="not in the cache, and HF_HUB_OFFLINE forbids"):
        hub.pull(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    folder = hub.pull(NAME).folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    served.log.clear()
    assert hub.pull(NAME).folder == folder and served.log == []


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="cannot be reached|broke"):
        hub.pull(NAME)


def test_only_pickles(served):
    served.repositories["someone/old"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(FileNotFoundError, match=r"no safetensors \(only pytorch_model.bin, which may run code"):
        hub.pull("someone/old")


def test_shards(served):
    first, second = save({"a": np.zeros(3, np.float32)}), save({"b": np.ones(2, np.float32)})
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    served.repositories["someone/large"] = {
        names[0]: first,
        names[1]: second,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    tensors = open_tensors(hub.pull("someone/large").folder)
    assert sorted(tensors) == ["a", "b"] and tensors.read("b").sum() == 2


def test_hub_names():
    assert hub.is_hub_name("facebook/dinov2-giant") and hub.is_hub_name("a/b@v1.0")
    for text in ("dinov2", "/root/x", "./a/b", "a/b/c", "", "a b/c"):
        assert not hub.is_hub_name(text)
