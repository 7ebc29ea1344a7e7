"""The stages of an experiment: one `Stage` object a file, and their table in the order they run.

Another package adds one by an entry point in the group `fae_jax.stages`; it runs after those here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fae_jax.kinds import find, names

if TYPE_CHECKING:
    from fae_jax.stages.stage import Stage

STAGES = {
    "encoder": "fae_jax.stages.encoder:STAGE",
    "features": "fae_jax.stages.features:STAGE",
    "pixels": "fae_jax.stages.pixels:PIXELS",
    "finetune": "fae_jax.stages.pixels:FINETUNE",
    "cache": "fae_jax.stages.cache:STAGE",
    "generator": "fae_jax.stages.generator:STAGE",
    "post_training": "fae_jax.stages.post_training:STAGE",
}


def stage_of(name: str) -> Stage:
    """The stage called `name`.

    Raises:
      ValueError: there is none.
    """
    return find("stages", STAGES, name)


def every_stage() -> list[Stage]:
    """All there are, in the order they run."""
    return [stage_of(name) for name in names("stages", STAGES)]
