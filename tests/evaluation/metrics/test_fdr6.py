"""FDr6: ratios of Fréchet distances, by published or measured distances of validation images."""

import dataclasses

import numpy as np
import pytest
from feature_streams import taken

from fae_jax.evaluation.metrics.fdr6 import IMAGENET, TAPS, FDr6Section
from fae_jax.section import validate


@dataclasses.dataclass
class Sections:
    fdr6: FDr6Section


def stream(seed: int, shift: float = 0.0, count: int = 60):
    rng = np.random.default_rng(seed)
    return {tap: rng.normal(size=(count, 3 + place)) + shift for place, tap in enumerate(TAPS)}


def test_ratios_by_measured_distances():
    train, heldout = stream(0), stream(1, 0.2)
    real = {"train": taken("fdr6", train), "heldout": taken("fdr6", heldout)}
    assert real["heldout"].result(real)["fdr6"]["value"] == pytest.approx(1.0)
    result = taken("fdr6", stream(2, 2.0), parts=(20, 50)).result(real)["fdr6"]
    ratios = [result["distances"][tap] / result["of_validation"][tap] for tap in TAPS]
    assert list(result["ratios"].values()) == ratios and result["value"] == pytest.approx(np.mean(ratios))
    assert result["distances"]["fd_loss_clip:cls"] == pytest.approx(4 * 8, rel=0.3)
    assert result["against"] == "train" and (result["samples"], result["reference"]) == (60, 60)


def test_ratios_by_published_distances():
    section = Sections(FDr6Section(validation=IMAGENET))
    real = {"reference": taken("fdr6", stream(3), section=section)}
    samples = taken("fdr6", {tap: rows + 1.0 for tap, rows in stream(3).items()}, section=section)
    result = samples.result(real)["fdr6"]
    expected = np.mean([(3 + place) / value for place, value in enumerate(IMAGENET)])  # |shift|² over the published
    assert result["value"] == pytest.approx(expected, rel=1e-6)
    assert result["too_few"] is False


def test_what_cannot_be_divided_is_refused():
    samples = taken("fdr6", stream(4))
    with pytest.raises(ValueError, match="divides by the distances of held-out images from the reference, and there"):
        samples.result({"reference": samples})
    with pytest.raises(ValueError, match="fdr6 needs images on both sides, got none"):
        samples.result(
            {"train": taken("fdr6", {tap: rows[:0] for tap, rows in stream(5).items()}), "heldout": samples}
        )
    with pytest.raises(ValueError, match="from the reference, which are 0 here"):
        samples.result({"train": samples, "heldout": samples})
    with pytest.raises(ValueError, match="field validation holds 6 numbers above 0, or nothing: of ImageNet"):
        validate(FDr6Section(validation=(1.0, 2.0)))
