"""Bytes of an image file → uint8 RGB pixels, whatever the file's own colours, depth and orientation."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from fae_jax.data.jpeg import MOST_PIXELS, decode_plain_jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # Pillow has 18 more, some of which start other programs
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """A stored image whose bytes cannot be turned into pixels; the message names it and says why."""


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "y x 3"]:
    """Decodes an image file.

    The first frame of an animation is taken, EXIF orientation is applied, grey and CMYK become RGB, 16-bit samples
    keep their upper eight bits, and transparent pixels are shown on white.

    Args:
      data: the whole file.
      name: what to call it in errors.

    Raises:
      BadImage: the bytes are not a complete image of a known format, or one of more than `MOST_PIXELS`.
    """
    if not data:
        raise BadImage(f"{name}: the file is empty")
    plain = decode_plain_jpeg(data)
    if plain is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:  # said by the file's first bytes, before any is decoded
                raise ValueError(f"{image.width}×{image.height} are more than {MOST_PIXELS:,} pixels")
            image.load()
            return np.asarray(_to_rgb(_upright(image)), np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on broken files
        raise BadImage(f"{name}: {_reason(data, error)}") from error


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF says it stands, or as it is stored where that cannot be read.

    Pillow's own `exif_transpose` also writes the tags anew, which fails where one of the others is odd.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's reader raises almost anything on broken tags
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(data: bytes, error: Exception) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "holds a web page, not an image"
    if "cannot identify" in str(error):
        return f"{len(data)} bytes of no image format that can be read"
    return str(error) or type(error).__name__
