"""Anybody's samples beside anybody's reference, through the program."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pixel_extractor
import pytest
import scipy.linalg
from PIL import Image

from fae_jax.cli.program import main
from fae_jax.extractors import EXTRACTORS

RNG = np.random.default_rng(0)
OURS = RNG.integers(0, 200, (60, 16, 16, 3), dtype=np.uint8)
THEIRS = RNG.integers(40, 256, (50, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _means_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "inception", "pixel_extractor:build")


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def written(folder: Path, kind: str, images: np.ndarray, name: str = "set") -> str:
    """Images in one of the forms that the command reads."""
    if kind == "npz":
        np.savez(folder / f"{name}.npz", arr_0=images)
        return str(folder / f"{name}.npz")
    if kind == "tar":
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for number, image in enumerate(images):
                member = tarfile.TarInfo(f"{number:06d}.png")
                member.size = len(png(image))
                tar.addfile(member, io.BytesIO(png(image)))
        return str(folder / f"{name}.tar")
    for number, image in enumerate(images):
        file = folder / name / (f"{number % 3}" if kind == "classes" else "") / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    return str(folder / name)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blocks = images.reshape(len(images), 2, 8, 2, 8, 3).astype(np.float64).mean((2, 4)).reshape(len(images), -1)
    return blocks.mean(0), np.cov(blocks, rowvar=False)


def distance(first: np.ndarray, second: np.ndarray, dimensions: int = 12) -> float:
    (m1, c1), (m2, c2) = moments(first), moments(second)
    m1, m2, c1, c2 = m1[:dimensions], m2[:dimensions], c1[:dimensions, :dimensions], c2[:dimensions, :dimensions]
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return float(np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * root))


def evaluate(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """The result, or where it is refused its one line."""
    capfd.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == code
    out, err = capfd.readouterr()
    if code:
        assert out == "" and err.splitlines()[-1].startswith("fae: error: "), err
        assert sum(line.startswith("fae: ") for line in err.splitlines()) == 1
        return err.splitlines()[-1]
    return json.loads(out.splitlines()[-1]) | {"told": err}


@pytest.mark.parametrize("kind", ["npz", "tar", "folder", "classes"])
def test_every_form_of_the_same_images_gives_the_same_scores(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
):
    samples = written(tmp_path, kind, OURS, "samples")
    reference = written(tmp_path, "npz", THEIRS, "reference")
    words = ("--samples", samples, "--reference", reference, "--config.sampling.batch=7")
    result = evaluate(capfd, *words, "--out", tmp_path / "scores.json")
    assert result["scores"]["fid"]["value"] == pytest.approx(distance(OURS, THEIRS), rel=1e-5)
    assert result["scores"]["sfid"]["value"] == pytest.approx(distance(OURS, THEIRS, 6), rel=1e-5)
    assert (result["samples"]["count"], result["reference"]["count"]) == (60, 50)
    assert result["samples"]["size"] == [16, 16] and len(result["samples"]["sha256"]) == 64
    network = {"name": "inception", "variant": "means of blocks", "weights_hash": pixel_extractor.HASH}
    assert result["origin"]["evaluators"] == {"inception": network}
    told = result.pop("told")
    assert f"60 images of {samples} against {reference}" in told and "fid · value" in told.lower()
    assert json.loads((tmp_path / "scores.json").read_text()) == result


def test_origin_tells_samples_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    reference = written(tmp_path, "npz", THEIRS, "reference")
    digests = []
    for kind, images in (("npz", OURS), ("npz", OURS), ("npz", OURS[::-1])):
        words = ("--samples", written(tmp_path, kind, images, "a"), "--reference", reference, "--metrics", "fid")
        digests.append(evaluate(capfd, *words)["origin"]["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_a_reference_made_once_stands_for_its_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    samples, real = (written(tmp_path, kind, each, kind) for kind, each in (("npz", OURS), ("classes", THEIRS)))
    metrics = ("--metrics", "fid", "frechet", "precision_recall", "inception_score")
    fields = ("--config.evaluation.metrics.frechet.extractors=('inception:pool_3',)",)
    file = str(tmp_path / "made" / "real.npz")
    evaluate(capfd, "--make_reference", file, "--samples", real, *metrics, *fields)
    with_file, with_images = (
        evaluate(capfd, "--samples", samples, "--reference", each, *metrics, *fields) for each in (file, real)
    )
    assert with_file["scores"] == with_images["scores"]
    assert with_file["reference"]["images"] == with_images["reference"]
    refused = ("--samples", samples, "--reference", file)
    assert "was made for fid, frechet, precision_recall, inception_score, not for sfid" in evaluate(
        capfd, *refused, code=2
    )
    small = written(tmp_path, "npz", OURS[:, :8, :8], "small")
    line = evaluate(capfd, "--samples", small, "--reference", file, "--metrics", "fid", code=2)
    assert "the samples are 8×8 pixels" in line and "was made of 16×16" in line


def test_other_weights_of_an_extractor_are_not_compared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    samples, file = written(tmp_path, "npz", OURS), str(tmp_path / "real.npz")
    evaluate(capfd, "--make_reference", file, "--samples", samples, "--metrics", "fid")
    monkeypatch.setattr(pixel_extractor, "HASH", "2" * 64)
    line = evaluate(capfd, "--samples", samples, "--reference", file, "--metrics", "fid", code=2)
    assert "was made with other weights of inception (111111111111, and these are 222222222222)" in line


def test_published_statistics_serve_what_they_can(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    samples, mean, covariance = written(tmp_path, "npz", OURS), *moments(THEIRS)
    alone, beside = str(tmp_path / "alone.npz"), str(tmp_path / "beside.npz")
    statistics = {"mu": mean, "sigma": covariance, "mu_s": mean[:6], "sigma_s": covariance[:6, :6]}
    np.savez(alone, **statistics)
    np.savez(beside, **statistics, arr_0=THEIRS[:20])  # as ADM's files: images are some of them
    for file in (alone, beside):
        result = evaluate(capfd, "--samples", samples, "--reference", file)
        assert result["scores"]["fid"]["value"] == pytest.approx(distance(OURS, THEIRS), rel=1e-5)
        assert result["scores"]["fid"]["reference"] is None
    words = ("--samples", samples, "--metrics", "fid", "precision_recall", "--reference")
    line = evaluate(capfd, *words, alone, code=2)
    assert "alone.npz holds mu, sigma, mu_s, sigma_s, and precision_recall need images" in line
    result = evaluate(capfd, *words, beside)
    assert result["reference"]["statistics"] == ["fid"] and result["reference"]["images"]["count"] == 20
    assert result["scores"]["fid"]["value"] == pytest.approx(distance(OURS, THEIRS), rel=1e-5)


def test_a_data_source_is_cropped_to_the_samples(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    samples = written(tmp_path, "npz", OURS)
    result = evaluate(capfd, "--samples", samples, "--reference", "digits:", "--metrics", "fid")
    assert result["reference"]["count"] == 1797 and result["reference"]["size"] == [16, 16]
    line = evaluate(capfd, "--samples", "digits:", "--reference", samples, code=2)
    assert "digits: is a data source: give the side" in line and "--image_size N" in line


def refusals(folder: Path) -> dict[str, tuple[tuple[Any, ...], str]]:
    """What is refused → (words, a part of the line)."""
    samples = written(folder, "npz", OURS, "ours")
    broken = written(folder, "folder", OURS[:5], "broken")
    (Path(broken) / "000003.png").write_bytes(png(OURS[3])[:-40])
    mixed = written(folder, "folder", OURS[:5], "mixed")
    (Path(mixed) / "000002.png").write_bytes(png(OURS[2, :8]))
    cut = written(folder, "tar", OURS, "cut")
    Path(cut).write_bytes(Path(cut).read_bytes()[:8000])
    (folder / "empty").mkdir()
    floats, other = str(folder / "floats.npz"), str(folder / "other.npz")
    np.savez(floats, arr_0=(OURS / 255).astype(np.float32))
    np.savez(other, samples=OURS)
    one = written(folder, "npz", OURS[:1], "one")
    small = written(folder, "npz", THEIRS[:, :8, :8], "small")
    of = ("--reference", samples)
    return {
        "broken": (("--samples", broken, *of), "000003.png: "),
        "mixed": (("--samples", mixed, *of), "000002.png is 8×16 and "),
        "cut": (("--samples", cut, *of), "cut.tar"),
        "empty": (("--samples", folder / "empty", *of), "holds no images"),
        "absent": (("--samples", folder / "absent", *of), "absent does not exist"),
        "floats": (("--samples", floats, *of), "from 0 to 0.78"),
        "key": (("--samples", other, *of), "holds samples, and images are called arr_0"),
        "resolution": (("--samples", samples, "--reference", small), "the samples are 16×16 pixels, and "),
        "metric": (
            ("--samples", samples, *of, "--metrics", "fidd"),
            "'fidd' is none of the metrics; did you",
        ),
        "experiment": (("--samples", samples, *of, "--metrics", "nearest"), "needs training and held-out images"),
        "originals": (("--samples", samples, *of, "--metrics", "fidelity"), "needs the originals"),
        "no reference": (("--samples", samples), "fid, sfid compare with real images: name them with --reference"),
        "no samples": (("--reference", samples), "--reference goes with --samples"),
        "nothing": ((), "name what to score"),
        "both": (("--samples", samples, "--workdir", "w"), "--workdir goes with"),
        "one sample": (("--samples", one, *of, "--metrics", "precision_recall"), "precision"),
        "no npz": (("--samples", samples, "--make_reference", folder / "a.json"), "name a file that ends in .npz"),
    }


def test_bad_input_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for name, (words, said) in refusals(tmp_path).items():
        line = evaluate(capfd, *words, code=2)
        assert said in line, f"{name}: {line}"


def test_missing_weights_are_told_with_their_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(EXTRACTORS, "inception", "fae_jax.extractors.inception:INCEPTION")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    samples = written(tmp_path, "npz", OURS)
    assert "fae weights pull inception" in evaluate(capfd, "--samples", samples, "--reference", samples, code=2)
