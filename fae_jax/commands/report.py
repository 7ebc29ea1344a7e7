"""Draws W/report.html of whatever a working directory holds by now, also while a run is at work in it."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments
from fae_jax.files.progress import tell
from fae_jax.report import write_report
from fae_jax.workdir import Workdir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.overrides:
        raise ValueError("fae report draws what is there: it takes no --config.section.field=value")
    workdir = Workdir(arguments.workdir)
    workdir.read_config()
    report = write_report(workdir.root)
    tell(str(report))
    return {"report": str(report)}
