"""Flow matching against equation (1) written out, and what its samples are guided by."""

import dataclasses
import types
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import TINY

from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, load_config, override
from fae_jax.generators import make_generator
from fae_jax.generators.flow_matching import FlowMatching

KEYS = jax.random.split(jax.random.key(0), 512)
Z = jax.random.normal(jax.random.key(1), (512, 4, 3))
LABELS = jnp.arange(512, dtype=jnp.int32) % 10


class Told(nn.Module):
    """A network that answers with what it is told, and remembers it."""

    answer: Any
    seen: Any

    def __call__(self, z: jax.Array, t: jax.Array, label: jax.Array) -> jax.Array:
        vars(self.seen).update(z=z, t=t, label=label)
        return self.answer(z, t, label)


def flow(answer: Any, shift: float = 1.0) -> FlowMatching:
    condition = ClassLabel(classes=10, dropout=0.1)
    return FlowMatching(
        network=Told(answer, types.SimpleNamespace()), shape=(4, 3), condition=condition, train_shift=shift
    )


def test_the_target_is_noise_minus_data_on_the_straight_path():
    generator = flow(lambda z, t, label: z)
    loss, _ = generator.loss({}, Z, LABELS, KEYS, jnp.zeros(()))
    noisy, time = (np.asarray(part, np.float64) for part in (generator.network.seen.z, generator.network.seen.t))
    t, z = time[:, None, None], np.asarray(Z, np.float64)
    noise = (noisy - (1 - t) * z) / t
    assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(1, abs=0.05)
    assert float(loss) == pytest.approx(np.mean((noisy - (noise - z)) ** 2), rel=1e-4)


@pytest.mark.parametrize("shift", [1.0, 0.4])
def test_times_are_uniform_before_the_train_shift(shift: float):
    generator = flow(lambda z, t, label: z, shift)
    generator.loss({}, Z, LABELS, KEYS, jnp.zeros(()))
    times = np.sort(np.asarray(generator.network.seen.t, np.float64))
    uniform = shift * times / (1 + (shift - 1) * times)  # t' = t / (s + (1 - s) t), solved for t
    np.testing.assert_allclose(uniform, np.linspace(0, 1, 512), atol=0.08)


def test_the_configured_train_shift_reaches_it():
    config = check(override(load_config(str(TINY)), [("generator.flow_matching.train_shift", "0.3")]))
    made = make_generator(config, grid=(2, 2), channels=3, condition=ClassLabel(classes=10))
    assert isinstance(made, FlowMatching) and made.train_shift == 0.3


def test_guidance_compares_with_no_class():
    """A velocity that is the label: guided by w it is c + (w − 1)(c − null), null the number of classes."""
    generator = flow(lambda z, t, label: jnp.broadcast_to(label[:, None, None].astype(jnp.float32), z.shape))
    sampling = check(load_config(str(TINY))).sampling
    settings = dataclasses.replace(sampling, sampler="euler", steps=2, shift=1.0, guidance=((0.0, 1.0, 3.0),))
    plain = dataclasses.replace(settings, guidance=())
    keys, labels = KEYS[:2], jnp.asarray([3, 7], jnp.int32)
    drawn, free = (generator.sample({}, keys, labels, each) for each in (settings, plain))
    guided = np.asarray([3 + 2 * (3 - 10), 7 + 2 * (7 - 10)], np.float32)
    moved = np.asarray(drawn - free)[:, 0, 0]  # time runs from 1 to 0: minus the velocity
    np.testing.assert_allclose(moved, -(guided - np.asarray([3, 7])), atol=1e-4)
    assert generator.evaluations(settings) == 4 and generator.evaluations(plain) == 2
