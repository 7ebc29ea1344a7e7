"""Draws W/report.html of whatever a working directory holds by now, also while a run is at work in it; or several
runs side by side."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments
from fae_jax.files.progress import tell
from fae_jax.report import write_report
from fae_jax.report.comparison import write_comparison
from fae_jax.workdir import Workdir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    parser.add_argument(
        "--beside", nargs="+", default=[], metavar="W", help="other runs to compare with, in W/comparison.html"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.overrides:
        raise ValueError("fae report draws what is there: it takes no --config.section.field=value")
    workdirs = [Workdir(each) for each in (arguments.workdir, *arguments.beside)]
    for workdir in workdirs:
        workdir.read_config()
    roots = [workdir.root for workdir in workdirs]
    report = write_comparison(roots) if arguments.beside else write_report(roots[0])
    tell(str(report))
    return {"report": str(report)}
