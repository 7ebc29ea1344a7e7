"""One step: microbatches, keys, and what happens to a step that is not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from fae_jax.parallel.mesh import make_mesh, put_batch
from fae_jax.training.state import Player, TrainState, create_state
from fae_jax.training.step import compile_step, example_keys


def run(players: dict[str, Player], batches: list, parts: int = 1) -> tuple[TrainState, list[dict]]:
    mesh = make_mesh()
    state, seen = create_state(players, 0, mesh), []
    step = compile_step(players, parts, 0, mesh)
    for batch in batches:
        state, metrics = step(state, {}, put_batch(batch, mesh))
        seen.append({name: float(value) for name, value in metrics.items()})
    return state, seen


def assert_equal(ours: object, theirs: object, **tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance.get("atol", 0)), ours, theirs)


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_microbatches_equal_one_large_batch(parts: int):
    batches = [toy.batch(step) for step in range(3)]
    whole, one = run({"toy": toy.player()}, batches)
    split, many = run({"toy": toy.player()}, batches, parts)
    assert_equal(split.players["toy"].params, whole.players["toy"].params, atol=1e-6)
    assert_equal(split.players["toy"].optimizer, whole.players["toy"].optimizer, atol=1e-5)
    for ours, theirs in zip(many, one, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_options_of_a_processor_reach_the_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fae_jax.training.step.training_options", lambda: {"xla_no_such_option": "1"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        run({"toy": toy.player()}, [toy.batch(0)])


@pytest.mark.parametrize("parts", [1, 4])
def test_every_example_gets_its_own_key_whatever_the_microbatches(parts: int):
    """The gradient of Σ θ_i · noise(key_i) / b is each example's noise, so it shows who got which key."""

    def loss(params, frozen, batch, keys, step):
        noise = jax.vmap(jax.random.normal)(keys)
        chosen = jnp.take(params["theta"]["bias"], batch["place"])
        return jnp.mean(chosen * noise), {}

    player = Player(init=lambda key: {"theta": {"bias": jnp.zeros(12)}}, loss=loss, optimizer=toy.player().optimizer)
    gradients = {}

    def update(gradient, state, params):
        jax.debug.callback(lambda value: gradients.setdefault("theta", np.asarray(value)), gradient["theta"]["bias"])
        return player.optimizer.update(gradient, state, params)

    recording = optax.GradientTransformation(player.optimizer.init, update)
    run({"p": dataclasses.replace(player, optimizer=recording)}, [{"place": np.arange(12)}], parts)
    jax.effects_barrier()
    base = jax.random.fold_in(jax.random.key(0), 0)
    wanted = [float(jax.random.normal(jax.random.fold_in(base, place))) / 12 for place in range(12)]
    np.testing.assert_allclose(gradients["theta"], wanted, rtol=1e-6)


def test_keys_differ_between_steps_seeds_and_examples():
    keys = [example_keys(seed, jnp.asarray(step), 5) for seed in (0, 1) for step in (0, 1)]
    bits = np.concatenate([np.asarray(jax.random.key_data(key)) for key in keys])
    assert len(np.unique(bits, axis=0)) == 20


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
    good, bad = toy.batch(0), toy.batch(1)
    bad["x"][3, 1] = np.inf
    before, _ = run({"toy": toy.player()}, [good])
    after, seen = run({"toy": toy.player()}, [good, bad, bad])
    assert_equal(after.players, before.players)
    assert [row["skipped"] for row in seen] == [0, 1, 2]
    assert [row["skipped_in_a_row"] for row in seen] == [0, 1, 2]
    assert not np.isfinite(seen[1]["gradient_norm"])
    assert (int(after.step), int(after.skipped)) == (3, 2)
    moved, seen = run({"toy": toy.player()}, [good, bad, toy.batch(2)])
    assert (seen[-1]["skipped"], seen[-1]["skipped_in_a_row"]) == (1, 0)
    assert not np.array_equal(moved.players["toy"].params["out"]["bias"], before.players["toy"].params["out"]["bias"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved.players))


def test_a_non_finite_gradient_of_a_finite_loss_is_skipped_too():
    def loss(params, frozen, batch, keys, step):
        return jnp.sqrt(jnp.sum(params["out"]["bias"] - 1.0)) + jnp.mean(batch["y"]) * 0, {}  # slope ∞ at bias = 1

    player = dataclasses.replace(toy.player(), loss=loss)
    state, seen = run({"toy": player}, [toy.batch(0)])
    assert np.isfinite(seen[0]["loss"]) and seen[0]["skipped"] == 1
    np.testing.assert_array_equal(state.players["toy"].params["out"]["bias"], [1.0])


def test_players_step_from_the_same_state_and_are_skipped_together():
    def follow(params, frozen, batch, keys, step):
        return jnp.mean((params["out"]["bias"] - frozen["toy"]["out"]["bias"]) ** 2) + 0 * jnp.mean(batch["y"]), {}

    second = Player(init=lambda key: {"out": {"bias": jnp.zeros(1)}}, loss=follow, optimizer=toy.player().optimizer)
    players = {"toy": toy.player(), "second": second}
    state, seen = run(players, [toy.batch(0)])
    # toy's bias is 1 before the step: the second player's loss must see that, not the stepped one.
    assert seen[0]["second/loss"] == pytest.approx(1.0)
    assert {"loss", "noise", "gradient_norm", "second/gradient_norm"} < seen[0].keys()
    bad = toy.batch(1)
    bad["x"][0] = np.nan
    after, _ = run(players, [toy.batch(0), bad])
    assert np.array_equal(
        after.players["second"].params["out"]["bias"], state.players["second"].params["out"]["bias"]
    )


def test_players_start_from_different_keys_and_from_what_is_given():
    mesh, players = make_mesh(), {"a": toy.player(), "b": toy.player()}
    state = create_state(players, 3, mesh)
    kernels = [np.asarray(state.players[name].params["hidden"]["kernel"]) for name in "ab"]
    assert not np.array_equal(*kernels)
    given = jax.tree.map(lambda leaf: leaf + 5, jax.device_get(state.players["a"].params))
    begun = create_state(players, 3, mesh, {"b": given})
    np.testing.assert_array_equal(begun.players["b"].params["hidden"]["kernel"], kernels[0] + 5)
    np.testing.assert_array_equal(
        begun.players["b"].optimizer[-1].averages["0.9"]["hidden"]["kernel"], kernels[0] + 5
    )
    np.testing.assert_array_equal(begun.players["a"].params["hidden"]["kernel"], kernels[0])
