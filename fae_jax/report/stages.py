"""What stands in the section of a stage: how far it is, how fast, and its curves."""

from __future__ import annotations

import dataclasses
import statistics

from fae_jax.report.curves import Chart, chart
from fae_jax.report.reading import Record, Stage, finite
from fae_jax.report.words import duration, number, spoken

PHASES = {f"seconds_{phase}" for phase in ("start", "compile", "data", "step", "checkpoint", "evaluation")}
SPEED = {"seconds", "images_per_second", "teraflops_per_second", "mfu", "goodput", *PHASES}
QUIET = {"loss", "skipped", "skipped_in_a_row", *SPEED}
MOST_SPARKS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageView:
    """A stage as the page shows it.

    Attributes:
      stage: what was read, its previews among it.
      unfinished: some steps are logged, and not the last.
      facts: (term, value) pairs.
      loss: its curve, if it was logged.
      sparks: (name, curve) of other metrics.
    """

    stage: Stage
    unfinished: bool
    facts: list[tuple[str, str | None]]
    loss: Chart | None
    sparks: list[tuple[str, Chart]]


def view(stage: Stage, record: Record) -> StageView:
    """The section of `stage`, with its settings and time from `record`."""
    section = "encoder_training" if stage.name == "encoder" else stage.name
    steps = finite(record.setting(section, "steps"))
    unfinished = stage.step is not None and steps is not None and stage.step < steps
    rates = [value for _, value in stage.series.get("images_per_second", [])]
    skipped = stage.last("skipped")
    loss = stage.series.get("loss")
    others = [name for name in stage.series if name.rsplit("/")[-1] not in QUIET and len(stage.series[name]) > 1]
    return StageView(
        stage=stage,
        unfinished=unfinished,
        facts=[
            ("steps", f"{number(stage.step)} of {number(steps)}" if unfinished else number(stage.step)),
            ("batch", number(finite(record.setting(section, "batch")))),
            ("time", duration(record.timings.get(stage.name, stage.last("seconds")))),
            ("images a second", number(statistics.median(rates)) if rates else None),
            ("steps skipped", number(skipped) if skipped else None),
        ],
        loss=chart(loss, f"{stage.name}, loss") if loss else None,
        sparks=[(spoken(name), chart(stage.series[name], spoken(name))) for name in others[:MOST_SPARKS]],
    )
