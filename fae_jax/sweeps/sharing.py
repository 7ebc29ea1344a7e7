"""Which stages points have in common, and how a finished stage is handed on without training it again.

A sweep over the generator's fields has one autoencoder; a sweep over guidance weights has one of everything. A stage
that no swept field decides is trained once, in `SWEEP/shared`, and linked into every point: hard links, so that
points take no room for it and yet stand on their own. Files in a working directory are replaced, never changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fae_jax.config import flatten, is_operational
from fae_jax.data.stores.latents import HEADER
from fae_jax.stages.running import stage_of
from fae_jax.workdir import Workdir

# Sections that only one stage, and those after it, read. Everything not named here decides every stage.
OWN = {
    "encoder": ("encoder_training.",),
    "features": ("compressor.", "feature_decoder.", "features."),
    "pixels": ("pixel_decoder.", "pixels."),
    "finetune": ("finetune.",),
    "cache": ("cache.",),
    "generator": ("condition.", "generator."),
}
NO_STAGE = (
    "name",
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


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _unfinished(folder: str, names: list[str]) -> list[str]:
    """Caches that another configuration began and did not end."""
    caches = [name for name in names if list(Path(folder, name).glob("shard-*"))]
    return [name for name in caches if not Path(folder, name, HEADER).is_file()]


def hand_on(stage: str, source: Workdir, target: Workdir) -> None:
    """Links a finished stage of `source` into `target`; whole, or not at all. What is there already stays.

    Raises:
      OSError: it cannot be written.
    """
    folder = stage_of(stage).folder or stage
    place = target.stage(folder)
    if place.exists():
        return
    half = place.with_name(f".{place.name}.linking")
    shutil.rmtree(half, ignore_errors=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source.stage(folder), half, copy_function=_link, ignore=_unfinished)
    half.rename(place)
