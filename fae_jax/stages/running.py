"""Which stages an experiment has, what is refused before one begins, the door to run one, and that to the model which
they left."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fae_jax.bundle import FILE, FILES, Bundle
from fae_jax.conditions import make_condition, reads_text
from fae_jax.data.replacement import Readable, TooManyBadImages
from fae_jax.errors import RunFailed
from fae_jax.files.paths import as_path, check_folder
from fae_jax.model import FAE
from fae_jax.parallel.hosts import first_says, wait_for_all
from fae_jax.parallel.startup import keep_compiled
from fae_jax.parts import generator_of
from fae_jax.stages import cache, every_stage, stage_of
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.latents import open_latents
from fae_jax.stages.outline import Shapes, check_kernel, check_networks
from fae_jax.stages.stage import Stage, read_record
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.training.boards import check_boards
from fae_jax.weights import hub
from fae_jax.workdir import Workdir


def stages_of(config: Any) -> list[Stage]:
    """An experiment's, in order: not those that train a tokenizer of another kind."""
    kind = tokenizer_kind(config)
    trained = {stage for stages, _ in kind.trained.values() for stage in stages}
    here = []
    for stage in every_stage():
        trains_tokenizer = stage.players is not None and stage.reads != "latents"
        if stage.absent(config):
            continue
        if stage.name == "encoder" or not trains_tokenizer or stage.name in trained:
            here.append(stage)
    return here


def as_drawn(config: Any) -> Any:
    """The configuration that the network of an experiment's last stage is drawn with."""
    for stage in stages_of(config):
        config = stage.drawn(config) if stage.drawn else config
    return config


def command_for(stage: str, experiment: Experiment) -> str:
    """What to type to run a stage."""
    verb = "cache" if stage == "cache" else f"train {stage}"
    known = experiment.workdir.config_file.is_file()
    config = "" if known else f" {experiment.origin or '--config CONFIG'}"
    return f"fae {verb}{config} --workdir {shlex.quote(str(experiment.workdir.root))}"


def check_stages(experiment: Experiment, who: str, needed: Iterable[str]) -> None:
    """Refuses to go on without finished stages; where a step of the generator is asked for, that may still train.

    Raises:
      ValueError: one is missing; names it and the command that makes it.
    """
    has = {stage.name: stage for stage in stages_of(experiment.config)}
    for name in needed:
        if name == "generator" and experiment.step is not None:
            continue
        if name in has and not experiment.is_done(has[name]):
            remedy = f"run `{command_for(name, experiment)}` first"
            raise ValueError(
                f"{who} needs stage {name}, which is not finished in {experiment.workdir.root}; {remedy}"
            )


def check_request(experiment: Experiment, name: str | None = None) -> None:
    """Refuses what cannot run, before anything is computed or written; `name` None means all stages.

    Raises:
      ValueError: a stage before it is missing (with the command that makes it), or data or devices do not fit.
      FileNotFoundError: images or weights are not there.
    """
    config = experiment.config
    if name is not None and (reason := stage_of(name).absent(config)):
        raise ValueError(reason)
    own = {stage.name for stage in stages_of(config)}
    chosen = stages_of(config) if name is None else [stage_of(name)]
    if name is not None and name not in own:
        raise ValueError(f"the tokenizer {config.tokenizer.kind!r} has no stage {name}: there is nothing to do")
    for stage in chosen:
        if not experiment.is_done(stage):
            stage.check(config)
    check_boards(config.logging)
    check_kernel(config.compute.kernel, experiment.mesh.devices.flat[0].platform)
    _check_condition(experiment, chosen)
    _check_folders(experiment, chosen)
    if name is not None:
        trained = tokenizer_kind(config).trained
        read = [trained[part][0][0] for part in chosen[0].frozen_parts(config) if part in trained]
        check_stages(experiment, f"stage {name}", dict.fromkeys((*chosen[0].needs, *read)))
    if any(stage.reads != "latents" or stage.images for stage in chosen):
        try:
            _ = Readable(experiment.images.source("train"))[0]
        except TooManyBadImages as error:
            raise ValueError(f"the images cannot be read: {error}") from error
        if config.data.heldout_path:
            _ = experiment.images.source("heldout")
    for stage in chosen:
        if stage.players is not None:
            section = stage.section(config)
            experiment.check_batch(f"{stage.field or stage.name}.batch", section.batch, section.microbatches)
    tokenizer = None  # its outline: sizes that do not fit are found before the encoder is trained
    if name == "generator":
        tokenizer, _ = experiment.parts.tokenizer, open_latents(experiment.workdir)
    elif name != "encoder" and ("encoder" not in own or experiment.is_done(stage_of("encoder"))):
        tokenizer = _opened(experiment, name)
    shapes = Shapes(config, experiment.mesh, tokenizer=tokenizer)
    for stage in chosen:
        if not stage.start and read_record(experiment.workdir, stage.folder or stage.name) is None:
            check_networks(shapes, stage)  # one that starts from another's networks has none of its own
            if stage.given is not None:
                stage.given(shapes)
        if stage.name == "generator":
            generator_of(shapes).evaluations(config.sampling)  # what it will be sampled with


