"""Sets of images written and read a batch at a time are what NumPy writes and reads whole."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae_jax.files.image_archives import ImageArchive, writing_images

RNG = np.random.default_rng(0)
SET = RNG.integers(0, 256, (7, 4, 6, 3), dtype=np.uint8)
ASKED = np.array([3, 1, 2, 0, 3, 1, 2], np.int32)


def test_what_is_written_piece_by_piece_is_read_whole(folder: Any):
    path = folder / "deep" / "samples.npz"
    with writing_images(path, ASKED, (4, 6)) as add:
        for start in (0, 3, 6):
            add(SET[start : start + 3])
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # as ADM's evaluator does
        assert arrays.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(arrays["arr_0"], SET)
        np.testing.assert_array_equal(arrays["arr_1"], ASKED)
    archive = ImageArchive.open(str(path))
    assert archive.shape == SET.shape
    np.testing.assert_array_equal(archive.labels, ASKED)
    for size in (1, 2, 7, 100):
        batches = list(archive.batches(size))
        assert max(map(len, batches)) <= size
        np.testing.assert_array_equal(np.concatenate(batches), SET)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["arr_0", "images"])
def test_files_of_numpy_are_read_with_and_without_labels(tmp_path: Path, write: Any, key: str):
    write(tmp_path / "a.npz", **{key: SET})
    archive = ImageArchive.open(str(tmp_path / "a.npz"))
    assert archive.labels is None
    np.testing.assert_array_equal(np.concatenate(list(archive.batches(2))), SET)


def test_a_set_that_is_not_finished_leaves_nothing(folder: Any):
    for added, error in ((SET, RuntimeError), (SET[:6], ValueError)):
        with pytest.raises(error), writing_images(folder / "samples.npz", ASKED, (4, 6)) as add:
            add(added)
            if error is RuntimeError:
                raise RuntimeError
    assert not (folder / "samples.npz").exists()
    assert not folder.exists() or list(folder.iterdir()) == []


def test_memory_is_that_of_a_batch(tmp_path: Path):
    labels, batch = np.zeros(400, np.int64), np.zeros((10, 64, 64, 3), np.uint8)
    tracemalloc.start()
    with writing_images(tmp_path / "a.npz", labels, (64, 64)) as add:
        for _ in range(40):
            add(batch)
    for images in ImageArchive.open(str(tmp_path / "a.npz")).batches(10):
        assert len(images) == 10
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 400 * 64 * 64 * 3
    assert peak < 8 * batch.nbytes  # of 40


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"samples": SET}, "holds samples, and images are called arr_0"),
        ({"arr_0": SET.astype(np.float32) / 255}, r"float32 \(7, 4, 6, 3\), from 0 to 1, and images are uint8"),
        ({"arr_0": SET.transpose(0, 3, 1, 2).copy()}, r"uint8 \(7, 3, 4, 6\), and images are uint8 \(n, y, x, 3\)"),
        ({"arr_0": SET[:0]}, "holds no image"),
        ({"arr_0": SET, "arr_1": ASKED[:6]}, r"labels of 7 images are whole numbers \(7,\)"),
        ({"arr_0": np.asfortranarray(SET)}, "column by column"),
    ],
)
def test_what_is_no_set_of_images_is_refused_in_one_line(tmp_path: Path, arrays: dict[str, Any], said: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=said) as error:
        ImageArchive.open(str(tmp_path / "a.npz"))
    assert "\n" not in str(error.value) and "a.npz" in str(error.value)


def test_damaged_files_are_refused(tmp_path: Path):
    np.savez(tmp_path / "a.npz", arr_0=SET)
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (whole[:-30], b"no archive", whole[:100] + b"\0" * 100 + whole[200:]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            list(ImageArchive.open(str(tmp_path / "a.npz")).batches(2))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ImageArchive.open(str(tmp_path / "b.npz"))
