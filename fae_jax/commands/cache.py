"""Encodes the data set once into the latent cache, with exact statistics; or reads all of a finished one to check it.

Says first what it will take, and goes on where an earlier run stopped.
"""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.cli.opening import add_experiment_arguments, open_experiment, running
from fae_jax.data.stores.latent_check import check_cache
from fae_jax.errors import RunFailed
from fae_jax.files.progress import report_progress, tell
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.latents import latents_directory, open_latents
from fae_jax.stages.running import check_stages, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify", action="store_true", help="read every record of the finished cache; write nothing"
    )
    add_experiment_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.verify:
        return _verify(open_experiment(arguments))
    with running(arguments, "cache") as experiment:
        run_stage(experiment, "cache")
        return {"workdir": str(experiment.workdir.root), "cache": latents_directory(experiment.workdir)}


def _verify(experiment: Experiment) -> dict[str, Any]:
    """Checks every checksum, number and statistic of the finished cache.

    Raises:
      ValueError, FileNotFoundError: there is none, or it is of something else.
      RunFailed: a shard is damaged.
    """
    check_stages(experiment, "fae cache --verify", ["cache"])
    cache = open_latents(experiment.workdir).source
    try:
        check_cache(cache, report_progress("verify"))
    except ValueError as error:
        raise RunFailed(str(error)) from error
    tell(f"cache: {len(cache)} images, {cache.header.views} views each, are as written; {cache.directory}")
    return {"workdir": str(experiment.workdir.root), "cache": cache.directory, "images": len(cache)}
