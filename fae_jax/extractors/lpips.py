"""LPIPS: the distance of two images in the features of a frozen network (arXiv 1801.03924, version 0.1).

    d(a, b) = Σ_l mean over the grid Σ_c w_lc (u(f_l(a)) − u(f_l(b)))²_c,    u(f) = f / (‖f‖₂ + 10⁻¹⁰)          (1)

over channels c of layers l of VGG16, AlexNet or SqueezeNet 1.1 (torchvision's, trained on ImageNet), each behind its
ReLU; w ≥ 0 are the published linear layers. Images are (x − shift) / scale of pixels x in [−1, 1].
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from fae_jax.extractors import Extractor, check_images
from fae_jax.extractors.networks import Network
from fae_jax.nn.convolutions import convolve, max_pool
from fae_jax.weights import hash_tree, unflatten
from fae_jax.weights.mapping import CONVOLUTION, Layout, NameMap, Part, Rule, linear
from fae_jax.weights.releases import Release

SHIFT = np.asarray([-0.030, -0.088, -0.188], np.float32)
SCALE = np.asarray([0.458, 0.448, 0.450], np.float32)


class Conv(NamedTuple):
    """A convolution and its ReLU: its name in the file, kernel, channels out."""

    name: str
    size: int
    width: int
    stride: int = 1
    padding: int = 0


class Pool(NamedTuple):
    """A maximum pooling; `ceil`: what a last window only partly covers counts too."""

    size: int
    ceil: bool = False


class Fire(NamedTuple):
    """SqueezeNet's block: a 1×1 convolution, then 1×1 and 3×3 side by side, `width` channels each."""

    name: str
    squeeze: int
    width: int

    @property
    def convolutions(self) -> tuple[Conv, Conv, Conv]:
        parts = (("squeeze", 1, self.squeeze), ("expand1x1", 1, self.width), ("expand3x3", 3, self.width))
        first, second, third = (Conv(f"{self.name}.{part}", size, width, 1, size // 2) for part, size, width in parts)
        return first, second, third


Layer = Conv | Pool | Fire
LINEAR_LAYER = Layout(lambda shape: (1, *shape, 1, 1), lambda array: array.reshape(-1))


def _vgg() -> tuple[tuple[Layer, ...], ...]:
    stages, place = [], 0
    for stage, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        layers: list[Layer] = [Pool(2)] if stage else []
        for _ in range(count):
            layers.append(Conv(str(place), 3, width, 1, 1))
            place += 2
        stages.append(tuple(layers))
        place += 1
    return tuple(stages)


# What each tap stands behind, one after the other.
TRUNKS: dict[str, tuple[tuple[Layer, ...], ...]] = {
    "vgg": _vgg(),
    "alex": (
        (Conv("0", 11, 64, 4, 2),),
        (Pool(3), Conv("3", 5, 192, 1, 2)),
        (Pool(3), Conv("6", 3, 384, 1, 1)),
        (Conv("8", 3, 256, 1, 1),),
        (Conv("10", 3, 256, 1, 1),),
    ),
    "squeeze": (
        (Conv("0", 3, 64, 2),),
        (Pool(3, True), Fire("3", 16, 64), Fire("4", 16, 64)),
        (Pool(3, True), Fire("6", 32, 128), Fire("7", 32, 128)),
        (Pool(3, True), Fire("9", 48, 192)),
        (Fire("10", 48, 192),),
        (Fire("11", 64, 256),),
        (Fire("12", 64, 256),),
    ),
}
PUBLISHED = {  # trunk → torchvision's file and its hash, the hash of the linear layers
    "vgg": (
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    "alex": (
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ),
    "squeeze": (
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ),
}
_TORCHVISION = "https://download.pytorch.org/models/"
_LINEAR = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"


def _apply(params: Any, x: Array, layer: Layer, dtype: Any) -> Array:
    if isinstance(layer, Pool):
        return max_pool(x, layer.size, 2, ceil=layer.ceil)
    if isinstance(layer, Fire):
        squeeze, *expand = layer.convolutions
        x = _apply(params, x, squeeze, dtype)
        return jnp.concatenate([_apply(params, x, each, dtype) for each in expand], axis=-1)
    own = params
    for part in layer.name.split("."):
        own = own[part]
    padding = ((layer.padding, layer.padding),) * 2
    return jax.nn.relu(convolve(own, x, stride=layer.stride, padding=padding, dtype=dtype))


def _unit(x: Array) -> Array:
    return x / (optax.safe_norm(x, 0.0, axis=-1, keepdims=True) + 1e-10)  # no feature, no slope


@dataclasses.dataclass(frozen=True, kw_only=True)
class LPIPS:
    """Equation (1) by one trunk; as a kind of extractor, its taps are each layer's features averaged over the grid.

    Attributes:
      trunk: `vgg`, `alex` or `squeeze`.
    """

    trunk: str

    @functools.cached_property
    def network(self) -> Network:
        """Its weights."""
        file, trunk_hash, linear_hash = PUBLISHED[self.trunk]
        name, rules = f"lpips_{self.trunk}", []
        shapes: dict[str, tuple[int, ...]] = {}
        width, convolutions = 3, []
        for place, stage in enumerate(TRUNKS[self.trunk]):
            for layer in stage:
                if isinstance(layer, Fire):
                    squeeze, *expand = layer.convolutions
                    convolutions += [(squeeze, width), *((each, layer.squeeze) for each in expand)]
                    width = 2 * layer.width
                elif isinstance(layer, Conv):
                    convolutions.append((layer, width))
                    width = layer.width
            rules.append(Rule(f"linear.{place}", (Part(f"lin{place}.model.1.weight", LINEAR_LAYER),)))
            shapes[f"linear.{place}"] = (width,)
        for conv, before in convolutions:
            rules += linear(f"trunk.{conv.name}", f"features.{conv.name}", layout=CONVOLUTION)
            shapes[f"trunk.{conv.name}.kernel"] = (conv.size, conv.size, before, conv.width)
            shapes[f"trunk.{conv.name}.bias"] = (conv.width,)
        return Network(
            name=name,
            releases={
                "features": Release(name=f"{name}_trunk", urls=(_TORCHVISION + file,), sha256=trunk_hash),
                "lin": Release(name=name, urls=(f"{_LINEAR}{self.trunk}.pth",), sha256=linear_hash),
            },
            names=NameMap(tuple(rules), ignored=r"^classifier\."),
            shapes=unflatten({leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in shapes.items()}),
        )

    @property
    def source(self) -> str:
        return self.network.source

    def pull(self, file: Path | None = None) -> tuple[Path, int]:
        """See `Network.pull`."""
        return self.network.pull(file)

    def features(self, params: Any, images: Float[Array, "b y x 3"], dtype: Any = jnp.float32) -> list[Array]:
        """f_l of images in [−1, 1]; products in `dtype`."""
        x, kept = (images - SHIFT) / SCALE, []
        for stage in TRUNKS[self.trunk]:
            for layer in stage:
                x = _apply(params["trunk"], x, layer, dtype)
            kept.append(x)
        return kept

    def distance(
        self,
        params: Mapping[str, Any],
        a: Float[Array, "b y x 3"],
        b: Float[Array, "b y x 3"],
        dtype: Any = jnp.float32,
    ) -> Float[Array, " b"]:
        """Equation (1) of images in [−1, 1]; products in `dtype`."""
        # one after the other: as one batch, what the backward pass to a needs would be kept of b too
        both = zip(self.features(params, a, dtype), self.features(params, b, dtype), strict=True)
        total = jnp.zeros(len(a))
        for place, (first, second) in enumerate(both):
            square = (_unit(first) - _unit(second)) ** 2
            total += jnp.mean(jnp.sum(square * params["linear"][str(place)], axis=-1), axis=(1, 2))
        return total

    def __call__(self, name: str, weights: str) -> Extractor:
        """See `fae_jax.extractors.load_extractor`."""
        params = self.network.load(weights)

        def apply(params: Any, images: Any) -> dict[str, Array]:
            check_images(name, images)
            features = self.features(params, images.astype(jnp.float32) / 127.5 - 1)
            return {f"layer_{place}": each.mean((1, 2)) for place, each in enumerate(features)}

        return Extractor(
            name=name,
            variant=f"LPIPS 0.1, {self.trunk}, at the size of the images",
            weights_hash=hash_tree(params),
            params=params,
            apply=apply,
        )


VGG, ALEX, SQUEEZE = (LPIPS(trunk=trunk) for trunk in TRUNKS)
