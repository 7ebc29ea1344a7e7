"""Scores a trained FAE, as JSON in W/evaluation and as W/report.html: generation, reconstruction, or how well the
latent still understands (probe, retrieval, zero_shot, semantics). Several tasks may be named."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, open_experiment
from fae_jax.evaluation.tasks import TASKS, Evaluation, evaluate
from fae_jax.model import FAE
from fae_jax.report import write_report
from fae_jax.stages.running import check_stages
from fae_jax.stages.sampling import write_sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    parser.add_argument(
        "--task", required=True, nargs="+", choices=list(TASKS), metavar="task", help=", ".join(TASKS)
    )
    parser.epilog = "--config.evaluation.field=value overrides how it is scored"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    experiment = open_experiment(arguments)
    tasks = list(dict.fromkeys(arguments.task))
    for task in tasks:
        check_stages(experiment, f"task {task}", TASKS[task])
    evaluation = Evaluation(FAE(experiment.parts), experiment)
    for task in tasks:
        evaluation.check(task)
    with experiment.workdir.lock(), experiment.timed("evaluate"):
        results = {task: evaluate(evaluation, task) for task in tasks}
        write_sizes(evaluation.fae, experiment.workdir.root)
        write_report(experiment.workdir.root)
    return results if len(tasks) > 1 else results[tasks[0]]
