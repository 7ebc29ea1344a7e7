"""From an image to the pixels an encoder was trained on.

Two ways, which agree on what the numbers mean, pixel = (value in [0, 1] − mean) / std:

* `process`: one uint8 image of any size, exactly as the reference's processor does it, with PIL;
* `prepare`: square images in [−1, 1] on the device, as RAE does it (arXiv 2510.11690): one bicubic resize from the
  size that is reconstructed to the size the encoder reads, then mean and std.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from fae_jax.nn.resample import resampling_matrix, resize

RESAMPLES = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
RESIZES = {"bicubic": False, "bicubic_antialias": True}  # for `prepare`: whether it antialiases


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a published processor does, in this order.

    Attributes:
      shortest: the shorter side becomes this many pixels; or
      square: both sides become this many, whatever the shape was; at most one of the two.
      resample: one of `RESAMPLES`.
      rounded: whether pixels are rounded to 8 bits after the resize (PIL) or not (DINOv3's).
      crop: side of a centre crop; black is added where the image is smaller; None for no crop.
      mean, std: per channel.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shortest: int | None = None
    square: int | None = None
    resample: str = "bicubic"
    rounded: bool = True
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLES:
            raise ValueError(f"resample {self.resample!r} is unknown; choose one of {', '.join(RESAMPLES)}")
        if self.shortest and self.square:
            raise ValueError("an image's shorter side and both its sides cannot both be set; choose one")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean {self.mean} and std {self.std} must have three numbers each, one per channel, std above 0"
            )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], family: Preprocessing | None = None) -> Preprocessing:
        """Reads a `preprocessor_config.json`.

        Args:
          family: whose mean and std are meant where the file has none.

        Raises:
          ValueError: a field holds what is not known here, or mean or std is known from nowhere.
        """
        numbers = {int(kind): name for name, kind in RESAMPLES.items()}
        kind = fields.get("image_processor_type") or fields.get("feature_extractor_type") or ""
        dinov3 = kind.startswith("DINOv3")
        resample = fields.get("resample", 2 if dinov3 else 3)
        if resample not in numbers:
            raise ValueError(f"preprocessor_config.json has resample={resample}; known are {numbers}")
        if not np.isclose(fields.get("rescale_factor", 1 / 255), 1 / 255):
            raise ValueError(f"preprocessor_config.json has rescale_factor={fields['rescale_factor']}, not 1/255")
        known = {"mean": family.mean, "std": family.std} if family else {}
        normal: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        for name in normal if fields.get("do_normalize", True) else ():
            normal[name] = fields.get(f"image_{name}", known.get(name))
            if normal[name] is None:
                raise ValueError(f"preprocessor_config.json has no image_{name}; write it there, three numbers")
        return cls(
            **(_resize(fields.get("size", 224), clip="CLIP" in kind) if fields.get("do_resize", True) else {}),
            resample=numbers[resample],
            rounded=not dinov3,
            crop=_square("crop_size", fields.get("crop_size", 224)) if fields.get("do_center_crop", False) else None,
            mean=tuple(normal["mean"]),
            std=tuple(normal["std"]),
        )


def _resize(size: Any, *, clip: bool) -> dict[str, int]:
    if isinstance(size, int):  # the way of older files: CLIP meant the shorter side, ViT both
        return {"shortest": size} if clip else {"square": size}
    return {"shortest": size["shortest_edge"]} if "shortest_edge" in size else {"square": _square("size", size)}


def _square(field: str, size: Any) -> int:
    if isinstance(size, int):
        return size
    if size.get("height") != size.get("width") or not size.get("height"):
        raise ValueError(f"preprocessor_config.json has {field}={size}; only squares and shortest_edge are known")
    return size["height"]


def _resized(image: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 (y, x, 3) → values in [0, 1], resized to (rows, columns)."""
    if preprocessing.rounded:
        resized = Image.fromarray(image).resize(size[::-1], RESAMPLES[preprocessing.resample])
        return np.asarray(resized, np.float32) / np.float32(255)
    values = image.astype(np.float32) / np.float32(255)
    for axis in (0, 1):
        if values.shape[axis] != size[axis]:
            matrix = resampling_matrix(values.shape[axis], size[axis], preprocessing.resample, antialias=True)
            values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def _centred(values: np.ndarray, side: int) -> np.ndarray:
    """A square centre crop, with zeros where the image does not reach."""
    missing = [max(side - extent, 0) for extent in values.shape[:2]]
    values = np.pad(values, [*((-(-pixels // 2), pixels // 2) for pixels in missing), (0, 0)])
    top, left = ((extent - side) // 2 for extent in values.shape[:2])
    return values[top : top + side, left : left + side]


def process(image: UInt8[np.ndarray, "y x 3"], preprocessing: Preprocessing) -> Float[np.ndarray, "v u 3"]:
    """An image as the reference's processor hands it to the encoder, float32."""
    height, width = image.shape[:2]
    size = (height, width)
    if preprocessing.square:
        size = (preprocessing.square, preprocessing.square)
    elif preprocessing.shortest:
        short, long = min(size), max(size)
        other = int(preprocessing.shortest * long / short)
        size = (preprocessing.shortest, other) if height <= width else (other, preprocessing.shortest)
    values = _resized(image, size, preprocessing)
    if preprocessing.crop:
        values = _centred(values, preprocessing.crop)
    mean, std = (np.asarray(value, np.float32) for value in (preprocessing.mean, preprocessing.std))
    return (values - mean) / std


def prepare(
    images: Float[Array, "b y x 3"],
    *,
    side: int,
    resize_kind: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "b side side 3"]:
    """Square images in [−1, 1] → the encoder's pixels at `side`, float32.

    Args:
      resize_kind: `bicubic` (PyTorch's, as RAE does it) or `bicubic_antialias`.

    Raises:
      ValueError: the images are not square, or the kind is unknown.
    """
    if images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be square, got {images.shape[1]}×{images.shape[2]}; crop them first")
    if resize_kind not in RESIZES:
        raise ValueError(f"resize {resize_kind!r} is unknown; choose one of {', '.join(RESIZES)}")
    values = (images.astype(jnp.float32) + 1) / 2
    values = resize(values, (side, side), "bicubic", antialias=RESIZES[resize_kind])
    return (values - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
