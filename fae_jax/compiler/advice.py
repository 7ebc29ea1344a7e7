"""What would make a stage fit that does not: it is compiled so, and weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fae_jax.config import check, override
from fae_jax.parallel.topologies import Topology, slices

Ask = Callable[..., dict[str, Any]]
Change = tuple[tuple[str, str], ...]
_BATCHES = {"cache": "cache.batch", "sample": "sampling.batch"}


def changes(config: Any, stage: str, devices: int) -> Iterator[Change]:
    """Overrides that take less memory, the least costly first: recompute more, compute the batch in parts (or make it
    smaller where it decides nothing), keep a bfloat16 residual stream, split products over two devices."""
    if stage in _BATCHES:
        field = _BATCHES[stage]
        batch = getattr(config, field.split(".")[0]).batch
        sizes = [batch // parts for parts in (2, 4, 8) if batch % (parts * devices) == 0]
        yield from (((field, str(size)),) for size in sizes)
        return
    remat: Change = () if config.compute.remat == "full" else (("compute.remat", "full"),)
    if remat:
        yield remat
    section = getattr(config, stage)
    for parts in (2, 4, 8):
        microbatches = section.microbatches * parts
        if section.batch % (microbatches * devices) == 0:
            yield (*remat, (f"{stage}.microbatches", str(microbatches)))
    if config.compute.residual == "float32":
        yield (*remat, ("compute.residual", "bfloat16"))
    if config.mesh.tensor == 1 and devices % 2 == 0:
        yield (*remat, ("mesh.tensor", "2"))


def advise(ask: Ask, config: Any, stage: str, topology: Topology | None, devices: int, tries: int) -> str:
    """The first change, or else the next larger slice, with which the stage fits, in words, of at most `tries` tried.

    Args:
      ask: as `fae_jax.compiler.child.ask`.
      topology: where it does not fit; None for the devices that are here.
    """
    tried: list[str] = []
    for change in changes(config, stage, devices):
        if len(tried) >= tries:
            break
        words = " ".join(f"--config.{field}={value}" for field, value in change)
        figures = ask(check(override(config, change)), stage, topology.name if topology else None)
        if figures["fits"]:
            return f"fits with {words} ({figures['peak'] / 2**30:.1f} GiB)"
        tried.append(words)
    larger = [each for each in slices(topology.generation) if each.chips > devices] if topology else []
    for slice in larger[: max(tries - len(tried), 0)]:
        figures = ask(config, stage, slice.name)
        if figures["fits"]:
            return f"fits on {slice.slice_name} ({figures['peak'] / 2**30:.1f} GiB)"
        tried.append(slice.slice_name)
    return f"does not fit with any of: {'; '.join(tried)}" if tried else "nothing was tried (--tries 0)"


def smallest(
    ask: Ask, config: Any, stages: list[str], candidates: list[Topology], quick: bool = True
) -> list[dict[str, Any]]:
    """Every stage's figures on the first of `candidates` on which all of them fit.

    Args:
      ask: as `fae_jax.compiler.child.ask`, quick where nothing else is asked for.
      quick: quick compilations decide; otherwise each is then done in full.

    Raises:
      ValueError: there is none.
    """
    for topology in candidates:
        figures = _all_fitting(lambda stage, name=topology.name: ask(config, stage, name), stages)
        if figures and not quick:
            figures = _all_fitting(lambda stage, name=topology.name: ask(config, stage, name, False), stages)
        if figures:
            return [{**each, "topology": topology.slice_name} for each in figures]
    tried = ", ".join(each.slice_name for each in candidates)
    raise ValueError(
        f"{', '.join(stages)} fits none of {tried}; try --config.compute.remat=full or more microbatches"
    )


def _all_fitting(ask: Callable[[str], dict[str, Any]], stages: list[str]) -> list[dict[str, Any]]:
    """The figures of all stages, or none where one does not fit, or its batch does not divide over the devices."""
    figures = []
    for stage in stages:
        try:
            figures.append(ask(stage))
        except ValueError as error:
            if "must be a multiple of" not in str(error):
                raise
            return []
        if not figures[-1]["fits"]:
            return []
    return figures
