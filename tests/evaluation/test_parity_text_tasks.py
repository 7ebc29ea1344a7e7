"""`fae evaluate --task retrieval zero_shot` through the program, with a SigLIP that `transformers` writes: captioned
shards as img2dataset leaves them, and real captioned photographs where they are at hand."""

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers as hf
from running import TINY
from test_parity_retrieval import WORDS, tokenizer

from fae_jax.cli.program import main

sys.path.append(str(Path(__file__).parents[1] / "encoders"))
from parity import saved
from test_parity_logits import TEXT, VISION

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
COUNT = 11


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with features of digits, four tokens each, by a random SigLIP."""
    folder = tmp_path_factory.mktemp("siglip")
    vision = {**VISION, "patch_size": 8}
    saved(hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=TEXT)), folder / "weights")
    tokenizer("siglip").save_pretrained(folder / "weights")
    fields = {
        "encoder.name": "pretrained",
        "encoder.weights": folder / "weights",
        "encoder.train": False,
        "data.image_size": 16,
        "features.steps": 2,
    }
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    assert main(["train", "features", "--config", str(TINY), "--workdir", str(folder / "run"), *words]) == 0
    return folder / "run"


def shard(path: Path) -> None:
    """Images of odd sizes, each with a caption, as img2dataset writes them."""
    rng = np.random.default_rng(3)
    with tarfile.open(path, "w") as file:
        for number in range(COUNT):
            image = io.BytesIO()
            pixels = rng.integers(0, 256, (20 + number, 31 - number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(image, "JPEG")
            caption = " ".join(rng.choice(WORDS, 4))
            members = {"jpg": image.getvalue(), "txt": caption.encode()}
            members["json"] = json.dumps({"caption": caption}).encode()
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{number:09}.{ending}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))


def retrieved(workdir: Path, path: Path, *words: str) -> dict:
    field = "--config.evaluation.retrieval"
    options = [f"{field}.source=tar", f"{field}.path={path}", *words]
    assert main(["evaluate", "--workdir", str(workdir), "--task", "retrieval", *options]) == 0
    return json.loads((workdir / "evaluation" / "retrieval.json").read_text())


def test_captions_find_their_images_in_a_captioned_shard(trained: Path, tmp_path: Path):
    shard(tmp_path / "00000.tar")
    found = retrieved(trained, tmp_path / "00000.tar")
    assert found["images"] == COUNT == found["captions"] and found["source"] == "tar"
    for features in ("x", "reconstructed"):
        for direction in ("text_to_image", "image_to_text"):
            recall = found[features][direction]
            assert 0 <= recall["1"] <= recall["5"] <= recall["10"] <= 1
    page = (trained / "report.html").read_text()
    assert "images retrieved for a caption, x̂" in page and "captions for an image, x" in page


@pytest.mark.real_data
@pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set")
def test_five_captions_of_each_real_photograph_are_asked(trained: Path):
    tar = Path(os.environ["FAE_REAL_DATA"]) / "captions" / "flickr8k-00000.tar"
    found = retrieved(trained, tar, "--config.evaluation.retrieval.limit=60")
    assert (found["images"], found["captions"]) == (60, 300)
    # a tower of random weights knows nothing: the share that chance finds, within five of its deviations
    assert found["x"]["text_to_image"]["10"] == pytest.approx(10 / 60, abs=5 * np.sqrt(10 / 60 / 60))


def test_classes_are_named_by_the_text_tower(trained: Path):
    words = ["--task", "zero_shot", "--config.evaluation.zero_shot.limit=40"]
    assert main(["evaluate", "--workdir", str(trained), *words]) == 0
    found = json.loads((trained / "evaluation" / "zero_shot.json").read_text())
    assert found["images"] == 40 and found["classes"] == 10
    assert 0 <= found["top_1"]["x"] <= found["top_5"]["x"] <= 1
    assert found["loss_in_points"] == pytest.approx(100 * (found["top_1"]["x"] - found["top_1"]["reconstructed"]))


def test_images_without_captions_are_refused(trained: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", "--workdir", str(trained), "--task", "retrieval"]) == 2
    assert "have no captions; name captioned ones in evaluation.retrieval.source" in capsys.readouterr().err
