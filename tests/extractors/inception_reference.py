"""Inception v3 of 2015-12-05 in plain PyTorch functions, from the shapes of a file in TensorFlow's names alone."""

import numpy as np
import torch
import torch.nn.functional as F


def resized(images: np.ndarray, side: int = 299) -> np.ndarray:
    """TensorFlow 1's bilinear resize of (b, y, x, c), pixel by pixel, in float64."""
    out = images.astype(np.float64)
    for axis in (1, 2):
        source = out.shape[axis]
        rows = []
        for i in range(side):
            u = np.float64(np.float32(i) * (np.float32(source) / np.float32(side)))
            low = int(u)
            high = min(low + 1, source - 1)
            rows.append(out.take(low, axis) * (1 - (u - low)) + out.take(high, axis) * (u - low))
        out = np.stack(rows, axis)
    return out


def taps(weights: dict[str, np.ndarray], x: torch.Tensor) -> dict[str, np.ndarray]:
    """Taps of inputs (b, 3, 299, 299) in [−1, 1], as far as the weights reach, in the dtype of x."""

    def conv(name, x, stride=1, pad="same"):
        kernel = torch.from_numpy(weights[f"{name}/w"].astype(np.float32)).to(x.dtype).permute(3, 2, 0, 1)
        bias = torch.from_numpy(weights[f"{name}/b"].astype(np.float32)).to(x.dtype)
        margin = tuple(size // 2 for size in kernel.shape[2:]) if pad == "same" else 0
        return F.relu(F.conv2d(x, kernel, bias, stride, margin))

    def chain(x, *names):
        for name in names:
            x = conv(name, x)
        return x

    def numbered(name, count):
        return [f"{name}_conv" + (f"_{i}" if i else "") for i in range(count)]

    def average(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def block(name, x, tower, tower_1):
        return torch.cat(
            [
                conv(f"{name}_conv", x),
                chain(x, *numbered(f"{name}_tower", tower)),
                chain(x, *numbered(f"{name}_tower_1", tower_1)),
                conv(f"{name}_tower_2_conv", average(x)),
            ],
            1,
        )

    def last(name, x, pooled):
        tower, tower_1 = conv(f"{name}_tower_conv", x), chain(x, *numbered(f"{name}_tower_1", 2))
        both = [
            conv(f"{name}_{which}_mixed_conv{suffix}", y)
            for which, y in (("tower", tower), ("tower_1", tower_1))
            for suffix in ("", "_1")
        ]
        return torch.cat([conv(f"{name}_conv", x), *both, conv(f"{name}_tower_2_conv", pooled)], 1)

    out = {}
    x = conv("conv_2", conv("conv_1", conv("conv", x, 2, "valid"), 1, "valid"))
    x = F.max_pool2d(x, 3, 2)
    out["64"] = x.mean((2, 3))
    x = conv("conv_4", conv("conv_3", x, 1, "valid"), 1, "valid")
    x = F.max_pool2d(x, 3, 2)
    out["192"] = x.mean((2, 3))
    for name in ("mixed", "mixed_1", "mixed_2"):
        x = block(name, x, 2, 3)
    tower = chain(x, *numbered("mixed_3_tower", 2))
    first, second = conv("mixed_3_conv", x, 2, "valid"), conv("mixed_3_tower_conv_2", tower, 2, "valid")
    x = torch.cat([first, second, F.max_pool2d(x, 3, 2)], 1)
    for name in ("mixed_4", "mixed_5", "mixed_6"):
        x = block(name, x, 3, 5)
    out["spatial"] = conv_of_mixed_6 = x[:, :7].permute(0, 2, 3, 1).flatten(1)
    assert conv_of_mixed_6.shape[1] == 17 * 17 * 7
    x = block("mixed_7", x, 3, 5)
    out["768"] = x.mean((2, 3))
    tower, tower_1 = conv("mixed_8_tower_conv", x), chain(x, *numbered("mixed_8_tower_1", 3))
    first, second = (
        conv(name, y, 2, "valid")
        for name, y in (("mixed_8_tower_conv_1", tower), ("mixed_8_tower_1_conv_3", tower_1))
    )
    x = torch.cat([first, second, F.max_pool2d(x, 3, 2)], 1)
    if "mixed_9_tower_1_conv_1/w" in weights:
        x = last("mixed_9", x, average(x))
        x = last("mixed_10", x, F.max_pool2d(x, 3, 1, 1))
        out["pool_3"] = x.mean((2, 3))
    if "softmax/w" in weights:
        out["logits"] = out["pool_3"] @ torch.from_numpy(weights["softmax/w"]).to(x.dtype)
        out["softmax"] = out["logits"].softmax(1)
    return {name: tap.numpy() for name, tap in out.items()}
