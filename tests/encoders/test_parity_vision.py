"""Every family against `transformers`, random weights, several shapes of it, float32 and bfloat16."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers as hf
from parity import distance, pixels, saved

from fae_jax.encoders.published import ENCODERS
from fae_jax.encoders.recognise import recognise
from fae_jax.encoders.vit import INTERPOLATIONS
from fae_jax.nn.resample import resize_table
from fae_jax.weights import mapping, open_tensors

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DEEP = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}


def read(fields, folder, **options):
    """Our network for a folder, and its parameters."""
    network = recognise(fields)
    module = network.module(**options)
    return module, {"params": mapping.load(str(folder), network.names, open_tensors(folder), network.shapes())}


@functools.partial(jax.jit, static_argnums=0)
def run(module, variables, images):
    return module.apply(variables, images)


def compare(module, variables, images, reference, *, half=True, tolerance=1e-4):
    """`reference`: the reference's patches, cls, pooled, by name; `half`: bfloat16 too."""
    out = run(module, variables, images)
    for name, value in reference.items():
        assert distance(getattr(out, name), value) < tolerance, name
    if not half:
        return
    out = run(module.clone(dtype=jnp.bfloat16), variables, images)
    for name, value in reference.items():
        assert distance(getattr(out, name), value) < 2e-2, f"{name} in bfloat16"


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("shape", [{**SMALL, "use_swiglu_ffn": True}, {**DEEP, "mlp_ratio": 2, "qkv_bias": False}])
def test_dinov2(tmp_path, shape, registers):
    kind = "WithRegisters" if registers else ""
    config = getattr(hf, f"Dinov2{kind}Config")(patch_size=4, image_size=20, num_labels=7, **shape)
    model = getattr(hf, f"Dinov2{kind}ForImageClassification")(config)
    fields = saved(model, tmp_path)
    module, variables = read(fields, tmp_path)
    if not registers:  # transformers differs from the authors here
        module = module.clone(config=dataclasses.replace(module.config, interpolation="bicubic"))
    rng = np.random.default_rng(0)
    for size in ((20, 20), (12, 28)):  # its own grid, and another that is not square
        ours, theirs = pixels(rng, 2, *size)
        with torch.no_grad():
            tokens = getattr(model, model.base_model_prefix)(theirs).last_hidden_state
            logits = model(theirs).logits
        skip = 5 if registers else 1
        compare(module, variables, ours, {"patches": tokens[:, skip:], "cls": tokens[:, 0]}, half=size == (12, 28))
        out = run(module, variables, ours)
        assert distance(module.apply(variables, out.patches, out.cls, method="classify"), logits) < 1e-4


@pytest.mark.parametrize(
    ("name", "size"),
    [("dinov2_g14", {"scale_factor": (16.1 / 37, 12.1 / 37)}), ("dinov2_g14_reg", {"size": (16, 12)})],
)
def test_dinov2_resizes_its_position_table_as_its_authors_do(name, size):
    """facebookresearch/dinov2, `interpolate_pos_encoding`: offset 0.1 without registers, antialias with them."""
    table = np.random.default_rng(0).standard_normal((37 * 37, 5)).astype(np.float32)
    way = INTERPOLATIONS[recognise(ENCODERS[name].fields).config.interpolation]
    ours = resize_table(jnp.asarray(table), (37, 37), (16, 12), **way)
    grid = torch.from_numpy(table).reshape(1, 37, 37, 5).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, mode="bicubic", antialias="size" in size, **size)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).reshape(-1, 5), atol=2e-5)


def test_dinov2_hidden_layers(tmp_path):
    model = hf.Dinov2Model(hf.Dinov2Config(patch_size=4, image_size=16, **DEEP))
    module, variables = read(saved(model, tmp_path), tmp_path)
    ours, theirs = pixels(np.random.default_rng(0), 1, 16, 16)
    with torch.no_grad():
        states = model(theirs, output_hidden_states=True).hidden_states
        reference = [model.layernorm(state) for state in states[-2:]]
    out = module.apply(variables, jnp.asarray(ours), layers=(-2, -1))
    for (patches, cls), want in zip(out.layers, reference, strict=True):
        assert distance(patches, want[:, 1:]) < 1e-4 and distance(cls, want[:, 0]) < 1e-4


