"""Writes a trained model for the world outside: `bundle` is a folder that needs nothing else, which fae_jax.load
opens. A published encoder is named in it by hash; one that was trained here travels along."""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_model_arguments, open_model
from fae_jax.export import EXPORTS
from fae_jax.files.paths import local_path
from fae_jax.files.progress import say
from fae_jax.kinds import find, names
from fae_jax.stages.running import check_stages
from fae_jax.stages.stage import read_record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--format", default="bundle", metavar="F", help=f"{', '.join(names('exports', EXPORTS))}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, not there yet")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    write = find("exports", EXPORTS, arguments.format)
    experiment, ema = open_model(arguments, "fae export", ("features", "pixels"))
    if experiment.parts.has_generator and arguments.checkpoint is None:
        check_stages(experiment, "fae export", ("generator",))
    records = {stage: read_record(experiment.workdir, stage) for stage in ("features", "generator")}
    provenance = {
        f"{stage}: {name}": value
        for stage, record in records.items()
        if record is not None
        for name, value in {**record.made_of, "steps": record.finished}.items()
    }
    folder = write(experiment.parts, local_path(arguments.out, "--out"), ema=ema, provenance=provenance)
    say(f"export: {arguments.format} in {folder}")
    return {"out": str(folder), "format": arguments.format}
