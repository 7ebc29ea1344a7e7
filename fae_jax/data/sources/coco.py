"""Images with captions as COCO lists them: one JSON file of images and annotations, and a folder of images.

{"images": [{"id": 7, "file_name": "000000000007.jpg"}, …], "annotations": [{"image_id": 7, "caption": "…"}, …]}
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from fae_jax.data.sources.listing import listing_hash, name_hashes, split_positions
from fae_jax.data.sources.stored import Skip, StoredImage, StoredSource, warn_of
from fae_jax.files import storage


class CocoSource(StoredSource):
    """The images of a COCO file that have a caption, in its order, each with all its captions.

    Args:
      path: the JSON file.
      images: the folder of images; None for the first of these that holds the first image: the file's own
        folder, and the folder the file is named after (captions_val2017.json → val2017) beside it or one above.

    Raises:
      FileNotFoundError: there is no such file, or no folder with its images.
      ValueError: the file is not of that form, or holds no caption.
    """

    captioned = True

    def __init__(self, path: str, *, split: str, holdout: float, seed: int, images: str | None = None):
        self.classes = ()
        path = storage.from_root(path)
        listed, self.skipped = read_captions(path)
        warn_of(self.skipped, path)
        names = list(listed)
        self.root = images or _folder(path, names[0])
        hashes = name_hashes(names)
        chosen = split_positions(hashes, np.zeros(len(names), int), split=split, holdout=holdout, seed=seed)
        self.names = [names[position] for position in chosen]
        self.texts = [tuple(listed[name]) for name in self.names]
        self.keys = hashes[chosen]
        spoken = np.frombuffer(hashlib.sha256(json.dumps(self.texts).encode()).digest(), "<u8")
        self.fingerprint = listing_hash("coco", self.keys, spoken)

    def name(self, position: int) -> str:
        return storage.join(self.root, self.names[position])

    def stored(self, position: int) -> StoredImage:
        return StoredImage(storage.read_bytes(self.name(position)), -1, self.texts[position])


def read_captions(path: str) -> tuple[dict[str, list[str]], list[Skip]]:
    """File name → captions, of the images that have one; and the images without.

    Raises:
      FileNotFoundError, ValueError: see `CocoSource`.
    """
    if not storage.exists(path):
        raise FileNotFoundError(f"the captions {path} do not exist; name COCO's JSON file of images and annotations")
    try:
        content = json.loads(storage.read_bytes(path))
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        captions_of: dict[str, list[str]] = {name: [] for name in names.values()}
        for annotation in content["annotations"]:
            caption = annotation["caption"].strip()
            caption.encode()  # JSON may hold halves of characters
            if caption and annotation["image_id"] in names:
                captions_of[names[annotation["image_id"]]].append(caption)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a COCO file of captions (images with id and file_name, annotations with image_id and "
            f"caption): {type(error).__name__} {error}"
        ) from error
    outside = [name for name in captions_of if name.startswith("/") or ".." in name.split("/")]
    if outside:
        raise ValueError(f"{path} names images outside their folder: {outside[0]!r}")
    skipped = [Skip(name, "has no caption") for name, captions in captions_of.items() if not captions]
    if len(skipped) == len(captions_of):
        raise ValueError(f"{path} holds no image with a caption")
    return {name: captions for name, captions in captions_of.items() if captions}, skipped


def _folder(path: str, first: str) -> str:
    """The folder that holds the first image."""
    here = path.rpartition("/")[0] or "."
    named = path.rpartition("/")[2].removesuffix(".json").removeprefix("captions_")
    above = here.rpartition("/")[0] or "."
    tried = [here, storage.join(here, named), storage.join(".." if here == "." else above, named)]
    for folder in tried:
        if storage.exists(storage.join(folder, first)):
            return folder
    where = ", ".join(tried)
    raise FileNotFoundError(f"the images of {path} ({first}, …) are in none of {where}; name their folder")
