"""DINO's ViT-S/8 (arXiv 2104.14294), whose blocks a discriminator looks through.

Images in [−1, 1] are resized to 224×224 (bilinear, not antialiased), and the patch tokens behind chosen blocks are
given as the blocks leave them, without the last norm. RAE's discriminator, whose reading this is, computes the
feed-forward's GELU by its tanh form; DINO was trained with the exact one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.encoders.published import IMAGENET
from fae_jax.encoders.vit import Trunk, ViTConfig
from fae_jax.extractors import Extractor, check_images
from fae_jax.extractors.networks import Network
from fae_jax.nn.resample import resize
from fae_jax.weights import hash_tree
from fae_jax.weights.mapping import NameMap, Part, Rule, convolution, leading, linear, norm
from fae_jax.weights.releases import Release

SIDE = 224
S8 = ViTConfig(
    patch=8,
    width=384,
    depth=12,
    heads=6,
    hidden=1536,
    feed_forward="gelu_tanh",
    table_grid=(SIDE // 8, SIDE // 8),
    interpolation="bilinear",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINO:
    """A kind of extractor; its taps are the class token and the mean patch behind the last block.

    Attributes:
      config: of the ViT.
      side: of what it reads.
    """

    name: str
    source: str
    sha256: str
    config: ViTConfig
    side: int = SIDE

    @functools.cached_property
    def network(self) -> Network:
        """Its weights, by the names of DINO's own file."""
        theirs, ours = "blocks.{layer}.", "blocks.block."
        rules = [
            Rule("cls_token", (Part("cls_token", leading(1)),)),
            Rule("position_table", (Part("pos_embed", leading(1)),)),
            *linear("patch_embed", "patch_embed.proj", layout=convolution(self.config.patch, 3)),
            *linear(f"{ours}attention.qkv", f"{theirs}attn.qkv"),
            *linear(f"{ours}attention.out", f"{theirs}attn.proj"),
            *linear(f"{ours}feed_forward.hidden", f"{theirs}mlp.fc1"),
            *linear(f"{ours}feed_forward.out", f"{theirs}mlp.fc2"),
            *norm(f"{ours}attention_norm", f"{theirs}norm1"),
            *norm(f"{ours}feed_forward_norm", f"{theirs}norm2"),
        ]
        shapes = jax.eval_shape(Trunk(self.config).init, jax.random.key(0), jnp.zeros((1, self.side, self.side, 3)))
        return Network(
            name=self.name,
            releases={"": Release(name=self.name, urls=(self.source,), sha256=self.sha256)},
            names=NameMap(tuple(rules), ignored=r"^(norm|head)\."),
            shapes=shapes["params"],
        )

    def pull(self, file: Path | None = None) -> tuple[Path, int]:
        """See `Network.pull`."""
        return self.network.pull(file)

    def tokens(
        self, params: Any, images: Float[Array, "b y x 3"], blocks: Sequence[int], **compute: Any
    ) -> list[Float[Array, "b n d"]]:
        """All tokens behind each of `blocks`, counted from 0; `compute` are attributes of `Trunk`."""
        mean, std = (jnp.asarray(IMAGENET[key], jnp.float32) for key in ("mean", "std"))
        pixels = (resize(images, (self.side, self.side), "bilinear", antialias=False) + 1) / 2
        _, kept = Trunk(self.config, **compute).apply({"params": params}, (pixels - mean) / std, keep=True)
        return [kept[block] for block in blocks]

    def __call__(self, name: str, weights: str) -> Extractor:
        """See `fae_jax.extractors.load_extractor`."""
        params = self.network.load(weights)

        def apply(params: Any, images: Any) -> dict[str, Array]:
            check_images(name, images)
            (last,) = self.tokens(params, images.astype(jnp.float32) / 127.5 - 1, [-1])
            return {"cls": last[:, 0], "mean": last[:, 1:].mean(1)}

        return Extractor(
            name=name,
            variant=f"DINO ViT-S/8, at {self.side}×{self.side}, bilinear resize, before the last norm",
            weights_hash=hash_tree(params),
            params=params,
            apply=apply,
        )


DINO_S8 = DINO(
    name="dino_s8",
    source="https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth",
    sha256="",
    config=S8,
)
