"""The tasks of `fae evaluate`: from a trained FAE and its images to scores and figures. The contract, and the table.

    probe            does x̂ still mean what x meant?           evaluation/probe.json
    retrieval        do captions still find their images?     evaluation/retrieval.json
    zero_shot        are classes known by their names?          evaluation/zero_shot.json
    semantics        are like patches still alike?              evaluation/semantics.json
    reconstruction   does the image come back?               evaluation/reconstruction.json
    generation       are samples right, lifelike and new?      evaluation/generation.json
    guidance         how much guidance, where, which EMA?       evaluation/guidance.json

All are over the held-out images; classifiers and neighbours come from the training images. Every task walks the
images by itself and needs no more stages than it uses.

A kind is one file here, or an entry point in the group `fae_jax.tasks` of another package: a class with

    Section     where it has fields: `evaluation.<kind>`, a frozen dataclass of options
    needs       the stages that must be finished
    together    where it is True: several hosts carry it out together
    possible    where other than `check_heldout`: configuration → None, raises ValueError where it can never be scored
    higher      names in its result of which higher values are better; of all others lower ones are
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from PIL import Image

from fae_jax.data.sources.listing import NOTHING_HELD_OUT
from fae_jax.evaluation.metrics import METRICS
from fae_jax.evaluation.origin import keep_other, origin_of
from fae_jax.evaluation.streams import Streams
from fae_jax.files.writing import write_json, write_result
from fae_jax.kinds import find, names
from fae_jax.model import FAE
from fae_jax.parallel.hosts import is_first
from fae_jax.section import as_dict
from fae_jax.stages import stage_of
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.figures import write_figure
from fae_jax.stages.running import check_stages
from fae_jax.stages.sampling import write_sizes

TASKS = {
    "probe": "fae_jax.evaluation.tasks.probe:Probe",
    "retrieval": "fae_jax.evaluation.tasks.retrieval:Retrieval",
    "zero_shot": "fae_jax.evaluation.tasks.zero_shot:ZeroShot",
    "semantics": "fae_jax.evaluation.tasks.semantics:Semantics",
    "reconstruction": "fae_jax.evaluation.tasks.reconstruction:Reconstruction",
    "generation": "fae_jax.evaluation.tasks.generation:Generation",
    "guidance": "fae_jax.evaluation.tasks.guidance:GuidanceSweep",
}


class Outcome(NamedTuple):
    """What a task leaves.

    Attributes:
      result: of `evaluation/TASK.json`; the page shows whatever it holds.
      figures: of `evaluation/figures/NAME.png`, name → (image, caption).
      each: of `evaluation/images/TASK.json`, what is said of each image, plain JSON values; not written where empty.
      origin: what decides the numbers, for `origin` in the result, beside what is in every task's.
    """

    result: dict[str, Any]
    figures: Mapping[str, tuple[Image.Image, str]] = {}
    origin: Mapping[str, Any] = {}
    each: Mapping[str, Any] = {}


@runtime_checkable
class Task(Protocol):
    """Made from (`fae_jax.model.FAE`, `fae_jax.evaluation.streams.Streams`)."""

    def check(self) -> None:
        """Refuses what cannot be evaluated, before anything is computed or written.

        Raises:
          ValueError, FileNotFoundError: images or weights are not there, none are held out, or a field does not fit.
        """
        ...

    def run(self) -> Outcome:
        """Walks the streams and scores them."""
        ...


def task_kind(name: str) -> Any:
    """The class of the task called `name`.

    Raises:
      ValueError: there is none; the nearest is named.
    """
    return find("tasks", TASKS, name)


def task_names() -> list[str]:
    """Every task that can be asked for."""
    return names("tasks", TASKS)


def check_heldout(config: Any) -> None:
    """Refuses a configuration by which no image is held out.

    Raises:
      ValueError: it says what to name.
    """
    data = config.data
    if not (data.holdout or data.heldout_path or data.source == "tfds"):  # which has splits of its own
        raise ValueError(NOTHING_HELD_OUT)


def check_tasks(config: Any, tasks: Iterable[str]) -> None:
    """Refuses tasks that an experiment can never be scored by, whatever it trains.

    Raises:
      ValueError: a task is unknown, or what it needs is not in the configuration.
    """
    for name in tasks:
        try:
            getattr(task_kind(name), "possible", check_heldout)(config)
        except ValueError as error:
            raise ValueError(f"task {name}: {error}") from error


def prepare(experiment: Experiment, tasks: Sequence[str]) -> Callable[[], dict[str, dict[str, Any]]]:
    """Refuses what cannot be evaluated; the function it returns runs the tasks and writes what they leave.

    Raises:
      ValueError, FileNotFoundError: a task is unknown, needs a stage that is not finished, or as `Task.check`.
    """
    check_tasks(experiment.config, tasks)
    kinds = {name: task_kind(name) for name in dict.fromkeys(tasks)}
    step = experiment.step
    for name, kind in kinds.items():
        if step is not None and "generator" not in kind.needs:
            raise ValueError(f"task {name} draws no samples, so that no checkpoint of the generator goes with it")
        if jax.process_count() > 1 and not getattr(kind, "together", False):
            raise ValueError(f"task {name} is carried out by one host; name it to one alone")
        check_stages(experiment, f"task {name}", kind.needs)
    fae = FAE(experiment.parts)
    streams = Streams(fae, experiment)
    made = {name: kind(fae, streams) for name, kind in kinds.items()}
    for task in made.values():
        task.check()

    def run() -> dict[str, dict[str, Any]]:
        root, results, data = experiment.workdir.root, {}, experiment.config.data
        images = {"heldout_images": streams.source("heldout").fingerprint} if data.heldout_path else {}
        with contextlib.nullcontext() if step is not None else experiment.timed("evaluate"):
            for task_name, task in made.items():
                begun = time.monotonic()
                name = task_name + experiment.suffix
                outcome = task.run()
                section = getattr(experiment.config.evaluation, task_name, None)
                settings = as_dict(section) if dataclasses.is_dataclass(section) else {}
                facts = {"stages": _lineage(experiment, kinds[task_name].needs), "settings": settings}
                origin = origin_of({**facts, **outcome.origin}, time.monotonic() - begun)
                results[name] = {**outcome.result, **images, "origin": origin}
                if not is_first():
                    continue
                for figure, (image, caption) in outcome.figures.items():
                    write_figure(root, figure + experiment.suffix, image, caption)
                file = experiment.workdir.evaluation / f"{name}.json"
                keep_other(file, origin)
                write_result(file, results[name])
                if outcome.each:
                    write_json(file.parent / "images" / file.name, {"origin": origin["digest"], **outcome.each})
            if is_first():
                write_sizes(fae, root)
        return results

    return run


def _lineage(experiment: Experiment, stages: Collection[str]) -> dict[str, Any]:
    """What the stages were made of, and the step each ended at; with that of the generator whatever is drawn with."""
    drawn = (experiment.parts.drawn_with,) if "generator" in stages else ()
    known = {name: experiment.parts.record(stage_of(name).folder or name) for name in (*stages, *drawn)}
    return {name: {**record.made_of, "step": record.finished} for name, record in known.items() if record}


def higher_is_better(score: str) -> bool:
    """Whether higher values of a score are better, by its task and the metrics.

    Args:
      score: its task and its path in the result, as "generation.sets.guided.accuracy".

    Raises:
      ValueError: there is no such task.
    """
    task, *path = score.split(".")
    kinds = [task_kind(task), *(find("metrics", METRICS, name) for name in names("metrics", METRICS))]
    return any(part in kind.higher for kind in kinds for part in path)
