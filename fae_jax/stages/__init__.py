"""The stages in their order, what each needs, and the door to run one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable

from fae_jax.data.replacement import Readable, TooManyBadImages
from fae_jax.errors import RunFailed
from fae_jax.networks import build_networks
from fae_jax.parallel.compilation_cache import keep_compiled
from fae_jax.parallel.hosts import first_says, wait_for_all
from fae_jax.stages import cache, encoder, features, generator, pixels
from fae_jax.stages.experiment import Experiment
from fae_jax.training.boards import check_boards

# stage → (stages before it, what runs it); `encoder` only where the experiment trains its own
STAGES: dict[str, tuple[tuple[str, ...], Callable[[Experiment], None]]] = {
    "encoder": ((), encoder.run),
    "features": (("encoder",), features.run),
    "pixels": (("encoder",), pixels.run_pixels),
    "finetune": (("features", "pixels"), pixels.run_finetune),
    "cache": (("features",), cache.run),
    "generator": (("cache",), generator.run),
}
OF_CLASSES = ("encoder", "generator")  # stages that need labels; the others need images alone


def command_for(stage: str, experiment: Experiment) -> str:
    """What to type to run a stage."""
    verb = "cache" if stage == "cache" else f"train {stage}"
    known = experiment.workdir.config_file.is_file()
    config = "" if known else f" {experiment.origin or '--config CONFIG'}"
    return f"fae {verb}{config} --workdir {shlex.quote(str(experiment.workdir.root))}"


def check_stages(experiment: Experiment, who: str, needed: Iterable[str]) -> None:
    """Refuses to go on without finished stages.

    Raises:
      ValueError: one is missing; names it and the command that makes it.
    """
    root = experiment.workdir.root
    for before in needed:
        if not experiment.is_done(before):
            remedy = f"run `{command_for(before, experiment)}` first"
            raise ValueError(f"{who} needs stage {before}, which is not finished in {root}; {remedy}")


def check_request(experiment: Experiment, stage: str | None = None) -> None:
    """Refuses what cannot run, before anything is computed or written; `stage` None means all of them.

    Raises:
      ValueError: a stage before it is missing (with the command that makes it), or data or devices do not fit.
      FileNotFoundError: images or weights are not there.
    """
    trains_encoder = experiment.config.encoder.train
    if stage == "encoder" and not trains_encoder:
        name = experiment.config.encoder.name
        raise ValueError(f"encoder {name!r} is pretrained (encoder.train=False); there is nothing to train")
    check_boards(experiment.config.logging)
    if stage in (None, *OF_CLASSES) and experiment.config.data.captions:
        alone = "" if stage else "; give the other stages by name, `fae train features` and so on"
        raise ValueError(
            f"stage {stage or 'generator'} trains on classes, and data.captions=True has none; "
            f"it reads no text yet{alone}"
        )
    if stage:
        check_stages(experiment, f"stage {stage}", STAGES[stage][0])
    try:
        _ = Readable(experiment.source("train"))[0]
    except TooManyBadImages as error:
        raise ValueError(f"the images cannot be read: {error}") from error
    for trained in [stage] if stage else STAGES:
        if trained != "cache" and (trained != "encoder" or trains_encoder):
            section = experiment.section(trained)
            experiment.check_batch(f"{trained} batch", section.batch, section.microbatches)
    if not trains_encoder or experiment.is_done("encoder"):
        _ = experiment.networks
        if experiment.feature_store is not None and stage in (None, "features", "pixels", "finetune"):
            experiment.feature_store.check_room()
        if stage == "cache" and not experiment.is_done("cache"):
            cache.check_room_for(experiment)
        if stage == "generator":
            _ = experiment.cache
    else:
        size = experiment.config.data.image_size // experiment.config.encoder.patch
        build_networks(experiment.config, (size, size), experiment.config.encoder.width)


def run_stage(experiment: Experiment, stage: str) -> bool:
    """Runs a stage that `check_request` passed, unless it is done; returns whether it ran.

    Raises:
      RunFailed: something came up that could not be known before, such as a damaged image.
    """
    if first_says(experiment.is_done(stage)):
        return False
    try:
        keep_compiled(experiment.config.compute.compilation_cache)
        with experiment.timed(stage):
            STAGES[stage][1](experiment)
            wait_for_all(f"stage {stage} finished")
    except (ValueError, FileNotFoundError) as error:
        raise RunFailed(f"stage {stage}: {error}") from error
    return True
