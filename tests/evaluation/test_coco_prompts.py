"""Captions of COCO for a zero-shot score: drawn by the seed, each once, and said of in the result."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_fae import FakeFAE

from fae_jax.config import check, load_config, with_values
from fae_jax.evaluation.streams import asked
from fae_jax.evaluation.tasks.generation import check_possible
from fae_jax.files.storage import sha256

HERE = "evaluation.generation"


def captions(path: Path) -> list[str]:
    """A file of 5 images with 3 captions each; the captions in its order."""
    texts = [f"caption {k} of image {n} ü" for n in range(5) for k in range(3)]
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in range(5)]
    notes = [{"id": i, "image_id": i // 3, "caption": f"{text}\n"} for i, text in enumerate(texts)]
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    return texts


def drawn(path: Path, count: int, seed: int = 0, source: str = "tar") -> Any:
    fae = FakeFAE()
    fae.generator = SimpleNamespace(condition=SimpleNamespace(encode=None))
    values = {f"{HERE}.captions": str(path), "evaluation.seed": seed, "data.source": source, "data.path": "cc12m"}
    fae.config = check(with_values(fae.config, values))
    return asked(fae, lambda: pytest.fail("held-out images are not looked at"), count)


def test_captions_are_drawn_once_each_by_the_seed_and_the_result_says_so(tmp_path: Path):
    path = tmp_path / "captions_val2014.json"
    texts = captions(path)
    labels, prompts, names, about = drawn(path, 9)
    assert len(set(prompts)) == 9 and set(prompts) <= set(texts) and prompts != sorted(prompts)
    assert list(labels) == list(range(9)) and names == prompts
    assert drawn(path, 9)[1] == prompts != drawn(path, 9, seed=1)[1]
    said = {"of": 15, "sha256": sha256(path), "drawn": "without replacement", "seed": 0}
    assert about == {"captions": {**said, "zero_shot": True, "trained_on": (("tar", "cc12m"),)}}
    assert not drawn(path, 9, source="coco")[3]["captions"]["zero_shot"]
    with pytest.raises(ValueError, match="holds 15 captions, and 16 are asked for: draw fewer"):
        drawn(path, 16)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a COCO file of captions"):
        drawn(path, 1)


def test_a_score_needs_cocos_own_images_and_a_generator_that_reads():
    config = with_values(load_config("cc12m_dinov2g_256"), {f"{HERE}.captions": "captions_val2014.json"})
    with pytest.raises(ValueError, match="name those in evaluation.generation.reference"):
        check_possible(check(config), ("fid",))
    check_possible(check(with_values(config, {f"{HERE}.reference": "val2014.npz"})), ("fid",))
    config = with_values(load_config("imagenet256_dinov2g"), {f"{HERE}.captions": "captions_val2014.json"})
    with pytest.raises(ValueError, match="this generator reads no text"):
        check_possible(check(config), ("fid",))
