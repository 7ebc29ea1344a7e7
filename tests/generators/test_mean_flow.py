"""MeanFlow and improved MeanFlow: exact where the average velocity is known, beside PyTorch, and in one step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from network_reference import randomise

from fae_jax.conditions import ConditionSection
from fae_jax.conditions.label import ClassLabel
from fae_jax.conditions.nothing import Nothing
from fae_jax.diffusion.guidance import PAPER_SCHEDULE
from fae_jax.diffusion.samplers import SamplingSection, initial_noise
from fae_jax.generators.flow_matching import FlowMatching
from fae_jax.generators.mean_flow import MeanFlow, MeanFlowSection, _with_jvp
from fae_jax.generators.networks.dit import DiT

CLASSES = ClassLabel(classes=3, dropout=0.1)
KEYS = jax.random.split(jax.random.key(0), 64)
LABELS = jnp.arange(64, dtype=jnp.int32) % 4
SPREAD = 0.5


def settings(steps: int = 1, guidance: Any = ()) -> Any:
    return SamplingSection(steps=steps, shift=1.0, guidance=guidance)


def flow(network: Any, shape: tuple[int, int] = (4, 3), condition: Any = CLASSES, **fields: Any) -> MeanFlow:
    return MeanFlow(network=network, shape=shape, condition=condition, fields=MeanFlowSection(**fields))


class Exact(nn.Module):
    """The average velocity of data N(0, SPREAD²): z_r = z_t σ_r / σ_t with σ_t² = (1 − t)² SPREAD² + t²."""

    def __call__(self, z: jax.Array, numbers: jax.Array, label: jax.Array) -> jax.Array:
        t, span = numbers[:, 0, None, None], numbers[:, 1, None, None]
        variance, other = (((1 - x) * SPREAD) ** 2 + x**2 for x in (t, t - span))
        limit = (t - (1 - t) * SPREAD**2) / variance
        safe = jnp.where(span == 0, 1.0, span)
        return z * jnp.where(span == 0, limit, (1 - jnp.sqrt(other / variance)) / safe)


def test_with_the_exact_average_the_error_is_that_of_the_marginal_velocity():
    """û + (t − r) dû/dt is v̂(z_t, t), whatever r is: equation (1)."""
    made = flow(Exact(), improved=True, power=0.0, equal=0.25)
    z = SPREAD * jax.random.normal(jax.random.key(1), (64, 4, 3))
    heavier = dataclasses.replace(made, fields=dataclasses.replace(made.fields, power=0.5, floor=0.1))
    (loss, watched), (weighed, _) = jax.jit(
        lambda z: tuple(each.loss({}, z, LABELS, KEYS, jnp.zeros(())) for each in (made, heavier))
    )(z)
    noise_keys, time_keys, _ = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(KEYS), 1, 0)
    noise, (r, t) = initial_noise(noise_keys, (4, 3)), made._times(time_keys)
    assert 0.5 < float(jnp.mean(r < t)) < 0.95 and bool((r <= t).all())
    z, noise, t = (np.asarray(x, np.float64) for x in (z, noise, t[:, None, None]))
    noisy = (1 - t) * z + t * noise
    marginal = noisy * (t - (1 - t) * SPREAD**2) / (((1 - t) * SPREAD) ** 2 + t**2)
    squared = np.sum((marginal - (noise - z)) ** 2, axis=(1, 2))
    assert float(loss) == pytest.approx(squared.mean(), rel=1e-4)
    assert float(watched["squared_error"]) == pytest.approx(squared.mean() / 12, rel=1e-4)
    assert float(weighed) == pytest.approx(np.mean(squared / np.sqrt(squared + 0.1)), rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_with_the_exact_average_any_number_of_steps_is_exact(steps: int):
    made = flow(Exact())
    drawn = made.sample({}, KEYS, LABELS, settings(steps))
    np.testing.assert_allclose(drawn, SPREAD * initial_noise(KEYS, (4, 3)), atol=1e-5)
    assert made.evaluations(settings(steps)) == steps
    np.testing.assert_array_equal(made.sample({}, KEYS[3:4], LABELS[3:4], settings(steps))[0], drawn[3])


SEEN: list[np.ndarray] = []


class Recorder(nn.Module):
    """Answers with its label, and keeps the numbers that it is told."""

    def __call__(self, z: jax.Array, numbers: jax.Array, label: jax.Array) -> jax.Array:
        jax.debug.callback(lambda told: SEEN.append(np.asarray(told)), numbers, ordered=True)
        return jnp.broadcast_to(label[:, None, None].astype(jnp.float32), z.shape)


def test_each_way_of_guidance_reaches_the_samples():
    keys, labels = KEYS[:2], jnp.asarray([0, 2], jnp.int32)
    noise = initial_noise(keys, (4, 3))
    asked = settings(2, ((0.25, 0.75, 4.0),))
    made = flow(Recorder(), guidance="asked")
    made.sample({}, keys, labels, asked)
    jax.effects_barrier()
    np.testing.assert_allclose([each[0] for each in SEEN], [[1, 0.5, 0.75, 0.25, 0.75], [0.5, 0.5, 0.75, 0.25, 0.75]])
    assert made.evaluations(asked) == 2
    both = flow(Recorder(), guidance="sampling")
    guided = settings(2, ((0.6, 1.0, 3.0),))
    moved = noise - both.sample({}, keys, labels, guided)
    np.testing.assert_allclose(
        moved[:, 0, 0], [0.5 * (0 + 2 * (0 - 3)), 0.5 * (2 + 2 * (2 - 3)) + 0.5 * 2], atol=1e-5
    )
    assert both.evaluations(guided) == 3 and flow(Recorder(), guidance="trained").evaluations(settings(2)) == 2


def test_what_cannot_work_is_refused():
    def refused(made: MeanFlow, guidance: Any) -> str:
        with pytest.raises(ValueError, match=r"^field [\w.]+ ") as error:
            made.evaluations(settings(1, guidance))
        return str(error.value)

    one = ((0.0, 1.0, 2.0),)
    assert "must be () where generator.mean_flow.guidance=trained" in refused(flow(Exact(), guidance="trained"), one)
    for guidance in (PAPER_SCHEDULE, ((0.0, 1.0, 0.5),), ((0.0, 1.0, 9.0),)):
        assert "one interval (low, high, weight) of a weight from 1 to 8" in refused(
            flow(Exact(), guidance="asked"), guidance
        )
    assert "condition.kind=none" in refused(flow(Exact(), condition=Nothing()), one)
    for way in ("trained", "asked"):
        assert "guidance must be sampling where condition.kind=none" in refused(
            flow(Exact(), condition=Nothing(), guidance=way), ()
        )
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        flow(Exact()).evaluations(settings(0))
    assert ConditionSection().kind == "class"  # so that the defaults work
    assert flow(Exact()).evaluations(settings(10, PAPER_SCHEDULE)) == 18


def test_products_with_the_jacobian_take_a_kernel_that_has_them():
    def kernel(name: str) -> str:
        return _with_jvp(DiT(grid=(2, 2), classes=3, width=8, depth=1, heads=1, hidden=8, kernel=name))

    assert [kernel(name) for name in ("cudnn", "splash", "xla", "cpu")] == ["xla", "xla", "xla", "cpu"]
    assert kernel("auto") == "cpu" and _with_jvp(Exact()) == ""


@pytest.mark.slow
def test_a_transformer_has_the_same_gradients_looped_and_remembering_nothing():
    network = DiT(grid=(2, 2), classes=3, width=16, depth=2, heads=2, hidden=32, kernel="xla")
    made = flow(network, guidance="asked")
    params = randomise(jax.eval_shape(made.init, jax.random.key(0)))
    assert {"hidden", "out", *(f"{layer}_{i}" for layer in ("hidden", "out") for i in range(1, 5))} == set(
        params["time"]
    )
    z = jax.random.normal(jax.random.key(1), (4, 4, 3))

    def gradients(network: DiT) -> Any:
        each = dataclasses.replace(made, network=network)
        return jax.jit(jax.grad(lambda params: each.loss(params, z, LABELS[:4], KEYS[:4], jnp.zeros(()))[0]))(params)

    plain, frugal = gradients(network.clone(scan=False)), gradients(network.clone(remat="full"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-3), plain, frugal)
    assert all(float(jnp.abs(leaf).max()) > 1e-6 for leaf in jax.tree.leaves(plain))


class Plane(nn.Module):
    """A network of the plane: tanh layers over z, numbers and label."""

    width: int = 128
    layers: int = 3

    @nn.compact
    def __call__(self, z: jax.Array, numbers: jax.Array, label: jax.Array) -> jax.Array:
        numbers = numbers[:, None] if numbers.ndim == 1 else numbers
        waves = [wave(numbers * scale) for scale in (1.0, 2.0, 4.0) for wave in (jnp.sin, jnp.cos)]
        flat = z.reshape(len(z), -1)
        x = jnp.concatenate([flat, *waves, jax.nn.one_hot(label, 4)], axis=-1)
        for i in range(self.layers):
            x = jnp.tanh(nn.Dense(self.width, name=f"layer_{i}")(x))
        return nn.Dense(flat.shape[1], name="out")(x).reshape(z.shape)


def trained(made: Any, data: Callable[[jax.Array], jax.Array], steps: int) -> Any:
    """Parameters after steps of Adam on batches of 256."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    label = jnp.zeros(256, jnp.int32)

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        params, moments = state
        z = data(key)
        keys = jax.random.split(jax.random.fold_in(key, 1), 256)
        slopes = jax.grad(lambda params: made.loss(params, z, label, keys, jnp.zeros(()))[0])(params)
        change, moments = optimizer.update(slopes, moments, params)
        return (optax.apply_updates(params, change), moments), None

    params = made.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), steps)
    return jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0])(params)


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E‖A − B‖ − E‖A − A'‖ − E‖B − B'‖: 0 where the distributions are one."""

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.linalg.norm(x[:, None] - y[None], axis=-1).mean())

    return 2 * mean(a, b) - mean(a, a) - mean(b, b)


@pytest.mark.slow
def test_one_step_beats_one_euler_step_of_flow_matching_on_eight_gaussians():
    """Eight Gaussians on a circle: one Euler step lands in their mean, one average step on them."""

    def data(key: jax.Array) -> jax.Array:
        angle = jax.random.randint(key, (256,), 0, 8) * jnp.pi / 4
        centre = 1.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        return (centre + 0.1 * jax.random.normal(jax.random.fold_in(key, 2), (256, 2)))[:, None]

    shape, network = (1, 2), Plane(width=64)
    fields = {"power": 0.5, "floor": 0.01, "times": "uniform"}
    made = {
        "euler": FlowMatching(network=network, shape=shape, condition=Nothing(), train_shift=1.0),
        **{
            name: flow(network, shape, Nothing(), improved=name == "improved", **fields)
            for name in ("mean", "improved")
        },
    }
    one = settings(1)
    keys, label = jax.random.split(jax.random.key(7), 1000), jnp.zeros(1000, jnp.int32)
    real = np.concatenate([np.asarray(data(jax.random.key(i)))[:, 0] for i in range(100, 104)])
    distance = {}
    for name, each in made.items():
        params = trained(each, data, 1500)
        drawn = np.asarray(each.sample(params, keys, label, one))[:, 0]
        distance[name] = energy_distance(drawn, real)
    # seen: 0.92 by Euler, 0.0095 and 0.0086 by averages
    assert distance["mean"] < 0.05 * distance["euler"] and distance["improved"] < 0.05 * distance["euler"], distance


@pytest.mark.parity
@pytest.mark.parametrize(
    "fields",
    [
        {"improved": False, "guidance": "sampling"},
        {"improved": False, "guidance": "trained", "weight": 0.4, "mix": 0.5, "interval": (0.0, 0.6)},
        {"improved": True, "guidance": "asked"},
    ],
)
def test_the_loss_and_its_gradient_equal_pytorch_written_from_the_papers(fields: dict):
    torch = pytest.importorskip("torch")
    made = flow(Plane(width=16, layers=2), **fields)
    params = randomise(jax.eval_shape(made.init, jax.random.key(0)), spread=0.3)
    z = jax.random.normal(jax.random.key(1), (64, 4, 3))
    noise_keys, time_keys, guidance_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(KEYS), 1, 0)
    r, t = made._times(time_keys)
    asked = made._asked(guidance_keys, r == t)

    def value(leaf: Any) -> Any:
        return torch.from_numpy(np.array(leaf)).double()

    weights = jax.tree.map(lambda leaf: value(leaf).requires_grad_(), params)
    label, none = torch.from_numpy(np.array(LABELS)).long(), torch.full((64,), 3)
    low, high, strength = value(asked).T
    x, e, r_, t_ = value(z), value(initial_noise(noise_keys, (4, 3))), value(r), value(t)

    def network(x: Any, r: Any, t: Any, label: Any, told: tuple[Any, ...]) -> Any:
        numbers = torch.stack([t, t - r, *told], dim=1)
        waves = [wave(numbers * scale) for scale in (1, 2, 4) for wave in (torch.sin, torch.cos)]
        h = torch.cat([x.flatten(1), *waves, torch.eye(4, dtype=torch.double)[label]], dim=1)
        for name in ("layer_0", "layer_1"):
            h = torch.tanh(h @ weights[name]["kernel"] + weights[name]["bias"])
        return (h @ weights["out"]["kernel"] + weights["out"]["bias"]).reshape(x.shape)

    def over(vector: Any) -> Any:
        return vector[:, None, None]

    noisy, v = (1 - over(t_)) * x + over(t_) * e, e - x
    inputs: tuple[Any, ...] = ()
    with torch.no_grad():
        if fields["guidance"] == "sampling":
            target = tangent = v
        elif fields["guidance"] == "trained":
            told, free = network(noisy, t_, t_, label, ()), network(noisy, t_, t_, none, ())
            mixture = 0.4 * v + 0.5 * told + 0.1 * free
            target = tangent = torch.where(over((t_ <= 0.6) & (label < 3)), mixture, v)
        else:
            inside = (t_ >= low) & (t_ <= high)
            acting, zeros, ones = (
                torch.where(inside, strength, 1.0),
                torch.zeros(64).double(),
                torch.ones(64).double(),
            )
            told = network(noisy, t_, t_, label, (1 - 1 / acting, zeros, ones))
            free = network(noisy, t_, t_, none, (zeros, zeros, ones))
            target = torch.where(over(label < 3), v + over(1 - 1 / acting) * (told - free), v)
            tangent, inputs = told, (1 - 1 / strength, low, high)
    u = network(noisy, r_, t_, label, inputs)
    _, rate = torch.autograd.functional.jvp(
        lambda x, r, t: network(x, r, t, label, inputs),
        (noisy, r_, t_),
        (tangent, torch.zeros_like(r_), torch.ones_like(t_)),
    )
    error = u - (target - over(t_ - r_) * rate).detach()
    squared = error.square().sum((1, 2))
    loss = (squared / (squared.detach() + 1e-3)).mean()
    loss.backward()
    ours, slopes = jax.jit(jax.value_and_grad(lambda params: made.loss(params, z, LABELS, KEYS, jnp.zeros(()))[0]))(
        params
    )
    assert float(ours) == pytest.approx(float(loss.detach()), abs=1e-4)
    theirs = jax.tree.map(lambda leaf: leaf.grad.numpy(), weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), slopes, theirs)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes)) > 0.01
