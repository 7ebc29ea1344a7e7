"""One vision transformer, which is each published family by its configuration.

    h₀ = [CLS, registers, W patches(x) + b] + positions
    h_l = h_{l−1} + γ₁ Attention(Norm(h_{l−1}));  h_l ← h_l + γ₂ FeedForward(Norm(h_l)),   l = 1 … depth     (1)
    [cls, registers, patches] = Norm(h_depth)                                                               (2)

| family | CLS | positions | block | after (2) |
|---|---|---|---|---|
| DINOv2 | yes, 0 or 4 registers | table, bicubic | LayerScale, GELU; SwiGLU in g | linear on CLS and mean patch |
| DINOv3 | yes, 4 registers | rotary | LayerScale, GELU or SwiGLU | – |
| SigLIP, SigLIP2 | no | table | tanh GELU | attention pooling |
| CLIP | yes | table | quick or exact GELU, norm before block 1 | norm of CLS alone, linear |
| MAE | yes | fixed sine-cosine table, kept as weights | GELU | – |

Parameters of the blocks are stacked along depth (`fae_jax.nn.blocks.stack`). The residual stream is float32.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from fae_jax.encoders.registry import EncoderOutput
from fae_jax.nn.attention import attention
from fae_jax.nn.blocks import FEED_FORWARDS, Block, FeedForward, stack
from fae_jax.nn.dense import Dense, precision
from fae_jax.nn.embeddings import patchify, rotary_table
from fae_jax.nn.norms import make_norm
from fae_jax.nn.resample import resize_table

INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "bicubic": {"kind": "bicubic"},
    "bicubic_antialias": {"kind": "bicubic", "antialias": True},
    "bicubic_offset": {"kind": "bicubic", "offset": 0.1},
    "bilinear": {"kind": "bilinear"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Every switch the families need.

    Attributes:
      patch: side of a patch in pixels.
      width, depth, heads, hidden: shape of the transformer; `hidden` is the feed-forward's inner width.
      channels: channels of an image.
      feed_forward: one of `fae_jax.nn.blocks.FEED_FORWARDS`.
      norm_epsilon: ε of every LayerNorm.
      layer_scale: initial value of LayerScale; None for none.
      patch_bias, qkv_bias, out_bias, feed_forward_bias: whether those linears carry a bias.
      cls_token: whether there is a class token; registers: number of register tokens behind it.
      table_grid: rows and columns of the learned position table; None for no table.
      table_cls: whether the table has a row for the class token.
      interpolation: how the table becomes another grid's, one of `INTERPOLATIONS`.
      rotary_theta: base of DINOv3's rotary positions; None for none.
      pre_norm: a norm between the embedding and the first block (CLIP).
      final_norm: `tokens` (equation 2) or `cls`: the class token alone; patches stay as the last block left them.
      pooling: `none`, `cls`, `mean` (of the patches), or `attention` (one learned query over the patches).
      projection: width of a bias-free linear on the pooled vector; 0 for none.
      classes: outputs of the linear classifier; 0 for none.
      classifier: what the classifier reads: `cls`, `mean`, or `cls_mean` (one after the other).
    """

    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    channels: int = 3
    feed_forward: str = "gelu"
    norm_epsilon: float = 1e-6
    layer_scale: float | None = None
    patch_bias: bool = True
    qkv_bias: bool = True
    out_bias: bool = True
    feed_forward_bias: bool = True
    cls_token: bool = True
    registers: int = 0
    table_grid: tuple[int, int] | None = None
    table_cls: bool = True
    interpolation: str = "bicubic"
    rotary_theta: float | None = None
    pre_norm: bool = False
    final_norm: str = "tokens"
    pooling: str = "none"
    projection: int = 0
    classes: int = 0
    classifier: str = "cls"

    def __post_init__(self) -> None:
        allowed = {
            "feed_forward": FEED_FORWARDS,
            "interpolation": tuple(INTERPOLATIONS),
            "final_norm": ("tokens", "cls"),
            "pooling": ("none", "cls", "mean", "attention"),
            "classifier": ("cls", "mean", "cls_mean"),
        }
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise ValueError(
                    f"ViT {field} {getattr(self, field)!r} is unknown; choose one of {', '.join(values)}"
                )
        if self.width % self.heads:
            raise ValueError(f"ViT width {self.width} is not a multiple of its {self.heads} heads")
        if not self.cls_token and (self.pooling == "cls" or self.final_norm == "cls"):
            raise ValueError(
                "a ViT without a class token cannot pool or normalise it; use pooling 'mean' or 'attention'"
            )
        if not self.cls_token and self.classes and self.classifier != "mean":
            raise ValueError(f"a ViT without a class token cannot classify from {self.classifier!r}; use 'mean'")

    @property
    def prefix(self) -> int:
        """Number of tokens in front of the patches."""
        return int(self.cls_token) + self.registers

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image.

        Raises:
          ValueError: a side is not a multiple of the patch.
        """
        if height % self.patch or width % self.patch or not height or not width:
            raise ValueError(
                f"an image of {height}×{width} pixels cannot be cut into patches of {self.patch}×{self.patch}; "
                f"resize it to multiples of {self.patch}"
            )
        return height // self.patch, width // self.patch

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ViTConfig:
        """Inverse of `dataclasses.asdict`, over JSON.

        Raises:
          ValueError: a field is unknown or missing.
        """
        grid = fields.get("table_grid")
        try:
            return cls(**{**fields, "table_grid": None if grid is None else tuple(grid)})
        except TypeError as error:
            raise ValueError(f"this is not the configuration of a ViT: {error}") from None


class AttentionPool(nn.Module):
    """SigLIP's head: one learned query attends to the patches, then x + MLP(Norm(x)): (b, n, d) → (b, d)."""

    heads: int
    hidden: int
    feed_forward: str
    norm_epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, patches: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        width = patches.shape[-1]
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, width))
        kernel = self.param("joint_kernel", init, (width, 3 * width)).astype(self.dtype)
        bias = self.param("joint_bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)
        times = functools.partial(jnp.matmul, precision=precision(self.dtype))
        query = times(probe.astype(self.dtype), kernel[:, :width]) + bias[:width]
        joint = times(patches.astype(self.dtype), kernel[:, width:]) + bias[width:]
        query = rearrange(jnp.broadcast_to(query, (patches.shape[0], 1, width)), "b n (h e) -> b n h e", h=self.heads)
        key, value = rearrange(joint, "b n (two h e) -> two b n h e", two=2, h=self.heads)
        mixed = rearrange(attention(query, key, value, kernel="xla"), "b n h e -> b n (h e)")
        x = Dense(width, dtype=self.dtype, kernel_init=init, name="out")(mixed).astype(jnp.float32)
        normed = make_norm("layer", epsilon=self.norm_epsilon, name="norm")(x).astype(self.dtype)
        feed = FeedForward(self.feed_forward, self.hidden, dtype=self.dtype, name="feed_forward")
        return (x + feed(normed).astype(jnp.float32))[:, 0]


class Trunk(nn.Module):
    """Equations (1) and (2): pixels → all tokens after the last block and, where asked for, after every block."""

    config: ViTConfig
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "b height width c"], keep: bool = False
    ) -> tuple[Float[Array, "b n d"], Float[Array, "depth b n d"] | None]:
        config = self.config
        grid = config.grid(*pixels.shape[1:3])
        x = self._embed(pixels, grid)
        rotary = None
        if config.rotary_theta is not None:
            head_width = config.width // config.heads
            rotary = rotary_table(head_width, grid, theta=config.rotary_theta, prefix=config.prefix, unit=True)
        block = functools.partial(
            Block,
            config.heads,
            config.width // config.heads,
            config.hidden,
            norm="layer",
            norm_epsilon=config.norm_epsilon,
            feed_forward=config.feed_forward,
            qkv_bias=config.qkv_bias,
            out_bias=config.out_bias,
            feed_forward_bias=config.feed_forward_bias,
            layer_scale=config.layer_scale,
            dtype=self.dtype,
            kernel=self.kernel,
        )
        return stack(block, config.depth, x, rotary, scan=self.scan, remat=self.remat, keep=keep)

    def _embed(self, pixels: Array, grid: tuple[int, int]) -> Array:
        config, small = self.config, nn.initializers.truncated_normal(0.02)
        init = nn.initializers.xavier_uniform()
        embed = Dense(
            config.width, use_bias=config.patch_bias, dtype=self.dtype, kernel_init=init, name="patch_embed"
        )
        x = embed(patchify(pixels, config.patch)).astype(jnp.float32)
        front = []
        if config.cls_token:
            front.append(self.param("cls_token", small, (1, config.width)))
        if config.table_grid is not None:
            with_cls = config.cls_token and config.table_cls
            rows = config.table_grid[0] * config.table_grid[1] + with_cls
            table = self.param("position_table", small, (rows, config.width))
            if with_cls:
                front[0] = front[0] + table[:1]
            way = INTERPOLATIONS[config.interpolation]
            x = x + resize_table(table[int(with_cls) :], config.table_grid, grid, **way)
        if config.registers:
            front.append(self.param("registers", small, (config.registers, config.width)))
        if front:
            tokens = jnp.concatenate([token.astype(jnp.float32) for token in front])
            x = jnp.concatenate([jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape)), x], axis=1)
        if config.pre_norm:
            x = make_norm("layer", epsilon=config.norm_epsilon, name="pre_norm")(x)
        return x


