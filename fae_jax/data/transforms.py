"""Images of any size → square uint8 images of one size; random ones drawn from (seed, position) alone.

Each is a Grain transform of the dictionaries that sources yield; Grain hands a random one a generator that is a
function of the pipeline's seed and the element's position, so hosts, workers and restarts cannot change a draw.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8
from PIL import Image

LARGEST = 2**24  # pixels between the two directions of a resize
CROPS = ("adm_centre", "random_resized")


def adm_centre_crop(image: UInt8[np.ndarray, "y x 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The centre crop by which ImageNet models since ADM (arXiv 2105.05233) are trained and scored.

    Both sides are halved with a box filter while the shorter is at least 2·size; a bicubic resize then makes the
    shorter side `size`, the longer rounded half to even; the middle square is cut, an odd remainder to the right
    and below. An image that is so already is returned itself.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(centre_crop(Image.fromarray(image), size))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """`adm_centre_crop` of an RGB image."""
    while min(image.size) >= 2 * size:
        image = _resized(image, image.width // 2, image.height // 2, Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if width != image.width:
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    if width != size:  # columns do not see each other from here on
        image = image.crop((left, 0, left + size, image.height))
    if size * height > LARGEST:  # a ribbon: only the rows that are kept, whose last bits may then differ
        rows = image.height / height
        box = (0, top * rows, size, (top + size) * rows)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if height != image.height:
        image = image.resize((size, height), Image.Resampling.BICUBIC)
    return image.crop((0, top, size, top + size)) if height != size else image


def _resized(image: Image.Image, width: int, height: int, kind: Image.Resampling) -> Image.Image:
    """Rows first, then columns, each rounded to eight bits.

    Up to version 12 Pillow's own `resize` did just that; later ones shrink some tall images columns first, which
    changes the last bits. Asking for one direction at a time gives the same pixels with all of them.
    """
    return image.resize((width, image.height), kind).resize((width, height), kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomFlip(grain.transforms.RandomMap):
    """Mirrors "image" left to right with the given probability."""

    probability: float = 0.5

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        if rng.random() < self.probability:
            return element | {"image": element["image"][:, ::-1]}
        return element


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(grain.transforms.RandomMap):
    """A random rectangle of "image", resized to (size, size, 3) with a bicubic filter.

    The rectangle has a share of the area uniform in `area` and an aspect ratio log-uniform in `aspect` (Szegedy et
    al., arXiv 1409.4842). Ten draws are tried; if none fits, the largest centred rectangle of a permitted aspect is
    taken.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image = element["image"]
        left, top, width, height = self.rectangle(image.shape[0], image.shape[1], rng)
        cut = Image.fromarray(np.ascontiguousarray(image[top : top + height, left : left + width]))
        return element | {"image": np.asarray(_resized(cut, self.size, self.size, Image.Resampling.BICUBIC))}

    def rectangle(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height of the rectangle of one draw."""
        low, high = np.log(self.aspect)
        for _ in range(10):
            area, ratio = rows * columns * rng.uniform(*self.area), np.exp(rng.uniform(low, high))
            width, height = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
            if 0 < width <= columns and 0 < height <= rows:
                return int(rng.integers(columns - width + 1)), int(rng.integers(rows - height + 1)), width, height
        ratio = min(max(columns / rows, self.aspect[0]), self.aspect[1])
        width, height = min(columns, round(rows * ratio)), min(rows, round(columns / ratio))
        return (columns - width) // 2, (rows - height) // 2, width, height


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChooseCaption(grain.transforms.RandomMap):
    """One of "captions" as "caption", each as likely; the empty text, "no caption", with probability `dropout`."""

    dropout: float = 0.0

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        captions, kept = element["captions"], {name: value for name, value in element.items() if name != "captions"}
        dropped = rng.random() < self.dropout
        chosen = captions[int(rng.integers(len(captions)))]
        return kept | {"caption": np.str_("" if dropped else chosen)}
