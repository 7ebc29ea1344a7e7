"""COCO's captions: which images, which captions, where the images are, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fae_jax.data.decode import BadImage
from fae_jax.data.loader import ordered_batches
from fae_jax.data.sources.coco import CocoSource
from fae_jax.data.sources.kinds import open_source

LISTED = {
    "images": [{"id": 9, "file_name": "b.png"}, {"id": 4, "file_name": "a.png"}, {"id": 5, "file_name": "c.png"}],
    "annotations": [
        {"image_id": 4, "caption": "a cat\n"},
        {"image_id": 9, "caption": "a bee"},
        {"image_id": 4, "caption": "still a cat"},
        {"image_id": 5, "caption": "  "},
        {"image_id": 77, "caption": "of nothing"},
    ],
}


def write(file: Path, content: object = LISTED) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def draw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shade, name in enumerate(("a.png", "b.png", "c.png")):
        Image.fromarray(np.full((8, 8, 3), 60 * shade, np.uint8)).save(folder / name)


def source(path: str, **options: object) -> CocoSource:
    return CocoSource(path, split="train", holdout=0.0, seed=0, **options)


def test_images_in_the_files_order_with_all_their_captions(tmp_path: Path) -> None:
    draw(tmp_path)
    captioned = source(write(tmp_path / "any.json"))
    assert [skip.name for skip in captioned.skipped] == ["c.png"]
    assert len(captioned) == 2 and captioned.captioned and captioned.classes == ()
    assert [captioned[place]["captions"] for place in range(2)] == [("a bee",), ("a cat", "still a cat")]
    assert captioned[0]["image"][0, 0, 0] == 60 and captioned[1]["image"][0, 0, 0] == 0
    with ordered_batches(captioned, batch=3, image_size=8) as batches:
        batch = next(batches)
    assert [json.loads(text) for text in batch["captions"][batch["mask"]]][1] == ["a cat", "still a cat"]


@pytest.mark.parametrize("folder", ["annotations", "annotations/val2017", "val2017"])
def test_images_are_looked_for_where_coco_puts_them(tmp_path: Path, folder: str) -> None:
    draw(tmp_path / folder)
    path = write(tmp_path / "annotations" / "captions_val2017.json")
    assert source(path)[1]["image"].shape == (8, 8, 3)
    assert open_source("coco", path=path, split="train", holdout=0.0, seed=0).name(0).endswith("b.png")


def test_a_folder_may_be_named_and_a_lost_image_is_one_bad_image(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere")
    path = write(tmp_path / "any.json")
    with pytest.raises(FileNotFoundError, match=r"b.png, …\) are in none of .*; name their folder"):
        source(path)
    captioned = source(path, images=str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "a.png").unlink()
    assert captioned[0]["captions"] == ("a bee",)
    with pytest.raises(BadImage, match="a.png"):
        _ = captioned[1]


def test_another_caption_is_another_source(tmp_path: Path) -> None:
    draw(tmp_path)
    path = write(tmp_path / "any.json")
    first = source(path).fingerprint
    assert source(path).fingerprint == first
    changed = {**LISTED, "annotations": [{"image_id": 4, "caption": "a dog"}, *LISTED["annotations"][1:]]}
    assert source(write(tmp_path / "any.json", changed)).fingerprint != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a COCO file of captions"),
        ([], "is not a COCO file of captions"),
        ("[" * 100_000, "is not a COCO file of captions"),
        ({**LISTED, "annotations": [{"image_id": 4, "caption": "\ud800"}]}, "UnicodeEncodeError"),
        ({"images": LISTED["images"]}, "'annotations'"),
        ({**LISTED, "annotations": [{"image_id": 4, "bbox": [0, 0, 1, 1]}]}, "'caption'"),
        ({**LISTED, "annotations": []}, "holds no image with a caption"),
        ({**LISTED, "images": [{"id": 4, "file_name": "../a.png"}]}, "outside their folder"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(write(tmp_path / "any.json", content))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="do not exist; name COCO's JSON file"):
        source(str(tmp_path / "captions.json"))
