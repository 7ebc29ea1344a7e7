"""A pixel decoder and its discriminator, stepped: what each sees, when it begins, and what a bad step leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_players import Tokenizer, pixel_batch, pixel_players

from fae_jax.losses.pixel.absolute import l1
from fae_jax.parallel.mesh import make_mesh, put_batch
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.loop import abstract_state
from fae_jax.training.state import create_state, state_shardings
from fae_jax.training.step import compile_step, train_step

LOSSES = (("l1", 1.0), ("gan", 0.5, 2))
GAN = {"adaptive": True, "lecam": 0.1, "lecam_decay": 0.5, "start": 1, "ema": (0.8,)}


def leaves(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def same(ours, theirs, **tolerance):
    ours, theirs = leaves(ours), leaves(theirs)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, theirs[name], rtol=0, atol=tolerance.get("atol", 0), err_msg=name)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """States and metrics of four steps, and those that follow a checkpoint of the second."""
    players, mesh = pixel_players(LOSSES, gan=GAN, linear=True), make_mesh()
    step, state, states, seen = compile_step(players, 1, 0, mesh), create_state(players, 0, mesh), [], []

    def go(state, number):
        states.append(jax.tree.map(np.asarray, state))
        state, metrics = step(state, {}, put_batch(pixel_batch(number), mesh))
        seen.append({name: float(value) for name, value in metrics.items()})
        return state

    for number in range(4):
        state = go(state, number)
        if number == 1:
            checkpoints = Checkpoints(tmp_path_factory.mktemp("played") / "checkpoints")
            checkpoints.finish(2, state)
            checkpoints.close()
    states.append(jax.tree.map(np.asarray, state))
    whole, rows = list(states), list(seen)
    _, state = checkpoints.restore(abstract_state(players, mesh))
    for number in (2, 3):
        state = go(state, number)
    assert seen[4:] == rows[2:]
    same(state, whole[4])
    bad = pixel_batch(4)
    bad["features"][0] = np.nan
    spoilt, metrics = step(state, {}, put_batch(bad, mesh))
    return players, whole, rows, (jax.tree.map(np.asarray, spoilt), metrics), step


def test_each_begins_at_its_step_and_both_step_on(played):
    _, states, *_ = played
    for before, after in zip(states, states[1:], strict=False):
        begun = int(before.step) >= 1  # the discriminator
        ours = [state.players["gan"].params["out"]["kernel"] for state in (before, after)]
        assert np.array_equal(*ours) != begun
        decoder = [state.players["pixel_decoder"].params["to_pixels"]["kernel"] for state in (before, after)]
        assert not np.array_equal(*decoder)
    counts = [int(state.players["gan"].optimizer[1][0].count) for state in states]
    assert counts == [0, 0, 1, 2, 3]
    assert states[4].players["gan"].optimizer[-1].averages.keys() == {"0.8"}


def test_the_averages_of_logits_follow_what_was_seen(played):
    _, states, rows, *_ = played
    real = fake = 0.0
    for row, state in zip(rows[1:], states[2:], strict=True):
        real, fake = (real + row["gan/logits_real"]) / 2, (fake + row["gan/logits_fake"]) / 2
        memory = state.players["gan"].memory
        assert (float(memory["real"]), float(memory["fake"])) == pytest.approx((real, fake), rel=1e-5)


@pytest.mark.slow
def test_the_adaptive_weight_is_the_ratio_of_gradients_at_the_last_projection_one_step_before(played):
    players, states, rows, *_ = played
    state, batch = jax.tree.map(jnp.asarray, states[2]), jax.tree.map(jnp.asarray, pixel_batch(2))
    terms = players["pixel_decoder"].loss.args[1]
    params, given = state.players["pixel_decoder"].params, {"gan": state.players["gan"].params}
    given["memory"] = {name: getattr(own, "memory", {}) for name, own in state.players.items()}
    keys = jax.random.split(jax.random.key(0), 8)
    features = players["pixel_decoder"].loss.args[2](
        {},
        batch,
        jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(jax.random.key(0), 2), np.arange(8)),
    )

    def decode(kernel):
        return Tokenizer.pixel_decoder.apply(
            {"params": {**params, "to_pixels": {**params["to_pixels"], "kernel": kernel}}}, features
        )

    images, kernel = batch["image"].astype(jnp.float32) / 127.5 - 1, params["to_pixels"]["kernel"]

    def both(kernel):
        decoded = decode(kernel)
        return jnp.stack([l1(decoded, images), terms[1].term(decoded, images, given, keys)])

    rest, gan = jax.jit(jax.jacrev(both))(kernel)
    expected = np.linalg.norm(rest) / (np.linalg.norm(gan) + 1e-6)
    assert float(states[3].players["pixel_decoder"].memory["gan"]) == pytest.approx(expected, rel=1e-4)
    assert rows[3]["gan_weight"] == pytest.approx(expected, rel=1e-4)
    assert [float(state.players["pixel_decoder"].memory["gan"]) > 0 for state in states] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert rows[1]["loss"] == pytest.approx(rows[1]["l1"], rel=1e-6)
    total = rows[3]["l1"] + 0.5 * expected * rows[3]["gan"]
    assert rows[3]["loss"] == pytest.approx(total, rel=1e-4)


def test_nan_in_one_player_changes_neither_nor_what_losses_remember(played):
    _, states, _, (spoilt, metrics), _ = played
    same(spoilt.players, states[4].players)
    assert int(spoilt.skipped) == 1 and int(metrics["skipped_in_a_row"]) == 1


@pytest.mark.parametrize("number", [1, 4])  # the term does not count for the decoder yet, and does
@pytest.mark.parametrize("spoilt", ["params", "memory"])
def test_nan_that_begins_in_the_discriminator_never_reaches_the_decoder(played, spoilt, number):
    """In its parameters, which the decoder's term reads, and in its averages of logits, which only its own loss does:
    then the decoder's loss is finite, and it waits all the same."""
    players, states, _, _, step = played
    mesh = make_mesh()
    opponent = states[number].players["gan"]
    opponent = opponent.replace(**{spoilt: jax.tree.map(lambda leaf: leaf * np.nan, getattr(opponent, spoilt))})
    given = states[number].replace(players={**states[number].players, "gan": opponent})
    after, metrics = step(
        jax.device_put(given, state_shardings(players, mesh)[1]), {}, put_batch(pixel_batch(number), mesh)
    )
    assert not np.isfinite(metrics["gan/loss"]) and int(metrics["skipped_in_a_row"]) == 1
    assert np.isfinite(metrics["loss"]) == (spoilt == "memory")
    same(after.players, given.players)
    assert all(np.isfinite(leaf).all() for leaf in leaves(after.players["pixel_decoder"]).values())


@pytest.mark.slow
def test_decoded_once_and_stepped_as_the_formula_says_in_parts_too(played):
    """The weighed loss, differentiated by itself, gives the step that the shared backward pass gave."""
    players, states, rows, *_ = played
    mesh = make_mesh()
    state = jax.device_put(states[3])
    split, metrics = compile_step(players, 4, 0, mesh)(state, {}, put_batch(pixel_batch(3), mesh))
    same(split.players, states[4].players, atol=2e-5)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(rows[3], rel=1e-3, abs=1e-5)


def test_the_decoder_runs_once_for_both_players():
    players = pixel_players((("l1", 1.0), ("gan", 0.1)))
    mesh = make_mesh()
    shapes = abstract_state(players, mesh)
    text = (
        jax.jit(lambda state, batch: train_step(players, 1, 0, state, {}, batch))
        .lower(shapes, pixel_batch(0))
        .as_text()
    )
    products = [line for line in text.splitlines() if "dot_general" in line and "x192xf32" in line.split("->")[-1]]
    assert len(products) == 1
