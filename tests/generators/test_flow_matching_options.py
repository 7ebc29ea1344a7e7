"""Flow matching's options against their formulas in NumPy, and guidance by what the network itself is worse at."""

import dataclasses
import types
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import TINY

from fae_jax.conditions import make_condition
from fae_jax.conditions.label import ClassLabel
from fae_jax.conditions.nothing import Nothing
from fae_jax.config import check, load_config, override
from fae_jax.diffusion.samplers import SamplingSection, initial_noise
from fae_jax.generators import make_generator
from fae_jax.generators.flow_matching import FLOOR, FlowMatching, FlowMatchingSection, sampler_of
from fae_jax.generators.networks.dit import DiTSection
from fae_jax.nn.compute import ComputeSection

KEYS = jax.random.split(jax.random.key(0), 512)
Z = jax.random.normal(jax.random.key(1), (512, 4, 3))
LABELS = jnp.arange(512, dtype=jnp.int32) % 10
MATCHING = "generator.flow_matching"
SAMPLING = SamplingSection(steps=4, shift=1.0, guidance=())


class Two(nn.Module):
    """A network with two ends that are known, and what it was given."""

    last: Any
    read: Any
    seen: Any
    middle: int = 1

    def __call__(self, z: jax.Array, t: jax.Array, label: jax.Array, middle: bool = False) -> Any:
        vars(self.seen).update(z=z, t=t)
        last = self.last(z, t, label)
        return (last, self.read(z, t, label)) if middle else last


def flow(last: Any, read: Any = None, condition: Any = None, **fields: Any) -> FlowMatching:
    network = Two(last, read, types.SimpleNamespace(), middle=1 if read else 0)
    condition = condition or ClassLabel(classes=10)
    return FlowMatching(network=network, shape=(4, 3), condition=condition, **{"train_shift": 1.0, **fields})


