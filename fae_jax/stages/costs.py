"""What an experiment computes, in multiply-adds, exactly and before anything is run.

    training step per image = 3 · (what is trained) + 1 · (what is frozen)                (1)

the usual count: a backward pass is two products for each product of the forward pass; what remat computes again is
not counted. To that the losses of a stage of pixels add what they look through: every term with its backward pass to
the decoded image, which is one product for each where a network is frozen, and a discriminator's own step. A stage
that is not in `STAGES`, such as post_training, is counted as its whole step is traced. FLOPs are twice that. With
`peak` of one chip, images/s and n chips

    MFU = images/s · FLOPs per image / (n · peak)                                          (2)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from fae_jax.conditions import make_condition, reads_text
from fae_jax.config import check
from fae_jax.encoders import Encoder, registry
from fae_jax.encoders.frozen import outline
from fae_jax.generators import Generator, make_generator
from fae_jax.generators.alignment import aligned_parts, make_alignment, reading_networks
from fae_jax.losses.pixel import networks_of, opponents, pixel_terms
from fae_jax.losses.pixel.presets import chosen_losses
from fae_jax.nn.flops import multiply_adds
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages import stage_of
from fae_jax.stages.outline import Shapes, batch_shapes
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.training.loop import abstract_state
from fae_jax.training.step import train_step

# stage → (parts that are trained, parts that only run forward)
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "encoder": (("encoder",), ()),
    "features": (("compressor", "feature_decoder"), ("encoder",)),
    "pixels": (("pixel_decoder",), ("encoder",)),
    "finetune": (("pixel_decoder",), ("encoder", "compressor", "feature_decoder")),
    "cache": ((), ("encode",)),
    "generator": (("generator",), ()),
}


def forward_multiply_adds(config: Any, parts: Collection[str], tokenizer: Any = None) -> dict[str, int]:
    """Multiply-adds of one image through each of `parts`: those of the tokenizer, "generator" (its loss), "text" (one
    caption through its tower), and all that "encode" and "decode" run.

    Args:
      tokenizer: the experiment's, where it is made already; otherwise its outline is.

    Raises:
      ValueError, FileNotFoundError: sizes do not fit, or the encoder cannot be told without its weights.
    """
    config = check(config)
    # The same products in every kernel; only this one shows them.
    compute = dataclasses.replace(config.compute, kernel="xla", scan=True)
    config = dataclasses.replace(config, compute=compute)
    tokenizer = tokenizer or tokenizer_kind(config).outline(config)
    return {name: _cost(config, tokenizer, name) for name in parts}


def _cost(config: Any, tokenizer: Any, name: str) -> int:
    """One part; "encode" and "decode" are the sum of their parts, or the whole call where parts are no modules."""
    whole = {"encode": tokenizer.encodes, "decode": tokenizer.decodes}
    if name not in whole:
        return _part(config, tokenizer, name)
    if all(part == "encoder" or hasattr(tokenizer, part) for part in whole[name]):
        return sum(_part(config, tokenizer, part) for part in whole[name])
    size = config.data.image_size
    images = (1, size, size, 3)
    latents = (1, tokenizer.grid[0] * tokenizer.grid[1], tokenizer.channels)
    given = jax.ShapeDtypeStruct(images if name == "encode" else latents, jnp.float32)
    return multiply_adds(getattr(tokenizer, name), {part: tokenizer.shapes(part) for part in whole[name]}, given)


def _part(config: Any, tokenizer: Any, part: str) -> int:
    tokens = tokenizer.grid[0] * tokenizer.grid[1]
    latents = jax.ShapeDtypeStruct((1, tokens, tokenizer.channels), jnp.float32)
    if part == "generator":
        return _generator(config, tokenizer, latents)
    if part == "text":
        condition = make_condition(config)
        asked = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in condition.reads.items()}
        return multiply_adds(condition.encode, condition.outline.params, asked)
    if part == "encoder":
        return _encoder(config, tokenizer)
    module = getattr(tokenizer, part)
    inputs = latents if part == "feature_decoder" else jax.ShapeDtypeStruct((1, tokens, tokenizer.width), jnp.float32)
    plain = module.clone(**{name: value for name, value in _PLAIN.items() if hasattr(module, name)})
    return multiply_adds(plain.apply, jax.eval_shape(plain.init, jax.random.key(0), inputs), inputs)


_PLAIN = {"kernel": "xla", "scan": True}


def _encoder(config: Any, tokenizer: Any) -> int:
    """Without the resize in front of it, which is products of matrices as well: left out in everybody's figures."""
    known = config.encoder.train or registry.has_outline(config.encoder.name)
    encoder: Encoder = outline(config) if known else tokenizer.encoder
    size = config.data.image_size
    pixels = jax.eval_shape(encoder.preprocess, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    return multiply_adds(lambda params, x: encoder.apply(params, x).patches, encoder.params, pixels)


def _made(config: Any, tokenizer: Any) -> Generator:
    condition = make_condition(config)
    return make_generator(config, grid=tokenizer.grid, channels=tokenizer.channels, condition=condition)


def _generator(config: Any, tokenizer: Any, latents: jax.ShapeDtypeStruct) -> int:
    """One forward pass of what its loss runs."""
    generator, params, keys = _shapes(config, tokenizer)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return multiply_adds(
        lambda params, z, keys, step: generator.loss(params, z, generator.condition.none(1), keys, step)[0],
        params,
        latents,
        keys,
        step,
    )


def _sample(config: Any, tokenizer: Any) -> int:
    """All of one sample, of a generator whose evaluations are not its loss's forward pass."""
    compute = dataclasses.replace(config.compute, kernel="xla", scan=True)
    generator, params, keys = _shapes(dataclasses.replace(config, compute=compute), tokenizer)
    none = generator.condition.none(1)
    return multiply_adds(lambda params, keys: generator.sample(params, keys, none, config.sampling), params, keys)


def _shapes(config: Any, tokenizer: Any) -> tuple[Generator, Any, Any]:
    """The generator, its parameters and one example's key, as shapes."""
    generator = _made(config, tokenizer)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return generator, jax.eval_shape(generator.init, jax.random.key(0)), keys


def losses_multiply_adds(config: Any, stage: str) -> int:
    """Multiply-adds of one image in the losses of stage "pixels" or "finetune", without the decoder's own: all terms
    and their slopes at the decoded image, and a step of each discriminator."""
    config = check(config)
    compute = dataclasses.replace(config.compute, kernel="xla", scan=True, remat="none")
    terms = pixel_terms(*chosen_losses(getattr(config, stage), config.pixel_losses), compute)
    brought = {name: opponent for name, (opponent, _) in opponents(terms).items()}
    trained = {name: jax.eval_shape(each.init, jax.random.key(0)) for name, each in brought.items()}
    given = {name: network.shapes for name, (network, _) in networks_of(terms).items()}
    given |= trained | {"memory": {name: jax.eval_shape(each.memory) for name, each in brought.items()}}

    def slopes(decoded: Any, images: Any, given: Any, keys: Any) -> Any:
        step = jnp.zeros((), jnp.int32)
        seen = [jax.grad(each.value)(decoded, images, given, keys, step) for each in terms]
        steps = [
            jax.grad(lambda params, each=each: each.loss(params, decoded, images, given, keys)[0])(given[name])
            for name, each in brought.items()
        ]
        return seen, steps

    image = jax.ShapeDtypeStruct((1, config.data.image_size, config.data.image_size, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return multiply_adds(slopes, image, image, given, keys)


def _alignment(config: Any, tokenizer: Any) -> int:
    """Multiply-adds of one image where tokens are aligned: the projector's step, and what it is compared with."""
    compute = dataclasses.replace(config.compute, kernel="xla", scan=True)
    config = dataclasses.replace(config, compute=compute)
    tokenizer = tokenizer or tokenizer_kind(config).outline(config)
    alignment = make_alignment(config, _made(config, tokenizer), tokenizer)
    if alignment is None:
        return 0
    frozen = {part: tokenizer.shapes(part) for part in aligned_parts(config, tokenizer)}
    frozen |= {name: network.shapes for name, (network, _) in reading_networks(config).items()}
    latents = jax.ShapeDtypeStruct((1, tokenizer.grid[0] * tokenizer.grid[1], tokenizer.channels), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, alignment.grid[0] * alignment.grid[1], alignment.width), jnp.float32)
    projector = jax.eval_shape(alignment.init, jax.random.key(0))
    projected = multiply_adds(lambda params, x: alignment.projector.apply({"params": params}, x), projector, tokens)
    return 3 * projected + multiply_adds(alignment.target, frozen, latents)


def _as_traced(config: Any, stage: str, tokenizer: Any) -> int:
    """Multiply-adds of one image in a whole step as it is traced: backward passes and the optimizer's products."""
    compute = dataclasses.replace(config.compute, kernel="xla", scan=True, remat="none")
    mesh = make_mesh(devices=jax.devices()[:1])
    shapes = Shapes(dataclasses.replace(config, compute=compute), mesh, tokenizer=tokenizer)
    kind = stage_of(stage)
    if kind.players is None:
        raise ValueError(f"stage {stage!r} trains nothing")
    players = kind.players(shapes)
    step = functools.partial(train_step, players, 1, 0)
    batch = batch_shapes(shapes, kind)
    whole = multiply_adds(step, abstract_state(players, shapes.mesh), kind.frozen_params(shapes), batch)
    return whole // kind.section(config).batch


def image_flops(config: Any, stage: str, tokenizer: Any = None) -> int:
    """FLOPs of one image in a stage: of a training step by equation (1), of the cache, or of a guided sample. Where
    features are kept in a folder (`data.features`), no stage that trains on them runs the encoder.

    Args:
      stage: one that trains, `cache`, or `sample`: all evaluations of the configured sampler, then the decoders.
      tokenizer: see `forward_multiply_adds`.

    Raises:
      ValueError: the stage is unknown, or as in `forward_multiply_adds`.
    """
    config = check(config)
    if stage == "sample":
        tokenizer = tokenizer or tokenizer_kind(config).outline(config)
        generator, text = _made(config, tokenizer), ("text",) if reads_text(config) else ()
        if not hasattr(generator, "velocity"):
            counts = forward_multiply_adds(config, ("decode", *text), tokenizer)
            return 2 * (_sample(config, tokenizer) + counts["decode"] + counts.get("text", 0))
        counts = forward_multiply_adds(config, ("generator", "decode", *text), tokenizer)
        evaluations = generator.evaluations(config.sampling)
        if evaluations is None:
            raise ValueError(
                f"field sampling.sampler={config.sampling.sampler} chooses its steps on the way, and what it costs "
                "is not known beforehand: set another one"
            )
        return 2 * (evaluations * counts["generator"] + counts["decode"] + counts.get("text", 0))
    if stage not in STAGES:
        return 2 * _as_traced(config, stage, tokenizer)
    trained, frozen = STAGES[stage]
    if config.data.features and stage != "cache":
        frozen = tuple(name for name in frozen if name != "encoder")
    if stage == "generator" and reads_text(config):
        frozen = ("text",)
    counts = forward_multiply_adds(config, trained + frozen, tokenizer)
    losses = losses_multiply_adds(config, stage) if stage in ("pixels", "finetune") else 0
    losses += _alignment(config, tokenizer) if stage == "generator" else 0
    return 2 * (3 * sum(counts[name] for name in trained) + sum(counts[name] for name in frozen) + losses)


def step_flops(config: Any, stage: str, tokenizer: Any = None) -> int:
    """FLOPs of one optimizer step of a stage over its whole batch, all devices together."""
    config = check(config)
    section = getattr(config, "encoder_training" if stage == "encoder" else stage)
    return section.batch * image_flops(config, stage, tokenizer)
