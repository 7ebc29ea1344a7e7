"""Post-training: the trained generator goes on with the Fréchet distance itself as its loss (FD-loss,
arXiv 2604.28190), through all steps of its sampler, so that a few of them, or one, are enough.

noise, condition → sampler of `sampling_steps` over the generator → undo standardisation (z) → decoders, frozen
(image) → extractors, frozen (features) → d² of `fae_jax.losses.frechet` from the training images

    L = Σ d² / sg(d² + ε tr Σ_r), over the feature spaces                              (1)

so that spaces weigh alike whatever their units, and less and less where d² is near nothing. Noise and conditions are
those of the examples of the batch, whose latents mean nothing here. The first steps draw `queue` samples and train
nothing.

Beside its checkpoints the stage leaves `reference.npz`, the moments of the training images. What is drawn with from
then on is its network, in `sampling_steps` Euler steps without guidance.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import functools
import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.conditions import told
from fae_jax.encoders import Encoder
from fae_jax.encoders.frozen import outline
from fae_jax.extractors import Extractor, load_extractor
from fae_jax.extractors.encoders import own
from fae_jax.extractors.moments import Moments, Running, factor
from fae_jax.files.progress import report_progress
from fae_jax.files.storage import read_arrays
from fae_jax.files.writing import json_hash, whole_file
from fae_jax.generators import GENERATORS
from fae_jax.kinds import find
from fae_jax.losses.frechet import MovingSamples, frechet_loss
from fae_jax.parallel.hosts import first_says, gather_text, is_first
from fae_jax.parts import Parts, generator_of
from fae_jax.section import at_least, like, option, share
from fae_jax.stages import generator as generator_stage
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.stage import Stage
from fae_jax.stages.training import train_stage
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.training.optimizer import TrainingSection, make_optimizer
from fae_jax.training.state import Player, Report
from fae_jax.training.task import Preview

EPSILON = 1e-4  # of equation (1); FD-loss adds 0.01 to d², which for Inception's pool_3 is about as much
Draw = Callable[[Any, Mapping[str, Any], Mapping[str, Array], Array], Array]  # params, frozen, batch, keys → images
REFERENCE, DIGEST = "reference.npz", "digest"


def _names(value: Any) -> str | None:
    fits = value and all(isinstance(name, str) and name.count(":") <= 1 for name in value)
    return None if fits and len(set(value)) == len(value) else 'holds extractors, such as ("inception:pool_3",)'


@dataclasses.dataclass(frozen=True, kw_only=True)
class PostTrainingSection(TrainingSection):
    """The Fréchet distance as the loss of a trained generator."""

    steps: int = option(0, "optimizer steps; 0 = no post-training", at_least(0))
    batch: int = like(TrainingSection, "batch", 1024)
    learning_rate: float = like(TrainingSection, "learning_rate", 1e-5)
    betas: tuple[Any, ...] = like(TrainingSection, "betas", (0.9, 0.95))
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.999,))
    sampling_steps: int = option(1, "steps of the sampler in training, and in sampling from then on", at_least(1))
    spaces: tuple[Any, ...] = option(
        ("encoder",), "EXTRACTOR:TAP, or EXTRACTOR where it has one tap; encoder: the experiment's own", _names
    )
    queue: int = option(
        50_000, "samples drawn before training begins, and whose moments count where decay=0", at_least(2)
    )
    decay: float = option(0.999, "moving moments' decay; 0 = moments of the queue", share)

    def check(self) -> None:
        if self.microbatches != 1:
            raise ValueError(f"microbatches={self.microbatches} must be 1: the distance is that of a whole batch")
        if self.queue < self.batch:
            raise ValueError(f"queue={self.queue} must hold a batch of batch={self.batch}")


class Space(NamedTuple):
    """A tap of an extractor, `width` wide."""

    extractor: Extractor
    tap: str
    width: int


def extractors_of(spaces: Mapping[str, Space]) -> dict[str, Extractor]:
    """The extractors behind spaces, each once, by name."""
    return {space.extractor.name: space.extractor for space in spaces.values()}


def spaces_of(config: Any, encoder: Callable[[], Encoder]) -> dict[str, Space]:
    """The feature spaces of `post_training.spaces` by name; `encoder` gives the experiment's own.

    Raises:
      ValueError: there is none of that name, or the queue is too short for its width.
      FileNotFoundError: its weights are not there; says which command brings them.
    """
    section, side = config.post_training, config.data.image_size
    made: dict[str, Space] = {}
    for name in section.spaces:
        called, _, tap = name.partition(":")
        try:
            load = functools.partial(load_extractor, called) if called != "encoder" else lambda: own(encoder(), side)
            extractor = extractors_of(made).get(called) or load()
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"field post_training.spaces: {error}") from error
        images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        taps = jax.eval_shape(extractor.apply, extractor.params, images)
        tap = tap or (next(iter(taps)) if len(taps) == 1 else "")
        if tap not in taps:
            reason = extractor.lacks.get(tap) or f"{called} gives {', '.join(taps)}"
            raise ValueError(f"field post_training.spaces: {name!r} names no tap: {reason}")
        width = taps[tap].shape[-1]
        if section.queue <= width:
            raise ValueError(
                f"field post_training.queue={section.queue} must be above {width}, the dimensions of {name!r}: fewer "
                "samples have no whole covariance"
            )
        made[name] = Space(extractor, tap, width)
    return made


def check(config: Any) -> None:
    """Refuses what cannot be post-trained.

    Raises:
      ValueError, FileNotFoundError: the generator draws in no steps, there is no encoder, or see `spaces_of`.
    """
    kind = config.generator.kind
    if "steps" not in getattr(find("generators", GENERATORS, kind), "heeds", ("steps",)):
        raise ValueError(
            f"post_training trains through the steps of a sampler, and generator.kind={kind} draws in none: set "
            "post_training.steps=0, or choose flow_matching or mean_flow"
        )
    if "encoder" in config.post_training.spaces and not hasattr(tokenizer_kind(config), "encoder"):
        raise ValueError(
            f"the tokenizer {config.tokenizer.kind!r} has no encoder to compare in: set post_training.spaces to "
            'others, such as ("inception:pool_3",)'
        )
    spaces_of(config, functools.partial(outline, config))


def drawn(config: Any) -> Any:
    """The configuration with the sampling that is trained through, in all sets of samples, and the averages kept."""
    generation = dataclasses.replace(config.evaluation.generation, unguided_sampler="", guided_sampler="")
    return dataclasses.replace(
        config,
        sampling=dataclasses.replace(
            config.sampling, sampler="euler", steps=config.post_training.sampling_steps, guidance=()
        ),
        evaluation=dataclasses.replace(config.evaluation, generation=generation),
        generator=dataclasses.replace(config.generator, ema=config.post_training.ema),
    )


def pixels(images: Float[Array, "b y x 3"]) -> Float[Array, "b y x 3"]:
    """Images in [−1, 1] as they will be read from files, whole numbers from 0 to 255; slopes pass the rounding."""
    exact = jnp.clip((images + 1) * 127.5, 0, 255)
    return exact + jax.lax.stop_gradient(jnp.round(exact) - exact)


def post_training_loss(
    draw: Draw,
    spaces: Mapping[str, Space],
    samples: MovingSamples,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, Report]:
    """Equation (1) and the next memory."""
    images = pixels(draw(params, frozen, batch, keys))
    taps = {name: extractor.apply(frozen[name], images) for name, extractor in extractors_of(spaces).items()}
    total, metrics, remembered = jnp.zeros(()), {}, {}
    for name, space in spaces.items():
        reference = frozen["reference"][name]
        features = taps[space.extractor.name][space.tap].astype(jnp.float32)
        mean, root, memory = samples.add(frozen["memory"]["generator"][name], features)
        squared = frechet_loss(mean, root, reference["mean"], reference["root"])
        scale = jax.lax.stop_gradient(squared) + EPSILON * jnp.sum(reference["root"] ** 2)
        total += jnp.where(samples.is_full(memory), squared / scale, jax.lax.stop_gradient(squared / scale))
        metrics[f"frechet_{name.replace(':', '_')}"] = squared
        remembered[name] = memory
    return total, Report(metrics, measured=remembered)


def players(parts: Parts) -> dict[str, Player]:
    """See `players_of`."""
    return players_of(spaces_of(parts.config, lambda: parts.tokenizer.encoder), parts)


def players_of(spaces: Mapping[str, Space], parts: Parts) -> dict[str, Player]:
    """The generator, which remembers the moments of its samples."""
    section, settings = parts.config.post_training, drawn(parts.config).sampling
    generator, tokenizer, statistics = generator_of(parts), parts.tokenizer, parts.statistics
    generator.evaluations(settings)

    def draw(params: Any, frozen: Mapping[str, Any], batch: Mapping[str, Array], keys: Array) -> Array:
        condition = told(generator.condition, frozen, generator.condition.of(batch))
        latents = generator.sample(params, keys, condition, settings)
        return tokenizer.decode(frozen, statistics.unstandardise(latents))

    return {"generator": player_of(section, generator.init, draw, spaces)}


def player_of(
    section: PostTrainingSection, init: Callable[[Array], Any], draw: Draw, spaces: Mapping[str, Space]
) -> Player:
    """What draws images, and remembers the moments of their features."""
    samples = MovingSamples(length=section.queue, decay=section.decay)
    return Player(
        init=init,
        loss=functools.partial(post_training_loss, draw, spaces, samples),
        optimizer=make_optimizer(section),
        memory=lambda: {name: samples.start(space.width) for name, space in spaces.items()},
        remember=lambda memory, measured, step: measured,
    )


def reference_of(experiment: Experiment, spaces: Mapping[str, Space]) -> dict[str, Moments]:
    """The moments of the training images in each space: those that are kept, or measured by all hosts and kept."""
    file = experiment.workdir.stage("post_training") / REFERENCE
    about = [experiment.images.source("train").fingerprint, experiment.config.data.image_size]
    about += [[name, space.extractor.variant, space.extractor.weights_hash] for name, space in spaces.items()]
    running = {name: Running() for name in spaces}
    try:
        kept = read_arrays(str(file))
    except (FileNotFoundError, ValueError):  # not there, or damaged
        kept = {}
    if first_says(str(kept.get(DIGEST)) == json_hash(about)):
        for name, each in running.items():
            each.restore({field: kept[f"{name}/{field}"] for field in ("count", "mean", "deviations")})
        return {name: each.moments for name, each in running.items()}
    _measure(experiment, spaces, running)
    whole = {name: _over_hosts(each) for name, each in running.items()}
    if is_first():
        state: dict[str, Any] = {DIGEST: json_hash(about)}
        for name, each in whole.items():
            state |= {f"{name}/{field}": value for field, value in each.state().items()}
        with whole_file(file) as out:
            np.savez(out, **state)
    return {name: each.moments for name, each in whole.items()}


def _measure(experiment: Experiment, spaces: Mapping[str, Space], running: Mapping[str, Running]) -> None:
    """Takes in this host's training images."""
    parts, source = experiment.parts, experiment.images.source("train")
    run = {
        name: parts.run_here(each.apply, parts.own_encoder if name == "encoder" else jax.device_put(each.params))
        for name, each in extractors_of(spaces).items()
    }
    progress, done = report_progress("post_training: moments of the training images"), 0
    for batch in experiment.images.ordered("train", experiment.config.cache.batch):
        taps = {name: look(np.asarray(batch["image"])) for name, look in run.items()}
        for name, space in spaces.items():
            running[name].add(np.asarray(taps[space.extractor.name][space.tap])[batch["mask"]])
        done += experiment.config.cache.batch
        progress(min(done, len(source)), len(source))


