"""Fréchet distances in the features of any extractor, beside those of real images."""

import dataclasses

import numpy as np
import pytest
from feature_streams import taken

from fae_jax.evaluation.metrics import Batch, take_in
from fae_jax.evaluation.metrics.frechet import Frechet, FrechetSection
from fae_jax.extractors.moments import Moments, frechet_distance
from fae_jax.section import validate


def test_the_metric_compares_samples_with_as_many_training_images(digits, capsys):
    among = np.arange(1438) % 4 == 0
    splits = digits._replace(train=dataclasses.replace(digits.train, among=among))._asdict()
    real = {split: take_in([batch], ["frechet"], None, ())["frechet"] for split, batch in splits.items()}
    perfect = take_in([digits.heldout], ["frechet"], None, ())["frechet"].result(real)["frechet"]
    assert perfect["samples_to_heldout"] == pytest.approx(0.0, abs=1e-8)
    train = Moments.of(digits.train.taps("encoder")["mean"][among])
    heldout = Moments.of(digits.heldout.taps("encoder")["mean"])
    assert perfect["train_to_heldout"] == frechet_distance(train, heldout) > 0
    assert (perfect["samples"], perfect["train"], perfect["heldout"]) == (359, 360, 359)
    assert perfect["dimensions"] == 12 and perfect["too_few"] is False
    copied = real["train"].result(real)["frechet"]  # of samples all count
    assert copied["samples"] == 1438
    every = Moments.of(digits.train.taps("encoder")["mean"])
    assert copied["samples_to_heldout"] == pytest.approx(frechet_distance(every, heldout), rel=1e-11)
    assert capsys.readouterr().err == ""
    images, labels = digits.heldout.images[:23], digits.heldout.labels[:23]
    few = Batch(images=images, labels=labels, look=lambda name: {"mean": np.eye(23, 12)})
    assert take_in([few], ["frechet"], None, ())["frechet"].result(real)["frechet"]["too_few"] is True
    assert "says little of so few images (23 samples, 360 train, 359 heldout)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs images on both sides"):
        Frechet().result({})


@dataclasses.dataclass
class Sections:
    frechet: FrechetSection


def test_each_extractor_and_tap_has_a_name_of_its_own(capsys):
    rng = np.random.default_rng(0)
    taps = {"encoder:mean": rng.normal(size=(90, 3)), "dinov2_l14:cls": rng.normal(size=(90, 5))}
    real = {name: rows + 2.0 for name, rows in taps.items()}
    section = Sections(FrechetSection(extractors=("encoder", "dinov2_l14:cls")))
    samples = taken("frechet", taps, section=section, parts=(10, 50))
    result = samples.result({"reference": taken("frechet", real, section=section)})
    assert list(result) == ["frechet", "frechet_dinov2_l14_cls"]
    assert result["frechet"]["samples_to_reference"] == pytest.approx(4 * 3)
    scores = result["frechet_dinov2_l14_cls"]
    assert scores["samples_to_reference"] == pytest.approx(4 * 5) and scores["space"] == "dinov2_l14:cls"
    assert (scores["samples"], scores["reference"], scores["too_few"]) == (90, 90, False)
    for wrong in ((), (3,), ("a:b:c",)):
        with pytest.raises(ValueError, match=r"field extractors holds extractors and taps, such as \(\"encoder\""):
            validate(FrechetSection(extractors=wrong))
