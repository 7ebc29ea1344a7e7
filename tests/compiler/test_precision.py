"""What TPUs multiply in float32 is what docs/scaling.md says: time embedding, adaLN, the last linear, and no more.

A TPU makes one bfloat16 product of a float32 one unless the program asks for the highest precision. Programs are
lowered for TPUs here and not compiled. Which products are meant is read off their shapes: a row for each example,
where tokens would be n times as many, or as many values as the network puts out.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from running import TINY

from fae_jax.autoencoder.decoders import PixelDecoder
from fae_jax.autoencoder.kinds import COMPRESSORS, FEATURE_DECODERS, make_compressor, make_feature_decoder
from fae_jax.compiler.programs import STAGES, lower
from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, load_config, override
from fae_jax.generators.networks import NETWORKS
from fae_jax.kinds import own
from fae_jax.parallel.mesh import make_mesh

CONFIG = override(load_config(str(TINY)), [("compute.dtype", "bfloat16"), ("compute.kernel", "xla")])
EXACT, ROUNDED = ("f32", "f32", 2), ("bf16", "bf16", 0)  # dtypes of both factors, and how many are asked to be exact
INTEGERS = ("f32", "i32", 2)  # in JAX's own SVD
BY_NAME = "algorithm = <lhs_precision_type = bf16, rhs_precision_type = bf16,"  # as JAX's own attention says it
B, GRID, CHANNELS, WIDTH = 3, (4, 4), 4, 16
DIT, MMDIT = "generator.flow_matching.dit.", "generator.flow_matching.mmdit."
WIDE = "networks dit with a wide head"
CASES: dict[str, dict[str, object]] = {
    "networks dit": {f"{DIT}depth": 2, f"{DIT}middle": 1},
    WIDE: {f"{DIT}head_width": 40, f"{DIT}head_heads": 2, f"{DIT}head_depth": 1},
    "networks mmdit": {
        "generator.flow_matching.network": "mmdit",
        **{f"{MMDIT}{name}": value for name, value in {"width": 16, "heads": 2, "hidden": 24, "depth": 2}.items()},
        f"{MMDIT}conditioning": "pooled",
    },
    **{f"compressors {kind}": {"compressor.kind": kind} for kind in COMPRESSORS if kind != "identity"},
    **{
        f"feature_decoders {kind}": {"feature_decoder.transformer.width": 8}
        for kind in FEATURE_DECODERS
        if kind != "identity"
    },
    "pixel_decoder": {},
}


def products(lowered: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """Every product of a program: `EXACT` or `ROUNDED`, and the shape of its result."""
    made = []
    for line in lowered.as_text().splitlines():
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line:
            left, right, result = re.findall(r"tensor<((?:\d+x)*)(\w+)>", line.rpartition(" : ")[2])
            how = ROUNDED if BY_NAME in line else (left[1], right[1], line.count("HIGHEST"))
            how = EXACT if how == INTEGERS else how
            assert how in (EXACT, ROUNDED), line
            made.append((how, tuple(map(int, result[0].split("x")[:-1]))))
    return made


def for_tpu(function: Callable[..., Any], *inputs: Any) -> Any:
    return jax.jit(function).trace(*inputs).lower(lowering_platforms=("tpu",))


def made(case: str) -> tuple[Any, tuple[Any, ...]]:
    """A network, and shapes of what it reads of B examples."""
    config = check(override(CONFIG, [(name, str(value)) for name, value in CASES[case].items()]))
    part, kind = [*case.split(), ""][:2]
    tokens = GRID[0] * GRID[1]
    latents, features = jnp.zeros((B, tokens, CHANNELS)), jnp.zeros((B, tokens, WIDTH))
    sizes = {"grid": GRID, "width": WIDTH, "compute": config.compute}
    if part == "compressors":
        return make_compressor(config.compressor, **sizes), (features,)
    if part == "feature_decoders":
        return make_feature_decoder(config.feature_decoder, **sizes), (latents,)
    if part == "pixel_decoder":
        section = config.pixel_decoder
        shape = {"width": section.width, "depth": section.depth, "heads": section.heads, "hidden": section.hidden}
        return PixelDecoder(GRID, 2, **shape, **config.compute.blocks), (features,)

    class Text(ClassLabel):
        encode = None

    text = {"tokens": jnp.zeros((B, 5, 10)), "mask": jnp.ones((B, 5), bool), "pooled": jnp.zeros((B, 7))}
    given, condition = (text, Text(classes=0)) if kind == "mmdit" else (jnp.zeros(B, int), ClassLabel(classes=7))
    section = getattr(config.generator.flow_matching, kind)
    network = own(NETWORKS, kind).build(section, grid=GRID, condition=condition, compute=config.compute)
    return network, (latents, jnp.zeros(B), given)


@pytest.mark.parametrize(
    "case", [pytest.param(WIDE, marks=pytest.mark.slow), *(case for case in CASES if case != WIDE)]
)
def test_a_tpu_multiplies_in_float32_what_the_documents_say_and_nothing_else(case: str):
    network, inputs = made(case)
    more = {"middle": True} if getattr(network, "middle", 0) else {}
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)

    def run(params: Any, *inputs: Any) -> Any:
        return network.apply(params, *inputs, **more)

    leaves = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(run, shapes, *inputs))]
    seen = products(for_tpu(run, shapes, *inputs))
    ends = {leaves[0], sum(leaves)}
    if case == WIDE:  # adaLN of its end is one of every token too
        ends.add(B * GRID[0] * GRID[1] * 2 * network.head_width)
    documented = [len(shape) == 2 and (shape[0] == B or math.prod(shape) in ends) for _, shape in seen]
    assert [how == EXACT for how, _ in seen] == documented and any(documented), seen


def test_every_network_of_the_tables_is_looked_at():
    assert set(NETWORKS) == {case.split()[1] for case in CASES if case.startswith("networks")}


POST_TRAINING = {"steps": "1", "batch": "8", "queue": "32"}
PROGRAMS: dict[str, tuple[str, dict[str, str]]] = {stage: (stage, {}) for stage in STAGES}
PROGRAMS["post_training"][1].update({f"post_training.{name}": value for name, value in POST_TRAINING.items()})
PROGRAMS["starflow"] = ("generator", {"generator.kind": "starflow"})
PROGRAMS["mean_flow"] = ("generator", {"generator.kind": "mean_flow"})


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_program_of_a_stage_leaves_a_float32_product_to_the_chip(name: str, monkeypatch: pytest.MonkeyPatch):
    stage, fields = PROGRAMS[name]
    lowered = jax.stages.Traced.lower
    monkeypatch.setattr(jax.stages.Traced, "lower", lambda traced: lowered(traced, lowering_platforms=("tpu",)))
    config = override(CONFIG, fields.items())
    assert {how for how, _ in products(lower(config, stage, make_mesh()).lowered)} == {EXACT, ROUNDED}
