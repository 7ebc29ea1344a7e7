"""Scores a trained FAE, as JSON in W/evaluation and as W/report.html: generation, reconstruction, or how well the
latent still understands (probe, retrieval, zero_shot, semantics). Several tasks may be named."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, open_experiment
from fae_jax.commands.sample import balanced_labels
from fae_jax.evaluation.tasks import Evaluation, draw, write_sizes
from fae_jax.model import FAE
from fae_jax.report import write_report
from fae_jax.stages import check_stages

# task → the stages it needs
TASKS = {
    "probe": ("features",),
    "retrieval": ("features",),
    "zero_shot": ("features",),
    "semantics": ("features",),
    "reconstruction": ("features", "pixels"),
    "generation": ("features", "pixels", "generator"),
}
SETS = {"unguided": None, "guided": "config"}  # sets of samples and their guidance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    parser.add_argument(
        "--task", required=True, nargs="+", choices=list(TASKS), metavar="task", help=", ".join(TASKS)
    )
    parser.epilog = "--config.evaluation.field=value overrides how it is scored"


def evaluate(evaluation: Evaluation, task: str) -> dict[str, Any]:
    """Runs one task and writes its results; for generation the samples are drawn first."""
    if task != "generation":
        return getattr(evaluation, task)()
    fae, settings = evaluation.fae, evaluation.fae.config.evaluation
    labels = balanced_labels(list(range(fae.config.data.classes)), settings.samples)
    sets = {
        name: draw(
            fae,
            name,
            labels,
            sampler=None,
            steps=None,
            guidance=guidance,
            seed=settings.seed,
            label_policy="balanced",
        )
        for name, guidance in SETS.items()
    }
    return evaluation.generation(sets)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    experiment = open_experiment(arguments)
    tasks = list(dict.fromkeys(arguments.task))
    for task in tasks:
        check_stages(experiment, f"task {task}", TASKS[task])
    evaluation = Evaluation(FAE(experiment))
    for task in tasks:
        evaluation.check(task)
    with experiment.workdir.lock(), experiment.timed("evaluate"):
        results = {task: evaluate(evaluation, task) for task in tasks}
        write_sizes(evaluation.fae)
        write_report(experiment.workdir.root)
    return results if len(tasks) > 1 else results[tasks[0]]
