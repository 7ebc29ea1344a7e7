"""Runs every unfinished stage of an experiment, in order."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, running
from fae_jax.stages import STAGES, run_stage
from fae_jax.stages.experiment import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)


def run_stages(experiment: Experiment) -> list[str]:
    """All stages, those already done passed over; returns the names of those that ran."""
    wanted = [stage for stage in STAGES if stage != "encoder" or experiment.config.encoder.train]
    return [stage for stage in wanted if run_stage(experiment, stage)]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with running(arguments) as experiment:
        return {"workdir": str(experiment.workdir.root), "ran": run_stages(experiment)}
