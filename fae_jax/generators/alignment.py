"""REPA (arXiv 2410.06940): what a network says of noisy latents inside, aligned with frozen features of clean ones.

With h the tokens after block `depth` of the generator's network on z_t, and y the patch tokens of a frozen encoder,

    P(h) = W₃ silu(W₂ silu(W₁ h + b₁) + b₂) + b₃                                                   (1)
    A = mean cos(P(h), R y),   L ← L − weight · A                                                  (2)

over tokens. R resamples y from the encoder's grid to that of the network's tokens, bilinear with antialiasing; both
cover the whole image. The projector P is trained on (2) beside the generator and is part of nothing else: it is a
player of its own, with the generator's optimizer, clipped by itself and without averages.

No image is stored beside latents. y is made of the clean latent z in each step, by frozen networks:

    own       y = x̂, what the feature decoder gives back of z, in the encoder's own space          (3)
    a name    y = E(D(z)), with D the decoder of images and E that encoder of the registry         (4)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Key

from fae_jax.encoders import Encoder
from fae_jax.encoders.frozen import EncoderSection, open_encoder, outline
from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import ENCODERS
from fae_jax.losses.vae import cosine
from fae_jax.nn.dense import Dense
from fae_jax.nn.params import init_params
from fae_jax.nn.resample import resize
from fae_jax.section import at_least, option

OWN = "own"
READER = "alignment encoder"  # the named encoder, among what a step reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepaSection:
    """REPA: tokens of the generator's network, aligned with frozen features."""

    weight: float = option(0.0, "weight of the alignment (REPA: 0.5); 0 = none", at_least(0))
    depth: int = option(8, "block after which tokens are aligned, 1 the first", at_least(1))
    encoder: str = option(
        OWN, "whose features: own (given back by the feature decoder), or an encoder's by name, of the decoded image"
    )
    weights: str = option("", "file, folder or hub name of a named encoder; empty = its own default", path=True)
    hidden: int = option(2048, "inner width of the projector", at_least(1))


