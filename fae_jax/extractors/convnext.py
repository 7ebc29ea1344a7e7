"""ConvNeXt V2 (arXiv 2301.00808): four stages of blocks over a grid that is halved between them.

    y = Dense(GRN(GELU(Dense(LayerNorm(depthwise 7×7(x))))));    x ← x + y                         (1)
    GRN(x) = x + γ x n + β,   n_c = g_c / (mean_c g + ε),   g_c = ‖x_c‖₂ over the grid             (2)

Before the first stage a 4×4 convolution of stride 4 and a LayerNorm, before each other one a LayerNorm and a 2×2
convolution of stride 2. Taps: `mean`, the last stage averaged over the grid; `pooled`, its LayerNorm, which the
classifier reads; `logits`. FD-loss, of which FDr6 is made, reads `mean`. ε is 10⁻⁶ throughout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import IMAGENET, Published
from fae_jax.extractors import Extractor, check_images
from fae_jax.nn.resample import resize
from fae_jax.weights import mapping, unflatten
from fae_jax.weights.mapping import CONVOLUTION, NameMap, Part, Rule, leading, linear, norm

EPSILON = 1e-6
SIDE = 224


def _norm(params: Mapping[str, Array], x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * params["scale"] + params["bias"]


def _dense(params: Mapping[str, Array], x: Array) -> Array:
    return jnp.matmul(x, params["kernel"], precision="highest") + params["bias"]


def _convolve(params: Mapping[str, Array], x: Array, stride: int, *, depthwise: bool = False) -> Array:
    out = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        (stride, stride),
        "SAME" if depthwise else "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] if depthwise else 1,
        precision="highest",
    )
    return out + params["bias"]


def _block(x: Array, params: Any) -> tuple[Array, None]:
    """(1)."""
    y = _norm(params["norm"], _convolve(params["depthwise"], x, 1, depthwise=True))
    y = jax.nn.gelu(_dense(params["hidden"], y), approximate=False)
    g = jnp.sqrt((y**2).sum((1, 2), keepdims=True))
    n = g / (g.mean(-1, keepdims=True) + EPSILON)
    y = y + params["response"]["scale"] * y * n + params["response"]["bias"]  # (2)
    return x + _dense(params["out"], y), None


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

    def taps(self, params: Any, x: Float[Array, "b y x 3"]) -> dict[str, Array]:
        """The module's taps of normalised pixels."""
        for stage in range(len(self.widths)):
            own = params[f"stage_{stage}"]
            if stage:
                x = _convolve(own["down"], _norm(own["norm"], x), 2)
            else:
                x = _norm(own["norm"], _convolve(own["down"], x, 4))
            x, _ = jax.lax.scan(_block, x, own["block"])
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
            block |= {"response.scale": (4 * d,), "response.bias": (4 * d,)}
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
