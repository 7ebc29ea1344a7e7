"""Both towers of one folder together: logits of images against captions, as `transformers` gives them."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers as hf
from parity import distance, pixels, saved

from fae_jax.encoders import create, create_text, towers

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "patch_size": 4,
    "image_size": 16,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": 64,
    "max_position_embeddings": 9,
}


def models():
    yield hf.CLIPModel(
        hf.CLIPConfig(vision_config=VISION, text_config={**TEXT, "eos_token_id": 63}, projection_dim=20)
    )
    yield hf.SiglipModel(hf.SiglipConfig(vision_config=VISION, text_config=TEXT))


@pytest.mark.parametrize("which", [0, 1])
def test_logits(tmp_path, monkeypatch, which):
    model = list(models())[which]
    saved(model, tmp_path)
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
        if which:
            model.logit_bias.fill_(-4.0)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(towers, "load_tokenizer", lambda *_, **__: lambda captions: captions)
    tower = create_text("pretrained", weights=str(tmp_path))
    encoder = create("pretrained", weights=str(tmp_path), image_size=16, scan=False)
    ours, theirs = pixels(np.random.default_rng(0), 3, 16, 16)
    ids = np.random.default_rng(1).integers(3, 62, (2, 9)).astype(np.int32)
    ids[:, -1] = 63
    with torch.no_grad():
        want = model(input_ids=torch.from_numpy(ids).long(), pixel_values=theirs)
    images = encoder.apply(encoder.params, jnp.asarray(ours)).pooled
    texts = tower.apply(tower.params, jnp.asarray(ids), None).pooled
    unit = lambda x: np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    assert distance(unit(images), want.image_embeds) < 1e-4
    assert distance(unit(texts), want.text_embeds) < 1e-4
    assert tower.scale == pytest.approx(np.exp(2.5)) and tower.bias == (-4.0 if which else None)
    assert distance(tower.logits(images, texts), want.logits_per_image) < 1e-4