def target(generator: FlowMatching) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z_t, t and v of the loss that was last asked for."""
    noisy, t = (np.asarray(part, np.float64) for part in (generator.network.seen.z, generator.network.seen.t))
    z, t = np.asarray(Z, np.float64), t[:, None, None]
    return noisy, t, (noisy - (1 - t) * z) / np.maximum(t, 1e-9) - z


def test_both_heads_are_trained_towards_the_velocity_and_the_last_one_also_in_direction():
    generator = flow(lambda z, t, y: z, lambda z, t, y: 2 * z, middle_weight=0.5, cosine_weight=0.25)
    loss, terms = generator.loss({}, Z, LABELS, KEYS, jnp.zeros(()))
    noisy, t, v = target(generator)
    kept = t[:, 0, 0] > 0.01
    cosine = (noisy * v).sum(-1) / np.linalg.norm(noisy, axis=-1) / np.linalg.norm(v, axis=-1)
    want = {
        "velocity_loss": ((noisy - v) ** 2).mean(),
        "middle_loss": ((2 * noisy - v) ** 2).mean(),
        "cosine_loss": (1 - cosine[kept]).mean(),
    }
    for name, value in want.items():
        assert float(terms[name]) == pytest.approx(value, rel=0.02 if name == "cosine_loss" else 1e-3), name
    whole = terms["velocity_loss"] + 0.5 * terms["middle_loss"] + 0.25 * terms["cosine_loss"]
    assert float(loss) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {f"{MATCHING}.cosine_weight": "1", f"{MATCHING}.dit.middle": "1", f"{MATCHING}.dit.depth": "2"},
        {f"{MATCHING}.prediction": "data", f"{MATCHING}.times": "logit_normal"},
        {"generator.kind": "mean_flow"},
        {"generator.kind": "starflow"},
    ],
)
def test_a_fresh_network_which_gives_zeros_has_a_slope(fields: dict[str, str]):
    small = {"width": "16", "heads": "2", "hidden": "32"}
    kind = fields.get("generator.kind", "")
    fields = fields | {
        f"generator.{kind}.{'dit.' * (kind == 'mean_flow')}{name}": value for name, value in small.items() if kind
    }
    config = check(override(load_config(str(TINY)), fields.items()))
    generator = make_generator(config, grid=(2, 2), channels=3, condition=make_condition(config))
    given = (generator.init(jax.random.key(0)), Z[:8], LABELS[:8], KEYS[:8], jnp.zeros((), jnp.int32))
    loss, slopes = jax.jit(jax.value_and_grad(lambda *inputs: generator.loss(*inputs)[0]))(*given)
    norms = np.array([float(jnp.linalg.norm(slope)) for slope in jax.tree.leaves(slopes)])
    assert np.isfinite(loss) and np.isfinite(norms).all() and norms.any()


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_the_loss_of_a_prediction_is_the_velocitys(prediction: str):
    generator = flow(lambda z, t, y: jnp.sin(z), prediction=prediction)
    loss, _ = generator.loss({}, Z, LABELS, KEYS, jnp.zeros(()))
    noisy, t, v = target(generator)
    said = np.sin(noisy)
    says = (
        (noisy - said) / np.maximum(t, FLOOR) if prediction == "data" else (said - noisy) / np.maximum(1 - t, FLOOR)
    )
    assert float(loss) == pytest.approx(((says - v) ** 2).mean(), rel=1e-3)
    sampled = generator.velocity({}, Z, jnp.full(512, 0.5), LABELS)  # and samplers are given the same
    z = np.asarray(Z, np.float64)
    np.testing.assert_allclose(sampled, (z - np.sin(z)) * (2 if prediction == "data" else -2), atol=1e-5)


def test_times_may_be_logit_normal():
    generator = flow(lambda z, t, y: z, times="logit_normal", logit_mean=-0.5, logit_deviation=0.8)
    generator.loss({}, Z, LABELS, KEYS, jnp.zeros(()))
    t = np.asarray(generator.network.seen.t, np.float64)
    logit = np.log(t / (1 - t))
    assert logit.mean() == pytest.approx(-0.5, abs=0.12) and logit.std() == pytest.approx(0.8, abs=0.1)


def test_shifts_may_follow_the_size_of_a_latent():
    section = types.SimpleNamespace(**{**dataclasses.asdict(FlowMatchingSection(shift_base=4096)), "network": "dit"})
    section.dit = DiTSection(size="s")
    condition, compute = ClassLabel(classes=10), ComputeSection()
    made = FlowMatching.build(section, grid=(16, 16), channels=32, condition=condition, compute=compute)
    assert made.train_shift == pytest.approx(np.sqrt(0.5))
    assert sampler_of(dataclasses.replace(SAMPLING, shift_base=4096), 8192).shift == pytest.approx(np.sqrt(0.5))


def test_internal_guidance_moves_away_from_the_middle_head_in_one_pass():
    """With v = 1 and v_mid = 0: w on [0, ½], 1 above; so Euler's four steps move by (1 + 1 + w + w)/4."""
    generator = flow(lambda z, t, y: jnp.ones_like(z), lambda z, t, y: jnp.zeros_like(z))
    settings = dataclasses.replace(SAMPLING, guidance=((0.0, 0.5, 1.4, "internal"),))
    drawn = generator.sample({}, KEYS[:2], LABELS[:2], settings)
    moved = np.asarray(initial_noise(KEYS[:2], (4, 3)) - drawn)
    np.testing.assert_allclose(moved, (2 + 2 * 1.4) / 4, atol=1e-5)
    assert generator.evaluations(settings) == 4
    both = dataclasses.replace(settings, guidance=(*settings.guidance, (0.0, 1.0, 3.0)))
    assert generator.evaluations(both) == 8


def test_where_steps_are_chosen_on_the_way_evaluations_of_guidance_are_counted():
    rows: list[int] = []

    def network(z: jax.Array, t: jax.Array, label: jax.Array) -> jax.Array:
        jax.debug.callback(lambda z: rows.append(len(z)), z)
        return jnp.sin(3 * z) + label[:, None, None] / 10

    generator = flow(network)
    settings = dataclasses.replace(SAMPLING, sampler="dopri5", rtol=1e-2, guidance=((0.0, 0.5, 3.0),))
    assert generator.evaluations(settings) is None
    _, count = jax.jit(lambda keys, labels: generator.counted({}, keys, labels, settings))(KEYS[:1], LABELS[3:4])
    jax.effects_barrier()
    assert count[0] == sum(rows) > len(rows) and set(rows) == {1, 2}


