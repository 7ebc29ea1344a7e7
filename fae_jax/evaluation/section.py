"""What configures `fae evaluate`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from fae_jax.evaluation.during import DuringSection
from fae_jax.evaluation.metrics import MetricsSection
from fae_jax.evaluation.tasks import TASKS
from fae_jax.evaluation.text_side import TextSection
from fae_jax.model import MOST
from fae_jax.section import Plugs, at_least, at_most, option, seed_range, subsection


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSection:
    """Scores; a subsection for each task that has settings."""

    operational: ClassVar[bool] = True
    samples: int = option(50_000, "images per score", at_least(1), at_most(MOST))
    seed: int = option(0, "seed of the samples", seed_range)
    text: TextSection = subsection(TextSection)
    metrics: MetricsSection = subsection(MetricsSection)
    during: DuringSection = subsection(DuringSection)

    subsections: ClassVar[Plugs] = Plugs("tasks", TASKS)
