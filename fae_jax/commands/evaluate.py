"""Scores, as one JSON object with all that they depend on.

fae evaluate --workdir W --task generation reconstruction
    A trained FAE: in W/evaluation and on W/report.html. Tasks: generation, reconstruction, or how well the latent
    still understands (probe, retrieval, zero_shot, semantics). With --checkpoint N the samples are of step N of
    the generator, also while it trains: evaluation/TASK-step-N.json. With --protocol imagenet_50k or coco_30k as a
    published table has it.

fae evaluate --samples S --reference R --metrics fid sfid
    Anybody's samples: an .npz file (arr_0, as for ADM's evaluator), a folder of images, tars, or a data source
    KIND:PATH. R is one of these, ADM's statistics (mu, sigma), or what the next line wrote.

fae evaluate --make_reference FILE.npz --samples S --metrics fid sfid
    What these metrics have to know of real images, so that those are looked at once.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from fae_jax.cli.opening import add_checkpoint_argument, add_experiment_arguments, open_experiment, watching
from fae_jax.config import check, default_config, settle
from fae_jax.config.overriding import load_protocol
from fae_jax.evaluation.foreign import make_reference, score
from fae_jax.evaluation.tasks import prepare, task_names
from fae_jax.files.paths import as_path, check_folder
from fae_jax.files.progress import say
from fae_jax.files.writing import write_result
from fae_jax.parallel.hosts import is_first, wait_for_all
from fae_jax.parallel.startup import join_hosts
from fae_jax.report import write_report
from fae_jax.report.scores import flat

METRICS = ("fid", "sfid")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False, required=False)
    add_checkpoint_argument(parser)
    names = task_names()
    parser.add_argument("--task", nargs="+", choices=names, metavar="task", help=", ".join(names))
    parser.add_argument(
        "--protocol", metavar="P", help="a file of configs/protocols by name, or a file: fields, before --config.…"
    )
    parser.add_argument("--samples", metavar="S", help="images to score, with no experiment")
    parser.add_argument("--reference", metavar="R", help="what they are compared with")
    parser.add_argument("--metrics", nargs="+", metavar="metric", help=f"of --samples; default: {' '.join(METRICS)}")
    parser.add_argument("--out", metavar="FILE", help="file for the scores of --samples, beside standard output")
    parser.add_argument("--make_reference", metavar="FILE", help=".npz file to write, for --reference")
    parser.add_argument("--image_size", type=int, metavar="N", help="side that images of KIND:PATH are cropped to")
    parser.epilog = "--config.evaluation.field=value overrides how it is scored, --config.data.heldout_path=P on what"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    ours, theirs = (
        ("workdir", "task", "checkpoint", "protocol"),
        ("reference", "metrics", "out", "make_reference", "image_size"),
    )
    if arguments.samples is None:
        _refuse(arguments, theirs, "--samples")
        if arguments.workdir is None or arguments.task is None:
            raise ValueError("name what to score: --workdir W --task TASK, or --samples S --reference R")
        return _score_model(arguments)
    _refuse(arguments, ours, "--workdir, and --samples has none")
    return _score_samples(arguments)


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], without: str) -> None:
    given = [name for name in names if getattr(arguments, name) is not None]
    if given:
        raise ValueError(f"--{given[0]} goes with {without}")


def _score_model(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.protocol is not None:
        arguments.overrides = [*load_protocol(arguments.protocol), *arguments.overrides]
    join_hosts()
    experiment = open_experiment(arguments)
    experiment.step, experiment.apart = arguments.checkpoint, True
    with watching(experiment):
        evaluate = prepare(experiment, arguments.task)
        # Of a checkpoint everything that is written has a name of its own: a run may go on beside it.
        locked = arguments.checkpoint is None and is_first()
        with experiment.workdir.lock() if locked else contextlib.nullcontext():
            results = evaluate()
            if is_first():
                write_report(experiment.workdir.root)
            wait_for_all("evaluated")
    return results if len(results) > 1 else next(iter(results.values()))


def _score_samples(arguments: argparse.Namespace) -> dict[str, Any]:
    config = check(settle(default_config(), arguments.overrides))
    chosen, side = arguments.metrics or METRICS, arguments.image_size
    if side is not None and side < 1:
        raise ValueError(f"--image_size must be at least 1, got {side}")
    if arguments.make_reference is not None:
        _refuse(arguments, ("reference", "out"), "scores, and --make_reference gives none")
        check_folder(as_path(arguments.make_reference).parent, "--make_reference: ")
        made = make_reference(arguments.make_reference, arguments.samples, chosen, config, side)
        say(f"{arguments.make_reference}: {', '.join(chosen)} of {made['images']['count']} images")
        return made
    if arguments.out is not None:
        check_folder(as_path(arguments.out).parent, "--out: ")
    result = score(arguments.samples, arguments.reference, chosen, config, side)
    if arguments.out is not None:
        write_result(as_path(arguments.out), result)
    lines = flat(result["scores"])
    widest = max(len(name) for name, _ in lines)
    say(f"{result['samples']['count']} images of {arguments.samples} against {arguments.reference or 'nothing'}")
    for name, value in lines:
        say(f"  {name:<{widest}}  {value}")
    return result
