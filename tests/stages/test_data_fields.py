"""What the fields of `data` do to the batches that stages train on, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import TINY, fae

from fae_jax.config import check, load_config, override
from fae_jax.data.sources.mixture import Mixture
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.running import check_request
from fae_jax.workdir import Workdir


def experiment(tmp_path: Path, **fields: Any) -> Experiment:
    config = override(load_config(str(TINY)), [(f"data.{name}", str(value)) for name, value in fields.items()])
    return Experiment(check(config), Workdir(tmp_path / "run"))


def of_folder(path: Path) -> dict[str, Any]:
    return {"source": "folder", "path": path, "classes": 2, "holdout": 0.0}


def test_held_out_images_that_are_not_there_are_found_before_training(photographs: Path, tmp_path: Path) -> None:
    fields = {**of_folder(photographs), "heldout_path": tmp_path / "val"}
    with pytest.raises(FileNotFoundError, match="val does not exist"):
        check_request(experiment(tmp_path, **fields))
    assert not (tmp_path / "run").exists()


def batches(of: Experiment, steps: int) -> list[dict[str, np.ndarray]]:
    with of.images.loader(8).at(0) as iterator:
        return [next(iterator) for _ in range(steps)]


def test_crops(photographs: Path, tmp_path: Path) -> None:
    plain = batches(experiment(tmp_path, **of_folder(photographs)), 2)
    wide = experiment(tmp_path, **of_folder(photographs), crop="random_resized", crop_area=(0.9, 1.0))
    small = experiment(tmp_path, **of_folder(photographs), crop="random_resized", crop_area=(0.01, 0.02))
    assert wide.images.loader(8).crop_area == (0.9, 1.0)
    for one, other in ((plain, batches(wide, 2)), (batches(wide, 2), batches(small, 2))):
        assert (one[0]["index"] == other[0]["index"]).all() and (one[0]["image"] != other[0]["image"]).any()
    # A few pixels of noise, enlarged, are much smoother than the whole image.
    bend = lambda made: np.abs(np.diff(made[0]["image"].astype(int), axis=1)).mean()  # noqa: E731
    assert bend(batches(small, 1)) < 0.6 * bend(batches(wide, 1))


def test_mixtures(photographs: Path, tmp_path: Path) -> None:
    parts = (("folder", str(photographs), 1), ("digits", "", 3.0))
    mixed = experiment(tmp_path, mixture=parts, classes=12, holdout=0.25)
    source = mixed.images.source("train")
    assert isinstance(source, Mixture) and source.weights == (1, 3.0)
    assert len(mixed.images.source("heldout").parts[0]) == 4
    labels = np.concatenate([batch["label"] for batch in batches(mixed, 20)])
    assert abs((labels < 2).mean() - 0.25) < 0.02 and labels.max() > 9
    with pytest.raises(ValueError, match="field data.classes=10, but .* has 12"):
        experiment(tmp_path, mixture=parts).images.source("train")


def test_reading_ahead(photographs: Path, tmp_path: Path) -> None:
    reading = experiment(tmp_path, **of_folder(photographs), threads=3, ahead=7).images.loader(8).reading
    assert (reading.threads, reading.ahead, reading.workers) == (3, 7, 0)


def test_latents_are_read_without_worker_processes(tmp_path: Path, finished: Path) -> None:
    config = override(load_config(str(TINY)), [("data.workers", "3")])
    reading = Experiment(check(config), Workdir(finished)).images.reading_stored
    assert (reading.workers, reading.threads) == (0, 2)
    assert experiment(tmp_path, workers=3).images.loader(8).reading.workers == 3


def test_captions(tmp_path: Path) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(9):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 40), (number * 20, 0, 0)).save(buffer, "JPEG")
            for suffix, data in (("jpg", buffer.getvalue()), ("txt", f"shade {number}".encode())):
                about = tarfile.TarInfo(f"{number}.{suffix}")
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
    tar = {"source": "tar", "path": tmp_path / "a.tar", "holdout": 0.0}
    with pytest.raises(ValueError, match="is read by its captions; set --config.data.captions=True"):
        experiment(tmp_path, **tar).images.source("train")
    with pytest.raises(ValueError, match="digits is read by its classes; set --config.data.captions=False"):
        experiment(tmp_path, captions=True).images.source("train")
    told = experiment(tmp_path, **tar, captions=True)
    assert set(batches(told, 1)[0]) == {"image", "label", "index"}  # texts cannot be put on devices
    for stage in ("encoder", "generator"):
        with pytest.raises(ValueError, match=f"stage {stage} trains on classes"):
            check_request(told, stage)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"columns.label": "fine"},
            "field data.columns.label='fine' goes with source tfds or parquet, .* digits: clear",
        ),
        ({"columns.label": "a", "columns.caption": "b"}, "field data.columns.label='a' goes with no caption"),
        ({"crop": "random"}, "field data.crop must be one of adm_centre, random_resized, got 'random'"),
        ({"crop_area": (0.5, 0.2)}, "data.crop_area holds two shares"),
        ({"crop_area": (0.0, 1.0)}, "data.crop_area holds two shares"),
        ({"mixture": (("digits", "", 0),)}, "data.mixture holds .source, path, weight. with weights above 0"),
        ({"mixture": ("digits", "", 1)}, "one part is written"),
        ({"mixture": (("digits", "", 1),), "path": "x"}, "data.mixture goes with no other path, got 'x'"),
        ({"tolerate": -1}, "field data.tolerate must be at least 0"),
        ({"ahead": 0}, "field data.ahead must be at least 1"),
        ({"threads": 0}, "field data.threads must be at least 1"),
        ({"features": "f", "crop": "random_resized"}, "goes with no features"),
    ],
)
def test_values_that_cannot_work(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        experiment(tmp_path, **fields)


@pytest.mark.parametrize("stage", ["encoder", pytest.param("features", marks=pytest.mark.slow)])
def test_too_many_damaged_images_end_a_stage_with_one_line(
    photographs: Path, tmp_path: Path, finished: Path, stage: str
) -> None:
    import shutil

    root = tmp_path / "images"
    shutil.copytree(photographs, root)
    (root / "cat" / "3.png").write_bytes(b"")
    (root / "dog" / "5.png").write_text("<!DOCTYPE html><html>not found</html>")
    words = [f"--config.data.{name}={value}" for name, value in of_folder(root).items()]
    command = [
        "train",
        stage,
        "--config",
        TINY,
        "--workdir",
        tmp_path / "run",
        *words,
        "--config.data.in_memory=False",
    ]
    if stage == "features":
        (tmp_path / "run").mkdir()
        shutil.copytree(finished / "encoder", tmp_path / "run" / "encoder")
    _, err = fae(*command, "--config.data.tolerate=1", code=1)
    failed = [line for line in err.splitlines() if line.startswith("fae: ")]
    assert len(failed) == 1 and "2 images cannot be decoded, 1 are tolerated" in failed[0] and "Traceback" not in err
    assert (
        "all are named in" in failed[0] and len((tmp_path / "run" / "bad-images-0.txt").read_text().split("\n")) == 3
    )
    fae(*command, "--config.data.tolerate=2")
