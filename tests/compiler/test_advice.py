"""Advice and the smallest slice, with a compiler that is a function of memory."""

from typing import Any

import pytest

from fae_jax.compiler.advice import advise, changes, smallest
from fae_jax.config import load_config, override
from fae_jax.parallel.topologies import parse_topology, slices

PAPER = override(load_config("imagenet256_dinov2g"), [("compute.remat", "none")])


def compiler(memory: float, log: list | None = None):
    """Takes 100 units over the devices, a tenth with full remat, less in microbatches; fits in `memory`."""

    def ask(config: Any, stage: str, topology: str | None) -> dict[str, Any]:
        devices = parse_topology(topology).chips if topology else 1
        if getattr(config, stage).batch % devices:
            raise ValueError(f"field {stage}.batch={getattr(config, stage).batch} must be a multiple of {devices}")
        peak = 100 / devices * (0.1 if config.compute.remat == "full" else 1) / getattr(config, stage).microbatches
        if log is not None:
            log.append((config.compute.remat, getattr(config, stage).microbatches, topology))
        return {"fits": peak <= memory, "peak": peak * 2**30, "stage": stage, "devices": devices}

    return ask


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (2.0, "fits with --config.compute.remat=full (0.6 GiB)"),
        (0.4, "fits with --config.compute.remat=full --config.generator.microbatches=2 (0.3 GiB)"),
        (0.01, "does not fit with any of: --config.compute.remat=full; "),
    ],
)
def test_the_first_change_that_fits_is_named(memory: float, words: str):
    topology = parse_topology("v5e-16")
    advice = advise(compiler(memory), PAPER, "generator", topology, topology.chips, tries=3)
    assert advice.startswith(words)


def test_after_all_changes_a_larger_slice_is_tried_and_tries_are_kept_to():
    log: list = []
    full = override(PAPER, [("compute.remat", "full"), ("compute.residual", "bfloat16"), ("mesh.tensor", "2")])
    full = override(full, [("generator.microbatches", "32")])
    topology = parse_topology("v5e-16")
    advice = advise(compiler(0.01, log), full, "generator", topology, 16, tries=2)
    assert advice == "fits on v5e-32 (0.0 GiB)" and log == [("full", 32, "v5e:4x8")]
    log.clear()
    assert "nothing was tried" in advise(compiler(0.0, log), PAPER, "generator", topology, 16, tries=0) and not log


def test_a_batch_that_decides_nothing_is_made_smaller_instead():
    assert list(changes(PAPER, "cache", 16)) == [(("cache.batch", str(size)),) for size in (512, 256, 128)]
    assert list(changes(PAPER, "sample", 256)) == []  # 256 images on 256 devices


def test_the_smallest_slice_on_which_everything_fits():
    figures = smallest(compiler(10.0), PAPER, ["features", "generator"], slices("v5e"))
    assert [each["topology"] for each in figures] == ["v5e-16", "v5e-16"]
    odd = override(PAPER, [("generator.batch", "500")])  # 500 divides over 4 chips at most
    with pytest.raises(ValueError, match="generator fits none of v5e-1, v5e-4"):
        smallest(compiler(10.0), odd, ["generator"], slices("v5e"))
