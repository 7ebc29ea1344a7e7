"""Writes a trained model for the world outside: `bundle` is a folder that needs nothing else, which fae_jax.load
opens. A published encoder is named in it by hash; one that was trained here travels along."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, open_experiment
from fae_jax.export import EXPORTS
from fae_jax.files.paths import local_path
from fae_jax.files.progress import say
from fae_jax.kinds import find, names
from fae_jax.stages.running import check_stages
from fae_jax.stages.stage import read_record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    parser.add_argument("--format", default="bundle", metavar="F", help=f"{', '.join(names('exports', EXPORTS))}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, not there yet")
    parser.add_argument("--ema", default="", help="EMA decay to use (default: the largest kept; none = raw weights)")
    parser.add_argument(
        "--checkpoint", type=int, metavar="STEP", help="step of the generator to use (default: the last)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    write = find("exports", EXPORTS, arguments.format)
    experiment = open_experiment(arguments)
    needed = ("features", "pixels", "generator") if experiment.parts.has_generator else ("features", "pixels")
    check_stages(experiment, "fae export", needed[: None if arguments.checkpoint is None else 2])
    experiment.parts.step = arguments.checkpoint
    records = {stage: read_record(experiment.workdir, stage) for stage in ("features", "generator")}
    provenance = {
        f"{stage}: {name}": value
        for stage, record in records.items()
        if record is not None
        for name, value in {**record.made_of, "steps": record.finished}.items()
    }
    ema = None if arguments.ema == "none" else arguments.ema
    folder = write(experiment.parts, local_path(arguments.out, "--out"), ema=ema, provenance=provenance)
    say(f"export: {arguments.format} in {folder}")
    return {"out": str(folder), "format": arguments.format}
