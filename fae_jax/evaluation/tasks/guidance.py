"""How much guidance, up to which time, and which average of the weights: a score at every point of a grid.

Guidance of weight w acts on 0 ≤ t ≤ high; w = 1 is none. All points are of the same noise and labels, and one
compiled program draws them, whose arguments are the schedule and the network's weights. Samples are kept nowhere.

`evaluation/guidance.json`:

    schema          1
    by              the score that points are compared by, as METRIC.NAME, and whether higher values are better
    best            the name of the best point, and what `points` says of it
    points.NAME     ema, weight, high, function_evaluations, value (of `by`), and the scores of all metrics
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from PIL import Image

from fae_jax.data.sources.listing import SPLITS
from fae_jax.diffusion.guidance import KINDS, make_schedule
from fae_jax.evaluation.metrics import known_metrics, numbers_of, results
from fae_jax.evaluation.origin import metric_settings
from fae_jax.evaluation.streams import Streams, asked, drawn
from fae_jax.evaluation.tasks import Outcome, higher_is_better
from fae_jax.evaluation.tasks.generation import check_possible, check_real, real_side, taken
from fae_jax.files.progress import say
from fae_jax.model import FAE
from fae_jax.section import Check, are_numbers, as_dict, at_least, at_most, one_of, option
from fae_jax.stages.figures import line_chart
from fae_jax.stages.sampling import mean_evaluations, own_sampling


def _are(what: str, low: float, high: float) -> Check:
    """A check: one or more different numbers, above `low` and at most `high`."""

    def check(value: Any) -> str | None:
        fits = are_numbers(value, len(value)) and value and len(set(value)) == len(value)
        return None if fits and all(low < each <= high for each in value) else f"holds different {what}"

    return check


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceSweepSection:
    """Guidance × interval × EMA."""

    weights: tuple[Any, ...] = option(
        (1.0, 1.5, 2.0, 2.5, 3.0, 4.0), "weights; 1 = no guidance", _are("weights", -1e6, 1e6)
    )
    kind: str = option("classifier_free", f"what is weaker: {', '.join(KINDS)}; others are left out", one_of(*KINDS))
    highs: tuple[Any, ...] = option((0.7, 1.0), "times up to which guidance acts", _are("times in (0, 1]", 0.0, 1.0))
    emas: tuple[Any, ...] = option((), "decays of averages, of those kept; empty = all of generator.ema")
    samples: int = option(10_000, "images of a point", at_least(2), at_most(1_000_000))
    metrics: tuple[Any, ...] = option(("frechet",), "metrics; points are compared by the first one", known_metrics)


class GuidanceSweep:
    """The task; see the module."""

    Section = GuidanceSweepSection
    needs = ("features", "pixels", "generator")
    higher = ()
    together = True

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams, self.fields = fae, streams, fae.config.evaluation.guidance

    @staticmethod
    def possible(config: Any) -> None:
        check_possible(config, config.evaluation.guidance.metrics)

    def check(self) -> None:
        check_real(self.streams, self.fae.config, self.fields.metrics)

    def run(self) -> Outcome:
        fae, fields, evaluation = self.fae, self.fields, self.fae.config.evaluation
        settings = fae.settings()
        labels, prompts, names, about = asked(fae, lambda: self.streams.source("heldout"), fields.samples)
        how: dict[str, Any] = {"seed": evaluation.seed, "prompts": prompts}
        emas: list[str | None] = [str(decay) for decay in fields.emas or fae.config.generator.ema] or [None]
        every = itertools.product(emas, fields.highs, fields.weights)
        grid = list(dict.fromkeys((ema, *_acting(weight, high)) for ema, high, weight in every))
        read = (*fae.tokenizer.decodes, "generator", *(("guide",) if fields.kind == "auto" else ()))
        weights = {ema: fae.hashes(read, ema) for ema in emas}  # read by all hosts; refuses what was not kept
        real, reference = real_side(fae, self.streams, fields.metrics, fields.samples)
        points: dict[str, dict[str, Any]] = {}
        for number, (ema, weight, high) in enumerate(grid, 1):
            intervals = make_schedule(((0.0, high, weight, fields.kind),))
            spent: list[Any] = []
            more: dict[str, Any] = {"guidance": intervals, "ema": ema, "counted": spent.append}
            samples = drawn(fae, labels, settings, self.streams.evaluators, **how, **more)
            scores, _ = results(taken(fae, self.streams, samples, fields.metrics, names), real)
            by, value = next(numbers_of(scores))
            known = fae.generator.evaluations(fae.settings(guidance=intervals))
            evaluations = mean_evaluations(spent) if known is None else known
            point = {"ema": ema, "weight": weight, "high": high, "value": value}
            name = f"{weight:g} up to {high:g}" if weight != 1 else "none"
            name += f", EMA {ema}" if len(emas) > 1 else ""
            points[name] = {**point, "function_evaluations": evaluations, **scores}
            say(f"guidance: point {number} of {len(grid)}: {name}: {by} {value:.4g}")
        best, higher = best_point(points, by)
        result = {
            "schema": 1,
            "by": {"score": by.replace("/", "."), "higher": higher},
            "best": {"name": best, **points[best]},
            "points": points,
        }
        origin = {
            "samples": fields.samples,
            "kind": fields.kind,
            "seed": evaluation.seed,
            **about,
            "sampler": {
                **own_sampling(fae.config),
                **{name: value for name, value in as_dict(settings).items() if name not in ("batch", "guidance")},
                "dtype": settings.dtype or fae.config.compute.dtype,
            },
            "checkpoints": {str(ema): fae.parts.read_generator.get(ema) for ema in emas},
            "weights": {str(ema): each for ema, each in weights.items()},
            "evaluators": self.streams.evaluators.origin,
            "metrics": metric_settings(fields.metrics, evaluation.metrics),
            "real": {split: self.streams.source(split).fingerprint for split in SPLITS if split in real},
            "reference": reference,
        }
        return Outcome(result, {"guidance": (chart(points, by), _caption(best, points[best], by))}, origin)


def _acting(weight: float, high: float) -> tuple[float, float]:
    """Weight and time of a point: where there is no guidance its interval does not matter."""
    return float(weight), float(high) if weight != 1 else 1.0


def best_point(points: dict[str, dict[str, Any]], by: str) -> tuple[str, bool]:
    """The name of the best point, and whether higher values of the score `by`, METRIC/NAME, are better."""
    higher = higher_is_better(f"guidance.{by.replace('/', '.')}")
    best = max if higher else min
    return best(points, key=lambda name: points[name]["value"]), higher


def chart(points: dict[str, dict[str, Any]], by: str) -> Image.Image:
    """Value over weight, a line for each time and average; the point without guidance begins them all."""
    lines: dict[str, list[tuple[float, float]]] = {}
    several = len({point["ema"] for point in points.values()}) > 1
    guided = [point for point in points.values() if point["weight"] != 1]
    for ema, high in dict.fromkeys((point["ema"], point["high"]) for point in guided or points.values()):
        line = [
            (point["weight"], point["value"])
            for point in points.values()
            if point["ema"] == ema and (point["high"] == high or point["weight"] == 1)
        ]
        lines[f"up to {high:g}" + (f", EMA {ema}" if several else "")] = sorted(line)
    return line_chart(lines, x="weight of guidance", y=by.replace("/", " · "))


def _caption(best: str, point: dict[str, Any], by: str) -> str:
    return f"{by.replace('/', ' · ')} over the weight of guidance. Best: {best}, {point['value']:.4g}."
