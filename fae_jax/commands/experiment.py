"""What the verbs share: from `--config`, `--workdir` and overrides to an `Experiment`."""

from __future__ import annotations

import argparse
import shlex

from fae_jax.configuration import check, load_config, override
from fae_jax.stages.experiment import Experiment
from fae_jax.workdir import Workdir


def add_experiment_arguments(parser: argparse.ArgumentParser, *, config: bool = True) -> None:
    """--workdir and, for verbs that may begin an experiment, --config."""
    parser.add_argument("--workdir", required=True, metavar="W", help="working directory of the experiment")
    if config:
        parser.add_argument(
            "--config", metavar="C", help="configuration file or name; default: the working directory's"
        )
        parser.epilog = "--config.section.field=value overrides a field of the configuration"


def open_experiment(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the arguments describe; computes and changes nothing.

    Raises:
      ValueError: a field, a value, or a working directory of another experiment.
      FileNotFoundError: no such configuration, or none given and the working directory has none.
    """
    workdir = Workdir(arguments.workdir)
    given = getattr(arguments, "config", None)
    config = check(override(load_config(given) if given else workdir.read_config(), arguments.overrides))
    workdir.check_config(config)
    words = [f"--config.{name}={text}" for name, text in arguments.overrides]
    return Experiment(config, workdir, shlex.join(["--config", given, *words]) if given else None)
