"""One vector per image: what a probe keeps of a split, so that no patch token outlives its batch.

    x, x̂     mean over patches                                   (d,)
    z        mean over tokens, or all of them one after another  (c,) or (n c,)
    class    class tokens of the last blocks, oldest first       (blocks · d,)   where the encoder has one
    pooled   the encoder's own pooling of x, and of x̂            (p,)            where it has one that reads patches

ImageNet's training images take 7.9 GB for each 1536 channels kept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int

from fae_jax.encoders.registry import Encoder
from fae_jax.evaluation.views import View

POOLINGS = ("mean", "flat")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors:
    """The vectors of a split, see the module; parts that the encoder does not have are None.

    Raises:
      ValueError: there are none, or the parts differ in number.
    """

    labels: Int[np.ndarray, " n"]
    x: Float[np.ndarray, "n d"]
    reconstructed: Float[np.ndarray, "n d"]
    z: Float[np.ndarray, "n c"]
    tokens: Float[np.ndarray, "n t"] | None = None
    pooled: Float[np.ndarray, "n p"] | None = None
    pooled_reconstructed: Float[np.ndarray, "n p"] | None = None

    def __post_init__(self) -> None:
        counts = [len(part) for part in vars(self).values() if part is not None]
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(f"a split's vectors and labels must be as many and at least one, got {counts}")


@functools.partial(jax.jit, static_argnames="pooling")
def pool(tokens: Float[Array, "b n d"], pooling: str = "mean") -> Float[Array, "b k"]:
    """Tokens of each image as one vector, float32: their mean, or all of them one after the other.

    Raises:
      ValueError: the pooling has no such name.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r} is unknown; use {' or '.join(POOLINGS)}")
    tokens = jnp.asarray(tokens, jnp.float32)
    return tokens.mean(axis=1) if pooling == "mean" else rearrange(tokens, "b n d -> b (n d)")


def reads_patches(head: Callable[[Float[Array, "b n d"], Float[Array, "b d"] | None], Array], view: View) -> bool:
    """Whether a head's answer depends on the patches at all; CLIP's, for one, reads the class token alone."""
    patches, cls = view.features[:1], None if view.outputs.cls is None else view.outputs.cls[:1]
    return bool(jnp.any(head(patches, cls) != head(-patches, cls)))


def own_pooling(encoder: Encoder) -> Callable[[Array, Array | None], Array] | None:
    """(patches, class token) → the encoder's own pooled vector, compiled; None where it has none.

    The latent carries no class token: x̂ is shown with that of x.
    """
    if encoder.pool is None:
        return None
    compiled = jax.jit(encoder.pool)
    return lambda patches, cls: compiled(encoder.params, patches, cls)


def gather(
    views: Iterable[View], *, count: int, latent_pooling: str, also: Callable[[View], None] = lambda view: None
) -> Vectors:
    """Walks a split once.

    Args:
      views: its batches.
      count: images at most; images that cannot be decoded are left out.
      latent_pooling: of z, one of `POOLINGS`.
      also: shown every batch, while what is known of it is at hand.

    Raises:
      ValueError: no image can be used.
    """
    held: dict[str, np.ndarray] = {}
    done, pooling = 0, None
    for position, view in enumerate(views):
        if position == 0:
            pooling = own_pooling(view.fae.encoder)
            pooling = pooling if pooling and reads_patches(pooling, view) else None
        rows_by_name = {name: view.kept(rows) for name, rows in _describe(view, latent_pooling, pooling).items()}
        rows_by_name["labels"] = view.labels
        for name, rows in rows_by_name.items():
            if name not in held:
                held[name] = np.empty((count, *rows.shape[1:]), rows.dtype)
            held[name][done : done + len(rows)] = rows
        done += len(view.labels)
        also(view)
    if not done:
        raise ValueError("no image of the split can be decoded, so there is nothing to probe")
    return Vectors(**{name: values[:done] for name, values in held.items()})


def _describe(
    view: View, latent_pooling: str, pooling: Callable[[Array, Array | None], Array] | None
) -> dict[str, Array]:
    outputs = view.outputs
    made = {"x": pool(view.features), "reconstructed": pool(view.reconstructed)}
    made["z"] = pool(view.latents, latent_pooling)
    if outputs.cls is not None:
        blocks = [cls for _, cls in outputs.layers if cls is not None] or [outputs.cls]
        made["tokens"] = jnp.concatenate(blocks, axis=1)
    if pooling is not None:
        made["pooled"] = pooling(view.features, outputs.cls)
        made["pooled_reconstructed"] = pooling(view.reconstructed, outputs.cls)
    return made
