"""Images with captions in place of classes, as img2dataset leaves them, through the program."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import TINY, fae

from fae_jax.data.stores.latents import LatentSource, read_header


def write_shards(folder: Path) -> list[list[str]]:
    """Two shards of 12 captioned images; the captions of each."""
    folder.mkdir()
    rng, captions = np.random.default_rng(0), []
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(12):
                own = [f"image {number} of shard {shard}", f"größer als {number}"]
                captions.append(own)
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(buffer, "JPEG")
                key = f"{shard:05d}{number:04d}"
                members = (("jpg", buffer.getvalue()), ("txt", own[0].encode()))
                for suffix, data in (*members, ("json", json.dumps({"captions": own}).encode())):
                    about = tarfile.TarInfo(f"{key}.{suffix}")
                    about.size = len(data)
                    archive.addfile(about, io.BytesIO(data))
    return captions


@pytest.mark.slow
def test_every_stage_but_the_generator_trains_on_captioned_images(tmp_path: Path, finished: Path) -> None:
    captions = write_shards(tmp_path / "shards")
    fae("prepare", "cc12m", tmp_path / "shards", "--out", tmp_path / "prepared", "--min_side", 8)
    shutil.copytree(finished / "encoder", tmp_path / "run" / "encoder")
    fields = {"source": "tar", "path": tmp_path / "prepared", "holdout": 0.0, "captions": True}
    words = ["--config", TINY, "--workdir", tmp_path / "run"]
    words += [f"--config.data.{name}={value}" for name, value in fields.items()]

    _, err = fae("run", *words, code=2)
    assert len(err.splitlines()) == 1 and "stage generator trains on classes" in err and "`fae train features`" in err
    assert not (tmp_path / "run" / "config.json").exists()
    for command in (["train", "features"], ["train", "pixels"], ["train", "finetune"], ["cache"]):
        fae(*command, *words)
    (folder,) = (tmp_path / "run" / "latents").glob("*/")
    header = read_header(str(folder))
    cached = LatentSource(str(folder), header)
    assert header.classes == () and len(cached) == 24
    batch = cached.read(range(24), [0, 1] * 12)
    assert [json.loads(text) for text in batch["captions"]] == captions
    assert (batch["label"] == -1).all()
    _, err = fae("train", "generator", *words, code=2)
    assert len(err.splitlines()) == 1 and "stage generator trains on classes" in err
    assert not (tmp_path / "run" / "generator").exists()
