"""Scores a trained FAE: generation, reconstruction or probe, as JSON in W/evaluation and as W/report.html."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.commands.experiment import add_experiment_arguments, open_experiment
from fae_jax.commands.sample import balanced_labels
from fae_jax.evaluation.report import write_report
from fae_jax.evaluation.tasks import Evaluation, draw, write_sizes
from fae_jax.model import FAE
from fae_jax.stages import check_stages

# task → the stages it needs
TASKS = {
    "probe": ("features",),
    "reconstruction": ("features", "pixels"),
    "generation": ("features", "pixels", "generator"),
}
SETS = {"unguided": None, "guided": "config"}  # sets of samples and their guidance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    parser.add_argument("--task", required=True, choices=list(TASKS), metavar="task", help=", ".join(TASKS))


def evaluate(evaluation: Evaluation, task: str) -> dict[str, Any]:
    """Runs one task and writes its results; for generation the samples are drawn first."""
    if task == "probe":
        return evaluation.probe()
    if task == "reconstruction":
        return evaluation.reconstruction()
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
    check_stages(experiment, f"task {arguments.task}", TASKS[arguments.task])
    with experiment.workdir.lock(), experiment.timed("evaluate"):
        evaluation = Evaluation(FAE(experiment))
        result = evaluate(evaluation, arguments.task)
        write_sizes(evaluation.fae)
        write_report(experiment.workdir.root)
    return result
