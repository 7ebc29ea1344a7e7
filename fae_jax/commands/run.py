"""Runs every unfinished stage of an experiment, in order; W/report.html is drawn after each."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, running
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
                with contextlib.suppress(OSError):  # it never ends a run
                    write_report(root)

        return {"workdir": str(root), "ran": run_stages(experiment, report)}
