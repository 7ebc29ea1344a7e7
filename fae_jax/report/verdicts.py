"""The scores that decide, each with its target and whether it was reached; the template says what they mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from fae_jax.report.reading import Record, branch, measured

Status = Literal["reached", "missed", "information", "pending"]

# What the quickstart on digits has to reach. Fractions; points; cosine; dB; seconds without installation.
DIGITS_TARGETS: dict[str, float] = {
    "accuracy": 0.92,
    "lowest_class": 0.80,
    "judge": 0.98,
    "loss_in_points": 1.5,
    "cosine": 0.95,
    "psnr": 20.0,
    "seconds": 300.0,
}
AT_MOST = {"loss_in_points", "seconds"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A score, None where it is not measured, and what it has to reach, None for nothing."""

    value: float | None
    target: float | None
    at_most: bool

    @property
    def status(self) -> Status:
        """Reached or missed where it has a target; information where it has none; pending where it is missing."""
        if self.value is None:
            return "pending"
        if self.target is None:
            return "information"
        good = self.value <= self.target if self.at_most else self.value >= self.target
        return "reached" if good else "missed"


def chosen_set(record: Record) -> str | None:
    """The set of samples the verdict is about: guided if scored, else the last one."""
    sets = branch(record.results, "generation", "sets")
    return "guided" if "guided" in sets else (list(sets)[-1] if sets else None)


def judge_verdicts(record: Record, targets: Mapping[str, float] | None = None) -> dict[str, Verdict]:
    """Every verdict by name, measured or not; without `targets` digits have the quickstart's, other data none."""
    if targets is None:
        targets = DIGITS_TARGETS if record.setting("data", "source") == "digits" else {}
    chosen = chosen_set(record)
    scores = record.set_of(chosen) if chosen else {}
    seconds = sum(seconds for name, seconds in record.timings.items() if name != "install")
    results = record.results
    values = {
        "accuracy": measured(scores, "accuracy"),
        "lowest_class": measured(scores, "lowest_class", "accuracy"),
        "judge": measured(scores, "judge", "heldout_accuracy"),
        "frechet": measured(scores, "frechet", "samples_to_heldout"),
        "loss_in_points": measured(results, "probe", "linear", "loss_in_points"),
        "cosine": measured(results, "probe", "cosine"),
        "psnr": measured(results, "reconstruction", "sets", "heldout", "psnr"),
        "close": measured(scores, "nearest", "fraction_close"),
        "seconds": (seconds or None) if scores else None,
    }
    return {name: Verdict(value, targets.get(name), name in AT_MOST) for name, value in values.items()}
