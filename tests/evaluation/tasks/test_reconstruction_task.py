"""The figure of images and what comes back of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fae_jax
from fae_jax.cli.program import main
from fae_jax.data.pixels import to_uint8
from fae_jax.evaluation.metrics.fidelity import psnr, ssim
from fae_jax.evaluation.tasks.reconstruction import Seen, reconstructions_figure
from fae_jax.evaluation.views import Examples
from fae_jax.stages.experiment import Experiment
from fae_jax.workdir import Workdir


def test_the_figure_is_cut_to_count_and_stands_in_rows_of_ten(digits):
    images = digits.heldout.images
    examples = Examples(12, len(images))
    for part in np.split(np.arange(len(images)), range(50, len(images), 50)):
        examples.add(images[part], 255 - images[part], part)
    images, negatives, places = examples.arrays()
    assert len(images) == 12 and (abs(np.diff(places) - 359 / 12) < 1).all()  # of all classes, where they are sorted
    figure, caption = reconstructions_figure(images, negatives)
    pixels = np.asarray(figure)
    assert pixels.shape[0] == 4 * 96 + 3 * 4
    left = pixels.shape[1] - 10 * 100 + 4
    np.testing.assert_array_equal(pixels[:96:3, left : left + 96 : 3, :3], images[0])
    np.testing.assert_array_equal(pixels[100:196:3, left : left + 96 : 3, :3], 255 - images[0])
    np.testing.assert_array_equal(pixels[200:296:3, left : left + 96 : 3, :3], images[10])
    assert "Unseen" in caption


def test_the_worst_and_those_around_the_median_are_shown():
    random = np.random.default_rng(0)
    originals = random.integers(0, 256, (40, 16, 16, 3), np.uint8)
    spread = random.permutation(np.linspace(1, 60, 40))
    noise = spread[:, None, None, None] * random.normal(size=originals.shape)
    rebuilt = np.clip(originals + noise, 0, 255).astype(np.uint8)
    seen = Seen(40)
    for part in np.split(np.arange(40), (7, 30)):
        seen.add(originals[part], rebuilt[part])
    figures = seen.figures()
    figure, caption = figures["worst_and_median"]
    order = np.argsort(psnr(originals, rebuilt))
    left = figure.size[0] - 10 * 100 + 4
    pixels = np.asarray(figure)[:, left:, :3]
    for row, column, image in (
        (0, 0, originals[order[0]]),
        (1, 9, rebuilt[order[9]]),
    ):
        shown = pixels[100 * row :, 100 * column :][:96:6, :96:6]
        np.testing.assert_array_equal(shown, image)
    near = {rebuilt[place].tobytes() for place in order[15:25]}
    assert all(pixels[300:396:6, 100 * column :][:, :96:6].tobytes() in near for column in range(10))
    values = np.sort(psnr(originals, rebuilt))
    assert (
        f"of PSNR {values[0]:.1f} to {values[9]:.1f} dB" in caption and f"median, {np.median(values):.1f}" in caption
    )
    assert figures["reconstructions"][0].size == (figure.size[0], 4 * 96 + 3 * 4)


@pytest.mark.slow
def test_noise_on_features_and_each_image_by_command(finished: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    noise = "--config.evaluation.reconstruction.noise=(0.0, 1.0)"
    assert main(["evaluate", "--workdir", str(workdir), "--task", "reconstruction", noise]) == 0
    sets = json.loads((workdir / "evaluation" / "reconstruction.json").read_text())["sets"]
    each = json.loads((workdir / "evaluation" / "images" / "reconstruction.json").read_text())
    figures = {path.stem for path in (workdir / "evaluation" / "figures").iterdir()}
    assert figures >= {"reconstructions", "worst_and_median", "noise"}
    assert list(sets) == ["heldout", "noise_0", "noise_1"] and len(each["psnr"]) == sets["heldout"]["count"] == 1438
    assert np.mean(each["psnr"]) == pytest.approx(sets["heldout"]["psnr"])
    model, source = fae_jax.load(workdir), Experiment(Workdir(workdir).read_config(), Workdir(workdir)).images
    images = np.stack([source.source("heldout")[place]["image"] for place in range(6)])
    rebuilt = to_uint8(model.decode(model.encode(images / np.float32(127.5) - 1)))
    np.testing.assert_allclose(each["ssim"][:6], ssim(images, rebuilt), atol=0.02)  # a rounding is a step of 1/255
    assert sets["noise_1"]["psnr"] < sets["noise_0"]["psnr"]
    assert "worst" in (workdir / "report.html").read_text()
