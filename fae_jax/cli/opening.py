"""What the verbs share: from `--config`, `--workdir` and overrides to an `Experiment`, on one host or several."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import time
from collections.abc import Iterator

from fae_jax.config import load_config, settle
from fae_jax.errors import RunFailed, Stopped
from fae_jax.parallel.ending import end_now
from fae_jax.parallel.host_watch import PATIENCE, watch_hosts
from fae_jax.parallel.hosts import is_first, wait_for_all
from fae_jax.parallel.startup import join_hosts
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.running import check_request, check_stages
from fae_jax.workdir import Workdir


def add_experiment_arguments(parser: argparse.ArgumentParser, *, config: bool = True, required: bool = True) -> None:
    """--workdir and, for verbs that may begin an experiment, --config."""
    parser.add_argument("--workdir", required=required, metavar="W", help="working directory of the experiment")
    if config:
        parser.add_argument(
            "--config", metavar="C", help="configuration file or name; default: the working directory's"
        )
        parser.epilog = "--config.section.field=value overrides a field of the configuration"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--workdir, and which parameters of its generator are meant."""
    add_experiment_arguments(parser, config=False)
    parser.add_argument("--ema", default="", help="EMA decay to use (default: the largest kept; none = raw weights)")
    add_checkpoint_argument(parser)


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint of its generator is meant."""
    parser.add_argument(
        "--checkpoint",
        type=int,
        metavar="STEP",
        help="step of the generator to use, also while it trains (default: the last)",
    )


def open_model(arguments: argparse.Namespace, what: str, needs: tuple[str, ...]) -> tuple[Experiment, str | None]:
    """The experiment whose finished stages `needs` the verb `what` reads, and the EMA that is meant, or None. Of
    several hosts each has the whole model.

    Raises:
      ValueError, FileNotFoundError: see `open_experiment` and `check_stages`.
    """
    experiment = open_experiment(arguments)
    experiment.step, experiment.apart = arguments.checkpoint, True
    check_stages(experiment, what, needs)
    return experiment, None if arguments.ema == "none" else arguments.ema


def open_experiment(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the arguments describe; computes and changes nothing.

    Raises:
      ValueError: a field, a value, or a working directory of another experiment.
      FileNotFoundError: no such configuration, or none given and the working directory has none.
    """
    workdir = Workdir(arguments.workdir)
    given = getattr(arguments, "config", None)
    config = settle(load_config(given) if given else workdir.read_config(), arguments.overrides)
    workdir.check_config(config)
    words = [f"--config.{name}={text}" for name, text in arguments.overrides]
    return Experiment(config, workdir, shlex.join(["--config", given, *words]) if given else None)


@contextlib.contextmanager
def running(arguments: argparse.Namespace, stage: str | None = None) -> Iterator[Experiment]:
    """The experiment, checked, begun and held, on all hosts of the run; one that fails or is lost ends it on all.

    Args:
      stage: what is to be run; None means every stage.

    Raises:
      ValueError, FileNotFoundError: see `open_experiment` and `check_request`.
      RunFailed: the hosts did not find each other.
    """
    join_hosts()
    with holding(open_experiment(arguments), stage) as experiment:
        yield experiment


@contextlib.contextmanager
def holding(experiment: Experiment, stage: str | None = None) -> Iterator[Experiment]:
    """The same for an experiment that is there already, on hosts that have joined.

    Raises:
      ValueError, FileNotFoundError: see `check_request`.
    """
    if experiment.config.evaluation.during.every:
        from fae_jax.evaluation.during import scorer

        experiment.scorer = scorer
    with watching(experiment):
        check_request(experiment, stage)
        with experiment.workdir.lock(end_now) if is_first() else contextlib.nullcontext():
            if is_first():
                experiment.workdir.begin(experiment.config)
            wait_for_all("working directory begun")
            yield experiment
            wait_for_all("run finished")


@contextlib.contextmanager
def watching(experiment: Experiment) -> Iterator[None]:
    """Where there are several hosts: one whose body fails, or that is lost, ends it on all."""
    watch = watch_hosts(experiment.config.watch.hosts)
    try:
        yield
    except BaseException as error:
        if watch is not None:
            if error.__cause__ is not None or not isinstance(error, RunFailed | Stopped):
                time.sleep(PATIENCE)  # a lost host breaks what the others share: the watch knows which, and ends it
            watch.leave(" ".join(str(error).split())[:500] or type(error).__name__)
        raise
    if watch is not None:
        watch.leave()
