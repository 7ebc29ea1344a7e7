"""LPIPS in PyTorch functions, and its weights: random ones in torchvision's names, and real ones from other files."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

VGG = [2, 2, 3, 3, 3]
FIRES = {"3": 16, "4": 16, "6": 32, "7": 32, "9": 48, "10": 48, "11": 64, "12": 64}


def relu_conv(w, x, name, **how):
    return F.relu(F.conv2d(x, w[f"features.{name}.weight"], w[f"features.{name}.bias"], **how))


def fire(w, x, name):
    x = relu_conv(w, x, f"{name}.squeeze")
    return torch.cat([relu_conv(w, x, f"{name}.expand1x1"), relu_conv(w, x, f"{name}.expand3x3", padding=1)], 1)


def layers(trunk, w, x):
    if trunk == "vgg":
        kept, place = [], 0
        for count in VGG:
            for _ in range(count):
                x = relu_conv(w, x, place, padding=1)
                place += 2
            kept.append(x)
            x, place = F.max_pool2d(x, 2), place + 1
        return kept
    if trunk == "alex":
        kept = [relu_conv(w, x, 0, stride=4, padding=2)]
        kept.append(relu_conv(w, F.max_pool2d(kept[-1], 3, 2), 3, padding=2))
        kept.append(relu_conv(w, F.max_pool2d(kept[-1], 3, 2), 6, padding=1))
        for place in (8, 10):
            kept.append(relu_conv(w, kept[-1], place, padding=1))
        return kept
    kept = [relu_conv(w, x, 0, stride=2)]
    for names in (("3", "4"), ("6", "7"), ("9",)):
        x = F.max_pool2d(kept[-1], 3, 2, ceil_mode=True)
        for name in names:
            x = fire(w, x, name)
        kept.append(x)
    for name in ("10", "11", "12"):
        kept.append(fire(w, kept[-1], name))
    return kept


def distance(trunk, w, a, b):
    """Of images (b, y, x, 3) in [−1, 1]."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    both = [layers(trunk, w, ((x - shift) / scale).permute(0, 3, 1, 2)) for x in (a, b)]
    total = 0
    for place, pair in enumerate(zip(*both, strict=True)):
        first, second = (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in pair)
        total = total + F.conv2d((first - second) ** 2, w[f"lin{place}.model.1.weight"]).mean((1, 2, 3))
    return total


def real_root():
    """The real weights; None where FAE_REAL_DATA is not set."""
    return Path(os.environ["FAE_REAL_DATA"]) / "weights" if "FAE_REAL_DATA" in os.environ else None


def random_weights(shapes, seed=0):
    """Tensors of these names and shapes, so large that features neither vanish nor explode."""
    rng, made = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 and "lin" not in name else 0.1
        made[name] = (rng.normal(size=shape) * scale).astype(np.float32)
        if "lin" in name:
            made[name] = np.abs(made[name])
    return made


def real_vgg(root):
    """VGG16 that was trained on BGR less its mean colour, as of RGB that LPIPS has scaled."""
    with np.load(root / "vgg16_bgr_fp16.npz") as file:
        held = {name: file[name].astype(np.float32) for name in file}
    made, place = {}, 0
    for stage, count in enumerate(VGG, start=1):
        for number in range(1, count + 1):
            for theirs, ours in (("w", "weight"), ("b", "bias")):
                made[f"features.{place}.{ours}"] = held[f"conv{stage}_{number}/{theirs}"]
            place += 2
        place += 1
    made["features.0.weight"] = made["features.0.weight"][:, ::-1] * (
        255 * np.float32([0.229, 0.224, 0.225])[None, :, None, None]
    )
    return made


def real_squeeze(root):
    """SqueezeNet that was trained on BGR less its mean colour, likewise."""
    with np.load(root / "squeezenet_v1.1_caffe_fp16.npz") as file:
        held = {name: file[name].astype(np.float32) for name in file}
    made = {}
    for name, ours in {
        "conv1": "0",
        **{f"fire{n}": place for n, place in zip(range(2, 10), FIRES, strict=True)},
    }.items():
        for part in [""] if ours == "0" else ["/squeeze1x1", "/expand1x1", "/expand3x3"]:
            for theirs, kind in (("w", "weight"), ("b", "bias")):
                inner = f".{part[1:].replace('squeeze1x1', 'squeeze')}" if part else ""
                made[f"features.{ours}{inner}.{kind}"] = held[f"{name}{part}/{theirs}"]
    made["features.0.weight"] = made["features.0.weight"][:, ::-1] * (
        255 * np.float32([0.229, 0.224, 0.225])[None, :, None, None]
    )
    return made


def linear_layers(root, trunk):
    with np.load(root / f"lin_v0.1_{trunk}.npz") as file:
        return {name: file[name] for name in file}
