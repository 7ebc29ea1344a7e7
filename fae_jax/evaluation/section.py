"""What configures `fae evaluate`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from fae_jax.evaluation.text_side import TextSection
from fae_jax.section import Plugs, at_least, option, subsection

# task → what brings its section of the configuration
TASK_SECTIONS = {
    "probe": "fae_jax.evaluation.probe:ProbeSection",
    "retrieval": "fae_jax.evaluation.retrieval:RetrievalSection",
    "zero_shot": "fae_jax.evaluation.zero_shot:ZeroShotSection",
    "semantics": "fae_jax.evaluation.semantics:SemanticsSection",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSection:
    """Scores; a subsection for each task that has settings."""

    operational: ClassVar[bool] = True
    samples: int = option(50_000, "images per score", at_least(1))
    seed: int = option(0, "seed of the samples")
    text: TextSection = subsection(TextSection)

    subsections: ClassVar[Plugs] = Plugs("tasks", TASK_SECTIONS)
