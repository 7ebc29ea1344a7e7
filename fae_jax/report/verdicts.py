"""The scores that decide, each with its target, whether it was reached, and one line that says what it means."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Literal

from fae_jax.report.markup import Markup, tag
from fae_jax.report.reading import Record, at, branch, measured
from fae_jax.report.words import decibels, duration, number, percent

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
SIGNS = {"reached": "✓", "missed": "✕", "information": "i", "pending": "…"}
SAID = {"reached": "reached", "missed": "missed", "information": "to compare", "pending": "not measured yet"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One score.

    Attributes:
      name: of the score; a key of the targets, or "frechet" or "close".
      title: what was measured.
      shown: the value as text.
      status: reached or missed where it has a target; information where it has none; pending where it is missing.
      beside: the target, or what to compare the value with.
      meaning: one line.
    """

    name: str
    title: str
    shown: str
    status: Status
    beside: str
    meaning: str


def chosen_set(record: Record) -> str | None:
    """The set of samples the verdict is about: guided if scored, else the last one."""
    sets = branch(record.results, "generation", "sets")
    return "guided" if "guided" in sets else (list(sets)[-1] if sets else None)


def default_targets(record: Record) -> dict[str, float]:
    """The quickstart's targets for an experiment on digits; none for any other."""
    return DIGITS_TARGETS if at(record.config, "data", "source") == "digits" else {}


def _without_zeros(text: str) -> str:
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", text).replace(". ", " ").rstrip(".")


def judge_verdicts(record: Record, targets: Mapping[str, float] | None = None) -> list[Verdict]:
    """Every verdict, measured or not, in the order of the page."""
    wanted = default_targets(record) if targets is None else targets
    chosen = chosen_set(record)
    scores = record.set_of(chosen) if chosen else {}
    which = f"{chosen} samples" if chosen else "samples"
    generation, probe = record.results.get("generation", {}), record.results.get("probe", {})
    lowest = at(scores, "lowest_class", "name")
    running = {name: seconds for name, seconds in record.timings.items() if name != "install"}

    def verdict(
        name: str,
        title: str,
        value: float | None,
        form: Callable[[float | None], str],
        meaning: str,
        beside: str = "",
    ) -> Verdict:
        target = wanted.get(name)
        if value is None:
            status: Status = "pending"
        elif target is None:
            status = "information"
        else:
            status = "reached" if (value <= target if name in AT_MOST else value >= target) else "missed"
        if target is not None:
            beside = f"target {'≤' if name in AT_MOST else '≥'} {_without_zeros(form(target))}"
        return Verdict(name=name, title=title, shown=form(value), status=status, beside=beside, meaning=meaning)

    trusted = at(generation, "judge", "trusted")
    trust = "" if trusted is None else ": its word counts" if trusted else ": too few for its word to count"
    limits = measured(scores, "nearest", "limit_percentile")
    expected = f"expected by chance: {number(limits)} %" if limits is not None else ""
    identical = measured(scores, "nearest", "identical")
    honest = measured(scores, "frechet", "train_to_heldout")
    return [
        verdict(
            "accuracy",
            "Recognised",
            measured(scores, "accuracy"),
            percent,
            f"of {number(measured(scores, 'count'))} {which}, an independent classifier sees the class asked for"
            if scores
            else "samples in which an independent classifier sees the class asked for",
        ),
        verdict(
            "lowest_class",
            "Weakest class",
            measured(scores, "lowest_class", "accuracy"),
            percent,
            f"the same, for the class recognised least ({lowest})"
            if lowest
            else "the same, for the class recognised least",
        ),
        verdict(
            "judge",
            "The judge itself",
            measured(generation, "judge", "heldout_accuracy"),
            percent,
            "of real images it never saw are recognised by that classifier" + trust,
        ),
        verdict(
            "frechet",
            "Fréchet distance",
            measured(scores, "frechet", "samples_to_heldout"),
            number,
            "samples to unseen real images in the encoder's features; lower is closer",
            beside="" if honest is None else f"real training images: {number(honest)}",
        ),
        verdict(
            "loss_in_points",
            "Meaning lost",
            measured(probe, "linear", "loss_in_points"),
            lambda value: "–" if value is None else f"{number(value)} points",
            "of a linear classifier's accuracy, when x̂ from the latent takes the place of the features x",
        ),
        verdict(
            "cosine",
            "Features kept",
            measured(probe, "cosine"),
            lambda value: "–" if value is None else f"{value:.3f}",
            "mean cosine between each feature vector x and its reconstruction x̂; 1 is identical",
        ),
        verdict(
            "psnr",
            "Images rebuilt",
            measured(record.results, "reconstruction", "sets", "heldout", "psnr"),
            decibels,
            "PSNR of unseen images after the way through the latent and back",
        ),
        verdict(
            "close",
            "Near-copies",
            measured(scores, "nearest", "fraction_close"),
            percent,
            "of samples lie closer to a training image than 99 % of unseen real images do"
            + (f"; {number(identical)} identical" if identical is not None else ""),
            beside=expected,
        ),
        verdict(
            "seconds",
            "Time",
            sum(running.values()) if running and scores else None,
            duration,
            "for everything on this page, installation not counted",
        ),
    ]


def tiles(verdicts: list[Verdict]) -> Markup:
    """The verdicts as tiles."""
    return tag(
        "ul",
        [
            tag(
                "li",
                tag("h3", verdict.title),
                tag("p", verdict.shown, class_="value"),
                tag(
                    "p",
                    tag("span", SIGNS[verdict.status], class_="sign", aria_hidden="true"),
                    tag("span", SAID[verdict.status], class_="said"),
                    tag("span", verdict.beside) if verdict.beside else None,
                    class_="status",
                ),
                tag("p", verdict.meaning, class_="meaning"),
                class_=f"tile {verdict.status}",
            )
            for verdict in verdicts
        ],
        class_="tiles",
    )


def summary(verdicts: list[Verdict]) -> Markup | None:
    """One line: how many targets were reached, of how many; None where there is none."""
    aimed = [verdict for verdict in verdicts if verdict.beside.startswith("target")]
    if not aimed:
        return None
    reached = sum(verdict.status == "reached" for verdict in aimed)
    pending = sum(verdict.status == "pending" for verdict in aimed)
    missed = len(aimed) - reached - pending
    kind = "missed" if missed else "pending" if pending else "reached"
    said = f"{reached} of {len(aimed)} targets reached"
    more = [f"{missed} missed"] if missed else []
    more += [f"{pending} not measured yet"] if pending else []
    sign = tag("span", SIGNS[kind], class_="sign", aria_hidden="true")
    return tag("p", sign, ", ".join([said, *more]), class_=f"summary {kind}")
