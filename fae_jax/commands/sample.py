"""Draws images from a trained generator, by class or by prompt: samples.npz, grid.png and settings.json in
W/samples/NAME; with --format png also each image, as images/NUMBER-CLASS.png. Labels number the prompts, which are in
prompts.json. With --layout each prompt's images also lie where a benchmark's evaluator reads them, in
W/samples/NAME/LAYOUT (`fae_jax.data.prompts`)."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from typing import Any

import numpy as np

from fae_jax.cli.opening import add_model_arguments, open_model, watching
from fae_jax.data.prompts import ByPrompt, Layout, layout_names, open_layout, read_lines
from fae_jax.files.names import nearest
from fae_jax.files.progress import say
from fae_jax.model import FAE, MOST, guidance_schedule
from fae_jax.parallel.startup import join_hosts
from fae_jax.stages.sampling import Drawing, choose_labels

FEW = 5  # prompts that are told of one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--name", default="samples", help="folder under W/samples (default: samples)")
    parser.add_argument(
        "--format", default="npz", choices=("npz", "png"), metavar="F", help="npz (default), or png: each image too"
    )
    parser.add_argument("--classes", help="class numbers or names, as 0,3,7, or all (default)")
    parser.add_argument(
        "--prompt", action="append", help="a text to draw, of a model that reads text; may be repeated"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="UTF-8 prompts, one in a line, an empty line for none; or what --layout says",
    )
    layouts = layout_names()
    parser.add_argument(
        "--layout", choices=layouts, metavar="L", help=f"the benchmark that --prompts is of: {', '.join(layouts)}"
    )
    parser.add_argument(
        "--per_prompt", type=int, metavar="N", help="images of each prompt, in place of --number; of a layout its own"
    )
    parser.add_argument("--negative_prompt", default="", metavar="TEXT", help="what guidance leads away from")
    parser.add_argument(
        "--number", type=int, help="images, over classes or prompts as sampling.labels says (100, or one per prompt)"
    )
    parser.add_argument(
        "--guidance", default="config", help="a weight, none, config (default), or intervals as in sampling.guidance"
    )
    parser.add_argument(
        "--sampler", help="euler, heun, adams_bashforth, dopri5 or euler_maruyama; default: the configuration's"
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


def read_prompts(arguments: argparse.Namespace) -> tuple[list[str] | None, Layout | None]:
    """What stands behind --prompt and --prompts, None where there is neither, and the layout where one is named.

    Raises:
      ValueError: they come with classes, or a file does not hold what it should.
      FileNotFoundError: there is no such file.
    """
    prompts, path, layout = arguments.prompt, arguments.prompts, None
    if arguments.layout is not None:
        if path is None or prompts is not None:
            raise ValueError(f"--layout {arguments.layout} says what --prompts is: give that, and no --prompt")
        layout = open_layout(arguments.layout, path)
        prompts = list(layout.prompts)
    elif path is not None:
        prompts = [*(prompts or []), *read_lines(path)]
    if prompts is not None and arguments.classes is not None:
        raise ValueError("give --classes or prompts, not both")
    return prompts, layout


def images_of_each(arguments: argparse.Namespace, prompts: list[str] | None, layout: Layout | None) -> int | None:
    """Images of each prompt, where they are drawn one prompt after the other.

    Raises:
      ValueError: there are no prompts, both numbers are given, or the layout's evaluator takes another number.
    """
    each = arguments.per_prompt if arguments.per_prompt is not None or layout is None else layout.usual
    if each is None:
        return None
    if prompts is None:
        raise ValueError("--per_prompt goes with prompts: give --prompt or --prompts, or --number")
    if arguments.number is not None:
        raise ValueError("give --per_prompt, images of each prompt, in place of --number")
    if each < 1 or (layout is not None and each not in layout.counts):
        known = f"{arguments.layout}'s evaluator does not take so many" if layout else "it must be at least 1"
        raise ValueError(f"--per_prompt {each}: {known}" + (f"; leave it out for {layout.usual}" if layout else ""))
    return each


def cut_prompts(fae: FAE, prompts: Sequence[str]) -> list[str]:
    """A line for each of the first prompts that are read in part."""
    condition: Any = fae.generator.condition
    cut = condition.cut(prompts) if prompts else {}
    more = [f"and {len(cut) - FEW} more are cut"] if len(cut) > FEW else []
    read = condition.identity["tokens"] if cut else 0
    lines = [f"prompt {place + 1} has {tokens:,} tokens: {read} are read" for place, tokens in cut.items()]
    return [*lines[:FEW], *more]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    prompts, layout = read_prompts(arguments)
    each = images_of_each(arguments, prompts, layout)
    if arguments.number is None:
        arguments.number = 100 if prompts is None else len(prompts) * (each or 1)
    if not 1 <= arguments.number <= MOST:
        raise ValueError(f"--number must be from 1 to {MOST:,}, got {arguments.number}; several seeds draw more")
    if arguments.name in ("", ".", "..") or "/" in arguments.name:
        raise ValueError(f"--name {arguments.name!r} must be the name of one folder")
    guidance = parse_guidance(arguments.guidance)
    join_hosts()
    experiment, ema = open_model(arguments, "sampling", ("features", "pixels", "generator"))
    guidance_schedule(guidance, experiment.config.sampling.guidance)
    fae = FAE(experiment.parts)
    if fae.reads_text != (prompts is not None):
        remedy = "give --prompt or --prompts" if fae.reads_text else "leave prompts out, give --classes"
        raise ValueError(f"this model draws {'from text' if fae.reads_text else 'by class'}: {remedy}")
    chosen = parse_classes(arguments.classes or "all", fae.classes) if prompts is None else range(len(prompts))
    fae.settings(sampler=arguments.sampler, steps=arguments.steps)
    folder = experiment.workdir.samples / arguments.name
    policy = experiment.config.sampling.labels
    if each and policy != "balanced":
        raise ValueError(f"--per_prompt draws as many of each, and sampling.labels={policy}: set it to balanced")
    labels = np.repeat(np.arange(len(prompts), dtype=np.int32), each) if prompts and each else None

    def progress(done: int) -> None:
        say(f"sample: {done} of {arguments.number}")

    drawing = Drawing(
        fae=fae,
        folder=folder,
        prompts=prompts,
        negative_prompt=arguments.negative_prompt,
        labels=choose_labels(chosen, arguments.number, policy, arguments.seed) if labels is None else labels,
        sampler=arguments.sampler,
        steps=arguments.steps,
        guidance=guidance,
        single=arguments.format == "png",
        layout=None if layout is None or each is None else ByPrompt(layout, folder / arguments.layout, each),
        seed=arguments.seed,
        ema=ema,
        progress=progress,
    )
    for line in cut_prompts(fae, prompts or ()):
        say(line)
    with watching(experiment):
        for _ in drawing:
            pass
    say(f"{arguments.number} images in {folder}")
    return {"folder": str(folder), "function_evaluations": drawing.evaluations}