@pytest.mark.parametrize(
    "shape",
    [
        {**SMALL, "intermediate_size": 48, "num_register_tokens": 4},
        {**DEEP, "intermediate_size": 40, "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
        {**SMALL, "intermediate_size": 48, "key_bias": True, "mlp_bias": False, "proj_bias": False},
    ],
)
def test_dinov3(tmp_path, shape):
    model = hf.DINOv3ViTModel(hf.DINOv3ViTConfig(patch_size=4, image_size=16, **shape))
    module, variables = read(saved(model, tmp_path), tmp_path)
    for size in ((16, 16), (12, 32)):
        ours, theirs = pixels(np.random.default_rng(0), 2, *size)
        with torch.no_grad():
            tokens = model(theirs).last_hidden_state
        skip = 1 + shape.get("num_register_tokens", 0)
        compare(module, variables, ours, {"patches": tokens[:, skip:], "cls": tokens[:, 0]}, half=size == (12, 32))


TOWER = {**SMALL, "intermediate_size": 52, "patch_size": 4, "image_size": 16}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [TOWER, {**TOWER, **DEEP, "image_size": 24}])
def test_siglip(tmp_path, shape, whole):
    if whole:
        text = {**SMALL, "intermediate_size": 40, "vocab_size": 64, "projection_size": shape["hidden_size"]}
        text.update(hidden_size=shape["hidden_size"], num_attention_heads=shape["num_attention_heads"])
        model = hf.SiglipModel(hf.SiglipConfig(vision_config=shape, text_config=text))
    else:
        model = hf.SiglipVisionModel(hf.SiglipVisionConfig(**shape))
    module, variables = read(saved(model, tmp_path), tmp_path)
    vision = model.vision_model if whole else model
    for size in ((shape["image_size"],) * 2, (12, 28)):
        ours, theirs = pixels(np.random.default_rng(0), 2, *size)
        with torch.no_grad():
            out = vision(theirs, interpolate_pos_encoding=True)
        compare(
            module,
            variables,
            ours,
            {"patches": out.last_hidden_state, "pooled": out.pooler_output},
            half=size == (12, 28),
        )


@pytest.mark.parametrize(("activation", "whole"), [("quick_gelu", False), ("gelu", True)])
def test_clip(tmp_path, activation, whole):
    shape = {**TOWER, "hidden_act": activation}
    if whole:
        text = {**SMALL, "intermediate_size": 40, "vocab_size": 64, "hidden_size": 24}
        model = hf.CLIPModel(hf.CLIPConfig(vision_config=shape, text_config=text, projection_dim=20))
    else:
        model = hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**shape, projection_dim=20))
    module, variables = read(saved(model, tmp_path), tmp_path)
    for size in ((16, 16), (12, 28)):
        ours, theirs = pixels(np.random.default_rng(0), 2, *size)
        with torch.no_grad():
            out = model.vision_model(theirs, interpolate_pos_encoding=True)
            pooled = model.visual_projection(out.pooler_output)
        tokens = out.last_hidden_state
        compare(
            module,
            variables,
            ours,
            {"patches": tokens[:, 1:], "cls": out.pooler_output, "pooled": pooled},
            half=size == (12, 28),
        )


@pytest.mark.parametrize("pretraining", [False, True])
def test_mae(tmp_path, pretraining):
    config = hf.ViTMAEConfig(
        **TOWER, mask_ratio=0.0, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2
    )
    model = (hf.ViTMAEForPreTraining if pretraining else hf.ViTMAEModel)(config)
    module, variables = read(saved(model, tmp_path), tmp_path)
    for size in ((16, 16), (12, 28)):
        ours, theirs = pixels(np.random.default_rng(0), 2, *size)
        count = size[0] * size[1] // 16
        with torch.no_grad():
            inner = model.vit if pretraining else model
            noise = torch.arange(count).float().expand(2, -1)  # keeps the patches in their order
            tokens = inner(theirs, noise=noise, interpolate_pos_encoding=True).last_hidden_state
        compare(module, variables, ours, {"patches": tokens[:, 1:], "cls": tokens[:, 0]}, half=size == (12, 28))


def test_weights_of_another_architecture(tmp_path):
    saved(hf.SiglipVisionModel(hf.SiglipVisionConfig(**TOWER)), tmp_path / "siglip")
    fields = saved(hf.Dinov2Model(hf.Dinov2Config(patch_size=4, image_size=16, **SMALL)), tmp_path / "dinov2")
    with pytest.raises(ValueError, match="missing: .*extra: "):
        read(fields, tmp_path / "siglip")
    fields["mlp_ratio"] = 3
    with pytest.raises(
        ValueError, match=r"misshapen: encoder.layer.0.mlp.fc1.weight \[128, 32\] instead of \[96, 32\]"
    ):
        read(fields, tmp_path / "dinov2")
