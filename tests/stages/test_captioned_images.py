"""Images with captions in place of classes, as img2dataset leaves them, through the program."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import TINY, fae

from fae_jax.bundle import Bundle
from fae_jax.cli.program import main
from fae_jax.conditions.text import Text
from fae_jax.data.pixels import to_uint8
from fae_jax.data.stores.latents import LatentSource, read_header
from fae_jax.extractors import EXTRACTORS, Extractor
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


@pytest.mark.slow(seconds=90)
def test_every_stage_trains_on_captioned_images_and_sentences_are_drawn(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    with pytest.raises(ValueError, match="text tower 'minilm_l7' is unknown; did you mean 'minilm_l6'"):
        Text(tower="minilm_l7").check()
    with pytest.raises(FileNotFoundError, match="weights 'missing.safetensors' are not a file"):
        Text(tower="minilm_l6", weights="missing.safetensors").check()
    fae("train", "generator", *words)
    assert read_record(Workdir(run), "generator").made_of.keys() >= {"text tower", "latents"}
    _sentences_are_drawn(run, finished, tmp_path, capsys)
    _starflow_reads_them_too(run, words, capsys)


def _starflow_reads_them_too(run: Path, words: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    for made in ("generator", "samples"):
        shutil.rmtree(run / made)
    (run / "config.json").unlink()
    sizes = {"width": 16, "depth": 1, "heads": 2, "hidden": 32, "shallow_blocks": 2, "shallow_depth": 1}
    words = [word for word in words if "flow_matching" not in str(word)]
    words += ["--config.generator.kind=starflow", "--config.sampling.guidance=((0.0, 1.0, 2.0),)"]
    words += [f"--config.generator.starflow.{name}={value}" for name, value in sizes.items()]
    fae("train", "generator", *words)
    two = ["--prompt", "a cat", "--prompt", "a dog"]
    for name, more in {"plain": (), "away": ("--negative_prompt", "a dog")}.items():
        given = ["sample", "--workdir", run, "--name", name, *two, *more]
        assert main(list(map(str, given))) == 0, capsys.readouterr().err
    told = json.loads((run / "samples/away/settings.json").read_text())
    assert told["function_evaluations"] == 2 * (16 + 1) + 2 * 16 + 3 and told["text"]["tower"] == "minilm_l6"
    plain, away = (samples(run, name).astype(int) for name in ("plain", "away"))
    assert np.abs(away[0] - plain[0]).max() > 0


def _sentences_are_drawn(run: Path, finished: Path, scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sample(name: str, *words: object, code: int = 0, workdir: Path = run) -> str:
        given = ["sample", "--workdir", workdir, "--name", name, *words]
        assert main(list(map(str, given))) == code
        return capsys.readouterr().err

    odd = ["a cat", "", "東京 🙂 — ümlaut", "word " * 2000]
    (scratch / "prompts.txt").write_text("\n".join(odd) + "\n", encoding="utf-8")
    assert "prompt 4 has 2,002 tokens: 12 are read" in sample("odd", "--prompts", scratch / "prompts.txt")
    assert len(samples(run, "odd")) == 4 and json.loads((run / "samples/odd/prompts.json").read_text()) == odd
    told = json.loads((run / "samples/odd/settings.json").read_text())["text"]
    assert told["tower"] == "minilm_l6" and told["prompts_cut"] == 1 and len(told["weights"]) == 64
    two = ["--prompt", "a cat", "--prompt", "a dog", "--format", "png"]
    sample("plain", *two, "--guidance", "none")
    assert (run / "samples/plain/images/000001-a_dog.png").is_file()
    sample("away", *two, "--guidance", "3", "--negative_prompt", "a dog")
    plain, away = (samples(run, name).astype(int) for name in ("plain", "away"))
    assert np.abs(away[0] - plain[0]).max() > 0 and np.abs(away[1] - plain[1]).max() <= 1  # away from itself
    for bad, text in (
        (["--classes", "0"], "this model draws from text: give --prompt or --prompts"),
        (["--prompt", "a", "--classes", "0"], "give --classes or prompts, not both"),
        (["--prompts", scratch / "none.txt"], "there is no such file"),
        (["--prompts", run / "samples/plain/grid.png"], "is not UTF-8"),
    ):
        err = sample("bad", *bad, code=2)
        assert len(err.splitlines()) == 1 and text in err, err
    lines = [{"tag": "single_object", "prompt": f"a photo of a {name}"} for name in ("cow", "bus")]
    (scratch / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sample("geneval", "--layout", "geneval", "--prompts", scratch / "metadata.jsonl", "--per_prompt", "2")
    images = samples(run, "geneval")
    for number, line in enumerate(lines):
        folder = run / "samples" / "geneval" / "geneval" / f"0000{number}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == line
        with Image.open(folder / "samples" / "0001.png") as image:
            np.testing.assert_array_equal(image, images[2 * number + 1])
    err = sample("bad", "--prompt", "a cat", code=2, workdir=finished)
    assert len(err.splitlines()) == 1 and "this model draws by class: leave prompts out, give --classes" in err

    _cocos_captions_are_scored(run, scratch, capsys)
    assert main(["export", "--workdir", str(run), "--out", str(scratch / "bundle")]) == 0
    made = FAE(Bundle(scratch / "bundle")).generate(prompts=["a cat", "a dog"], guidance=3.0, negative_prompt="a dog")
    assert np.abs(to_uint8(made).astype(int) - away).max() <= 1
    content = json.loads((scratch / "bundle" / "bundle.json").read_text())
    assert content["text"]["weights"] == told["weights"]
    content["text"]["weights"] = "0" * 64
    (scratch / "bundle" / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was trained with the text tower"):
        FAE(Bundle(scratch / "bundle")).generate(prompts=["a cat"])


def means(name: str, weights: str) -> Extractor:
    """The mean colour of an image, in the place of a network."""

    def apply(params: Any, images: Any) -> dict[str, Any]:
        return {"mean": images.mean((1, 2)) * params["by"]}

    params = {"by": np.ones((), np.float32)}
    return Extractor(name=name, variant="mean colour", weights_hash="0" * 64, params=params, apply=apply)


def _cocos_captions_are_scored(run: Path, scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(9)]
    notes = [{"image_id": n, "caption": f"caption {n}"} for n in range(9)]
    (scratch / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    reference = run / "samples" / "odd" / "samples.npz"
    fields = {"samples": 6, "generation.captions": scratch / "captions.json", "generation.reference": reference}
    fields |= {"generation.metrics": "('frechet',)", "metrics.frechet.extractors": "('means:mean',)"}
    words = [
        "evaluate",
        "--workdir",
        run,
        "--task",
        "generation",
        "--protocol",
        "coco_30k",
        "--config.sampling.steps=2",
    ]
    words += [f"--config.evaluation.{name}={value}" for name, value in fields.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS, "means", f"{__name__}:means")
        assert main(list(map(str, words))) == 0, capsys.readouterr().err
    result = json.loads((run / "evaluation" / "generation.json").read_text())
    asked = []
    for name, sampler in (("unguided", "euler_maruyama"), ("guided", "euler")):
        how = result["sets"][name]["sampling"]
        assert how["sampler"] == sampler and how["steps"] == 2 and how["dtype"] == "float32"
        assert how["captions"]["zero_shot"] and how["captions"]["of"] == 9 and how["text"]["prompts"] == 6
        asked.append(json.loads((run / "samples" / name / "prompts.json").read_text()))
    assert asked[0] == asked[1] and len(set(asked[0])) == 6
    assert result["origin"]["reference"]["count"] == 4
