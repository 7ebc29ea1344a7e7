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

from fae_jax.bundle import Bundle
from fae_jax.data.pixels import to_uint8
from fae_jax.data.stores.latents import LatentSource, read_header
from fae_jax.model import FAE
from fae_jax.stages.stage import read_record
from fae_jax.workdir import Workdir


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


TEXT = {
    "condition.kind": "text",
    "condition.text.tower": "minilm_l6",
    "condition.text.length": 12,
    "generator.flow_matching.network": "mmdit",
    "generator.flow_matching.mmdit.width": 16,
    "generator.flow_matching.mmdit.depth": 2,
    "generator.flow_matching.mmdit.heads": 2,
    "generator.flow_matching.mmdit.hidden": 24,
}


def samples(run: Path, name: str) -> np.ndarray:
    return np.load(run / "samples" / name / "samples.npz")["arr_0"]


@pytest.mark.slow
def test_every_stage_trains_on_captioned_images_and_sentences_are_drawn(tmp_path: Path, finished: Path) -> None:
    captions = write_shards(tmp_path / "shards")
    fae("prepare", "cc12m", tmp_path / "shards", "--out", tmp_path / "prepared", "--min_side", 8)
    shutil.copytree(finished / "encoder", tmp_path / "run" / "encoder")
    fields = {"source": "tar", "path": tmp_path / "prepared", "holdout": 0.0, "captions": True}
    words = ["--config", TINY, "--workdir", tmp_path / "run"]
    words += [f"--config.data.{name}={value}" for name, value in fields.items()]

    _, err = fae("run", *words, code=2)
    assert len(err.splitlines()) == 1 and "stage generator trains on classes" in err and "condition.kind=text" in err
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

    run = tmp_path / "run"
    (run / "config.json").unlink()  # which says that nothing is made of text
    words += [f"--config.{name}={value}" for name, value in TEXT.items()]
    _, err = fae("train", "generator", *words, "--config.condition.text.tower=minilm_l7", code=2)
    assert len(err.splitlines()) == 1 and "text tower 'minilm_l7' is unknown; did you mean 'minilm_l6'" in err
    _, err = fae("train", "generator", *words, "--config.condition.text.weights=missing", code=2)
    assert len(err.splitlines()) == 1 and "missing' are not a file" in err
    fae("train", "generator", *words, "--config.checkpoint.pause_at=4", code=1)
    fae("train", "generator", "--workdir", run)
    assert read_record(Workdir(run), "generator").made_of.keys() >= {"text tower", "latents"}

    odd = ["a cat", "", "東京 🙂 — ümlaut", "word " * 2000]
    (tmp_path / "prompts.txt").write_text("\n".join(odd) + "\n", encoding="utf-8")
    _, err = fae("sample", "--workdir", run, "--prompts", tmp_path / "prompts.txt", "--format", "png")
    assert "prompt 4 has 2,002 tokens: 12 are read" in err
    drawn = samples(run, "samples")
    assert len(drawn) == 4 and json.loads((run / "samples" / "samples" / "prompts.json").read_text()) == odd
    told = json.loads((run / "samples" / "samples" / "settings.json").read_text())["text"]
    assert told["tower"] == "minilm_l6" and told["prompts_cut"] == 1 and len(told["weights"]) == 64
    fae("sample", "--workdir", run, "--name", "one", "--prompt", "a cat", "--prompt", "a dog")
    np.testing.assert_array_equal(samples(run, "one")[0], drawn[0])
    guided = ["--guidance", "3", "--prompt", "a cat", "--prompt", "a dog"]
    fae("sample", "--workdir", run, "--name", "guided", *guided)
    fae("sample", "--workdir", run, "--name", "away", *guided, "--negative_prompt", "a dog")
    assert np.abs(samples(run, "away").astype(int) - samples(run, "guided")).max() > 0
    np.testing.assert_array_equal(samples(run, "away")[1] == samples(run, "one")[1], True)  # away from itself
    for bad, text in (
        (["--classes", "0"], "this model draws from text: give --prompt or --prompts"),
        (["--prompt", "a", "--classes", "0"], "give --classes or prompts, not both"),
        (["--prompts", tmp_path / "none.txt"], "there is no such file"),
        (["--prompts", run / "samples" / "one" / "grid.png"], "is not UTF-8"),
    ):
        _, err = fae("sample", "--workdir", run, *bad, code=2)
        assert len(err.splitlines()) == 1 and text in err, err
    _, err = fae("sample", "--workdir", finished, "--prompt", "a cat", code=2)
    assert len(err.splitlines()) == 1 and "this model draws by class: leave prompts out, give --classes" in err

    fae("export", "--workdir", run, "--out", tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    made = FAE(bundle).generate(prompts=["a cat", "a dog"], guidance=3.0, negative_prompt="a dog")
    assert np.abs(to_uint8(made).astype(int) - samples(run, "away")).max() <= 1
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert content["text"]["weights"] == told["weights"]
    content["text"]["weights"] = "0" * 64
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was trained with the text tower"):
        FAE(Bundle(tmp_path / "bundle")).generate(prompts=["a cat"])