def _opened(experiment: Experiment, name: str | None) -> Any:
    """The tokenizer where its published weights are there; what it needs beside them is checked."""
    kind = tokenizer_kind(experiment.config)
    if not kind.trained:
        tokenizer = experiment.parts.tokenizer
    else:
        tokenizer = kind.outline(experiment.config, experiment.parts.encoder)
        store = experiment.parts.feature_store("train")
        if store is not None and name in (None, "features", "pixels", "finetune"):
            store.check_room()
    if name == "cache":
        cache.check_request(experiment)
    return tokenizer


def _check_folders(experiment: Experiment, chosen: Iterable[Stage]) -> None:
    """Where something will be written; a finished cache or store may lie where nothing can be."""
    config, kept = experiment.config, experiment.config.compute.compilation_cache
    check_folder(experiment.workdir.root, "working directory ")
    if any(stage.name == "cache" and not experiment.is_done(stage) for stage in chosen):
        check_folder(config.cache.path, "field cache.path=")
    if not os.path.isdir(config.data.features):
        check_folder(config.data.features, "field data.features=")
    check_folder("" if kept in ("off", "auto") else kept, "field compute.compilation_cache=")


def _check_condition(experiment: Experiment, chosen: Sequence[Stage]) -> None:
    config = experiment.config
    begun = {stage.name for stage in chosen if not experiment.is_done(stage)}
    if "generator" in begun and config.data.captions and config.condition.kind == "class":
        raise ValueError(
            "stage generator trains on classes, and data.captions=True has none: set condition.kind=text and "
            "generator.flow_matching.network=mmdit, or condition.kind=none"
        )
    if "generator" in begun and reads_text(config):
        if not config.data.captions:
            raise ValueError(
                "condition.kind=text reads captions, and data.captions=False has none: set condition.kind"
            )
        make_condition(config).check()
    if "encoder" in begun and config.data.captions and not experiment.images.source("train").classes:
        raise ValueError(
            "stage encoder trains on classes, and data.captions=True has none: choose a published encoder"
        )


def run_stage(experiment: Experiment, name: str) -> bool:
    """Runs a stage that `check_request` passed, unless it is done; returns whether it ran.

    Raises:
      RunFailed: something came up that could not be known before, such as a damaged image.
    """
    stage = stage_of(name)
    if first_says(experiment.is_done(stage)):
        return False
    try:
        keep_compiled(experiment.config.compute.compilation_cache)
        with experiment.timed(name):
            stage.run(experiment, stage)
            wait_for_all(f"stage {name} finished")
    except (ValueError, FileNotFoundError) as error:
        raise RunFailed(f"stage {name}: {error}") from error
    return True


def run_stages(experiment: Experiment, after: Callable[[], object] = lambda: None) -> list[str]:
    """All stages, those already done passed over, and `after` each that ran; returns the names of those."""
    ran = []
    for stage in stages_of(experiment.config):
        if run_stage(experiment, stage.name):
            ran.append(stage.name)
            after()
    return ran


def load(path: str | os.PathLike[str], step: int | None = None) -> FAE:
    """A trained FAE. Each part is read when it is first used, and what later stages train is asked for then.

    Args:
      path: a working directory or the folder of a bundle, here or in a bucket, or a hub name such as "owner/model".
      step: the generator's checkpoint to use, of a working directory; None for the newest.

    Raises:
      FileNotFoundError: there is none.
      ValueError: its encoder or features stage is not finished; says which command makes it.
    """
    folder = as_path(path)
    if (folder / FILE).is_file():
        return FAE(Bundle(folder))
    if not folder.exists() and hub.is_hub_name(str(path)):
        return FAE(Bundle(as_path(hub.pull(str(path), patterns=FILES, needs=(FILE,)).folder)))
    workdir = Workdir(folder)
    experiment = Experiment(workdir.read_config(), workdir)
    experiment.step = step
    for stage in stages_of(experiment.config):
        name = stage.name
        if name in ("encoder", "features") and not experiment.is_done(stage):
            raise ValueError(f"{path} has no finished stage {name}; run `fae train {name} --workdir {path}` first")
    return FAE(experiment.parts)
