"""Draws images from a trained generator, by class: samples.npz, grid.png and settings.json in W/samples/NAME; with
--format png also each image, as images/NUMBER-CLASS.png."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from typing import Any

from fae_jax.cli.opening import add_model_arguments, open_model, watching
from fae_jax.files.names import nearest
from fae_jax.files.progress import say
from fae_jax.model import FAE, MOST, guidance_schedule
from fae_jax.parallel.startup import join_hosts
from fae_jax.stages.sampling import Drawing, choose_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--name", default="samples", help="folder under W/samples (default: samples)")
    parser.add_argument(
        "--format", default="npz", choices=("npz", "png"), metavar="F", help="npz (default), or png: each image too"
    )
    parser.add_argument("--classes", default="all", help="class numbers or names, as 0,3,7, or all (default)")
    parser.add_argument("--number", type=int, default=100, help="images, over the classes as sampling.labels says")
    parser.add_argument(
        "--guidance", default="config", help="a weight, none, config (default), or intervals as in sampling.guidance"
    )
    parser.add_argument(
        "--sampler", help="euler, heun, adams_bashforth or euler_maruyama; default: the configuration's"
    )
    parser.add_argument("--steps", type=int, help="steps of the sampler; default: the configuration's")
    parser.add_argument("--seed", type=int, default=0, help="seed of all noise")


def parse_guidance(text: str) -> Any:
    """What stands behind --guidance.

    Raises:
      ValueError: it is neither a weight, intervals, none nor config.
    """
    if text in ("config", "none"):
        return None if text == "none" else text
    try:
        guidance = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        guidance = None
    if not isinstance(guidance, int | float | tuple | list) or isinstance(guidance, bool):
        raise ValueError(f"--guidance {text[:100]!r} is neither a weight, intervals, none nor config")
    return guidance


def parse_classes(text: str, classes: Sequence[str]) -> list[int]:
    """What stands behind --classes: numbers or names, separated by commas, or all.

    Raises:
      ValueError: one is neither a number in range nor a name.
    """
    if text == "all":
        return list(range(max(len(classes), 1)))
    chosen = []
    for word in text.split(","):
        if word in classes:
            chosen.append(classes.index(word))
        elif word.strip().isdigit() and int(word) < len(classes):
            chosen.append(int(word))
        else:
            known = f"they are 0 to {len(classes) - 1}, or their names"
            hint = known if word.strip().isdigit() else nearest(word, classes, otherwise=known)
            raise ValueError(f"--classes {text!r}: {word} is not a class; {hint}")
    return chosen


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if not 1 <= arguments.number <= MOST:
        raise ValueError(f"--number must be from 1 to {MOST:,}, got {arguments.number}; several seeds draw more")
    if arguments.name in ("", ".", "..") or "/" in arguments.name:
        raise ValueError(f"--name {arguments.name!r} must be the name of one folder")
    guidance = parse_guidance(arguments.guidance)
    join_hosts()
    experiment, ema = open_model(arguments, "sampling", ("features", "pixels", "generator"))
    guidance_schedule(guidance, experiment.config.sampling.guidance)
    fae = FAE(experiment.parts)
    chosen = parse_classes(arguments.classes, fae.classes)
    fae.settings(sampler=arguments.sampler, steps=arguments.steps)
    folder = experiment.workdir.samples / arguments.name

    def progress(done: int) -> None:
        say(f"sample: {done} of {arguments.number}")

    drawing = Drawing(
        fae=fae,
        folder=folder,
        labels=choose_labels(chosen, arguments.number, experiment.config.sampling.labels, arguments.seed),
        sampler=arguments.sampler,
        steps=arguments.steps,
        guidance=guidance,
        single=arguments.format == "png",
        seed=arguments.seed,
        ema=ema,
        progress=progress,
    )
    with watching(experiment):
        for _ in drawing:
            pass
    say(f"{arguments.number} images in {folder}")
    return {"folder": str(folder), "function_evaluations": fae.generator.evaluations(drawing.settings)}
