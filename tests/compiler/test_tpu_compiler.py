"""The real TPU compiler: needs libtpu, and runs where FAE_TPU_COMPILER=1 says that it is there."""

import functools
import importlib.util
import os

import pytest

from fae_jax.compiler.advice import advise, smallest
from fae_jax.compiler.child import ask
from fae_jax.config import load_config, override
from fae_jax.parallel.topologies import parse_topology, slices

pytestmark = [
    pytest.mark.tpu_compiler(seconds=40),
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("FAE_TPU_COMPILER") != "1", reason="FAE_TPU_COMPILER=1 asks for these"),
]
PAPER = load_config("imagenet256_dinov2g")
GIB = 2**30


def test_libtpu_is_there():
    assert importlib.util.find_spec("libtpu"), "FAE_TPU_COMPILER=1 needs: pip install '.[tpu]'"


# One stage a slice: together every stage that trains from scratch and every generation. Quick where CI runs it.
@pytest.mark.parametrize(
    ("stage", "slice", "chips", "memory"),
    [
        ("features", "v5e-16", 16, 15.75),
        ("pixels", "v5p-16", 8, 95.74),
        ("generator", "v4-16", 8, 30.75),
        ("generator", "v6e-8", 8, 31.25),
    ],
)
def test_the_papers_stages_fit_at_the_papers_batch(stage: str, slice: str, chips: int, memory: float):
    figures = ask(PAPER, stage, slice, quick=True)
    assert figures["devices"] == chips and figures["batch"] == PAPER[stage].batch
    assert figures["fits"] and figures["state"] < figures["peak"] <= figures["memory"] == int(memory * GIB)
    sent = sum(each["bytes"] for each in figures["collectives"].values())
    held = {"features": 208_595_008, "pixels": 305_360_896, "generator": 674_961_824}[stage]
    assert sent > 4 * held * (chips - 1) / chips  # float32 gradients are summed over all, weights come from all
    copies = 3 + len(PAPER[stage].ema)  # parameters, two moments, averages
    frozen = 0 if stage == "generator" else 1_136_480_768
    assert figures["state"] == pytest.approx(4 * (copies * held + frozen) / chips, rel=0.02)


def test_what_a_host_does_alone_is_compiled_for_a_slice_of_its_size():
    """v5e-16 is four hosts of four chips, each of which encodes its own part of `cache.batch`."""
    figures = ask(PAPER, "cache", "v5e-16", quick=True)
    assert figures["fits"] and figures["devices"] == 16 and figures["batch"] == PAPER.cache.batch // 4
    held = 1_136_480_768 + 38_166_592  # encoder and compressor, whole over a host's four chips
    assert figures["state"] == pytest.approx(4 * held / 4, rel=0.02)


def test_the_smallest_slice_is_found_from_one_chip_on():
    config = override(load_config("quickstart"), [("data.image_size", "32")])
    (figures,) = smallest(functools.partial(ask, quick=True), config, ["generator"], slices("v5e"))
    assert figures["fits"] and figures["topology"] == "v5e-1" and figures["devices"] == 1


def test_what_does_not_fit_is_said_with_the_change_that_helps():
    asked = functools.partial(ask, quick=True)
    config = override(PAPER, [("compute.remat", "none")])
    topology = parse_topology("v5e-16")
    figures = asked(config, "generator", topology.name)
    assert not figures["fits"] and figures["peak"] > 20 * GIB
    advice = advise(asked, config, "generator", topology, topology.chips, tries=1)
    assert advice.startswith("fits with --config.compute.remat=full (")


@pytest.mark.slow
@pytest.mark.parametrize("slice", ["v4-16", "v5e-16", "v5p-16", "v6e-8"])
@pytest.mark.parametrize("stage", ["features", "pixels", "generator"])
def test_all_of_them_fit_everywhere(stage: str, slice: str):
    figures = ask(PAPER, stage, slice)
    assert figures["fits"] and figures["batch"] == PAPER[stage].batch
