"""The optimizer against AdamW, its schedule and averages written out in NumPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from fae_jax.config import check, default_config
from fae_jax.training.optimizer import best_params, learning_rate, make_optimizer


def gradients(step: int) -> dict:
    random = np.random.default_rng(100 + step)
    size = 10.0 if step % 3 == 0 else 0.01  # some are clipped, some are not
    return jax.tree.map(
        lambda p: (size * random.normal(size=p.shape)).astype(np.float32), toy.init(jax.random.key(0))
    )


def walk(section, steps: int) -> list[tuple[dict, object]]:
    """(parameters, optimizer state) after each step."""
    optimizer, params = make_optimizer(section), toy.init(jax.random.key(0))
    state, seen = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
        seen.append((params, state))
    return seen


def flat(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def test_parameters_follow_adamw_with_clipping_and_decay_of_kernels_only():
    section = toy.section(steps=12, warmup=4, weight_decay=0.1, clip=1.0, betas=(0.8, 0.95), schedule="constant")
    wanted = {name: value.astype(np.float64) for name, value in flat(toy.init(jax.random.key(0))).items()}
    first = {name: np.zeros_like(value) for name, value in wanted.items()}
    second = {name: np.zeros_like(value) for name, value in wanted.items()}
    for step, (params, _) in enumerate(walk(section, 12)):
        gradient = {name: value.astype(np.float64) for name, value in flat(gradients(step)).items()}
        norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
        rate = 0.05 * min(step / 4, 1)
        for name, value in gradient.items():
            value = value / max(norm, 1.0)
            first[name] = 0.8 * first[name] + 0.2 * value
            second[name] = 0.95 * second[name] + 0.05 * value**2
            direction = first[name] / (1 - 0.8 ** (step + 1))
            direction = direction / (np.sqrt(second[name] / (1 - 0.95 ** (step + 1))) + 1e-8)
            decay = 0.1 * wanted[name] if name.endswith("kernel") else 0.0
            wanted[name] = wanted[name] - rate * (direction + decay)
        for name, value in flat(params).items():
            np.testing.assert_allclose(value, wanted[name], rtol=2e-5, atol=2e-6, err_msg=f"{name}, step {step}")


def test_averages_are_the_recursion_over_parameters_for_each_decay():
    seen = walk(toy.section(steps=20, ema=(0.5, 0.99, 0.9)), 20)
    for decay in (0.5, 0.9, 0.99):
        wanted = {name: value.astype(np.float64) for name, value in flat(toy.init(jax.random.key(0))).items()}
        for params, state in seen:
            wanted = {name: decay * wanted[name] + (1 - decay) * value for name, value in flat(params).items()}
            averages = state[-1].averages
            assert sorted(averages) == ["0.5", "0.9", "0.99"]
            for name, value in flat(averages[str(decay)]).items():
                np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-6)


def test_best_params_are_the_ema_of_the_largest_decay_and_without_any_the_parameters():
    def state_of(ema: tuple[float, ...]) -> SimpleNamespace:
        params, state = walk(toy.section(ema=ema), 3)[-1]
        return SimpleNamespace(players={"p": SimpleNamespace(params=params, optimizer=state)})

    state = state_of((0.9999, 0.5, 0.99))
    assert best_params(state, "p") is state.players["p"].optimizer[-1].averages["0.9999"]
    state = state_of(())
    assert best_params(state, "p") is state.players["p"].params


def test_clip_zero_leaves_gradients_as_they_are():
    (clipped, _), (free, _) = (walk(toy.section(clip=clip), 2)[-1] for clip in (1.0, 0.0))
    assert not np.allclose(clipped["hidden"]["kernel"], free["hidden"]["kernel"], atol=1e-4)


def test_finetuning_decays_weights_as_pixels_and_ends_at_a_tenth_of_its_rate():
    config = check(default_config())
    assert config.finetune.weight_decay == config.pixels.weight_decay == 1e-4
    schedule = learning_rate(config.finetune)
    ends = [schedule(step) for step in (config.finetune.warmup, config.finetune.steps)]
    np.testing.assert_allclose(ends, [1e-4, 1e-5], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "step", "wanted"),
    [
        ({"schedule": "cosine", "warmup": 10}, 0, 0.0),
        ({"schedule": "cosine", "warmup": 10}, 5, 0.025),
        ({"schedule": "cosine", "warmup": 10}, 10, 0.05),
        ({"schedule": "cosine", "warmup": 10, "last_learning_rate": 0.01}, 55, 0.03),
        ({"schedule": "cosine", "warmup": 10, "last_learning_rate": 0.01}, 100, 0.01),
        ({"schedule": "cosine", "warmup": 0}, 0, 0.05),
        ({"schedule": "cosine", "warmup": 0}, 25, 0.05 * (1 + np.cos(np.pi / 4)) / 2),
        ({"schedule": "cosine", "warmup": 100}, 50, 0.025),
        ({"schedule": "cosine", "warmup": 200}, 100, 0.025),
        ({"schedule": "constant", "warmup": 0}, 0, 0.05),
        ({"schedule": "constant", "warmup": 0}, 100, 0.05),
        ({"schedule": "constant", "warmup": 4}, 1, 0.0125),
        ({"schedule": "constant", "warmup": 4}, 99, 0.05),
    ],
)
def test_learning_rate(changes: dict, step: int, wanted: float):
    schedule = learning_rate(toy.section(steps=100, **changes))
    np.testing.assert_allclose(schedule(jnp.asarray(step)), wanted, rtol=1e-5, atol=1e-9)


def test_muon_steps_matrices_by_an_orthogonal_momentum_and_the_rest_by_adamw():
    """Newton-Schulz's five steps leave singular values about 1, so a step of s × d has 0.2 √(larger side) of them."""
    blocks = {"kernel": np.zeros((3, 8, 16), np.float32), "bias": np.zeros((3, 16), np.float32)}
    params = {"blocks": blocks, "label": {"table": np.zeros((4, 8), np.float32)}}
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), params)
    section = toy.section(steps=3, warmup=0, schedule="constant", clip=0.0, optimizer="muon", weight_decay=0.1)
    optimizer = make_optimizer(section)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    rate = section.learning_rate
    for update, g in zip(updates["blocks"]["kernel"], gradient["blocks"]["kernel"], strict=True):
        u, _, vt = np.linalg.svd(g, full_matrices=False)
        scaled = np.linalg.svd(-update / (rate * 0.2 * np.sqrt(16)), compute_uv=False)
        assert scaled.min() > 0.6 and scaled.max() < 1.3
        assert np.sum(-update * (u @ vt)) / np.linalg.norm(update) / np.sqrt(8) > 0.97
    for update, g in (
        (updates["blocks"]["bias"], gradient["blocks"]["bias"]),
        (updates["label"]["table"], gradient["label"]["table"]),
    ):
        np.testing.assert_allclose(update, -rate * np.sign(g), rtol=1e-3)
