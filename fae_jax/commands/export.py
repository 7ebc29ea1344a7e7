"""Writes a trained model for the world outside. `bundle` is a folder that needs nothing else, which fae_jax.load
opens; a published encoder is named in it by hash, one that was trained here travels along. `stablehlo` runs with jax
and numpy alone. docs/exporting.md has more."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from fae_jax import __version__
from fae_jax.cli.opening import add_model_arguments, open_model
from fae_jax.errors import RunFailed
from fae_jax.export import EXPORTS
from fae_jax.files.paths import as_path, local_path
from fae_jax.files.progress import say
from fae_jax.kinds import find, names
from fae_jax.stages.running import check_stages
from fae_jax.stages.stage import read_record
from fae_jax.weights import hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--format", default="bundle", metavar="F", help=f"{', '.join(names('exports', EXPORTS))}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, not there yet")
    parser.add_argument("--push", metavar="HUB", help="owner/name on the hub that the folder is uploaded to as well")
    parser.add_argument(
        "--few_steps",
        type=int,
        metavar="N",
        help="stablehlo: steps of its second program (default: 8; 0 = none)",
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    write = find("exports", EXPORTS, arguments.format)
    options = {} if arguments.few_steps is None else {"few_steps": arguments.few_steps}
    for name in options.keys() - inspect.signature(write).parameters.keys():
        raise ValueError(f"the format {arguments.format} has no --{name}: leave it out")
    out = as_path(arguments.out)
    if arguments.push:
        out = local_path(out, "--push uploads from a disk; --out")
        hub.check_push(arguments.push)
    experiment, ema = open_model(arguments, "fae export", ("features", "pixels"))
    if experiment.parts.has_generator and arguments.checkpoint is None:
        check_stages(experiment, "fae export", ("generator",))
    stages = ("features", "generator", experiment.parts.drawn_with)
    records = {stage: read_record(experiment.workdir, stage) for stage in stages}
    provenance = {
        f"{stage}: {name}": value
        for stage, record in records.items()
        if record is not None
        for name, value in {**record.made_of, "steps": record.finished}.items()
    }
    folder = write(experiment.parts, out, ema=ema, provenance=provenance, **options)
    say(f"export: {arguments.format} in {folder}")
    made = {"out": str(folder), "format": arguments.format}
    if not arguments.push:
        return made
    try:
        commit = hub.push(folder, arguments.push, f"{arguments.format} of fae_jax {__version__}")
    except (ValueError, OSError) as error:
        raise RunFailed(
            f"{error}; {folder} is whole: `hf upload {arguments.push} {folder}` sends it again"
        ) from error
    say(f"export: {arguments.push}@{commit}")
    return {**made, "hub": arguments.push, "commit": commit}
