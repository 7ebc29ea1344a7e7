"""The table of published networks against `transformers`' own count of their parameters, nothing allocated."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers as hf
from test_published import text_values, vision_values

from fae_jax.encoders.published import ENCODERS, TEXT_TOWERS

CLASSES = {
    "dinov2": (hf.Dinov2Config, hf.Dinov2Model),
    "dinov2_with_registers": (hf.Dinov2WithRegistersConfig, hf.Dinov2WithRegistersModel),
    "dinov3_vit": (hf.DINOv3ViTConfig, hf.DINOv3ViTModel),
    "vit_mae": (hf.ViTMAEConfig, hf.ViTMAEModel),
    "siglip": (hf.SiglipConfig, hf.SiglipModel),
    "clip": (hf.CLIPConfig, hf.CLIPModel),
    "t5": (hf.T5Config, hf.T5EncoderModel),
    "bert": (hf.BertConfig, lambda config: hf.BertModel(config, add_pooling_layer=False)),
}

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", sorted({**ENCODERS, **TEXT_TOWERS}))
def test_count(name):
    fields = dict({**ENCODERS, **TEXT_TOWERS}[name].fields)
    kind = fields.pop("model_type")
    config, model = CLASSES[kind]
    with torch.device("meta"):
        theirs = model(config(**fields))
    parameters = sum(parameter.numel() for parameter in theirs.parameters())
    ours = 0
    if name in ENCODERS:
        values, vit = vision_values(name)
        ours += values
        if kind.startswith("dino"):
            ours += vit.width  # the mask token
        if kind == "dinov3_vit" and vit.qkv_bias:
            ours -= vit.depth * vit.width  # its keys have no bias; ours is zero
    if name in TEXT_TOWERS:
        ours += text_values(name)
    ours += {"siglip": 2, "clip": 1}.get(kind, 0)  # logit scale and bias
    assert ours == parameters
