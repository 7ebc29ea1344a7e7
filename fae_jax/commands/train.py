"""Trains one stage: encoder (where the experiment trains its own), features, pixels, finetune or generator."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.commands.experiment import add_experiment_arguments, open_experiment
from fae_jax.stages import STAGES, check_request, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    trained = [stage for stage in STAGES if stage != "cache"]
    parser.add_argument("stage", choices=trained, metavar="stage", help=", ".join(trained))
    add_experiment_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    experiment = open_experiment(arguments)
    check_request(experiment, arguments.stage)
    with experiment.workdir.lock():
        experiment.workdir.begin(experiment.config)
        ran = run_stage(experiment, arguments.stage)
    return {"workdir": str(experiment.workdir.root), "ran": [arguments.stage] if ran else []}
