"""The ADM crop against a statement of it in NumPy alone, Pillow's fixed-point resampling included."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fae_jax.data import transforms
from fae_jax.data.sources.tars import TarSource
from fae_jax.data.transforms import ChooseCaption, RandomFlip, RandomResizedCrop, adm_centre_crop


def box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = −1/2."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample_rows(image: np.ndarray, size: int, kernel: object, support: float) -> np.ndarray:
    """Resamples axis 0 as Pillow does: taps in float64, normalised, rounded to 22 bits; pixels rounded to 8."""
    scale = image.shape[0] / size
    stretch = max(scale, 1.0)
    rows = []
    for row in range(size):
        centre = (row + 0.5) * scale
        first = max(int(centre - support * stretch + 0.5), 0)
        last = min(int(centre + support * stretch + 0.5), image.shape[0])
        taps = kernel((np.arange(first, last) - centre + 0.5) / stretch)
        taps = taps / taps.sum()
        fixed = np.trunc(taps * 2**22 + np.copysign(0.5, taps)).astype(np.int64)
        summed = (fixed[:, None, None] * image[first:last].astype(np.int64)).sum(0) + 2**21
        rows.append(np.clip(summed >> 22, 0, 255))
    return np.stack(rows).astype(np.uint8)


def resample(image: np.ndarray, height: int, width: int, kernel: object, support: float) -> np.ndarray:
    if width != image.shape[1]:
        image = resample_rows(image.swapaxes(0, 1), width, kernel, support).swapaxes(0, 1)
    return image if height == image.shape[0] else resample_rows(image, height, kernel, support)


def reference_crop(image: np.ndarray, size: int) -> np.ndarray:
    while min(image.shape[:2]) >= 2 * size:
        image = resample(image, image.shape[0] // 2, image.shape[1] // 2, box, 0.5)
    height, width = (round(side * (size / min(image.shape[:2]))) for side in image.shape[:2])
    image = resample(image, height, width, cubic, 2.0)
    y, x = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[y : y + size, x : x + size]


def test_adm_crop_is_the_reference_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(5, 150, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        np.testing.assert_array_equal(adm_centre_crop(image, 24), reference_crop(image, 24), str((height, width)))


@pytest.mark.parametrize("shape", [(24, 24), (24, 57), (300, 24), (48, 48), (49, 95), (1, 40)])
def test_adm_crop_at_the_corners_of_its_cases(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    cropped = adm_centre_crop(image, 24)
    assert cropped.shape == (24, 24, 3)
    np.testing.assert_array_equal(cropped, reference_crop(image, 24))


@pytest.mark.parametrize("shape", [(400, 1), (1, 400), (601, 3), (2, 555)])
def test_a_ribbon_takes_no_more_than_its_result(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    whole = adm_centre_crop(image, 24).astype(int)
    monkeypatch.setattr(transforms, "LARGEST", 1000)
    assert np.abs(adm_centre_crop(image, 24) - whole).max() <= 1


def test_an_upright_ribbon_of_8000_pixels_fits_into_little_memory() -> None:
    code = (
        "import resource, numpy as np; from fae_jax.data.transforms import adm_centre_crop as crop;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak();"
        "assert crop(np.zeros((8000, 1, 3), np.uint8), 256).shape == (256, 256, 3);"
        "assert crop(np.zeros((1, 20000, 3), np.uint8), 256).shape == (256, 256, 3);"
        "print(peak() - before)"
    )
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 100_000  # kilobytes; the whole resize would take 2.3 GB


def test_a_image_of_the_right_size_is_untouched() -> None:
    image = np.random.default_rng(2).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(adm_centre_crop(image, 24), image)


def test_flip_mirrors_with_its_probability() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    flipped = [
        (RandomFlip().random_map({"image": image}, np.random.default_rng(seed))["image"] == image[:, ::-1]).all()
        for seed in range(400)
    ]
    assert 160 < sum(flipped) < 240
    always = RandomFlip(probability=1.0).random_map({"image": image}, np.random.default_rng(0))["image"]
    np.testing.assert_array_equal(always, [[[3, 4, 5], [0, 1, 2]], [[9, 10, 11], [6, 7, 8]]])


def test_random_resized_crops_have_the_areas_and_aspects_asked_for() -> None:
    transform = RandomResizedCrop(size=16, area=(0.2, 0.6))
    areas, aspects = [], []
    for seed in range(2000):
        left, top, width, height = transform.rectangle(300, 400, np.random.default_rng(seed))
        assert 0 <= left <= 400 - width and 0 <= top <= 300 - height
        areas.append(width * height / 120000)
        aspects.append(np.log(width / height))
    assert min(areas) > 0.19 and max(areas) < 0.61 and abs(np.mean(areas) - 0.4) < 0.01
    assert np.abs(aspects).max() < np.log(4 / 3) + 0.02 and abs(np.mean(aspects)) < 0.015


def test_random_resized_crop_resizes_the_rectangle_it_drew() -> None:
    image = np.random.default_rng(3).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    transform = RandomResizedCrop(size=24)
    for seed in range(10):
        left, top, width, height = transform.rectangle(90, 70, np.random.default_rng(seed))
        changed = transform.random_map({"image": image}, np.random.default_rng(seed))["image"]
        expected = resample(image[top : top + height, left : left + width], 24, 24, cubic, 2.0)
        np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("shape", [(1000, 10), (10, 1000), (1, 1)])
def test_random_resized_crop_of_ribbons_falls_back_to_the_centre(shape: tuple[int, int]) -> None:
    transform = RandomResizedCrop(size=8, area=(0.9, 1.0))
    left, top, width, height = transform.rectangle(*shape, np.random.default_rng(0))
    assert (
        0.7 < width / height < 1.4 and abs(2 * left + width - shape[1]) <= 1 and abs(2 * top + height - shape[0]) <= 1
    )


def test_captions_are_chosen_evenly_and_dropped_at_the_rate() -> None:
    element = {"captions": ("a", "bb", "ccc"), "label": -1}
    chosen = [ChooseCaption(dropout=0.1).random_map(element, np.random.default_rng(seed)) for seed in range(3000)]
    assert all(set(one) == {"caption", "label"} for one in chosen)
    counts = {text: sum(str(one["caption"]) == text for one in chosen) for text in ("", "a", "bb", "ccc")}
    assert 240 < counts[""] < 360 and all(820 < counts[text] < 980 for text in ("a", "bb", "ccc"))


@pytest.mark.real_data
def test_adm_crop_of_real_photographs_of_odd_sizes_bit_for_bit() -> None:
    """200 captioned photographs of 200×118 to 200×200 and the like, to three sizes."""
    if "FAE_REAL_DATA" not in os.environ:
        pytest.skip("FAE_REAL_DATA is not set")
    path = Path(os.environ["FAE_REAL_DATA"]) / "captions" / "flickr8k-00000.tar"
    source = TarSource(str(path), split="train", holdout=0.0, seed=0)
    shapes = set()
    for position in range(200):
        image = source[position]["image"]
        shapes.add(image.shape)
        for size in (256, 150, 40) if position % 10 == 0 else (64,):
            np.testing.assert_array_equal(adm_centre_crop(image, size), reference_crop(image, size))
    assert len(shapes) > 30
