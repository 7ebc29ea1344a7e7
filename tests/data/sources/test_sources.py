"""Sources: listings, splits that any machine agrees on, and folders as users have them."""

import hashlib
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from fae_jax.data.decode import BadImage
from fae_jax.data.sources.digits import DigitsSource, enlarge
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.listing import Source, name_hashes, split_positions
from fae_jax.data.sources.stored import counted


def opened(kind: str = "folder", path: Path | None = None, **options: object) -> Source:
    chosen = {"split": "train", "holdout": 0.2, "seed": 0, **options}
    return open_source(kind, path=None if path is None else str(path), **chosen)


def test_digits_are_scikit_learns_and_enlarging_is_undone() -> None:
    from sklearn.datasets import load_digits

    real = load_digits()
    everything = DigitsSource(split="train", holdout=0.0, seed=0)
    images = np.stack([everything[i]["image"] for i in range(len(everything))])
    assert images.shape == (1797, 32, 32, 3) and images.dtype == np.uint8
    means = images.mean(-1).reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64) * (16 / 255)
    np.testing.assert_array_equal(np.rint(means), real.data)
    np.testing.assert_array_equal(everything.labels, real.target)
    assert np.abs(means - real.data).max() < 0.25


def test_enlarged_digits_are_smoother_than_blocks() -> None:
    from sklearn.datasets import load_digits

    data = load_digits().data[:100]
    blocks = data.reshape(-1, 8, 8).repeat(4, 1).repeat(4, 2) * (255 / 16)
    bend = lambda a: np.square(np.diff(a.astype(float), n=2, axis=1)).mean()  # noqa: E731
    assert bend(enlarge(data)) < 0.25 * bend(blocks)


def test_digit_splits_are_stratified_disjoint_and_fixed() -> None:
    train, held = opened("digits"), opened("digits", split="heldout")
    assert len(train) + len(held) == 1797 and abs(len(held) - 359) <= 5
    for label in range(10):
        share = (held.labels == label).sum() / ((held.labels == label).sum() + (train.labels == label).sum())
        assert abs(share - 0.2) < 0.01
    assert held.fingerprint == opened("digits", split="heldout").fingerprint
    assert len({held.fingerprint, train.fingerprint, opened("digits", split="heldout", seed=1).fingerprint}) == 3


def split_of(names: list[str], labels: list[int], **options: Any) -> list[int]:
    chosen = {"split": "heldout", "holdout": 0.2, "seed": 0, **options}
    return split_positions(name_hashes(names), np.array(labels), **chosen).tolist()


def test_a_split_is_this_one_on_every_machine() -> None:
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(10)]
    labels = [0] * 10 + [1] * 10

    def rank(name: str) -> int:
        first, second = (
            int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in (name, "holdout 0")
        )
        number = first ^ second
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
        return number ^ (number >> 31)

    expected = sorted(sorted(range(10), key=lambda i: rank(names[i]))[:2])
    expected += sorted(sorted(range(10, 20), key=lambda i: rank(names[i]))[:2])
    assert split_of(names, labels) == expected
    assert split_of(names, labels, split="train") == sorted(set(range(20)) - set(expected))


def test_adding_a_image_moves_few_others() -> None:
    names = [f"{number}.jpg" for number in range(200)]
    before, after = split_of(names, [0] * 200), split_of([*names, "new.jpg"], [0] * 201)
    assert len(before) == len(after) == 40 and len(set(before) ^ set(after)) <= 2


def test_small_classes_keep_a_image_on_each_side() -> None:
    for holdout in (0.01, 0.99):
        assert len(split_of(["a", "b"], [0, 0], holdout=holdout)) == 1


def test_folder_images_and_labels(photographs: Path) -> None:
    source = opened(path=photographs, holdout=0.0)
    assert isinstance(source, Source) and source.classes == ("cat", "dog", "eel") and len(source) == 39
    seen = source[14]
    assert seen["label"] == 1 and seen["index"] == 14 and seen["label"].dtype == np.int32
    name = sorted(os.listdir(photographs / "dog"))[1]
    np.testing.assert_array_equal(seen["image"], np.asarray(Image.open(photographs / "dog" / name)))


def test_folder_fingerprint_is_of_the_listing(tmp_path: Path) -> None:
    for label, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / label).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), colour).save(tmp_path / label / f"{number}.png")
    before = opened(path=tmp_path, holdout=0.0).fingerprint
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    assert opened(path=tmp_path, holdout=0.0).fingerprint == before
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "9.png")
    assert opened(path=tmp_path, holdout=0.0).fingerprint != before


