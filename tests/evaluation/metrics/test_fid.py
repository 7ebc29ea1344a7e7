"""FID and sFID of given features against SciPy's general matrix root, closed forms and hard cases."""

import numpy as np
import pytest
import scipy.linalg
from feature_streams import batches, score, taken

from fae_jax.evaluation.metrics import take_in
from fae_jax.evaluation.metrics.fid import Fid, SFid

POOL, SPATIAL = "inception:pool_3", "inception:spatial"


def features(seed: int, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(count, width)) @ rng.normal(size=(width, width)), 0).astype(np.float32)


def stated(first: np.ndarray, second: np.ndarray) -> float:
    """Heusel et al.: the general root of the product of the covariances."""
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    means = np.asarray(first, float).mean(0) - np.asarray(second, float).mean(0)
    return float(means @ means + np.trace(c1 + c2 - 2 * np.real(scipy.linalg.sqrtm(c1 @ c2))))


def fid(first: np.ndarray, second: np.ndarray, **how) -> dict:
    return score("fid", taken("fid", {POOL: first}, **how), taken("fid", {POOL: second}))


def test_fid_and_sfid_are_those_of_the_general_matrix_root():
    first, second = features(0, 500, 40), features(1, 300, 40)
    result = fid(first, second)
    assert result["value"] == pytest.approx(stated(first, second), rel=1e-6)
    del result["value"]
    assert result == {"against": "reference", "dimensions": 40, "samples": 500, "reference": 300, "too_few": False}
    spatial = score("sfid", taken("sfid", {SPATIAL: first, POOL: second}), taken("sfid", {SPATIAL: second}))
    assert spatial["value"] == fid(first, second)["value"]


def test_fid_does_not_depend_on_batches_nor_hosts():
    first, second = features(2, 2500, 24), features(3, 700, 24)
    whole = fid(first, second)
    for size in (1, 7, 64):
        assert fid(first, second, size=size) == whole
    for parts in ((1000,), (7, 2400)):
        merged = fid(first, second, parts=parts)
        assert merged["value"] == pytest.approx(whole["value"], rel=1e-11)
        assert merged["samples"] == 2500


def test_fid_of_a_gaussian_of_known_distance():
    rng = np.random.default_rng(4)
    gaussian = rng.normal(size=(4000, 8))
    shift, scale = rng.normal(size=8), 1.5
    expected = shift @ shift + np.trace(np.cov(gaussian, rowvar=False)) * (scale - 1) ** 2
    assert fid(gaussian * scale + shift + gaussian.mean(0) * (1 - scale), gaussian)["value"] == pytest.approx(
        expected
    )


def test_hard_cases(capsys):
    first, second = features(5, 20, 100), features(6, 30, 100)
    few = fid(first, second)
    a1, a2 = ((x - x.mean(0)).T / np.sqrt(len(x) - 1) for x in (first.astype(float), second.astype(float)))
    shared = np.linalg.svd(a1.T @ a2, compute_uv=False).sum()
    means = first.mean(0, dtype=float) - second.mean(0, dtype=float)
    assert few["value"] == pytest.approx(means @ means + np.sum(a1**2) + np.sum(a2**2) - 2 * shared, rel=1e-6)
    assert few["too_few"] is True
    assert "warning: fid in 100 dimensions says little of so few images (20 samples, 30 reference)" in (
        capsys.readouterr().err
    )
    assert fid(first, first)["value"] < 1e-9 * np.sum(a1**2)
    repeated = np.repeat(second[:1], 40, axis=0)  # no spread: the distance is to a point
    expected = np.sum((first.mean(0, dtype=float) - second[0]) ** 2) + np.sum(a1**2)
    assert fid(repeated, first)["value"] == pytest.approx(expected, rel=1e-6)
    assert fid(repeated, repeated)["value"] == 0.0


def test_a_reference_of_statistics_alone_serves():
    first, second = features(7, 400, 20), features(8, 300, 20)
    wide = second.astype(float)
    published = {"mu": wide.mean(0), "sigma": np.cov(wide, rowvar=False)}
    published |= {"mu_s": wide.mean(0) + 1, "sigma_s": np.cov(wide, rowvar=False)}
    result = score("fid", taken("fid", {POOL: first}), Fid.of_statistics(published))
    assert result["value"] == pytest.approx(fid(first, second)["value"], rel=1e-9) and result["reference"] is None
    again = Fid()
    again.restore(Fid.of_statistics(published).state())
    assert score("fid", taken("fid", {POOL: first}), again) == result
    spatial = score("sfid", taken("sfid", {SPATIAL: first}), SFid.of_statistics(published))
    assert spatial["value"] == pytest.approx(fid(first, second + 1)["value"], rel=1e-6)
    with pytest.raises(ValueError, match="for sfid are mu_s and sigma_s; sigma_s is missing"):
        SFid.of_statistics({"mu_s": published["mu_s"]})
    with pytest.raises(ValueError, match=r"a mean \(d,\) and a covariance \(d, d\), got \(20,\) and \(20,\)"):
        Fid.of_statistics({**published, "sigma": published["mu"]})
    with pytest.raises(ValueError, match="mu or sigma of the reference hold numbers that are not finite"):
        Fid.of_statistics({**published, "mu": published["mu"] * np.nan})


def test_bad_input_is_one_line(capsys):
    first = features(9, 70, 10)
    damaged = first.copy()
    damaged[[3, 5]] = np.nan
    with pytest.raises(ValueError, match="features inception:pool_3 of 2 of 64 images are not finite numbers"):
        taken("fid", {POOL: damaged})
    with pytest.raises(ValueError, match="'inception:pool_3' is none of the taps inception:768, inception:spatial"):
        take_in(batches({"inception:768": first, SPATIAL: first}, 7), ["fid"], None, ())
    with pytest.raises(ValueError, match="features 10 and 9 wide have no Fréchet distance"):
        fid(first, first[:, :9])
    with pytest.raises(ValueError, match="fid needs images on both sides, got none"):
        score("fid", taken("fid", {POOL: first}), Fid())
    with pytest.raises(ValueError, match="metric 'fid' compares with real images"):
        taken("fid", {POOL: first}).result({})
