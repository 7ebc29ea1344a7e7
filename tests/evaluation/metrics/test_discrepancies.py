"""KID, MIND and CMMD against their equations written out, closed forms and hard cases."""

import dataclasses
import itertools

import numpy as np
import pytest
from feature_streams import score, taken
from scipy.spatial.distance import cdist

from fae_jax.evaluation.metrics import kid, mind
from fae_jax.evaluation.metrics.rows import TapSection
from fae_jax.section import validate

POOL, CLIP = "inception:pool_3", "clip_l14_336:pooled"


def scored(name: str, samples: np.ndarray, real: np.ndarray, **how) -> dict:
    tap = CLIP if name == "cmmd" else POOL
    return score(name, taken(name, {tap: samples}, **how), taken(name, {tap: real}))


def pair(seed: int, first: int, second: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(first, width)).astype(np.float32) * 1.3, rng.normal(size=(second, width)).astype(
        np.float32
    )


@pytest.mark.parametrize("name", ["kid", "mind", "cmmd"])
def test_batches_and_hosts_do_not_change_a_score(name):
    samples, real = pair(0, 230, 150, 6)
    whole = scored(name, samples, real)
    for how in ({"size": 1}, {"size": 7}, {"parts": (100,)}, {"parts": (7, 222)}):
        assert scored(name, samples, real, **how) == whole
    assert (whole["samples"], whole["reference"], whole["too_few"]) == (230, 150, True)
    with pytest.raises(ValueError, match="features 6 and 5 wide cannot be compared"):
        scored(name, samples, real[:, :5])
    with pytest.raises(ValueError, match=rf"{name} needs \d images or more on both sides, got 0 samples and 150"):
        scored(name, samples[:0], real)


@dataclasses.dataclass
class Sections:
    kid: TapSection


def test_any_tap_can_be_compared_and_only_with_its_own_kind():
    samples, real = pair(9, 60, 50, 6)
    taps = {POOL: samples * 0, "dinov2_l14:cls": samples}, {POOL: real * 0, "dinov2_l14:cls": real}
    section = Sections(TapSection(tap="dinov2_l14:cls"))
    ours, theirs = (taken("kid", each, section=section) for each in taps)
    result = score("kid", ours, theirs)
    assert result["space"] == "dinov2_l14:cls"
    assert result["value"] == scored("kid", samples, real)["value"] != 0.0
    with pytest.raises(ValueError, match="features of dinov2_l14:cls were kept, and those of inception:pool_3 are"):
        taken("kid", {POOL: samples}).restore(ours.state())
    with pytest.raises(ValueError, match="field tap is EXTRACTOR:TAP, such as dinov2_l14:cls, got 'a:b:c'"):
        validate(TapSection(tap="a:b:c"))


def test_kid_is_the_unbiased_estimate_over_its_subsets(monkeypatch):
    monkeypatch.setattr(kid, "SIZE", 12)
    monkeypatch.setattr(kid, "SUBSETS", 3)
    samples, real = pair(1, 40, 30, 5)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a.astype(float), b.astype(float))) / 5 + 1) ** 3

    random, values = np.random.RandomState(2020), []
    for _ in range(3):
        x, y = (rows[random.choice(len(rows), 12, replace=False)] for rows in (samples, real))
        within = sum(k(a, b) for rows in (x, y) for a, b in itertools.permutations(rows, 2)) / (12 * 11)
        values.append(within - 2 * np.mean([k(a, b) for a in x for b in y]))
    result = scored("kid", samples, real)
    assert result["value"] == pytest.approx(np.mean(values), rel=1e-9)
    assert result["std"] == pytest.approx(np.std(values), rel=1e-9)
    assert (result["subsets"], result["size"], result["seed"], result["too_few"]) == (3, 12, 2020, False)


def test_kid_of_few_images_says_so(capsys):
    few = scored("kid", *pair(2, 20, 30, 5))
    assert few["size"] == 20 and few["too_few"] is True
    assert "KID in subsets of 1000 says little of so few images (20 samples, 30 reference)" in capsys.readouterr().err
    repeated = np.repeat(pair(3, 1, 1, 5)[0], 20, axis=0)
    assert scored("kid", repeated, repeated)["value"] == pytest.approx(0.0, abs=1e-9)


def test_mind_of_a_shift_and_of_itself():
    samples, _ = pair(4, 400, 1, 8)
    assert scored("mind", samples, samples[::-1])["value"] == 0.0  # in any order
    shift = np.random.default_rng(5).normal(size=8)
    rng = np.random.default_rng(mind.SEED)
    units = rng.normal(size=(8, 1000))
    expected = 3 * 8 * np.mean((shift @ (units / np.linalg.norm(units, axis=0))) ** 2)
    moved = scored("mind", (samples + shift).astype(np.float64), samples.astype(np.float64))
    assert moved["value"] == pytest.approx(expected, rel=1e-5)  # rows are kept in float32
    assert moved["value"] == pytest.approx(3 * shift @ shift, rel=0.1)
    assert (moved["directions"], moved["compared"]) == (1000, 400)
    # A Gaussian of another scale: along every direction (s − 1)² of the variance.
    gaussian = np.random.default_rng(6).normal(size=(3000, 8))
    assert scored("mind", gaussian * 2, gaussian)["value"] == pytest.approx(3 * 8 * 1.0, rel=0.05)


def test_mind_compares_as_many_of_the_larger_set():
    samples, real = pair(7, 60, 500, 4)
    result = scored("mind", samples, real)
    assert (result["compared"], result["samples"], result["reference"]) == (60, 60, 500)
    assert scored("mind", real, samples)["compared"] == 60
    every = np.repeat(real[:1], 500, axis=0)  # one sample repeated: any choice of it is the same
    assert scored("mind", every, samples)["value"] == pytest.approx(
        scored("mind", every[:60], samples)["value"], rel=1e-9
    )


def test_cmmd_is_the_biased_estimate_of_unit_vectors():
    samples, real = pair(8, 40, 30, 5)
    x, y = (
        rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True) for rows in (samples, real)
    )
    k = lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / 200).mean()
    result = scored("cmmd", samples, real)
    assert result["value"] == pytest.approx(1000 * (k(x, x) + k(y, y) - 2 * k(x, y)), rel=1e-9)
    assert (result["sigma"], result["scale"]) == (10.0, 1000.0)
    assert scored("cmmd", samples, samples)["value"] == 0.0
    assert scored("cmmd", samples * 3, samples)["value"] == pytest.approx(0.0, abs=1e-9)  # of directions alone
