"""Draws images from a trained generator, by class: samples.npz, grid.png and settings.json in W/samples/NAME."""

from __future__ import annotations

import argparse
import ast
import sys
from typing import Any

import numpy as np

from fae_jax import model
from fae_jax.cli.opening import add_experiment_arguments, open_experiment
from fae_jax.evaluation.tasks import draw
from fae_jax.stages import check_stages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser, config=False)
    parser.add_argument("--name", default="samples", help="folder under W/samples (default: samples)")
    parser.add_argument("--classes", default="all", help="class numbers, as 0,3,7, or all (default)")
    parser.add_argument("--number", type=int, default=100, help="images, spread evenly over the classes")
    parser.add_argument(
        "--guidance", default="config", help="a weight, none, config (default), or intervals ((low, high, weight), …)"
    )
    parser.add_argument("--sampler", help="euler, heun or euler_maruyama; default: the configuration's")
    parser.add_argument("--steps", type=int, help="steps of the sampler; default: the configuration's")
    parser.add_argument("--seed", type=int, default=0, help="of all noise")
    parser.add_argument("--ema", default="", help="decay of the parameter average; default: the slowest; none: none")


def parse_guidance(text: str) -> Any:
    """What stands behind --guidance.

    Raises:
      ValueError: it is neither a weight, intervals, none nor config.
    """
    if text in ("config", "none"):
        return None if text == "none" else text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"--guidance {text!r} is neither a weight, intervals, none nor config") from None


def parse_classes(text: str, classes: int) -> list[int]:
    """What stands behind --classes.

    Raises:
      ValueError: not numbers, or out of range.
    """
    if text == "all":
        return list(range(classes))
    try:
        chosen = [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--classes {text!r} must be class numbers separated by commas, or all") from None
    wrong = [label for label in chosen if not 0 <= label < classes]
    if wrong:
        raise ValueError(f"--classes {text!r}: {wrong[0]} is not a class; they are 0 to {classes - 1}")
    return chosen


def balanced_labels(classes: list[int], number: int) -> np.ndarray:
    """`number` labels that take the classes in turn: as many of each, one more at most."""
    return np.resize(np.asarray(classes, np.int32), number)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    experiment = open_experiment(arguments)
    if arguments.number < 1:
        raise ValueError(f"--number must be at least 1, got {arguments.number}")
    if arguments.name in ("", ".", "..") or "/" in arguments.name:
        raise ValueError(f"--name {arguments.name!r} must be the name of one folder")
    chosen = parse_classes(arguments.classes, experiment.config.data.classes)
    guidance = parse_guidance(arguments.guidance)
    model.guidance_schedule(guidance, experiment.config.sampling.guidance)
    check_stages(experiment, "sampling", ("features", "pixels", "generator"))
    fae = model.FAE(experiment)
    fae.sampler(arguments.sampler, arguments.steps)
    average = None if arguments.ema == "none" else arguments.ema
    drawn = draw(
        fae,
        arguments.name,
        balanced_labels(chosen, arguments.number),
        sampler=arguments.sampler,
        steps=arguments.steps,
        guidance=guidance,
        seed=arguments.seed,
        average=average,
        label_policy="balanced",
        progress=lambda done: print(f"sample: {done} of {arguments.number}", file=sys.stderr, flush=True),
    )
    folder = experiment.workdir.samples / arguments.name
    print(f"{arguments.number} images in {folder}", file=sys.stderr)
    return {"folder": str(folder), "function_evaluations": drawn["sampling"]["function_evaluations"]}
