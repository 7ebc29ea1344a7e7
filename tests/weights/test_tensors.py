import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fae_jax.weights import open_tensors, write_tensors

ARRAYS = {
    "b": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a": np.array(3.5, np.float64),
    "half": np.arange(6).astype(ml_dtypes.bfloat16).reshape(3, 2),
    "whole": np.arange(5, dtype=np.int64),
    "none": np.zeros((0, 4), np.float16),
}


def same(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_array_equal(got.view(np.uint8) if got.ndim else got, want.view(np.uint8) if want.ndim else want)


def test_reads_what_the_library_writes_and_the_other_way(tmp_path):
    save_file(ARRAYS, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    theirs = open_tensors(tmp_path / "theirs.safetensors")
    assert set(theirs) == set(ARRAYS)
    for name, array in ARRAYS.items():
        same(theirs.read(name), array)
    write_tensors(tmp_path / "deep" / "ours.safetensors", {**ARRAYS, "b": np.asfortranarray(ARRAYS["b"])})
    for name, array in load_file(tmp_path / "deep" / "ours.safetensors").items():
        same(array, ARRAYS[name])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["ours.safetensors"]


def shards(folder, where):
    folder.mkdir(exist_ok=True)
    for shard in set(where.values()):
        save_file({name: ARRAYS[name] for name in where if where[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def test_shards_read_and_hash_as_one_file(tmp_path):
    where = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(ARRAYS)}
    shards(tmp_path / "sharded", where)
    write_tensors(tmp_path / "whole.safetensors", ARRAYS)
    sharded, whole = open_tensors(tmp_path / "sharded"), open_tensors(tmp_path / "whole.safetensors")
    for name, array in ARRAYS.items():
        same(sharded.read(name), array)
    assert sharded.hash() == whole.hash() and sharded.size == whole.size


def test_hash_sees_name_shape_dtype_and_bytes(tmp_path):
    def hashed(arrays):
        write_tensors(tmp_path / "x.safetensors", arrays)
        return open_tensors(tmp_path / "x.safetensors").hash()

    x = np.zeros((2, 3), np.float32)
    seen = [hashed({"x": x}), hashed({"y": x}), hashed({"x": x.T.copy()}), hashed({"x": x.view(np.int32)})]
    seen.append(hashed({"x": x + 1}))
    assert len(set(seen)) == 5
    assert hashed({"x": x}) == seen[0]


def test_damaged_files(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS)
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(ValueError, match="truncated"):
        open_tensors(path)
    path.write_bytes(content[:40])
    with pytest.raises(ValueError, match="truncated"):
        open_tensors(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="truncated"):
        open_tensors(path)
    path.write_bytes(struct.pack("<Q", 8) + b"not json" + content)
    with pytest.raises(ValueError, match="JSON"):
        open_tensors(path)
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match="damaged, truncated or no safetensors"):
        open_tensors(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"x": ("F32", [2], [0, 8]), "y": ("F32", [2], [4, 12])},  # overlap
        {"x": ("F32", [1], [0, 4]), "y": ("F32", [1], [8, 12])},  # a hole
        {"x": ("F32", [3], [0, 12])},  # bytes that belong to nothing
        {"x": ("F32", ["4"], [0, 16])},
        {"x": ("F32", [4.0], [0, 16])},
        {"x": ("F32", [-4], [0, 16])},
        {"x": ("F32", [2**62, 4], [0, 16])},
        {"x": ("F32", [4], [-16, 0])},
        {"x": ("S32", [4], [0, 16])},
        {"x": 3},
    ],
)
def test_entries_that_cannot_be(tmp_path, entries):
    path = tmp_path / "x.safetensors"
    listed = {
        name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) if isinstance(entry, tuple) else entry
        for name, entry in entries.items()
    }
    header = json.dumps(listed).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(ValueError, match="damaged, truncated or no safetensors file"):
        open_tensors(path)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": []}', '{"weight_map": {"x": 3}}', "[" * 100_000])
def test_an_index_that_is_none(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is not an index of safetensors files"):
        open_tensors(path)


def test_shards_that_do_not_fit_their_index(tmp_path):
    folder = tmp_path / "s"
    shards(folder, {"b": "one.safetensors", "a": "two.safetensors"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "one.safetensors", "gone": "two.safetensors"}}))
    with pytest.raises(ValueError, match="shards lack: gone"):
        open_tensors(folder)
    index.write_text(json.dumps({"weight_map": {"b": "three.safetensors"}}))
    with pytest.raises(FileNotFoundError, match="three.safetensors"):
        open_tensors(folder)
    index.write_text(json.dumps({"weight_map": {"b": "../../etc/passwd"}}))
    with pytest.raises(ValueError, match="not a file name"):
        open_tensors(folder)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin", "model.safetensors"])
def test_a_pickle_never_runs(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="fae weights convert|no safetensors file"):
        open_tensors(tmp_path / name)
    if name != "model.safetensors":
        with pytest.raises(FileNotFoundError, match=name):
            open_tensors(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_tensors(tmp_path / "x.safetensors")
