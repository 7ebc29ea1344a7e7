"""Trains one stage: encoder (where the experiment trains its own), features, pixels, finetune, generator, or
post_training (where the experiment has one)."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, running
from fae_jax.kinds import names
from fae_jax.stages import STAGES
from fae_jax.stages.running import run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    trained = [stage for stage in names("stages", STAGES) if stage != "cache"]
    parser.add_argument("stage", choices=trained, metavar="stage", help=", ".join(trained))
    add_experiment_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with running(arguments, arguments.stage) as experiment:
        ran = run_stage(experiment, arguments.stage)
    return {"workdir": str(experiment.workdir.root), "ran": [arguments.stage] if ran else []}
