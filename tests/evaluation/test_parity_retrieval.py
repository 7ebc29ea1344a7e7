"""COCO retrieval end to end, from files that `transformers` writes, against `transformers`' own logits."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tokenizers as tk
import torch
import transformers as hf
from fake_fae import FakeFAE
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from fae_jax.data.sources.coco import CocoSource
from fae_jax.encoders import create
from fae_jax.evaluation.tasks.retrieval import evaluate_retrieval
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.views import walk

sys.path.append(str(Path(__file__).parents[1] / "encoders"))
from parity import distance, saved
from test_parity_logits import TEXT, VISION

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

WORDS = ["cat", "dog", "eel", "red", "green", "on", "grass", "two", "the", "a"]
CAPTIONS = 3


def tokenizer(family):
    """A tokenizer of whole words, as `transformers` keeps one, and its padding."""
    start, end = {"clip": ("<|startoftext|>", "<|endoftext|>"), "siglip": ("<pad>", "</s>")}[family]
    vocabulary = {word: number for number, word in enumerate(["<unk>", start, *WORDS])} | {end: 63}
    raw = tk.Tokenizer(tk.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.normalizer = tk.normalizers.Lowercase()
    raw.pre_tokenizer = tk.pre_tokenizers.Whitespace()
    single = f"{start} $A {end}" if family == "clip" else f"$A {end}"
    marks = [(mark, vocabulary[mark]) for mark in (start, end)]
    raw.post_processor = tk.processors.TemplateProcessing(single=single, special_tokens=marks)
    return hf.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=end, eos_token=end, unk_token="<unk>")


def coco(folder, count=12):
    """Random images, each with three captions of random words."""
    rng = np.random.default_rng(5)
    listed = {"images": [], "annotations": []}
    (folder / "val").mkdir()
    for number in range(count):
        name = f"{number:012}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "val" / name)
        listed["images"].append({"id": 100 + number, "file_name": name})
        for _ in range(CAPTIONS):
            caption = " ".join(rng.choice(WORDS, rng.integers(1, 7)))
            listed["annotations"].append({"image_id": 100 + number, "caption": caption})
    (folder / "captions_val.json").write_text(json.dumps(listed))
    return str(folder / "captions_val.json")


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_recall_and_logits_from_files_to_numbers(tmp_path, family):
    if family == "clip":
        text = {**TEXT, "eos_token_id": 63}
        model = hf.CLIPModel(hf.CLIPConfig(vision_config=VISION, text_config=text, projection_dim=20))
    else:
        model = hf.SiglipModel(hf.SiglipConfig(vision_config=VISION, text_config=TEXT))
    weights = tmp_path / "weights"
    saved(model, weights)
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
    model.save_pretrained(weights)
    reader = tokenizer(family)
    reader.save_pretrained(weights)

    encoder = create("pretrained", weights=str(weights), image_size=16, scan=False)
    fae = FakeFAE(encoder, image_size=16, faithful=True)
    fae.config.encoder.name, fae.config.encoder.weights = "pretrained", str(weights)
    source = CocoSource(coco(tmp_path), split="train", holdout=0.0, seed=0)
    side = TextSide(fae)
    result = evaluate_retrieval(side, walk(fae, source, what="x"))

    captions = [caption for texts in source.texts for caption in texts]
    ids = reader(captions, padding="max_length", max_length=9, return_tensors="pt")["input_ids"]
    images = np.stack([source[position]["image"] for position in range(len(source))])
    mean, std = (
        (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if family == "clip" else (0.5, 0.5)
    )  # of the family: none is saved
    prepared = (images / 255 - np.asarray(mean)) / np.asarray(std)
    pixels = torch.from_numpy(prepared.astype(np.float32).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        want = model(input_ids=ids, pixel_values=pixels).logits_per_image.numpy()
    vectors = np.concatenate([side.images(view)["x"] for view in walk(fae, source, what="x")])
    assert distance(side.tower.logits(vectors, side.texts(captions)), want) < 1e-4

    owners = np.repeat(np.arange(len(source)), CAPTIONS)
    for k in (1, 5, 10):
        best = np.argsort(-want, axis=1, kind="stable")[:, :k]
        assert result["x"]["image_to_text"][str(k)] == np.mean((owners[best] == np.arange(12)[:, None]).any(1))
        best = np.argsort(-want.T, axis=1, kind="stable")[:, :k]
        assert result["x"]["text_to_image"][str(k)] == np.mean((best == owners[:, None]).any(1))
    assert result["x"]["text_to_image"]["1"] < result["x"]["text_to_image"]["10"] <= 1
    if family == "siglip":
        assert result["reconstructed"] == result["x"]
    else:
        assert "class token alone" in result["no_reconstructed"]
