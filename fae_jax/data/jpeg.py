"""Plain JPEG files through `simplejpeg`, where it is installed: Pillow's pixels, in little more than half the time.

Both are libjpeg-turbo underneath. Pillow hands it the file in pieces and its result through an image of four bytes
per pixel and twice more copied; simplejpeg decodes into an array at once, and lets other threads run meanwhile.
Whatever is not a plain JPEG is left to Pillow, and so is every file with anything wrong in it, so that what counts
as damaged does not depend on what is installed.
"""

from __future__ import annotations

import functools
import io
import logging
from types import ModuleType

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Pillow finds an image's orientation behind either of these words and nowhere else.
_TURNED = (b"Exif\0\0", b"tiff:Orientation")
_SUBSAMPLINGS = ("444", "422", "420")
log = logging.getLogger(__name__)


def decode_plain_jpeg(data: bytes, max_pixels: int) -> UInt8[np.ndarray, "y x 3"] | None:
    """The pixels of a complete upright JPEG file in colour; None for any other, one of more than `max_pixels`, or
    where Pillow has to do it."""
    if not data.startswith(b"\xff\xd8\xff") or any(word in data for word in _TURNED):
        return None
    turbo = _turbo()
    if turbo is None:
        return None
    try:
        height, width, colours, subsampling = turbo.decode_jpeg_header(data)
        if colours != "YCbCr" or subsampling not in _SUBSAMPLINGS:
            return None
        if height * width > max_pixels:
            return None
        return turbo.decode_jpeg(data, "RGB")
    except ValueError:
        return None


@functools.cache
def _turbo() -> ModuleType | None:
    """simplejpeg, unless it is missing or its libjpeg-turbo and Pillow's differ in a pixel of a few images."""
    try:
        import simplejpeg
    except ImportError:
        return None
    noise = np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)
    smooth = Image.fromarray(noise[:9, :13]).resize((101, 75), Image.Resampling.BICUBIC)
    for image in (Image.fromarray(noise), smooth):
        for subsampling in range(len(_SUBSAMPLINGS)):
            for progressive in (False, True):
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=85, subsampling=subsampling, progressive=progressive)
                with Image.open(buffer) as pillow:
                    if not np.array_equal(np.asarray(pillow), simplejpeg.decode_jpeg(buffer.getvalue(), "RGB")):
                        log.warning("simplejpeg is not used: its pixels are not those of this Pillow")
                        return None
    return simplejpeg
