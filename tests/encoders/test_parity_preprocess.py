"""Pixels against the processors of `transformers` (those that run on PIL)."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers as hf
from test_preprocess import make_image

from fae_jax.encoders.preprocess import Preprocessing, process
from fae_jax.encoders.published import ENCODERS
from fae_jax.nn.resample import resampling_matrix, resize, resize_table

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def processor(kind, **fields):
    processor = getattr(hf, kind + "Pil", None) or getattr(hf, kind)
    return processor(**fields)


CASES = {
    "dinov2_b14": ("BitImageProcessor", {"size": {"shortest_edge": 256}, "resample": 3, **IMAGENET}),
    "siglip_b16_224": ("SiglipImageProcessor", {"size": {"height": 224, "width": 224}}),
    "siglip2_g16_256": ("SiglipImageProcessor", {"size": {"height": 256, "width": 256}, "resample": 2}),
    "clip_b32": ("CLIPImageProcessor", {"size": {"shortest_edge": 224}}),
    "clip_l14_336": ("CLIPImageProcessor", {"size": {"shortest_edge": 336}, "crop_size": 336}),
    "mae_b16": ("ViTImageProcessor", {"size": {"height": 224, "width": 224}, **IMAGENET}),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_processors(tmp_path, name):
    kind, fields = CASES[name]
    theirs = processor(kind, **fields)
    theirs.save_pretrained(tmp_path)
    read = Preprocessing.from_json(theirs.to_dict() | {"image_processor_type": kind})
    table = ENCODERS[name].preprocessing
    for size in ((300, 421), (180, 97), (512, 512)):
        image = make_image(*size)
        want = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        for ours in (read, table):
            got = process(image, ours)
            assert got.shape == want.shape
            assert np.abs((got - want) * np.asarray(table.std)).max() <= 1 / 255 + 1e-6, size


def test_dinov3_resizes_without_rounding():
    image = make_image(300, 421)
    values = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255
    want = torch.nn.functional.interpolate(values, (224, 224), mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ("image_mean", "image_std"))
    got = process(image, ENCODERS["dinov3_b16"].preprocessing)
    np.testing.assert_allclose(got, ((want - mean) / std).numpy().transpose(1, 2, 0), atol=2e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("target", [(24, 24), (7, 31), (50, 9)])
def test_resampling_is_that_of_torch(kind, antialias, target):
    image = np.random.default_rng(0).standard_normal((2, 20, 23, 5)).astype(np.float32)
    theirs = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
    want = torch.nn.functional.interpolate(theirs, target, mode=kind, antialias=antialias, align_corners=False)
    got = resize(torch_free(image), target, kind, antialias=antialias)
    np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def torch_free(image):
    import jax.numpy as jnp

    return jnp.asarray(image)


@pytest.mark.parametrize("target", [(16, 16), (12, 37), (50, 20)])
def test_first_way_of_dinov2_to_interpolate(target):
    """The hub's own: scale factors (target + 0.1) / source, bicubic."""
    table = np.random.default_rng(0).standard_normal((37 * 37, 6)).astype(np.float32)
    grid = torch.from_numpy(table.reshape(1, 37, 37, 6)).permute(0, 3, 1, 2)
    scales = tuple((size + 0.1) / 37 for size in target)
    want = torch.nn.functional.interpolate(grid, scale_factor=scales, mode="bicubic", antialias=False)
    assert want.shape[-2:] == target
    got = resize_table(torch_free(table), (37, 37), target, "bicubic", offset=0.1)
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).reshape(-1, 6).numpy(), atol=5e-5)
    other = resize_table(torch_free(table), (37, 37), target, "bicubic")
    assert np.abs(other - got).max() > 1e-2 or target == (37, 37)


def test_refused_kinds():
    with pytest.raises(ValueError, match="resampling 'area'"):
        resampling_matrix(3, 4, "area", antialias=False)
    with pytest.raises(ValueError, match="not defined"):
        resampling_matrix(3, 4, "nearest", antialias=True)
