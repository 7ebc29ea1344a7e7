"""What an experiment computes, in multiply-adds, exactly and before anything is run.

    training step per image = 3 · (what is trained) + 1 · (what is frozen)                (1)

the usual count: a backward pass is two products for each product of the forward pass; what remat computes again is
not counted. FLOPs are twice that. With `peak` of one chip, images/s and n chips

    MFU = images/s · FLOPs per image / (n · peak)                                          (2)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from fae_jax.config import check
from fae_jax.diffusion.guidance import function_evaluations, make_schedule
from fae_jax.diffusion.samplers import make_sampler
from fae_jax.encoders import Encoder
from fae_jax.networks import Networks, build_networks, encoder_outline
from fae_jax.nn.flops import multiply_adds

NETWORKS = ("encoder", "compressor", "feature_decoder", "pixel_decoder", "dit")
# stage → (networks that are trained, networks that only run forward)
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "encoder": (("encoder",), ()),
    "features": (("compressor", "feature_decoder"), ("encoder",)),
    "pixels": (("pixel_decoder",), ("encoder",)),
    "finetune": (("pixel_decoder",), ("encoder", "compressor", "feature_decoder")),
    "cache": ((), ("encoder", "compressor")),
    "generator": (("dit",), ()),
}


def forward_multiply_adds(
    config: Any, names: Collection[str] = NETWORKS, encoder: Encoder | None = None
) -> dict[str, int]:
    """Multiply-adds of one image through each network.

    Args:
      names: those of `NETWORKS` to be counted.
      encoder: the experiment's, where it is made already; otherwise its outline is.

    Raises:
      ValueError, FileNotFoundError: sizes do not fit, or the encoder cannot be told without its weights.
    """
    config = check(config)
    # The same products in every kernel; only this one shows them.
    config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, kernel="xla", scan=True))
    encoder = encoder or encoder_outline(config)
    networks = build_networks(config, encoder.grid, encoder.width)
    image = jax.ShapeDtypeStruct((1, config.data.image_size, config.data.image_size, 3), jnp.float32)

    # The resize in front of the encoder is products of matrices as well: left out, as in everybody's figures.
    pixels = jax.eval_shape(encoder.preprocess, image)
    counts = {}
    if "encoder" in names:
        counts["encoder"] = multiply_adds(lambda params, x: encoder.apply(params, x).patches, encoder.params, pixels)
    for name, inputs in network_inputs(networks, 1).items():
        if name not in names:
            continue
        module = getattr(networks, name)
        params = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        counts[name] = multiply_adds(module.apply, params, *inputs)
    return counts


def network_inputs(networks: Networks, batch: int) -> dict[str, tuple[jax.ShapeDtypeStruct, ...]]:
    """Shapes of what each network is called with."""
    tokens = math.prod(networks.grid)
    features = jax.ShapeDtypeStruct((batch, tokens, networks.width), jnp.float32)
    latents = jax.ShapeDtypeStruct((batch, tokens, networks.compressor.latent_width), jnp.float32)
    time, label = jax.ShapeDtypeStruct((batch,), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    return {
        "compressor": (features,),
        "feature_decoder": (latents,),
        "pixel_decoder": (features,),
        "dit": (latents, time, label),
    }


def image_flops(config: Any, stage: str, encoder: Encoder | None = None) -> int:
    """FLOPs of one image in a stage: of a training step by equation (1), of the cache, or of a guided sample. Where
    features are kept in a folder (`data.features`), no stage that trains on them runs the encoder.

    Args:
      stage: a key of `STAGES`, or `sample`: all evaluations of the configured sampler, then both decoders.
      encoder: see `forward_multiply_adds`.

    Raises:
      ValueError: the stage is unknown, or as in `forward_multiply_adds`.
    """
    if stage != "sample" and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is unknown; choose one of {', '.join((*STAGES, 'sample'))}")
    if stage == "sample":
        counts = forward_multiply_adds(config, ("dit", "feature_decoder", "pixel_decoder"), encoder)
        sampling = config.sampling
        sampler = make_sampler(
            sampling.sampler, steps=sampling.steps, shift=sampling.shift, last_step=sampling.last_step
        )
        evaluations = function_evaluations(sampler.evaluation_times(), make_schedule(sampling.guidance))
        return 2 * (evaluations * counts["dit"] + counts["feature_decoder"] + counts["pixel_decoder"])
    trained, frozen = STAGES[stage]
    if config.data.features and stage != "cache":
        frozen = tuple(name for name in frozen if name != "encoder")
    counts = forward_multiply_adds(config, trained + frozen, encoder)
    return 2 * (3 * sum(counts[name] for name in trained) + sum(counts[name] for name in frozen))


def step_flops(config: Any, stage: str, encoder: Encoder | None = None) -> int:
    """FLOPs of one optimizer step of a stage over its whole batch, all devices together."""
    section = getattr(config, "encoder_training" if stage == "encoder" else stage)
    return section.batch * image_flops(config, stage, encoder)
