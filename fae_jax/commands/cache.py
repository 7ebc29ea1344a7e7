"""Encodes the data set once into the latent cache, with exact statistics."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.commands.experiment import add_experiment_arguments, running
from fae_jax.stages import run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with running(arguments, "cache") as experiment:
        run_stage(experiment, "cache")
        return {"workdir": str(experiment.workdir.root), "cache": str(experiment.cache_directory)}