def _over_hosts(part: Running) -> Running:
    """What all hosts took in, the same numbers on each."""
    buffer, whole, state = io.BytesIO(), Running(), dict[str, Any](part.state())
    np.savez(buffer, **state)
    for text in gather_text(base64.b64encode(buffer.getvalue()).decode()):
        with np.load(io.BytesIO(base64.b64decode(text))) as arrays:
            other = Running()
            other.restore(dict(arrays))
        whole.merge(other)
    return whole


@dataclasses.dataclass(frozen=True)
class _Held:
    """Parameters that are here already, as a network to look through."""

    params: Any

    @property
    def shapes(self) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.params)

    def load(self, weights: str) -> Any:
        return self.params


def frozen_of(config: Any) -> tuple[str, ...]:
    """What decodes, and the experiment's encoder where features are its."""
    own = {"encoder"} & {name.partition(":")[0] for name in config.post_training.spaces}
    return (*tokenizer_kind(config).decodes, *own)


def networks_of(spaces: Mapping[str, Space], reference: Any) -> dict[str, tuple[Any, str]]:
    """Extractors but for the experiment's encoder, which is no network of this stage's own, and the reference."""
    extractors = extractors_of(spaces).values()
    looked: dict[str, tuple[Any, str]] = {
        each.name: (_Held(each.params), "") for each in extractors if each.name != "encoder"
    }
    return {**looked, "reference": (_Held(reference), "")}


