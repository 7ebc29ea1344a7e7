"""Stage Ia: the VAE on features. Trained: compressor and feature decoder. Frozen: the encoder.

image → encoder (x) → compressor (μ, log σ²) → sample (z) → feature decoder (x̂) → VAE loss

Options, all off by default: noise on what the compressor sees (x + σ ε), a noise level per image on the latent
(z + u τ ε with one u ~ N(0, 1) an image; our reading of GAE's dynamic noise, arXiv 2603.10365), and the shaping
losses of `fae_jax.losses.shaping`.

With `data.features` the first arrow is gone: x comes from the feature store.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.data.pixels import side_by_side, to_pixels, to_uint8
from fae_jax.losses.shaping import SemanticHead, continuity_loss, semantics_loss, structure_loss
from fae_jax.losses.vae import cosine, feature_error, inactive_channels, kl_divergence, reduced
from fae_jax.nn.params import init_params
from fae_jax.parallel.hosts import fetch
from fae_jax.parallel.xla_flags import jit_once
from fae_jax.parts import Parts
from fae_jax.section import at_least, like, one_of, option
from fae_jax.stages.stage import Stage
from fae_jax.stages.training import train_stage
from fae_jax.tokenizers.fae import FAETokenizer
from fae_jax.tokenizers.feature_space import feature_colours
from fae_jax.training.optimizer import TrainingSection, make_optimizer
from fae_jax.training.state import Player, TrainState
from fae_jax.training.task import Preview

BETA = 5e-4  # goes with reduction=mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturesSection(TrainingSection):
    """Stage Ia."""

    steps: int = like(TrainingSection, "steps", 1_000_000)
    batch: int = like(TrainingSection, "batch", 1024)
    reduction: str = option(
        "mean",
        "mean: per element, in units of the features' variance; sum: over an image's, as printed (losses/vae.py)",
        one_of("mean", "sum"),
    )
    beta: float = option(BETA, "weight of the KL divergence, for posteriors that have one", at_least(0))
    feature_noise: float = option(0.0, "standard deviation of noise on the features the compressor sees", at_least(0))
    latent_noise: float = option(
        0.0, "spread of a noise level drawn for each image and added to its latent (GAE)", at_least(0)
    )
    structure_weight: float = option(
        0.0, "weight of the Gram matrices' difference (PAE; losses/shaping.py, equation 1)", at_least(0)
    )
    continuity_weight: float = option(
        0.0, "weight of the change under growing perturbations (PAE, equation 2)", at_least(0)
    )
    continuity_reach: float = option(0.3, "standard deviation of the largest perturbation", at_least(0))
    continuity_levels: int = option(3, "perturbations; each is one more pass of the feature decoder", at_least(1))
    semantics_weight: float = option(
        0.0, "weight of what a linear layer cannot read off the latent (PAE, equation 3)", at_least(0)
    )

    def check(self) -> None:
        super().check()
        if self.reduction == "sum" and self.beta == BETA:
            raise ValueError(
                f"reduction='sum' makes the default beta={self.beta} many times weaker than in a mean: set beta, "
                "multiplied by (channels of the features) · (their variance) / (channels of the latent)"
            )


BARS = 24  # rows of pixels in a preview's bars


def noisy(values: Array, keys: Array, spread: float | Array) -> Array:
    """Normal noise of that standard deviation on (b, n, c), with one key per image; a spread of 0 adds nothing."""
    if isinstance(spread, float) and spread == 0:
        return values
    return values + spread * jax.vmap(lambda key: jax.random.normal(key, values.shape[1:]))(keys)


def noise_levels(keys: Array, spread: float) -> Array | float:
    """A level for each image, spread · N(0, 1), (b, 1, 1): the decoder sees latents of all levels at once."""
    return spread * jax.vmap(jax.random.normal)(keys)[:, None, None] if spread else 0.0


def features_loss(
    tokenizer: FAETokenizer,
    section: Any,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, dict[str, Array]]:
    """The loss of a batch, and what is watched; each further term only where its weight is not 0."""
    raw, space = tokenizer.raw_features(frozen, batch), tokenizer.space
    features = space.enter(raw)

    def own(purpose: int) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)

    def decode(latents: Array) -> Array:
        return tokenizer.feature_decoder.apply({"params": params["feature_decoder"]}, latents)

    seen = noisy(features, own(1), section.feature_noise)
    posterior = tokenizer.compressor.apply({"params": params["compressor"]}, seen)
    latents = noisy(posterior.sample(keys), own(2), noise_levels(own(3), section.latent_noise))
    decoded = decode(latents)
    error = feature_error(decoded, features, space.variance)
    spread = jnp.mean(jnp.exp(0.5 * posterior.log_variance), axis=(0, 1))
    metrics = {
        "feature_error": error,
        "explained_variance": 1 - error,
        "feature_cosine": cosine(space.leave(decoded), raw),
        "posterior_std": jnp.mean(spread),
        "posterior_std_min": jnp.min(spread),
        "posterior_std_max": jnp.max(spread),
        "inactive_channels": inactive_channels(posterior.mean),
    }
    kl = jnp.zeros(())
    if tokenizer.has_divergence:
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        metrics["kl_per_token"] = kl * posterior.mean.shape[-1]
    sizes = (features.shape[1], features.shape[2], posterior.mean.shape[2])
    total = reduced(error, kl, beta=section.beta, reduction=section.reduction, sizes=sizes, variance=space.variance)
    shaping: dict[str, Callable[[], Array]] = {
        "structure": lambda: structure_loss(posterior.mean, features),
        "continuity": lambda: continuity_loss(
            decode,
            latents,
            noisy(jnp.zeros_like(latents), own(4), 1.0),
            reach=section.continuity_reach,
            levels=section.continuity_levels,
            variance=space.variance,
        ),
        "semantics": lambda: semantics_loss(
            SemanticHead(tokenizer.width).apply({"params": params["semantic_head"]}, posterior.mean), features
        ),
    }
    for name, term in shaping.items():
        weight = getattr(section, f"{name}_weight")
        if weight:
            metrics[name] = term()
            total += weight * metrics[name]
    return total, metrics


def channel_bars(values: np.ndarray, width: int, rows: int = BARS) -> np.ndarray:
    """A bar for each channel's value, 1 or the largest at full height: uint8 (rows, width, 3)."""
    heights = np.asarray(values, np.float64) / max(1.0, float(np.max(values)))
    column = np.minimum(np.arange(width) * len(heights) // width, len(heights) - 1)
    filled = (rows - np.arange(rows))[:, None] <= np.round(rows * heights[column])[None]
    return np.where(filled[..., None], np.array([240, 180, 60], np.uint8), np.array([24, 24, 32], np.uint8))


def init_autoencoder(tokenizer: FAETokenizer, section: Any, key: Array) -> dict[str, Any]:
    """Fresh parameters {"compressor", "feature_decoder"}, and {"semantic_head"} where semantics are asked for."""
    keys = jax.random.split(key)
    params = {
        "compressor": tokenizer.init("compressor", keys[0]),
        "feature_decoder": tokenizer.init("feature_decoder", keys[1]),
    }
    if section.semantics_weight:
        latents = jnp.zeros((1, tokenizer.grid[0] * tokenizer.grid[1], tokenizer.channels))
        params["semantic_head"] = init_params(SemanticHead(tokenizer.width), jax.random.fold_in(key, 2), latents)
    return params


def players(parts: Parts) -> dict[str, Player]:
    """The autoencoder; none where nothing is compressed, and the stage only takes the features' statistics."""
    tokenizer, section = parts.tokenizer, parts.config.features
    if not tokenizer.has_autoencoder:
        return {}
    init = functools.partial(init_autoencoder, tokenizer, section)
    loss = functools.partial(features_loss, tokenizer, section)
    return {"autoencoder": Player(init=init, loss=loss, optimizer=make_optimizer(section))}


def preview(parts: Parts, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Preview:
    """Images, x and x̂ in the same colours, and how certain each latent channel is."""
    tokenizer, images = parts.tokenizer, to_pixels(batch["image"])

    @jit_once
    def draw(params: Any, frozen: Any) -> tuple[Array, Array, Array]:
        raw = tokenizer.raw_features(frozen, batch)
        posterior = tokenizer.compress(params, raw)
        return (
            raw,
            tokenizer.reconstruct_features(params, posterior.mean),
            jnp.exp(0.5 * posterior.log_variance).mean((0, 1)),
        )

    def paint(state: TrainState) -> tuple[np.ndarray, str]:
        before, after, spread = fetch(draw(state.players["autoencoder"].params, frozen))
        cells = (images.shape[1] // tokenizer.grid[0], images.shape[2] // tokenizer.grid[1])
        maps = [
            colours.repeat(cells[0], 1).repeat(cells[1], 2)
            for colours in feature_colours(before, after, tokenizer.grid)
        ]
        sheet = side_by_side([to_uint8(images), *maps])
        bars = channel_bars(spread, sheet.shape[1])
        what = "held-out images; their features x; features after the latent x̂ (same colours)"
        return np.concatenate([sheet, bars]), f"{what}; bars: standard deviation of each latent channel's posterior"

    return paint


STAGE = Stage(
    name="features",
    run=train_stage,
    needs=("encoder",),
    players=players,
    frozen=("encoder",),
    reads="features",
    preview=preview,
)
