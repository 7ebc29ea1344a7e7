"""Which stages points have in common, and how a finished stage is handed on without training it again.

A sweep over the generator's fields has one autoencoder; a sweep over guidance weights has one of everything. A stage
that no swept field decides is trained once, in `SWEEP/shared`, and linked into every point: hard links, so that
points take no room for it and yet stand on their own. Files in a working directory are replaced, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fae_jax.config import flatten, is_operational
from fae_jax.data.stores.latents import HEADER
from fae_jax.files.moving import copy_file, names_below
from fae_jax.stages import stage_of
from fae_jax.stages.stage import FILE
from fae_jax.workdir import Workdir

# Sections that only one stage, and those after it, read. Everything not named here decides every stage.
OWN = {
    "encoder": ("encoder_training.",),
    "features": ("compressor.", "feature_decoder.", "features."),
    "pixels": ("pixel_decoder.", "pixels."),
    "finetune": ("finetune.",),
    "cache": ("cache.",),
    "generator": ("condition.", "generator."),
    "post_training": ("post_training.",),
}
NO_STAGE = (
    "name",
    "data.heldout_path",
    "sampling.",
    "evaluation.",
    "logging.",
    "checkpoint.",
    "watch.",
)  # read after all stages, or for nothing


def with_those_before(stage: str) -> set[str]:
    """A stage and every stage it needs, directly or not."""
    return {stage}.union(*(with_those_before(before) for before in stage_of(stage).needs))


def decides(field: str, stage: str) -> bool:
    """Whether a field of the configuration may change what a stage leaves behind."""
    if field.startswith(NO_STAGE):
        return False
    owners = [owner for owner, prefixes in OWN.items() if field.startswith(prefixes)]
    return not owners or owners[0] in with_those_before(stage)


def shared_stages(stages: Sequence[str], fields: Iterable[str]) -> tuple[str, ...]:
    """Those of `stages` that none of the swept `fields` decides."""
    swept = tuple(fields)
    return tuple(stage for stage in stages if not any(decides(field, stage) for field in swept))


def differing(stage: str, ours: Any, theirs: Any) -> list[str]:
    """Fields that decide a stage's result and differ, each as `name: theirs → ours`."""
    mine, other = flatten(ours, every=False), flatten(theirs, every=False)
    return [
        f"{name}: {other.get(name)!r} → {value!r}"
        for name, value in mine.items()
        if other.get(name) != value and decides(name, stage) and not is_operational(name)
    ]


def hand_on(stage: str, source: Workdir, target: Workdir) -> None:
    """Links a finished stage of `source` into `target`, its record last. A stage that was begun there stays.

    Caches that another configuration began and did not end are left out.

    Raises:
      OSError: it cannot be written.
    """
    folder = stage_of(stage).folder or stage
    here, there = source.stage(folder), target.stage(folder)
    if (there / FILE).is_file():
        return
    names = names_below(here)
    caches = {name.split("/")[0] for name in names if "/shard-" in name}
    unfinished = {cache for cache in caches if f"{cache}/{HEADER}" not in names}
    for name in sorted(names, key=lambda name: name == FILE):
        if name.split("/")[0] not in unfinished:
            copy_file(here / name, there / name)
