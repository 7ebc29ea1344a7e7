"""Text towers against `transformers`, random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers as hf
from parity import distance, saved

from fae_jax.encoders.recognise_text import recognise_text
from fae_jax.encoders.text import relative_buckets
from fae_jax.weights import mapping, open_tensors

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

TEXT = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 64}


def read(fields, folder):
    network = recognise_text(fields)
    module = network.module()
    return module, {"params": mapping.load(str(folder), network.names, open_tensors(folder), network.shapes())}


def compare(module, variables, ids, mask, reference):
    for dtype, tolerance in ((jnp.float32, 1e-4), (jnp.bfloat16, 2e-2)):
        out = jax.jit(module.clone(dtype=dtype).apply)(variables, ids, mask)
        for name, value in reference.items():
            assert distance(getattr(out, name), value) < tolerance, (name, dtype)


@pytest.mark.parametrize("end", [2, 63])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip(tmp_path, end, activation):
    text = {**TEXT, "hidden_size": 24, "max_position_embeddings": 12, "hidden_act": activation, "eos_token_id": end}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4, "image_size": 8}
    model = hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=20))
    module, variables = read(saved(model, tmp_path), tmp_path)
    ids = np.random.default_rng(0).integers(3, 60, (3, 10)).astype(np.int32)
    ids[0, 6:], ids[1, 9], ids[2, 2:] = 63, 63, 63  # the end token is also the padding
    with torch.no_grad():
        out = model.text_model(torch.from_numpy(ids).long())
        pooled = model.text_projection(out.pooler_output)
    compare(module, variables, ids, None, {"tokens": out.last_hidden_state, "pooled": pooled})


def test_clip_tower_alone(tmp_path):
    config = hf.CLIPTextConfig(**TEXT, hidden_size=24, eos_token_id=63)
    model = hf.CLIPTextModel(config)
    module, variables = read(saved(model, tmp_path), tmp_path)
    ids = np.random.default_rng(0).integers(3, 64, (2, 7)).astype(np.int32)
    ids[:, -1] = 63
    with torch.no_grad():
        out = model(torch.from_numpy(ids).long())
    compare(module, variables, ids, None, {"tokens": out.last_hidden_state, "pooled": out.pooler_output})


@pytest.mark.parametrize("projection", [32, 20])
def test_siglip(tmp_path, projection):
    text = {**TEXT, "hidden_size": 32, "max_position_embeddings": 9, "projection_size": projection}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4, "image_size": 8}
    model = hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=text))
    module, variables = read(saved(model, tmp_path), tmp_path)
    ids = np.random.default_rng(0).integers(0, 64, (3, 9)).astype(np.int32)
    mask = np.arange(9)[None] < np.array([[9], [4], [6]])
    with torch.no_grad():
        free = model.text_model(torch.from_numpy(ids).long())
        masked = model.text_model(torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long())
    for out, allowed in ((free, None), (masked, jnp.asarray(mask))):
        reference = {"tokens": out.last_hidden_state, "pooled": out.pooler_output}
        compare(module, variables, ids, allowed, reference)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_t5(tmp_path, feed_forward, whole):
    config = hf.T5Config(
        d_model=32, d_kv=10, d_ff=48, num_layers=3, num_heads=6, vocab_size=50, feed_forward_proj=feed_forward
    )
    model = (hf.T5ForConditionalGeneration if whole else hf.T5EncoderModel)(config)
    module, variables = read(saved(model, tmp_path), tmp_path)
    ids = np.random.default_rng(0).integers(0, 50, (2, 140)).astype(np.int32)  # longer than the largest distance
    mask = np.arange(140)[None] < np.array([[140], [77]])
    with torch.no_grad():
        encoder = model.encoder if whole else model
        want = encoder(torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()).last_hidden_state
    compare(module, variables, ids, jnp.asarray(mask), {"tokens": want})


def test_relative_buckets_for_long_captions():
    from transformers.models.t5.modeling_t5 import T5Attention

    length = 600
    offset = torch.arange(length)[None] - torch.arange(length)[:, None]
    for buckets, distance_ in ((32, 128), (16, 64)):
        want = T5Attention._relative_position_bucket(offset, True, buckets, distance_)
        np.testing.assert_array_equal(relative_buckets(length, buckets, distance_), want.numpy())


def test_too_long_a_caption(tmp_path):
    model = hf.CLIPTextModel(hf.CLIPTextConfig(**TEXT, hidden_size=24, max_position_embeddings=8))
    module, variables = read(saved(model, tmp_path), tmp_path)
    with pytest.raises(ValueError, match="12 tokens does not fit this text tower; it takes 8"):
        module.apply(variables, jnp.zeros((1, 12), jnp.int32))


def test_bert(tmp_path):
    config = hf.BertConfig(**TEXT, hidden_size=32, max_position_embeddings=12, hidden_act="gelu")
    model = hf.BertForMaskedLM(config)
    module, variables = read(saved(model, tmp_path), tmp_path)
    ids = np.random.default_rng(0).integers(0, 64, (3, 10)).astype(np.int32)
    mask = np.arange(10)[None] < np.array([[10], [4], [1]])
    with torch.no_grad():
        free = model.bert(torch.from_numpy(ids).long()).last_hidden_state
        masked = model.bert(
            torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state
    for tokens, allowed in ((free, None), (masked, jnp.asarray(mask))):
        weight = torch.from_numpy(mask if allowed is not None else np.ones_like(mask)).float()[..., None]
        pooled = torch.nn.functional.normalize((tokens * weight).sum(1) / weight.sum(1), dim=1)
        compare(module, variables, ids, allowed, {"tokens": tokens, "pooled": pooled})


def test_minilm_with_its_own_weights():
    pytest.importorskip("all_minilm_l6_v2")
    from fae_jax.encoders import create_text
    from fae_jax.encoders.pretrained import find_files
    from fae_jax.encoders.published import TEXT_TOWERS

    folder = find_files(None, TEXT_TOWERS["minilm_l6"]).folder
    model, words = hf.AutoModel.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)
    captions = [
        "a three beside an eight",
        "",
        "Zwei Hunde — 東京 🙂",
        "word " * 300,
        "two nines, one above the other",
    ]
    tower = create_text("minilm_l6", weights=None, length=24)
    tokens, mask = tower.tokenize(captions)
    theirs = words(captions, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    np.testing.assert_array_equal(tokens, theirs["input_ids"])
    np.testing.assert_array_equal(mask, theirs["attention_mask"].bool())
    assert tower.tokenize.count(captions[3]) == 302
    with torch.no_grad():
        every = model(**theirs, output_hidden_states=True).hidden_states
    out, weight = every[-1], theirs["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((out * weight).sum(1) / weight.sum(1), dim=1)
    ours = tower.apply(tower.params, jnp.asarray(tokens), jnp.asarray(mask))
    assert distance(ours.tokens, out) < 1e-4 and distance(ours.pooled, pooled) < 1e-4
    earlier = create_text("minilm_l6", weights=None, length=24, skip=2)
    assert distance(earlier.apply(tower.params, jnp.asarray(tokens), jnp.asarray(mask)).tokens, every[4]) < 1e-4
    with pytest.raises(ValueError, match="skip=6 leaves no block of the text tower 'minilm_l6', which has 6"):
        create_text("minilm_l6", weights=None, skip=6)
