"""REPA: the aligned loss against NumPy, two players that step as one, grids that differ, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, linear, randomise, silu
from running import TINY

from fae_jax.config import check, load_config, override
from fae_jax.data.stores.latent_loader import sample_latents
from fae_jax.diffusion.path import training_pair
from fae_jax.generators.alignment import Alignment, Projector, check_encoder, make_alignment
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parts import generator_of
from fae_jax.stages.costs import forward_multiply_adds, image_flops
from fae_jax.stages.generator import STAGE, players
from fae_jax.stages.outline import Shapes

ALIGNED = {"weight": "0.5", "depth": "1", "hidden": "12"}
KEYS = jax.random.split(jax.random.key(0), 6)
ZERO = jnp.zeros((), jnp.int32)


def shapes(repa: dict[str, str], **more: str) -> Shapes:
    fields = [(f"generator.repa.{name}", value) for name, value in repa.items()]
    return Shapes(override(load_config(str(TINY)), [*fields, *more.items()]), make_mesh())


def batch() -> dict[str, jax.Array]:
    random = np.random.default_rng(0)
    mean, log_variance = (jnp.asarray(random.normal(size=(6, 16, 4)), jnp.float32) for _ in range(2))
    return {"mean": mean, "log_variance": log_variance, "label": jnp.arange(6, dtype=jnp.int32)}


@pytest.mark.slow(seconds=5)
def test_the_loss_is_equation_2_and_the_projector_steps_on_the_same():
    parts = shapes(ALIGNED)
    made, random = players(parts), {}
    for seed, (name, player) in enumerate(made.items()):
        random[name] = randomise(jax.eval_shape(player.init, KEYS[0]), seed)
    random["feature_decoder"] = randomise(parts.tokenizer.shapes("feature_decoder"), 2)
    frozen, generator = {"feature_decoder": random["feature_decoder"]}, generator_of(parts)

    @jax.jit
    def run(params: Any, projector: Any) -> Any:
        def whole(projector: Any, params: Any = params) -> Any:
            return made["generator"].loss(params, {**frozen, "projector": projector}, batch(), KEYS, ZERO)

        (loss, report), gradient = jax.value_and_grad(whole, has_aux=True)(projector)
        _, slope = jax.jvp(lambda params: whole(projector, params)[1].metrics["alignment_loss"], (params,), (params,))
        stepped = jax.grad(made["projector"].loss, has_aux=True)(projector, {}, report.handed, KEYS, ZERO)[0]
        keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(KEYS), 1, 0)
        z = sample_latents(batch(), keys[0], parts.statistics)
        told = generator.condition.drop(keys[2], batch()["label"])
        pair = training_pair(keys[1], z, generator.train_shift)
        plain, _ = generator.loss(params, z, told, keys[1], ZERO)
        return loss, report.metrics, slope, gradient, stepped, z, told, pair, plain

    loss, metrics, slope, both, stepped, z, told, pair, plain = run(random["generator"], random["projector"])
    assert float(metrics["generative_loss"]) == pytest.approx(float(plain), rel=1e-6)
    assert float(loss) == pytest.approx(float(plain + 0.5 * metrics["alignment_loss"]), rel=1e-6)

    p, grid = random["generator"], (4, 4)
    condition = reference.time_embedding(p["time"], np.asarray(pair.time), 1.0)
    condition = condition + np.asarray(p["label"]["table"], np.float64)[np.asarray(told)]
    h = linear(p["embed"], np.asarray(pair.noisy, np.float64)) + reference.sincos(16, grid)
    one = reference.layer(p["blocks"]["block"], 0)
    h = reference.dit_block(one, h, condition, 2, norm="rms", kind="swiglu", grid=grid)
    for name in ("first", "second", "third"):
        h = linear(random["projector"][name], h if name == "first" else silu(h))
    raw = np.asarray(parts.statistics.unstandardise(z), np.float64)
    y = reference.feature_decoder(random["feature_decoder"], raw, 2, grid) + 1  # of mean and deviation 1
    cosines = (h * y).sum(-1) / np.linalg.norm(h, axis=-1) / np.linalg.norm(y, axis=-1)
    assert float(metrics["alignment_loss"]) == pytest.approx(-cosines.mean(), abs=1e-5) and cosines.std() > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stepped, both)
    assert np.abs(stepped["first"]["kernel"]).max() > 1e-3 and abs(float(slope)) > 1e-3


@pytest.mark.parametrize(
    ("source", "grid", "rows"),
    [
        ((4, 4), (2, 2), np.asarray([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7),
        ((2, 2), (4, 4), np.asarray([[4, 0], [3, 1], [1, 3], [0, 4]]) / 4),
    ],
)
def test_features_of_another_grid_are_brought_to_the_networks(source: tuple, grid: tuple, rows: np.ndarray):
    y = np.random.default_rng(0).normal(size=(2, source[0] * source[1], 5)).astype(np.float32)
    made = Alignment(
        projector=Projector(4, 5),
        depth=1,
        weight=1.0,
        width=3,
        grid=grid,
        source=source,
        features=lambda frozen, z: z,
    )
    want = np.einsum("uy,vx,byxd->buvd", rows, rows, y.reshape(2, *source, 5)).reshape(2, -1, 5)
    assert_close(made.target({}, jnp.asarray(y)), want, 1e-6)


def test_a_latent_that_is_the_feature_is_read_as_it_is():
    parts = shapes(ALIGNED, **{"tokenizer.kind": "rae"})
    made, z = make_alignment(parts.config, generator_of(parts), parts.tokenizer), jnp.full((1, 16, 16), 2.0)
    assert STAGE.frozen_params(parts) == {} and np.all(made.target({}, z) == 3)  # mean 1, deviation 1


def test_without_a_weight_nothing_is_changed():
    traced = []
    for repa in ({}, {"depth": "99", "encoder": "nobody", "hidden": "7"}):
        parts = shapes(repa)
        made = players(parts)
        assert list(made) == ["generator"] and STAGE.frozen_params(parts) == {} and not STAGE.check(parts.config)
        params, loss = jax.eval_shape(made["generator"].init, KEYS[0]), made["generator"].loss
        trace = jax.make_jaxpr(lambda params, loss=loss: loss(params, {}, batch(), KEYS, ZERO))
        traced.append(str(trace(params)))
    assert traced[0] == traced[1] and "scan" in traced[0]


@pytest.mark.slow(seconds=2)
def test_an_aligned_step_costs_its_projector_and_its_features():
    plain, aligned = shapes({}).config, shapes(ALIGNED).config
    projector = 16 * (16 * 12 + 12 * 12 + 12 * 16)
    features = forward_multiply_adds(plain, ("feature_decoder",))["feature_decoder"]
    assert image_flops(aligned, "generator") - image_flops(plain, "generator") == 2 * (3 * projector + features)


@pytest.mark.parametrize(
    ("repa", "more", "message"),
    [
        ({"depth": "2"}, {}, "field generator.repa.depth=2 is beyond the last block, depth=1"),
        ({}, {"generator.kind": "starflow"}, "repa.weight=0.5 aligns .* and generator.kind=starflow shows none"),
        ({}, {"tokenizer.kind": "taesd"}, "repa.encoder=own .* tokenizer.kind=taesd has none: name an encoder"),
        ({"encoder": "dinov2_b41"}, {}, "field generator.repa.encoder=dinov2_b41: .* did you mean 'dinov2_b14'"),
        ({"weight": "-0.5"}, {}, "field generator.repa.weight must be at least 0, got -0.5"),
    ],
)
def test_what_cannot_be_aligned_is_refused(repa: dict, more: dict, message: str):
    with pytest.raises(ValueError, match=message):
        parts = shapes({**ALIGNED, **repa}, **more)
        check_encoder(check(parts.config))
        make_alignment(parts.config, generator_of(parts), parts.tokenizer)
