"""ConvNeXt V2 (arXiv 2301.00808): four stages of blocks over a grid that is halved between them; and the first
ConvNeXt (arXiv 2201.03545), which has a factor per channel γ in the place of the response norm.

    y = Dense(GRN(GELU(Dense(LayerNorm(depthwise 7×7(x))))));    x ← x + y                         (1)
    GRN(x) = x + γ x n + β,   n_c = g_c / (mean_c g + ε),   g_c = ‖x_c‖₂ over the grid             (2)
    y = γ Dense(GELU(Dense(LayerNorm(depthwise 7×7(x)))));       x ← x + y                         (1')

Before the first stage a 4×4 convolution of stride 4 and a LayerNorm, before each other one a LayerNorm and a 2×2
convolution of stride 2. Taps: `mean`, the last stage averaged over the grid; `pooled`, its LayerNorm, which the
classifier reads; `logits`. FD-loss, of which FDr6 is made, reads `mean`. ε is 10⁻⁶ throughout.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import IMAGENET, Published
from fae_jax.extractors import Extractor, check_images
from fae_jax.extractors.networks import Network
from fae_jax.nn.convolutions import convolve
from fae_jax.nn.dense import precision
from fae_jax.nn.resample import resize
from fae_jax.weights import hash_tree, mapping, unflatten
from fae_jax.weights.mapping import CONVOLUTION, Layout, NameMap, Part, Rule, leading, linear, norm
from fae_jax.weights.releases import Release

EPSILON = 1e-6
SIDE = 224
_FACTOR = Layout(lambda shape: (*shape, 1, 1), lambda array: array.reshape(-1))


def _norm(params: Mapping[str, Array], x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * params["scale"] + params["bias"]


def _dense(params: Mapping[str, Array], x: Array, dtype: Any = jnp.float32) -> Array:
    product = jnp.matmul(x.astype(dtype), params["kernel"].astype(dtype), precision=precision(dtype))
    return product.astype(jnp.float32) + params["bias"]


def _block(x: Array, params: Any, dtype: Any) -> tuple[Array, None]:
    """(1), or (1')."""
    y = _norm(params["norm"], convolve(params["depthwise"], x, depthwise=True, dtype=dtype))
    y = jax.nn.gelu(_dense(params["hidden"], y, dtype), approximate=False)
    if "factor" in params:
        return x + params["factor"] * _dense(params["out"], y, dtype), None
    g = optax.safe_norm(y, 0.0, axis=(1, 2), keepdims=True)  # a channel that is 0 everywhere has no slope
    n = g / (g.mean(-1, keepdims=True) + EPSILON)
    y = y + params["response"]["scale"] * y * n + params["response"]["bias"]  # (2)
    return x + _dense(params["out"], y, dtype), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXt:
    """A kind of extractor: the network of some size, whose weights are in a repository of the hub.

    Attributes:
      fd_loss: whether the one tap, `pooled`, is what FD-loss reads, which leaves the last norm out.
    """

    source: str
    words: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int = 1000
    fd_loss: bool = False
    second: ClassVar[bool] = True

    def __call__(self, name: str, weights: str) -> Extractor:
        """See `fae_jax.extractors.load_extractor`."""
        files = find_files(weights or None, Published(repository=self.source, fields={"model_type": "convnextv2"}))
        mean, std = (jnp.asarray(IMAGENET[key], jnp.float32) for key in ("mean", "std"))

        def apply(params: Any, images: Any) -> dict[str, Array]:
            check_images(name, images)
            pixels = resize(images, (SIDE, SIDE), "bicubic", antialias=True) / 255
            taps = self.taps(params, (pixels - mean) / std)
            return {"pooled": taps["mean"]} if self.fd_loss else taps

        return Extractor(
            name=name,
            variant=f"{self.words}, at {SIDE}×{SIDE}, bicubic resize, antialiased, in float"
            + (", before the last norm (FD-loss)" if self.fd_loss else ""),
            weights_hash=files.tensors.hash(),
            params=mapping.load(files.source, self.names(), files.tensors, self.shapes()),
            apply=apply,
        )

    def taps(self, params: Any, x: Float[Array, "b y x 3"], dtype: Any = jnp.float32) -> dict[str, Array]:
        """The module's taps of normalised pixels; products in `dtype`."""
        for stage in range(len(self.widths)):
            own = params[f"stage_{stage}"]
            if stage:
                x = convolve(own["down"], _norm(own["norm"], x), stride=2, padding="VALID", dtype=dtype)
            else:
                x = _norm(own["norm"], convolve(own["down"], x, stride=4, padding="VALID", dtype=dtype))
            x, _ = jax.lax.scan(functools.partial(_block, dtype=dtype), x, own["block"])
        mean = x.mean((1, 2))
        pooled = _norm(params["norm"], mean)
        return {"mean": mean, "pooled": pooled, "logits": _dense(params["classifier"], pooled)}

    def shapes(self) -> dict[str, Any]:
        """A nested dict of the parameters' shapes; those of blocks are stacked."""
        flat: dict[str, tuple[int, ...]] = {}
        before = 3
        for stage, (depth, d) in enumerate(zip(self.depths, self.widths, strict=True)):
            size = 2 if stage else 4
            own = f"stage_{stage}."
            normed = before if stage else d
            layers = {
                f"{own}down.kernel": (size, size, before, d),
                f"{own}down.bias": (d,),
                f"{own}norm.scale": (normed,),
                f"{own}norm.bias": (normed,),
            }
            block = {"depthwise.kernel": (7, 7, 1, d), "depthwise.bias": (d,), "norm.scale": (d,), "norm.bias": (d,)}
            block |= {
                "hidden.kernel": (d, 4 * d),
                "hidden.bias": (4 * d,),
                "out.kernel": (4 * d, d),
                "out.bias": (d,),
            }
            block |= {"response.scale": (4 * d,), "response.bias": (4 * d,)} if self.second else {"factor": (d,)}
            flat |= layers | {f"{own}block.{leaf}": (depth, *shape) for leaf, shape in block.items()}
            before = d
        flat |= {"norm.scale": (before,), "norm.bias": (before,)}
        flat |= {"classifier.kernel": (before, self.classes), "classifier.bias": (self.classes,)}
        return unflatten({name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in flat.items()})

    def names(self) -> NameMap:
        """Where a file that `transformers` wrote keeps them."""
        rules = []
        for stage in range(len(self.widths)):
            own, down = f"stage_{stage}.", f"encoder.stages.{stage}.downsampling_layer."
            first = "embeddings.patch_embeddings" if not stage else f"{down}1"
            rules += linear(f"{own}down", first, layout=CONVOLUTION)
            rules += norm(f"{own}norm", "embeddings.layernorm" if not stage else f"{down}0")
            ours, theirs = f"{own}block.", f"encoder.stages.{stage}.layers.{{layer}}."
            rules += linear(f"{ours}depthwise", f"{theirs}dwconv", layout=CONVOLUTION)
            rules += norm(f"{ours}norm", f"{theirs}layernorm")
            rules += [*linear(f"{ours}hidden", f"{theirs}pwconv1"), *linear(f"{ours}out", f"{theirs}pwconv2")]
            for leaf, weight in (("scale", "weight"), ("bias", "bias")):
                rules.append(Rule(f"{ours}response.{leaf}", (Part(f"{theirs}grn.{weight}", leading(3)),)))
        rules += [*norm("norm", "layernorm"), *linear("classifier", "/classifier")]
        return NameMap(tuple(rules), prefixes=("convnextv2.", ""))


CONVNEXTV2_B = ConvNeXt(
    source="facebook/convnextv2-base-22k-224",
    words="ConvNeXt V2-B, fcmae, ImageNet-22k then 1k",
    depths=(3, 3, 27, 3),
    widths=(128, 256, 512, 1024),
)
FD_LOSS_CONVNEXT = dataclasses.replace(CONVNEXTV2_B, fd_loss=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstConvNeXt(ConvNeXt):
    """A kind of extractor: the first ConvNeXt as torchvision publishes it, at 224 by an antialiased bilinear resize.

    Attributes:
      source: the address of the file.
      sha256: its hash.
      name: for `fae weights pull`.
    """

    sha256: str
    name: str
    second: ClassVar[bool] = False

    @functools.cached_property
    def network(self) -> Network:
        """Its weights."""
        release = Release(name=self.name, urls=(self.source,), sha256=self.sha256)
        return Network(name=self.name, releases={"": release}, names=self.names(), shapes=self.shapes())

    def pull(self, file: Path | None = None) -> tuple[Path, int]:
        """See `Network.pull`."""
        return self.network.pull(file)

    def read(self, params: Any, images: Float[Array, "b y x 3"], dtype: Any = jnp.float32) -> dict[str, Array]:
        """The taps of images in [−1, 1]; products in `dtype`."""
        mean, std = (jnp.asarray(IMAGENET[key], jnp.float32) for key in ("mean", "std"))
        pixels = (resize(images, (SIDE, SIDE), "bilinear", antialias=True) + 1) / 2
        return self.taps(params, (pixels - mean) / std, dtype)

    def __call__(self, name: str, weights: str) -> Extractor:
        """See `fae_jax.extractors.load_extractor`."""
        params = self.network.load(weights)

        def apply(params: Any, images: Any) -> dict[str, Array]:
            check_images(name, images)
            return self.read(params, images.astype(jnp.float32) / 127.5 - 1)

        variant = f"{self.words}, at {SIDE}×{SIDE}, bilinear resize, antialiased, in float"
        return Extractor(name=name, variant=variant, weights_hash=hash_tree(params), params=params, apply=apply)

    def names(self) -> NameMap:
        """Where torchvision's file keeps them."""
        rules = []
        for stage in range(len(self.widths)):
            own, place = f"stage_{stage}.", f"features.{2 * stage}."
            rules += linear(f"{own}down", f"{place}{1 if stage else 0}", layout=CONVOLUTION)
            rules += norm(f"{own}norm", f"{place}{0 if stage else 1}")
            ours, theirs = f"{own}block.", f"features.{2 * stage + 1}.{{layer}}."
            rules += linear(f"{ours}depthwise", f"{theirs}block.0", layout=CONVOLUTION)
            rules += norm(f"{ours}norm", f"{theirs}block.2")
            rules += [*linear(f"{ours}hidden", f"{theirs}block.3"), *linear(f"{ours}out", f"{theirs}block.5")]
            rules.append(Rule(f"{ours}factor", (Part(f"{theirs}layer_scale", _FACTOR),)))
        return NameMap((*rules, *norm("norm", "classifier.0"), *linear("classifier", "classifier.2")))


CONVNEXT_S = FirstConvNeXt(
    name="convnext_s",
    source="https://download.pytorch.org/models/convnext_small-0c510722.pth",
    sha256="0c510722adfd92966a2bd72b92f785ca05966bbac03cafe2f7a90b1f54bfab9a",
    words="ConvNeXt-S, ImageNet-1k",
    depths=(3, 3, 27, 3),
    widths=(96, 192, 384, 768),
)
