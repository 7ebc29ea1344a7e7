"""Decoding against pixels known beforehand: orientation, depth, transparency, broken bytes."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from fae_jax.data.decode import BadImage, decode_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_return_their_pixels(pixels: np.ndarray, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels), kind, **options), "a"), pixels)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_applied(pixels: np.ndarray, orientation: int, turn: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, "a"), turn(pixels))


@pytest.mark.parametrize("orientation", [6, 99])
@pytest.mark.parametrize("tag", ["<HHI4s", "<HHIi"])
def test_odd_tags_beside_the_orientation_cost_no_image(tag: str, orientation: int) -> None:
    """A resolution's unit as text, and a resolution below zero."""
    odd = (0x0128, 2, 3, b"cm") if "s" in tag else (0x011B, 10, 1, 38)
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(tag, *odd)
    exif = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 2) + entries + bytes(4) + struct.pack("<ii", -72, 1)
    data = encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif)
    assert decode_image(data, "a").shape == ((16, 8, 3) if orientation == 6 else (8, 16, 3))


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    decoded = decode_image(encoded(Image.fromarray(deep), "PNG"), "a")
    np.testing.assert_array_equal(decoded, np.repeat((deep // 256).astype(np.uint8)[..., None], 3, -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_shown_on_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (40, 40, 40, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    decoded = decode_image(encoded(image.convert(mode), "PNG"), "a")
    np.testing.assert_array_equal(decoded, [[[40] * 3, [255] * 3]])


def test_palettes_with_a_transparent_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    for transparency in (1, bytes([255, 0])):
        decoded = decode_image(encoded(image, "PNG", transparency=transparency), "a")
        np.testing.assert_array_equal(decoded, [[[10, 20, 30], [255] * 3]])


def test_grey_bilevel_and_cmyk_become_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(grey), "PNG"), "a"), np.repeat(grey[..., None], 3, -1)
    )
    assert set(np.unique(decode_image(encoded(Image.fromarray(grey > 100), "PNG"), "a"))) == {0, 255}
    cmyk = encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100)
    red = decode_image(cmyk, "a")[0, 0].astype(int)
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_the_first_frame_of_an_animation() -> None:
    first, second = Image.new("RGB", (3, 3), "red"), Image.new("RGB", (3, 3), "blue")
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode_image(data, "a")[0, 0], [255, 0, 0])


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "PPM", "ICO"])
def test_other_formats_are_no_images_whatever_they_are_called(pixels: np.ndarray, kind: str) -> None:
    with pytest.raises(BadImage, match=r"a\.jpg: \d+ bytes of no image format that can be read"):
        decode_image(encoded(Image.fromarray(pixels), kind), "a.jpg")


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("GIF", {}), ("JPEG", {"progressive": True})])
def test_no_image_takes_more_memory_than_its_limit(kind: str, options: Any) -> None:
    """A few kilobytes that stand for 81 million pixels."""
    data = encoded(Image.new("L", (9000, 9000)), kind, **options)
    with pytest.raises(BadImage, match="a: 9000×9000 are more than 67,108,864 pixels"):
        decode_image(data, "a")


def test_a_jpeg_beyond_the_limit_comes_reduced_until_it_is_within(pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.fromarray(pixels).resize((150, 90), Image.Resampling.BICUBIC)
    thumbnail = encoded(image, "JPEG")
    for options, turned in (({}, False), ({"exif": exif}, True), ({"comment": thumbnail[:9000]}, False)):
        data = encoded(image, "JPEG", quality=95, **options)
        whole = decode_image(data, "a").astype(int)
        assert whole.shape[:2] == ((150, 90) if turned else (90, 150))
        np.testing.assert_array_equal(decode_image(data, "a", 150 * 90), whole)
        half, eighth = (decode_image(data, "a", limit).astype(int) for limit in (75 * 45, 19 * 12))
        assert half.shape[:2] == ((75, 45) if turned else (45, 75)) and eighth.shape[0] * eighth.shape[1] == 19 * 12
        small = np.asarray(Image.fromarray(whole.astype(np.uint8)).resize(half.shape[1::-1], Image.Resampling.BOX))
        assert np.abs(half - small).mean() < 3
        with pytest.raises(BadImage, match="150×90 are more than 227 pixels"):
            decode_image(data, "a", 19 * 12 - 1)
    with pytest.raises(BadImage, match="150×90 are more than 13,499 pixels"):
        decode_image(encoded(image, "PNG"), "a", 150 * 90 - 1)


def test_broken_files_are_named_with_a_reason(pixels: np.ndarray) -> None:
    whole = encoded(Image.fromarray(np.repeat(pixels, 40, 0)), "JPEG")
    for data, reason in [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"nothing that anybody draws", "no image format"),
        (whole[: len(whole) // 2], "truncated"),
        (encoded(Image.fromarray(pixels), "PNG")[:60], ""),
    ]:
        with pytest.raises(BadImage, match=f"cats/7.jpg: .*{reason}"):
            decode_image(data, "cats/7.jpg")