class Projector(nn.Module):
    """Equation (1): (b, m, d) → (b, m, width) float32."""

    hidden: int
    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b m d"]) -> Float[Array, "b m w"]:
        for name, width in (("first", self.hidden), ("second", self.hidden), ("third", self.width)):
            linear = Dense(width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)
            tokens = linear(tokens if name == "first" else nn.silu(tokens))
        return tokens.astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """Equation (2) for one generator.

    Attributes:
      projector: P.
      depth, weight: see `RepaSection`.
      width: channels of h.
      grid, source: rows and columns of h and of y.
      features: (frozen parameters, latents as the tokenizer made them) → y, (b, n, e).
    """

    projector: Projector
    depth: int
    weight: float
    width: int
    grid: tuple[int, int]
    source: tuple[int, int]
    features: Callable[[Mapping[str, Any], Array], Array]

    def init(self, key: Key[Array, ""]) -> Any:
        """Fresh parameters of the projector."""
        return init_params(self.projector, key, jnp.zeros((1, self.grid[0] * self.grid[1], self.width)))

    def target(self, frozen: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b m e"]:
        """R y of latents as the tokenizer made them, float32; no gradient goes through it."""
        tokens = jax.lax.stop_gradient(self.features(frozen, latents)).astype(jnp.float32)
        if self.source == self.grid:
            return tokens
        image = rearrange(tokens, "b (y x) e -> b y x e", x=self.source[1])
        return rearrange(resize(image, self.grid, "bilinear"), "b y x e -> b (y x) e")

    def loss(self, params: Any, tokens: Float[Array, "b m d"], target: Float[Array, "b m e"]) -> Float[Array, ""]:
        """−A of equation (2), in [−1, 1], by the projector's parameters."""
        return -cosine(self.projector.apply({"params": params}, tokens), target)


def make_alignment(config: Any, generator: Any, tokenizer: Any) -> Alignment | None:
    """What `generator.repa` asks for; None where its weight is 0.

    Raises:
      ValueError: the generator's network has no such block, the tokenizer no features, or the encoder is unknown.
      FileNotFoundError, OSError: an encoder that cannot be told without its weights has none there.
    """
    section, field = config.generator.repa, "field generator.repa"
    if not section.weight:
        return None
    network: Any = getattr(generator, "network", None)
    if not hasattr(network, "tokens") or "tokens_after" not in inspect.signature(generator.loss).parameters:
        of = f"generator.kind={config.generator.kind}" if network is None else f"the network {type(network).__name__}"
        raise ValueError(
            f"{field}.weight={section.weight:g} aligns tokens between the blocks of a network, and {of} shows none: "
            "set it to 0"
        )
    if section.depth > network.depth:
        raise ValueError(f"{field}.depth={section.depth} is beyond the last block, depth={network.depth}")
    if section.encoder == OWN:
        if not hasattr(tokenizer, "reconstruct_features"):
            raise ValueError(
                f"{field}.encoder={OWN} aligns with features that the tokenizer gives back, and tokenizer.kind="
                f"{config.tokenizer.kind} has none: name an encoder, such as dinov2_b14"
            )
        source, width, features = tokenizer.grid, tokenizer.width, tokenizer.reconstruct_features
    else:
        encoder = _outlined(config)
        source, width = encoder.grid, encoder.width

        def features(frozen: Mapping[str, Any], latents: Array) -> Array:
            return encoder.features(frozen[READER], tokenizer.decode(frozen, latents))

    return Alignment(
        projector=Projector(section.hidden, width, dtype=jnp.dtype(config.compute.dtype)),
        depth=section.depth,
        weight=section.weight,
        width=network.width,
        grid=network.tokens,
        source=(source[0], source[1]),
        features=features,
    )


# What is read for it


def aligned_parts(config: Any, tokenizer: Any) -> tuple[str, ...]:
    """Parts of the tokenizer, or of its kind, that make what tokens are aligned with; () where nothing is aligned."""
    section = config.generator.repa
    if not section.weight:
        return ()
    return getattr(tokenizer, "reconstructs", ()) if section.encoder == OWN else tokenizer.decodes


def _with_encoder(config: Any) -> Any:
    """The configuration with the encoder of `generator.repa` in the place of its own."""
    section = config.generator.repa
    return dataclasses.replace(config, encoder=EncoderSection(name=section.encoder, weights=section.weights))


def _outlined(config: Any) -> Encoder:
    """The encoder that `generator.repa` names, with shapes in the place of its weights.

    Raises:
      ValueError, FileNotFoundError, OSError: see `make_alignment`.
    """
    try:
        return outline(_with_encoder(config))
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"field generator.repa.encoder={config.generator.repa.encoder}: {error}") from error


def check_encoder(config: Any) -> None:
    """Looks for a named encoder's files, without reading its weights.

    Raises:
      ValueError, FileNotFoundError, OSError: it is unknown, or they are not there.
    """
    section = config.generator.repa
    if section.weight and section.encoder != OWN:
        _ = _outlined(config)
        if section.encoder in ENCODERS:
            find_files(section.weights or None, ENCODERS[section.encoder])


def reading_networks(config: Any) -> dict[str, tuple[Any, str]]:
    """The encoder that reads decoded images, where one is named, as `fae_jax.stages.stage.Stage.networks`."""
    section = config.generator.repa
    named = section.weight and section.encoder != OWN
    return {READER: (_NamedEncoder(config), section.weights)} if named else {}


@dataclasses.dataclass(frozen=True)
class _NamedEncoder:
    """The weights of the encoder that `generator.repa` names, as `fae_jax.parts.Parts.network` asks for them."""

    config: Any

    @property
    def shapes(self) -> Any:
        return _outlined(self.config).params

    def load(self, weights: str) -> Any:
        """See `fae_jax.encoders.create`; `weights` are those of the configuration."""
        return open_encoder(_with_encoder(self.config)).params
