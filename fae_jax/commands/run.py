"""Runs every unfinished stage of an experiment, in order."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, running
from fae_jax.stages.running import run_stages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with running(arguments) as experiment:
        return {"workdir": str(experiment.workdir.root), "ran": run_stages(experiment)}