class ViT(nn.Module):
    """A vision transformer: pixels (b, y, x, c), as its preprocessing leaves them → `EncoderOutput`, float32.

    `pool` and `classify` are its own heads on given features: `module.apply(…, patches, cls, method="pool")`.

    Attributes:
      config: see `ViTConfig`.
      dtype: dtype of the matrix products.
      kernel, scan, remat: see `fae_jax.nn`.
    """

    config: ViTConfig
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    def setup(self) -> None:
        config = self.config
        init = nn.initializers.xavier_uniform()
        self.trunk = Trunk(config, self.dtype, self.kernel, self.scan, self.remat)
        self.last_norm = make_norm("layer", epsilon=config.norm_epsilon)
        if config.pooling == "attention":
            self.attention_pool = AttentionPool(
                config.heads, config.hidden, config.feed_forward, config.norm_epsilon, self.dtype
            )
        if config.projection:
            self.projection_head = Dense(config.projection, use_bias=False, kernel_init=init)
        if config.classes:
            self.classifier_head = Dense(config.classes, kernel_init=init)

    def __call__(self, pixels: Float[Array, "b height width c"], layers: tuple[int, ...] = ()) -> EncoderOutput:
        """All outputs; `layers` counts blocks from 0 (or from the end, −1), each goes through the last norm.

        Raises:
          ValueError: a side of the images is not a multiple of the patch, or a layer does not exist.
        """
        depth = self.config.depth
        if any(not -depth <= layer < depth for layer in layers):
            raise ValueError(f"encoder layers {layers} do not all exist; this ViT has {depth} blocks")
        last, kept = self.trunk(pixels, keep=bool(layers))
        patches, cls = self._split(last)
        pooled = self.pool(patches, cls)
        if self.is_initializing() and self.config.classes:
            self.classify(patches, cls)
        return EncoderOutput(patches, cls, pooled, tuple(self._split(kept[layer]) for layer in layers))

    def _split(self, tokens: Array) -> tuple[Array, Array | None]:
        config = self.config
        if config.final_norm == "cls":
            return tokens[:, config.prefix :], self.last_norm(tokens[:, 0])
        tokens = self.last_norm(tokens)
        return tokens[:, config.prefix :], tokens[:, 0] if config.cls_token else None

    def pool(self, patches: Float[Array, "b n d"], cls: Float[Array, "b d"] | None) -> Float[Array, "b p"] | None:
        """The vector a text tower's embedding is compared with (not normalised), or None without pooling."""
        if self.config.pooling == "none":
            return None
        if self.config.pooling == "attention":
            pooled = self.attention_pool(patches)
        else:
            pooled = cls if self.config.pooling == "cls" else patches.mean(axis=1)
        return self.projection_head(pooled) if self.config.projection else pooled

    def classify(self, patches: Float[Array, "b n d"], cls: Float[Array, "b d"] | None) -> Float[Array, "b k"]:
        """Logits of the linear classifier."""
        parts = {"cls": cls, "mean": patches.mean(axis=1)}
        read = [part for name in self.config.classifier.split("_") if (part := parts[name]) is not None]
        return self.classifier_head(jnp.concatenate(read, axis=-1))
