"""Real captioned photographs, Flickr8k's, from img2dataset's shard to scores of samples, by command."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import TINY, fae
from test_captioned_images import TEXT

SHARD = Path(os.environ.get("FAE_REAL_DATA", "")) / "captions" / "flickr8k-00000.tar"


@pytest.mark.slow(seconds=70)
@pytest.mark.real_data
@pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set")
def test_photographs_and_their_captions_go_through_every_command(tmp_path: Path, finished: Path) -> None:
    run = tmp_path / "run"
    fae("prepare", "cc12m", SHARD, "--out", tmp_path / "prepared")
    shutil.copytree(finished / "encoder", run / "encoder")
    fields = {"data.source": "tar", "data.path": tmp_path / "prepared", "data.captions": True, "data.holdout": 0.1}
    fields |= {**TEXT, "evaluation.generation.metrics": "('frechet',)"}
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    fae("run", "--config", TINY, "--workdir", run, *words)
    (header,) = (run / "latents").glob("*/header.json")
    images = json.loads(header.read_text())["images"]
    assert 400 < images <= 450  # of 500, a tenth held out, some left out by `prepare`
    fae("sample", "--workdir", run, "--prompt", "two dogs run on a beach", "--number", "2")
    assert np.load(run / "samples/samples/samples.npz")["arr_0"].shape == (2, 32, 32, 3)
    fae("evaluate", "--workdir", run, "--task", "generation")
    guided = json.loads((run / "evaluation/generation.json").read_text())["sets"]["guided"]
    text = guided["sampling"]["text"]
    assert (
        text["tower"] == "minilm_l6"
        and text["prompts"] == 20
        and np.isfinite(guided["frechet"]["samples_to_heldout"])
    )
    prompts = json.loads((run / "samples/guided/prompts.json").read_text())
    assert len(set(prompts)) == 20 and all(len(prompt.split()) > 3 for prompt in prompts)
