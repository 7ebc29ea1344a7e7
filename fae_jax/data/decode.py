"""Bytes of an image file → uint8 RGB pixels, whatever the file's own colours, depth and orientation."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from fae_jax.data.jpeg import decode_plain_jpeg

MAX_PIXELS = 2**26  # in one image: more would take a gigabyte a thread; ImageNet's largest has 61 million

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


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "y x 3"]:
    """Decodes an image file.

    The first frame of an animation is taken, EXIF orientation is applied, grey and CMYK become RGB, 16-bit samples
    keep their upper eight bits, and transparent pixels are shown on white. A JPEG file of more than `max_pixels`
    that is stored from top to bottom comes at a half, a quarter or an eighth of its sides, whichever is the first
    within the limit.

    Args:
      data: the whole file.
      name: what to call it in errors.
      max_pixels: of what is decoded; four to twelve bytes each are taken while that is done.

    Raises:
      BadImage: the bytes are not a complete image of a known format, or one of too many pixels.
    """
    if not data:
        raise BadImage(f"{name}: the file is empty")
    plain = decode_plain_jpeg(data, max_pixels)
    if plain is not None:
        return plain
    try:
        with _open(data) as image:
            size = image.size  # said by the file's first bytes, before any pixel is decoded
            if isinstance(image, JpegImageFile) and size[0] * size[1] > max_pixels and _is_sequential(data):
                parts = next((n for n in (2, 4, 8) if -(-size[0] // n) * -(-size[1] // n) <= max_pixels), 1)
                image.draft(image.mode, (size[0] // parts, size[1] // parts))
            if image.width * image.height > max_pixels:
                raise ValueError(f"{size[0]}×{size[1]} are more than {max_pixels:,} pixels")
            image.load()
            return np.asarray(_to_rgb(_upright(image)), np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on broken files
        raise BadImage(f"{name}: {_reason(data, error)}") from error


def _open(data: bytes) -> Image.Image:
    """JPEG files without Pillow's own limit on pixels, which is below what a reduced one may have."""
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _is_sequential(data: bytes) -> bool:
    """Whether a JPEG file holds its pixels in one scan; of several, all coefficients are kept until the last."""
    place = 2
    while data[place + 1] != 0xDA:  # segments of a marker and their length, thumbnails among them
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.count(b"\xff\xda", place, data.find(b"\xff\xd9", place) % len(data)) == 1


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
