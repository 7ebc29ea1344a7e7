"""Will this run fit that machine? Compiles every stage for it, here; for TPU slices by the TPU compiler.

fae compile --config C --topology v5e:16x16     a slice by its sides, in chips
    fae compile --config C --topology v4-16         by Google's name: cores on v4 and v5p, chips on v5e and v6e
fae compile --config C --topology auto          the smallest slice on which the stages fit; auto:v5p of v5p alone
    fae compile --config C --topology v6e-8 --quick with little of the compiler's effort: minutes less, memory ± 10 %
fae compile --config C --topology h100          one GPU by name: an estimate, by the TPU compiler; it says so
fae compile --config C                          the GPUs, TPUs or CPU that are here
"""

from __future__ import annotations

import argparse
from typing import Any

from fae_jax.compiler.advice import advise, smallest
from fae_jax.compiler.child import ask, check_compiler
from fae_jax.compiler.gpu import GPUS, METHOD, STANDS_IN, on_gpu
from fae_jax.compiler.programs import STAGES, stages_to_compile
from fae_jax.config import load_config, settle
from fae_jax.files.progress import say, tell
from fae_jax.parallel.topologies import SHAPES, Topology, parse_topology, slices

GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    stages = ", ".join(STAGES)
    parser.add_argument("--config", required=True, metavar="C", help="configuration file or name")
    parser.add_argument("--stage", action="append", choices=STAGES, metavar="S", help=f"{stages}; default: all")
    parser.add_argument("--topology", metavar="T", help=f"v5e:16x16, v4-16, …, auto, or {', '.join(GPUS)}")
    parser.add_argument("--tries", type=int, default=3, metavar="N", help="compilations spent on making it fit")
    parser.add_argument("--quick", action="store_true", help="let the compiler make little effort (TPU slices)")


def _candidates(word: str) -> list[Topology]:
    """The slices that `auto` or `auto:GENERATION` stands for, fewest chips first.

    Raises:
      ValueError: there is no such generation.
    """
    _, _, generation = word.partition(":")
    if generation and generation not in SHAPES:
        raise ValueError(f"generation {generation!r} is unknown; choose one of {', '.join(SHAPES)}")
    candidates = [slice for name in SHAPES if generation in ("", name) for slice in slices(name)]
    return sorted(candidates, key=lambda slice: slice.chips)


def describe(figures: dict[str, Any]) -> str:
    """One stage's figures as a line."""
    fits = {True: "fits", False: "DOES NOT FIT", None: "not known"}[figures["fits"]]
    memory = f" of {figures['memory'] / GIB:.1f}" if figures["memory"] else ""
    inside = "" if figures["temporaries"] is None else f", temporaries {figures['temporaries'] / GIB:.2f}"
    sent = {kind: each["bytes"] / 1e9 for kind, each in figures["collectives"].items()}
    kinds = f" ({', '.join(f'{kind} {size:.2f}' for kind, size in sent.items())})" if sent else ""
    flops = figures["flops"] / figures["devices"] / 1e12
    return (
        f"{figures['stage']:9} {fits:12} per device: "
        f"peak {figures['peak'] / GIB:.2f}{memory} GiB (state {figures['state'] / GIB:.2f}{inside}), "
        f"{flops:.1f} TFLOP, {sum(sent.values()):.2f} GB sent{kinds}; batch {figures['batch']} on "
        f"{figures['devices']} × {figures['kind']}, compiled in {figures['seconds']:.0f} s"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    config = settle(load_config(arguments.config), arguments.overrides)
    word = arguments.topology
    if arguments.tries < 0:
        raise ValueError(f"--tries must be at least 0, got {arguments.tries}")
    stages = list(dict.fromkeys(arguments.stage or stages_to_compile(config)))
    automatic = bool(word) and word.split(":")[0] == "auto"
    gpu = GPUS.get(word.strip().lower()) if word else None
    topology = None if automatic or gpu or not word else parse_topology(word)
    candidates = _candidates(word) if automatic else []
    check_compiler(word)

    def asked(config: Any, stage: str, name: str | None, quick: bool = True) -> dict[str, Any]:
        say(f"compiling {stage} for {name or word or 'this machine'} …")
        if gpu:
            return on_gpu(ask(config, stage, STANDS_IN, quick=quick), gpu)
        return ask(config, stage, name, quick=quick)

    if automatic:
        weighed = smallest(asked, config, stages, candidates, arguments.quick)
    else:
        weighed = []
        for stage in stages:
            figures = asked(config, stage, topology.name if topology else None, arguments.quick)
            if figures["fits"] is False:
                figures["advice"] = advise(asked, config, stage, topology, figures["devices"], arguments.tries)
            weighed.append({**figures, "topology": topology.slice_name if topology else gpu.name if gpu else "here"})
    for figures in weighed:
        tell(describe(figures))
        if "advice" in figures:
            tell(f"{'':9} {figures['advice']}")
    if gpu:
        tell(f"method: {METHOD}")
    if automatic:
        tell(f"smallest slice: {weighed[0]['topology']}")
    fits = min((figures["fits"] for figures in weighed), key=(False, None, True).index)
    return {"config": config.name, "fits": fits, "stages": weighed}
