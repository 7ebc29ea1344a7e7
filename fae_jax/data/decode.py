"""Bytes of a picture file → uint8 RGB pixels, whatever the file's own colours, depth and orientation."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from fae_jax.data.jpeg import decode_plain_jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


class BadPicture(ValueError):
    """A stored picture whose bytes cannot be turned into pixels; the message names it and says why."""


def decode_picture(data: bytes, name: str) -> UInt8[np.ndarray, "y x 3"]:
    """Decodes a picture file.

    The first frame of an animation is taken, EXIF orientation is applied, grey and CMYK become RGB, 16-bit samples
    keep their upper eight bits, and transparent pixels are shown on white.

    Args:
      data: the whole file.
      name: what to call it in errors.

    Raises:
      BadPicture: the bytes are not a complete picture of a known format.
    """
    if not data:
        raise BadPicture(f"{name}: the file is empty")
    plain = decode_plain_jpeg(data)
    if plain is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data)) as picture:
            ImageOps.exif_transpose(picture, in_place=True)  # otherwise it copies what is upright
            return np.asarray(_to_rgb(picture), np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on broken files
        raise BadPicture(f"{name}: {_reason(data, error)}") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64)
        return Image.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        shown = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _reason(data: bytes, error: Exception) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "holds a web page, not a picture"
    if "cannot identify" in str(error):
        return f"{len(data)} bytes of no picture format that can be read"
    return str(error) or type(error).__name__