def networks(config: Any) -> dict[str, tuple[Any, str]]:
    """`networks_of` before anything is measured: of the reference, its shapes."""
    spaces = spaces_of(config, functools.partial(outline, config))
    reference = {
        name: {
            "mean": jax.ShapeDtypeStruct((space.width,), jnp.float32),
            "root": jax.ShapeDtypeStruct((space.width, space.width), jnp.float32),
        }
        for name, space in spaces.items()
    }
    return networks_of(spaces, reference)


def run(experiment: Experiment, stage: Stage) -> None:
    """Measures the reference, and trains."""
    parts = experiment.parts
    spaces = spaces_of(experiment.config, lambda: parts.encoder)
    reference = {
        name: {"mean": moments.mean.astype(np.float32), "root": factor(moments).astype(np.float32)}
        for name, moments in reference_of(experiment, spaces).items()
    }
    ready = dataclasses.replace(
        stage,
        players=functools.partial(players_of, spaces),
        networks=lambda config: networks_of(spaces, reference),
    )
    train_stage(experiment, ready)
    experiment.reopen()


def preview(parts: Parts, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Preview | None:
    """As of the generator's, drawn as the stage draws."""
    parts = copy.copy(parts)
    parts.config = drawn(parts.config)
    return generator_stage.preview(parts, frozen, batch)


def absent(config: Any) -> str:
    """An experiment that asks for none."""
    if config.post_training.steps:
        return ""
    return "post_training.steps=0, so that there is no post-training: set --config.post_training.steps"


STAGE = Stage(
    name="post_training",
    run=run,
    needs=("finetune", "generator"),
    players=players,
    frozen=("text",),
    also_frozen=frozen_of,
    reads="latents",
    images=True,
    start={"generator": "generator"},
    networks=networks,
    check=check,
    absent=absent,
    drawn=drawn,
    preview=preview,
)