def test_what_a_folder_holds_besides_is_counted_by_ending(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in "ab":
        (tmp_path / label / "deeper" / "still").mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / label / f"{number}.PNG")
        for name in ("0.tiff", "1.TIFF", "a.jp2", "a.jfif", "a.ppm", "a.avif", "LICENSE", ".hidden.tiff"):
            (tmp_path / label / name).write_bytes(b"x")
        (tmp_path / label / "deeper" / "still" / "0.png").write_bytes(b"x")
        (tmp_path / label / "gone.png").symlink_to(tmp_path / "nowhere")
        (tmp_path / label / "deeper" / "back").symlink_to(tmp_path)
    (tmp_path / "c.jpg").write_bytes(b"x")
    source = opened(path=tmp_path, holdout=0.0)
    assert len(source) == 6
    reasons = {f"its name ends in {ending}, which is not read": 2 for ending in (".jp2", ".jfif", ".ppm", ".avif")}
    reasons["its name ends in no suffix, which is not read"] = 2
    reasons["its name ends in .tiff, which is not read"] = 4
    reasons["its name ends in .png, and it lies in a folder inside a class folder"] = 2
    reasons["its name ends in .jpg, and it lies in no class folder"] = 1
    reasons["it is a link to a folder or to nothing"] = 4
    assert counted(source.skipped) == reasons
    assert f"{tmp_path}: 4 left out: its name ends in .tiff, which is not read" in caplog.text
    for label in "ab":
        for number in range(3):
            (tmp_path / label / f"{number}.PNG").rename(tmp_path / label / f"{number}.tiff")
    with pytest.raises(ValueError, match="2 of 2 class folders: .* have no images .*; 8 left out: .*tiff, which is"):
        opened(path=tmp_path)


def test_a_folder_in_a_bucket_is_listed_as_one_here(tmp_path: Path) -> None:
    for name in ("a/0.png", "a-b/0.png", "a-b/1.tif", "a/deeper/0.png", "0.png", ".git/x/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path), "/listed", recursive=True)
    try:
        there, here = (
            open_source("folder", path="memory://listed", split="train", holdout=0.0, seed=0),
            opened(path=tmp_path, holdout=0.0),
        )
        assert there.classes == here.classes == ("a", "a-b") and there.fingerprint == here.fingerprint
        assert there.skipped == here.skipped and len(here.skipped) == 3
    finally:
        bucket.rm("/listed", recursive=True)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.jpg").write_bytes(b"")
    with pytest.raises(BadImage, match="a/0.jpg: the file is empty"):
        opened(path=tmp_path, holdout=0.0)[0]


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "a").mkdir(parents=True)
    (tmp_path / "two" / "a").mkdir(parents=True)
    (tmp_path / "two" / "b").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "two" / "a" / "0.png")
    (tmp_path / "file").write_text("x")
    for path, error, message in [
        ("missing", FileNotFoundError, "does not exist"),
        ("file", ValueError, "is not a folder"),
        ("empty", ValueError, "no subfolders"),
        ("one", ValueError, "at least two classes"),
        ("two", ValueError, "two/b has no images"),
    ]:
        with pytest.raises(error, match=message):
            opened(path=tmp_path / path)
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        opened("digit")
    with pytest.raises(ValueError, match="split 'test' is unknown"):
        opened("digits", split="test")
    with pytest.raises(ValueError, match="held-out share"):
        opened("digits", holdout=1.0)
    with pytest.raises(ValueError, match="nothing is held out"):
        opened("digits", split="heldout", holdout=0.0)
    with pytest.raises(ValueError, match="needs a path"):
        opened("folder")


def test_an_unreadable_folder_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=f"image folder {tmp_path} cannot be read: Permission denied"):
        opened(path=tmp_path)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1,)])
def test_a_share_of_single_images_is_refused(sizes: tuple[int, ...]) -> None:
    names = name_hashes(f"image {number}" for number in range(sum(sizes)))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for split in ("train", "heldout"):
        with pytest.raises(ValueError, match=r"no image can be held out, for no class has two; .*to 0, it is 0.2"):
            split_positions(names, labels, split=split, holdout=0.2, seed=0)
    assert split_positions(names, labels, split="train", holdout=0.0, seed=0).tolist() == list(range(sum(sizes)))
    more = (np.append(part, part[-1:]) for part in (names, labels))
    assert len(split_positions(*more, split="heldout", holdout=0.2, seed=0)) == 1
