"""Scores a trained FAE, as JSON in W/evaluation and as W/report.html: generation, reconstruction, or how well the
latent still understands (probe, retrieval, zero_shot, semantics). Several tasks may be named.

With --checkpoint N the samples are of step N of the generator, also while it trains: evaluation/TASK-step-N.json.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from fae_jax.cli.opening import add_checkpoint_argument, add_experiment_arguments, open_experiment
from fae_jax.evaluation.tasks import prepare, task_names
from fae_jax.report import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    add_checkpoint_argument(parser)
    names = task_names()
    parser.add_argument("--task", required=True, nargs="+", choices=names, metavar="task", help=", ".join(names))
    parser.epilog = "--config.evaluation.field=value overrides how it is scored, --config.data.heldout_path=P on what"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    experiment = open_experiment(arguments)
    experiment.step = arguments.checkpoint
    evaluate = prepare(experiment, arguments.task)
    # Of a checkpoint everything that is written has a name of its own: a run may go on beside it.
    with experiment.workdir.lock() if arguments.checkpoint is None else contextlib.nullcontext():
        results = evaluate()
        write_report(experiment.workdir.root)
    return results if len(results) > 1 else next(iter(results.values()))
