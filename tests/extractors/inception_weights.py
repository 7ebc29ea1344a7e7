"""Random weights of Inception in the layouts in which they are published."""

import numpy as np

from fae_jax.extractors.inception import layers

EPSILON = 1e-3


def tf_weights(seed: int = 0, chosen=None) -> dict[str, np.ndarray]:
    """Folded convolutions, kernels (rows, columns, in, out), of a spread that keeps the signal's size."""
    draw = np.random.default_rng(seed).standard_normal
    weights = {}
    for _, name, _, shape in chosen or layers():
        fan = np.prod(shape[:-1])
        weights[f"{name}/w"] = (draw(shape, np.float32) * np.sqrt(2 / fan)).astype(np.float32)
        weights[f"{name}/b"] = 0.1 * draw(shape[-1], np.float32)
    return weights


def torch_weights(seed: int = 0, chosen=None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(torchvision's names with batch norms that are not trivial, the same folded in TensorFlow's names)."""
    folded, published = tf_weights(seed, chosen), {}
    random = np.random.default_rng(seed + 1)
    for _, name, theirs, shape in chosen or layers():
        kernel, bias = folded[f"{name}/w"], folded[f"{name}/b"]
        if len(shape) == 2:
            published |= {f"{theirs}.weight": kernel.T.copy(), f"{theirs}.bias": bias}
            continue
        width = shape[-1]
        gamma, variance = (random.uniform(0.5, 2, width).astype(np.float32) for _ in range(2))
        mean = 0.1 * random.standard_normal(width, np.float32)
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
        norm = {"weight": gamma, "bias": bias, "running_mean": mean, "running_var": variance}
        published[f"{theirs}.conv.weight"] = kernel.transpose(3, 2, 0, 1).copy()
        published |= {f"{theirs}.bn.{key}": value for key, value in norm.items()}
        published[f"{theirs}.bn.num_batches_tracked"] = np.array(0, np.int64)
        folded[f"{name}/w"] = (kernel * scale).astype(np.float32)
        folded[f"{name}/b"] = (bias - mean * scale).astype(np.float32)
    return published, folded