def test_kinds_of_guidance_go_together_as_the_authors_of_internal_guidance_have_it():
    """g(y) = v(y) + (a − 1)(v(y) − v_mid(y)) + (b − 1)(… − weaker(y)), then g(∅) + w (g(y) − g(∅))."""
    last, read = (
        lambda z, t, y, k=k: jnp.broadcast_to(k * jnp.sin(1.0 + y)[:, None, None], z.shape) for k in (1.0, 0.3)
    )
    weaker = lambda z, t, y: jnp.broadcast_to(jnp.cos(1.0 + y)[:, None, None], z.shape)
    guidance = ((0.0, 1.0, 2.5), (0.0, 1.0, 1.4, "internal"), (0.0, 1.0, 1.2, "auto"))
    settings = dataclasses.replace(SAMPLING, steps=1, guidance=guidance, guide="W", guided_channels=2)
    y = np.asarray([3, 7, 10], np.float64)
    inner = np.sin(1 + y) * (1 + 0.4 * (1 - 0.3))
    g = inner + 0.2 * (inner - np.cos(1 + y))
    want = g[2] + 2.5 * (g[:2] - g[2])
    for calls in (1, 2):
        generator = flow(last, read)
        told = jnp.asarray([3, 7], jnp.int32)
        drawn = generator.sample({}, KEYS[:2], told, dataclasses.replace(settings, guided_calls=calls), weaker=weaker)
        moved = np.asarray(initial_noise(KEYS[:2], (4, 3)) - drawn)
        np.testing.assert_allclose(moved[:, :, :2], want[:, None, None] * np.ones((1, 4, 2)), atol=1e-5)
        np.testing.assert_allclose(moved[:, :, 2], g[:2, None] * np.ones(4), atol=1e-5)  # guided_channels=2
    assert generator.evaluations(settings) == 4


def test_a_weight_of_one_is_the_conditional_field_bitwise():
    generator = flow(lambda z, t, y: jnp.sin(z + y[:, None, None]), lambda z, t, y: z)
    ones = tuple((0.0, 1.0, 1.0, kind) for kind in ("classifier_free", "internal", "auto"))
    plain, guided = (
        jax.jit(lambda keys, s=s: generator.sample({}, keys, LABELS[:2], s, weaker=lambda z, t, y: z))(KEYS[:2])
        for s in (SAMPLING, dataclasses.replace(SAMPLING, guidance=ones, guide="W"))
    )
    np.testing.assert_array_equal(guided, plain)
    assert generator.evaluations(dataclasses.replace(SAMPLING, guidance=ones, guide="W")) == 4


@pytest.mark.parametrize(
    ("guidance", "condition", "message"),
    [
        (((0.0, 1.0, 1.4, "internal"),), None, "no head at a middle block: train one with middle=8"),
        (((0.0, 1.0, 1.4, "auto"),), None, "name the weaker network's directory in sampling.guide"),
        (((0.0, 1.0, 1.4),), Nothing(), r"knows none \(condition.kind=none\): set --config.sampling.guidance='\(\)'"),
        (((0.0, 1.0, 1.4, "internl"),), None, "guidance 'internl' is unknown; did you mean 'internal'"),
        (((0.0, 0.5, 2.0, "internal"), (0.4, 1.0, 2.0, "internal")), None, "overlap"),
    ],
)
def test_guidance_that_cannot_work_is_refused(guidance: Any, condition: Any, message: str):
    generator = flow(lambda z, t, y: z, condition=condition)
    with pytest.raises(ValueError, match=message):
        generator.evaluations(dataclasses.replace(SAMPLING, guidance=guidance))
