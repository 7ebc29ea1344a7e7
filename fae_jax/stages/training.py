"""Running a stage that trains: what it reads, its record before the first step and after the last, the trainer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fae_jax.conditions import make_condition, reads_text
from fae_jax.data.loader import ORDER
from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.encoders.pretrained import find_anything
from fae_jax.files.writing import json_hash
from fae_jax.parallel.chips import peak_flops
from fae_jax.parallel.hosts import fetch, is_first, wait_for_all
from fae_jax.parts import Parts
from fae_jax.stages.costs import step_flops
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.images import PREVIEWS, hosts
from fae_jax.stages.latents import open_latents
from fae_jax.stages.stage import Record, Stage, check_lineage, read_record, write_record
from fae_jax.stages.trained import as_json
from fae_jax.training.goodput import Phases
from fae_jax.training.loop import train
from fae_jax.training.state import TrainState
from fae_jax.training.task import Task
from fae_jax.weights import hash_tree


def batches(experiment: Experiment, stage: Stage) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """step → this host's shares of the batches that a stage reads, from that step on."""
    batch, data = stage.section(experiment.config).batch, experiment.config.data
    if stage.reads == "latents":
        latents, read = open_latents(experiment.workdir), getattr(make_condition(experiment.config), "tokens", None)
        return LatentLoader(
            source=latents.source,
            batch=batch,
            seed=experiment.seed("latents"),
            flip=data.flip,
            captions=read is not None,
            read=read,
            mixture=latents.mixture,
            reading=experiment.images.reading_stored,
            **hosts(),
        ).at
    store = experiment.parts.feature_store("train") if stage.reads.startswith("features") else None
    if store is None:
        return experiment.images.loader(batch).at
    beside = stage.reads == "features and images"
    return LatentLoader(
        source=store.open(),
        batch=batch,
        seed=experiment.seed("data"),
        flip=data.flip,
        images=experiment.images.source("train") if beside else None,
        image_size=data.image_size,
        captions=False,
        mixture=experiment.images.mixture,
        reading=experiment.images.reading if beside else experiment.images.reading_stored,
        **hosts(),
    ).at


def begin(experiment: Experiment, stage: Stage, frozen: Mapping[str, Any]) -> Record:
    """The stage's record, written if it is new.

    Raises:
      ValueError: the stage was begun with other images, another encoder, other statistics or latents.
    """
    facts: Any = {}
    if stage.reads == "latents":
        facts = open_latents(experiment.workdir).facts
        made_of = {"latents": facts["hash"]}
    else:
        made_of = {"images": experiment.images.source("train").fingerprint}
    if "encoder" in stage.frozen:
        known = experiment.parts.facts
        facts = as_json(known)
        encoder = experiment.parts.encoder
        made_of["encoder"] = encoder.weights_hash
        # mean, std, sizes, layers; where its weights lie decides nothing
        places = ("source", "commit")
        made_of["encoder settings"] = json_hash({k: v for k, v in encoder.settings.items() if k not in places})
        statistics = {"mean": np.asarray(known.mean), "std": np.asarray(known.std)}
        made_of["feature statistics"] = hash_tree(statistics)
    if "text" in frozen:
        made_of["text tower"] = json_hash(make_condition(experiment.config).identity)
    known_parts = ("encoder", "text")  # by the hash of their files
    made_of |= {part: hash_tree(fetch(frozen[part])) for part in frozen if part not in known_parts}
    made_of["order"] = ORDER
    folder = stage.folder or stage.name
    record = read_record(experiment.workdir, folder)
    if record is not None:
        check_lineage(stage.name, experiment.workdir, record, made_of)
    else:
        source = getattr(stage.section(experiment.config), "init_from", "") if stage.given else ""
        begun_with = {"init_from": find_anything(source).tensors.hash()} if source else {}
        record = Record(made_of=made_of, facts={**facts, **begun_with})
        if is_first():
            write_record(experiment.workdir, folder, record)
    wait_for_all(f"stage {stage.name} begun")  # the stage's own players read the record
    return record


def finish(experiment: Experiment, stage: Stage, record: Record, step: int) -> None:
    """Marks the stage as done; its last checkpoint is on disk."""
    if is_first():
        left = experiment.checkpoints(stage).listing(step)
        done = dataclasses.replace(record, finished=step, checkpoint=left)
        write_record(experiment.workdir, stage.folder or stage.name, done)


def train_stage(experiment: Experiment, stage: Stage, save: Callable[[TrainState], None] | None = None) -> None:
    """Trains a stage to its end.

    Args:
      save: leaves what a stage leaves beside its checkpoints, before it is marked as done.

    Raises:
      ValueError: its batch does not divide over the devices, or it was begun with something else.
      RunFailed: see `fae_jax.training.loop.train`.
    """
    assert stage.players is not None
    config, parts = experiment.config, experiment.parts
    frozen = stage.frozen_params(parts)
    record = begin(experiment, stage, frozen)
    players = stage.players(parts)
    if not players:
        return finish(experiment, stage, record, 0)
    section = stage.section(config)
    experiment.check_batch(f"{stage.field or stage.name}.batch", section.batch, section.microbatches)
    task = Task(
        name=stage.name,
        players=players,
        frozen=frozen,
        batches=batches(experiment, stage),
        seed=experiment.seed(stage.name),
        section=section,
        field=stage.field or stage.name,
        start=lambda: {
            **{player: parts.params(part) for player, part in stage.start.items()},
            **(stage.given(parts) if stage.given else {}),
        },
        preview=stage.preview(parts, frozen, _previewed(experiment, stage)) if stage.preview else None,
        score=experiment.scorer(experiment) if experiment.scorer and stage.name == "generator" else None,
        score_every=config.evaluation.during.every,
        **_cost(parts, stage),
    )
    phases = Phases()
    try:
        state = train(task, experiment.workdir.stage(stage.folder or stage.name), experiment.mesh, config, phases)
    finally:
        if is_first():
            with contextlib.suppress(OSError):
                experiment.workdir.add_phases(phases.seconds())
    if save:
        save(state)
    return finish(experiment, stage, record, section.steps)


def _previewed(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """Held-out images, with their features where the stage reads those from a store; beside latents, captions of the
    first images where the generator reads text."""
    if stage.reads == "latents":
        if not reads_text(experiment.config):
            return {}
        latents = open_latents(experiment.workdir).source
        places = [place % len(latents) for place in range(PREVIEWS)]
        batch = latents.read(places, [0] * len(places))
        return {"captions": [next(iter(json.loads(text)), "") for text in batch.get("captions", ["[]"] * PREVIEWS)]}
    images = experiment.images.preview()
    if not (experiment.config.data.features and stage.reads.startswith("features")):
        return images
    return {**images, "features": np.asarray(experiment.parts.encode_here(images["image"]))}


def _cost(parts: Parts, stage: Stage) -> dict[str, Any]:
    """FLOPs of a stage's step and of the devices, as `Task` wants them; None where they cannot be told."""
    try:
        tokenizer = None if stage.name == "encoder" else parts.tokenizer
        flops = float(step_flops(parts.config, stage.name, tokenizer))
    except ValueError:
        return {"flops": None, "peak": None}
    peak = peak_flops(parts.mesh.devices.flat[0].device_kind)
    return {"flops": flops, "peak": peak and peak * parts.mesh.size}
