"""ConvNeXt V2 against `transformers`, its published size, and files that are not its own."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fae_jax.extractors.convnext import CONVNEXT_S, CONVNEXTV2_B, _block
from fae_jax.weights import flatten, open_tensors, write_tensors

sys.path[:0] = [str(Path(__file__).parents[1] / "encoders")]

SMALL = dataclasses.replace(CONVNEXTV2_B, depths=(1, 1, 2, 1), widths=(8, 16, 24, 32), classes=7)


def test_it_has_the_published_number_of_parameters():
    """88.7 M in the paper, 88,717,800 in `timm`."""
    shapes = flatten(CONVNEXTV2_B.shapes())
    assert sum(np.prod(leaf.shape) for leaf in shapes.values()) == 88_717_800


@pytest.mark.parity
def test_every_tap_is_that_of_transformers(tmp_path):
    pytest.importorskip("transformers")
    from parity import distance, randomise, torch, transformers

    config = transformers.ConvNextV2Config(
        depths=list(SMALL.depths), hidden_sizes=list(SMALL.widths), num_labels=SMALL.classes
    )
    model = randomise(transformers.ConvNextV2ForImageClassification(config))
    model.save_pretrained(tmp_path)
    extractor = SMALL("small", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    pixels = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255, (224, 224), mode="bicubic", antialias=True
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        output = model(((pixels.permute(0, 2, 3, 1) - mean) / std).permute(0, 3, 1, 2), output_hidden_states=True)
        last = output.hidden_states[-1]
        want = {
            "mean": last.mean((2, 3)),
            "pooled": model.convnextv2.layernorm(last.mean((2, 3))),
            "logits": output.logits,
        }
    got = jax.jit(extractor.apply)(extractor.params, images)
    assert {name: distance(got[name], want[name]) < 1e-4 for name in want} == dict.fromkeys(got, True)
    fd_loss = dataclasses.replace(SMALL, fd_loss=True)("fd", str(tmp_path))
    read = jax.jit(fd_loss.apply)(extractor.params, images)
    assert read.keys() == {"pooled"} and distance(read["pooled"], want["mean"]) < 1e-4
    assert fd_loss.variant == f"{extractor.variant}, before the last norm (FD-loss)"
    tensors = open_tensors(tmp_path)
    assert extractor.weights_hash == tensors.hash()
    held = {name: tensors.read(name) for name in tensors}
    write_tensors(tmp_path / "model.safetensors", {name: held[name] for name in held if "pwconv1.bias" not in name})
    with pytest.raises(ValueError, match=r"5 missing: convnextv2.encoder.stages.0.layers.0.pwconv1.bias"):
        SMALL("small", str(tmp_path))


def test_weights_that_are_not_there():
    with pytest.raises(FileNotFoundError, match="'nowhere.safetensors' are not a file"):
        CONVNEXTV2_B("convnextv2_b", "nowhere.safetensors")


@pytest.mark.parity
def test_the_first_convnext_as_torchvision_names_it(tmp_path):
    torch = pytest.importorskip("torch")
    import torch.nn.functional as F

    small = dataclasses.replace(CONVNEXT_S, depths=(1, 1, 2, 1), widths=(8, 16, 24, 32), classes=7)
    assert sum(np.prod(leaf.shape) for leaf in flatten(CONVNEXT_S.shapes()).values()) == 50_223_688  # torchvision's
    rng = np.random.default_rng(0)
    w = {name: 0.3 * rng.normal(size=shape).astype(np.float32) for name, shape in small.network._expected().items()}
    np.savez(tmp_path / "weights.npz", **w)
    images = rng.uniform(-1, 1, (2, 48, 40, 3)).astype(np.float32)
    got = jax.jit(small.read)(small.network.load(str(tmp_path / "weights.npz")), jax.numpy.asarray(images))
    w = {name: torch.from_numpy(array) for name, array in w.items()}

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def over_channels(name, x):
        return norm(name, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def conv(name, x, **how):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **how)

    def dense(name, x):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 2 + 0.5
    x = F.interpolate(x, size=224, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = over_channels("features.0.1", conv("features.0.0", (x - mean) / std, stride=4))
    for stage, depth in enumerate(small.depths):
        if stage:
            x = conv(f"features.{2 * stage}.1", over_channels(f"features.{2 * stage}.0", x), stride=2)
        for block in range(depth):
            own = f"features.{2 * stage + 1}.{block}"
            y = conv(f"{own}.block.0", x, padding=3, groups=x.shape[1]).permute(0, 2, 3, 1)
            y = dense(f"{own}.block.5", F.gelu(dense(f"{own}.block.3", norm(f"{own}.block.2", y))))
            x = x + w[f"{own}.layer_scale"] * y.permute(0, 3, 1, 2)
    want = dense("classifier.2", norm("classifier.0", x.mean((2, 3)))).numpy()
    assert np.abs(got["logits"] - want).max() < 1e-4 * np.abs(want).max()


def test_a_channel_that_is_silent_everywhere_leaves_every_slope_a_number():
    """GELU gives 0 exactly far below 0, and the response norm is a square root of it."""
    rng = np.random.default_rng(0)
    shapes = {
        "norm": {"scale": (4,), "bias": (4,)},
        "depthwise": {"kernel": (7, 7, 1, 4), "bias": (4,)},
        "hidden": {"kernel": (4, 16), "bias": (16,)},
        "response": {"scale": (16,), "bias": (16,)},
        "out": {"kernel": (16, 4), "bias": (4,)},
    }
    params = jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    params["hidden"]["bias"][3] = -100
    params = jax.tree.map(jax.numpy.asarray, params)
    x = jax.numpy.asarray(rng.normal(size=(2, 8, 8, 4)), np.float32)
    slope = jax.jit(jax.grad(lambda x: jax.numpy.sum(_block(x, params, np.float32)[0] ** 2)))(x)
    assert np.isfinite(slope).all() and np.any(slope)
