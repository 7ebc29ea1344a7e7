"""Runs every unfinished stage of an experiment, in order; W/report.html is drawn after each."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, running
from fae_jax.files.progress import say
from fae_jax.parallel.hosts import is_first
from fae_jax.report import write_report
from fae_jax.stages.running import run_stages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with running(arguments) as experiment:
        root = experiment.workdir.root

        def report() -> None:
            if is_first():
                try:
                    write_report(root)
                except (OSError, ValueError) as error:  # it never ends a run
                    say(f"warning: the report of {root} was not drawn ({error})")

        return {"workdir": str(root), "ran": run_stages(experiment, report)}
