"""Stage II: the generator. It reads the latent cache and nothing else: neither images nor encoder are opened.

record (μ, log σ²) → sample (z), standardise → generator.loss, with the condition of the batch
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from einops import rearrange
from jaxtyping import Array

from fae_jax.conditions import reads_text, told
from fae_jax.data.pixels import side_by_side, to_uint8
from fae_jax.data.stores.latent_loader import sample_latents
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.generators import GENERATORS, Generator
from fae_jax.generators.alignment import (
    Alignment,
    RepaSection,
    aligned_parts,
    check_encoder,
    make_alignment,
    reading_networks,
)
from fae_jax.generators.networks.dit import DiT
from fae_jax.generators.networks.mmdit import MMDiT
from fae_jax.generators.published import read_published
from fae_jax.generators.sd3 import read_sd3
from fae_jax.model import FAE
from fae_jax.parallel.hosts import on_own_devices
from fae_jax.parts import Parts, generator_of
from fae_jax.section import like, option, plug, subsection
from fae_jax.stages.images import PREVIEWS
from fae_jax.stages.stage import Stage
from fae_jax.stages.training import train_stage
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.training.optimizer import TrainingSection, best_params, make_optimizer
from fae_jax.training.state import Player, Report, TrainState
from fae_jax.training.task import Preview


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorSection(TrainingSection):
    """Stage II."""

    steps: int = like(TrainingSection, "steps", 2_000_000)
    batch: int = like(TrainingSection, "batch", 512)
    schedule: str = like(TrainingSection, "schedule", "constant")
    warmup: int = like(TrainingSection, "warmup", 0)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.9999,))
    init_from: str = option(
        "",
        "what to start from: a SiT or LightningDiT that `fae weights convert` wrote, or the folder of diffusers' "
        "SD3Transformer2DModel; empty = from scratch",
        path=True,
    )
    kind: str = plug("flow_matching", ", ".join(GENERATORS), "generators", GENERATORS)
    repa: RepaSection = subsection(RepaSection)


def generator_loss(
    generator: Generator,
    statistics: LatentStatistics,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
    alignment: Alignment | None = None,
) -> tuple[Array, Any]:
    """The generator's loss on a batch of posteriors: sampled, standardised, a share without their condition; where
    its tokens are aligned, those and what they are aligned with go on to the projector."""
    sample_keys, own_keys, drop_keys = rearrange(
        jax.vmap(lambda key: jax.random.split(key, 3))(keys), "b three -> three b"
    )
    latents = sample_latents(batch, sample_keys, statistics)
    condition = told(generator.condition, frozen, generator.condition.of(batch))
    loss_of: Any = functools.partial(
        generator.loss, params, latents, generator.condition.drop(drop_keys, condition), own_keys, step
    )
    if alignment is None:
        return loss_of()
    loss, metrics, tokens = loss_of(tokens_after=alignment.depth)
    target = alignment.target(frozen, statistics.unstandardise(latents))
    term = alignment.loss(frozen["projector"], tokens, target)
    handed = {"tokens": jax.lax.stop_gradient(tokens), "target": target}
    metrics = {"generative_loss": loss, "alignment_loss": term, **metrics}
    return loss + alignment.weight * term, Report(metrics, handed=handed)


def projector_loss(
    alignment: Alignment,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, dict[str, Array]]:
    """The same term on the tokens of this step, for the projector."""
    return alignment.weight * alignment.loss(params, batch["tokens"], batch["target"]), {}


def players(parts: Parts) -> dict[str, Player]:
    """The generator, and the projector of its tokens where they are aligned."""
    generator, section = generator_of(parts), parts.config.generator
    alignment = make_alignment(parts.config, generator, parts.tokenizer)
    loss = functools.partial(generator_loss, generator, parts.statistics, alignment=alignment)
    made = {"generator": Player(init=generator.init, loss=loss, optimizer=make_optimizer(section))}
    if alignment is not None:
        made["projector"] = Player(
            init=alignment.init,
            loss=functools.partial(projector_loss, alignment),
            optimizer=make_optimizer(dataclasses.replace(section, ema=())),
        )
    return made


def given(parts: Parts) -> dict[str, Any]:
    """The parameters of `generator.init_from`, where one is named.

    Raises:
      ValueError: it is another network, or of other latents or classes; see also `read_published` and `read_sd3`.
      FileNotFoundError: it is not there.
    """
    path = parts.config.generator.init_from
    if not path:
        return {}
    generator: Any = generator_of(parts)
    ours = getattr(generator, "network", None)
    kind = parts.config.generator.kind
    if kind == "flow_matching" and isinstance(ours, MMDiT):
        return {"generator": read_sd3(path, generator)}
    if kind != "flow_matching" or not isinstance(ours, DiT):
        name = type(ours).__name__.lower() if kind == "flow_matching" else kind
        raise ValueError(
            f"field generator.init_from={path} starts a dit or mmdit of flow_matching, and this experiment trains "
            f"{name}: leave it empty"
        )
    theirs = read_published(path, heads=ours.heads)
    network: Any = theirs.generator.network
    switches = [field.name for field in dataclasses.fields(DiT.Section) if field.name != "size"]
    wrong = [f"{name}={getattr(network, name)}" for name in switches if getattr(network, name) != getattr(ours, name)]
    if wrong:
        raise ValueError(
            f"field generator.init_from={path} is another network: in generator.flow_matching.dit set "
            f"{', '.join(wrong)}"
        )
    shapes = [(*each.shape, each.network.classes) for each in (theirs.generator, generator)]
    if shapes[0] != shapes[1]:
        sizes = ", ".join(
            f"{count} {name}" for count, name in zip(shapes[0], ("tokens", "channels", "classes"), strict=True)
        )
        raise ValueError(
            f"field generator.init_from={path} is over {sizes}, and this experiment over "
            f"{', '.join(map(str, shapes[1]))}: it cannot be started from"
        )
    return {"generator": theirs.params}


def preview(parts: Parts, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Preview | None:
    """Samples, the classes in turn or of the first captions, by the configured sampler and guidance, of one noise at
    every step, which several hosts draw each for itself; None where `logging.preview_every` is 0, and where no stage
    has trained what decodes them."""
    parts = parts.here
    fae, section = FAE(parts), parts.config.logging
    if not section.preview_every:
        return None
    try:
        _ = [parts.params(part) for part in fae.tokenizer.decodes]
    except ValueError:
        return None
    settings, classes = fae.settings(), max(len(fae.classes), 1)
    asked: Any = np.linspace(0, classes - 1, PREVIEWS).astype(np.int32)
    caption = "samples of classes in turn, from the same noise at every step"
    if reads_text(parts.config):
        asked = batch["captions"]
        caption = f"samples from the same noise at every step, of: {' · '.join(asked)}"
    condition = fae.generator.condition.request(asked)

    def paint(state: TrainState) -> tuple[np.ndarray, str]:
        # Read anew each time: between previews the memory is the generator's.
        params = {part: parts.params(part) for part in fae.tokenizer.decodes}
        more = {**frozen, "generator": best_params(state, "generator")}
        params |= on_own_devices(more, parts.mesh)
        images = np.concatenate(list(fae.images(condition, settings, params=params)))
        rows = list(rearrange(to_uint8(images), "(r n) y x c -> r n y x c", r=2))
        return side_by_side(rows), caption

    return paint


STAGE = Stage(
    name="generator",
    run=train_stage,
    needs=("cache",),
    players=players,
    frozen=("text",),
    also_frozen=lambda config: aligned_parts(config, tokenizer_kind(config)),
    reads="latents",
    networks=reading_networks,
    check=check_encoder,
    given=given,
    preview=preview,
)
