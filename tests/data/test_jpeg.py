"""simplejpeg against Pillow: the same pixels, bit for bit, and nothing accepted that Pillow refuses."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.data import jpeg
from fae_jax.data.decode import MAX_PIXELS, BadImage, decode_image
from fae_jax.data.sources.tars import TarSource


def encoded(height: int = 41, width: int = 50, seed: int = 0, mode: str = "RGB", **options: Any) -> bytes:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (7, 5, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def decode_plain_jpeg(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    return jpeg.decode_plain_jpeg(data, max_pixels)


@pytest.fixture
def turbo() -> Iterator[None]:
    pytest.importorskip("simplejpeg")
    jpeg._turbo.cache_clear()
    yield
    jpeg._turbo.cache_clear()


@pytest.fixture
def pillow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`decode_image` by Pillow alone."""

    def decode(data: bytes) -> np.ndarray | str:
        with monkeypatch.context() as patched:
            patched.setattr("fae_jax.data.decode.decode_plain_jpeg", lambda *_: None)
            try:
                return decode_image(data, "a")
            except BadImage as error:
                return str(error)

    return decode


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_pixels_are_pillows_and_damage_is_left_to_pillow(turbo: None, pillow: Any, options: dict[str, Any]) -> None:
    whole, rng, quick = encoded(**options), np.random.default_rng(1), 0
    assert decode_plain_jpeg(whole) is not None
    assert all(decode_plain_jpeg(whole[:length]) is None for length in range(0, len(whole), 7))
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        ours = decode_plain_jpeg(bytes(damaged))
        if ours is not None:
            quick += 1
            np.testing.assert_array_equal(ours, pillow(bytes(damaged)))
    assert quick > 20
    for shape in ((1, 1), (17, 8), (64, 33)):
        data = encoded(*shape, **options)
        np.testing.assert_array_equal(decode_plain_jpeg(data), pillow(data))


def test_what_is_not_plain_is_left_to_pillow(turbo: None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(exif=exif)
    words = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    for data in (turned, encoded(xmp=words), encoded(mode="L"), encoded(mode="CMYK"), b"\x89PNG", b""):
        assert decode_plain_jpeg(data) is None
    assert decode_image(turned, "a").shape == (50, 41, 3)
    assert decode_plain_jpeg(encoded(), 100) is None


def test_other_pixels_or_none_installed_mean_pillow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = encoded()
    for module, logged in ((None, False), (SimpleNamespace(decode_jpeg=lambda *_: np.zeros((75, 101, 3))), True)):
        jpeg._turbo.cache_clear()
        caplog.clear()
        monkeypatch.setitem(sys.modules, "simplejpeg", module)
        assert decode_plain_jpeg(data) is None and decode_image(data, "a").shape == (41, 50, 3)
        assert ("its pixels are not those of this Pillow" in caplog.text) == logged
    jpeg._turbo.cache_clear()


@pytest.mark.real_data
@pytest.mark.parametrize("shard", ["images/imagenette224-val-00000.tar", "captions/flickr8k-00000.tar"])
def test_real_photographs_bit_for_bit(turbo: None, pillow: Any, shard: str) -> None:
    if "FAE_REAL_DATA" not in os.environ:
        pytest.skip("FAE_REAL_DATA is not set")
    source = TarSource(str(Path(os.environ["FAE_REAL_DATA"]) / shard), split="train", holdout=0.0, seed=0)
    quick = 0
    for position in range(500):
        data = source.stored(position).data
        ours = decode_plain_jpeg(data)
        if ours is not None:
            quick += 1
            np.testing.assert_array_equal(ours, pillow(data))
    assert quick > 450
