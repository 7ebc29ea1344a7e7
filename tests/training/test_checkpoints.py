"""Checkpoints: what comes back, what is kept, and what happens to damaged ones."""

import gc
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from damage import flipped

from fae_jax.errors import RunFailed, Stopped
from fae_jax.parallel.mesh import make_mesh
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.digests import digest, digests
from fae_jax.training.loop import abstract_state
from fae_jax.training.state import TrainState, create_state

PLAYERS = {"toy": toy.player()}


def state_at(step: int) -> TrainState:
    """A state in which every number tells its step."""
    state = create_state(PLAYERS, 0, make_mesh())
    moved = jax.tree.map(lambda leaf: leaf + step, state.players)
    return state.replace(step=jnp.asarray(step, jnp.int32), skipped=jnp.asarray(step // 2, jnp.int32), players=moved)


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Steps 3 and 5, after step 1 was let go."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 3, 5):
        checkpoints.save(step, state_at(step))
    checkpoints.close()
    return checkpoints


def restore(checkpoints: Checkpoints, step: int | None = None) -> tuple[int, TrainState] | None:
    return checkpoints.restore(abstract_state(PLAYERS, make_mesh()), step)


def assert_same(ours: object, theirs: object) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_newest_are_kept_and_come_back_bit_for_bit(saved: Checkpoints):
    assert saved.steps() == [3, 5]
    step, state = restore(saved)
    assert step == 5
    assert_same(state, state_at(5))
    assert_same(restore(saved, 3)[1], state_at(3))


def test_no_checkpoint_is_nothing_to_restore(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.steps() == []
    assert restore(checkpoints) is None
    assert not (tmp_path / "none").exists()


def test_a_state_saved_is_the_one_handed_over_though_it_is_donated_at_once(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = state_at(2)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 7, tree), donate_argnums=0)
    checkpoints.save(2, state)
    overwrite(state)
    checkpoints.close()
    assert_same(restore(checkpoints)[1], state_at(2))


def test_an_array_that_is_not_the_one_saved_is_passed_over(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("fae_jax.training.checkpoints.digests", lambda tree: {**digests(tree), "step": 0})
    saved.save(7, state_at(7))
    saved.close()
    assert restore(saved)[0] == 5
    assert "checkpoint" in (err := capfd.readouterr().err) and "step is not what was saved" in err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's own
def test_one_flipped_bit_is_noticed_or_changes_nothing(saved: Checkpoints):
    rng = np.random.default_rng(0)
    folder, passed_over = saved.directory / "5", 0
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for file in (*files, largest(folder)):
        content = file.read_bytes()
        file.write_bytes(flipped(content, rng))
        step, state = restore(saved)
        assert_same(state, state_at(step))
        params = saved.read_params("toy", make_mesh())
        kept = [state_at(step).players["toy"].optimizer[-1].averages["0.9"] for step in (3, 5)]
        assert any(jax.tree.all(jax.tree.map(np.array_equal, params, average)) for average in kept)
        passed_over += step == 3
        file.write_bytes(content)
    gc.collect()
    assert passed_over >= 4
    assert restore(saved)[0] == 5


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16, np.uint8, bool])
def test_a_digest_tells_every_bit_and_every_place(dtype: type):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2 if dtype is bool else 100, (3, 4, 5)).astype(dtype)
    before = int(digest(jnp.asarray(x)))
    assert digests({"x": jnp.asarray(x)}) == {"x": before}  # small ones are summed here
    places = np.arange(60, dtype=np.uint64)
    width = x.dtype.itemsize
    bits = x.reshape(-1).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[width])
    assert before == int(((2 * places + 1) * bits.astype(np.uint64)).sum() % 2**32)
    assert int(digest(jnp.asarray(np.roll(x, 1)))) != before
    for _ in range(40 if dtype is not bool else 0):
        spoilt = bits.copy()
        spoilt[rng.integers(60)] ^= spoilt.dtype.type(1 << int(rng.integers(8 * width)))
        assert int(digest(jnp.asarray(spoilt.view(x.dtype).reshape(x.shape)))) != before


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(folder: Path) -> None:
    file = largest(folder)
    with open(file, "r+b") as handle:
        handle.truncate(file.stat().st_size // 2)


def empty_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def remove_file(folder: Path) -> None:
    largest(folder).unlink()


def garble(folder: Path) -> None:
    file = largest(folder)
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), 16):
        content[place] ^= 0xFF
    file.write_bytes(content)


DAMAGE = [truncate, empty_files, empty_folder, remove_file, garble]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_one_falls_back_loudly(
    saved: Checkpoints, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
):
    damage(saved.directory / "5")
    step, state = restore(saved)
    assert step == 3
    assert_same(state, state_at(3))
    warning = capsys.readouterr().err.splitlines()
    assert len(warning) == 1 and warning[0].startswith(f"warning: checkpoint {saved.directory / '5'} is damaged")
    assert_same(saved.read_params("toy", make_mesh(), None), state_at(3).players["toy"].params)


@pytest.mark.parametrize("damage", [truncate, empty_folder])
def test_the_damaged_step_can_be_saved_again(saved: Checkpoints, damage: Callable[[Path], None]):
    damage(saved.directory / "5")
    again = Checkpoints(saved.directory, keep=2)
    again.save(5, state_at(5))
    again.close()
    assert again.steps() == [3, 5]
    assert_same(restore(again)[1], state_at(5))


def test_a_damaged_one_does_not_outlive_newer_good_ones(saved: Checkpoints):
    empty_folder(saved.directory / "5")
    again = Checkpoints(saved.directory, keep=1)
    again.save(4, state_at(4))  # a run that goes on from 3 and stops early
    again.close()
    assert again.steps() == [4]
    assert_same(restore(again)[1], state_at(4))


def test_nothing_readable_is_a_failure_that_says_what_to_do(saved: Checkpoints):
    for step in (3, 5):
        empty_folder(saved.directory / str(step))
    with pytest.raises(RunFailed, match=r"steps 3, 5\); move that folder away"):
        restore(saved)
    with pytest.raises(RunFailed, match="can be read"):
        saved.read_params("toy", make_mesh())


def test_parameters_are_read_without_the_rest(saved: Checkpoints):
    wanted, mesh = state_at(5).players["toy"], make_mesh()
    assert_same(saved.read_params("toy", mesh, None), wanted.params)
    assert_same(saved.read_params("toy", mesh, "0.5"), wanted.optimizer[-1].averages["0.5"])
    assert_same(saved.read_params("toy", mesh), wanted.optimizer[-1].averages["0.9"])
    with pytest.raises(ValueError, match=r"decay 0.7 is kept in .*; kept: 0.5, 0.9"):
        saved.read_params("toy", mesh, "0.7")


def test_parameters_stand_in_for_an_average_where_none_is_kept(tmp_path: Path):
    bare = {"toy": toy.player(ema=())}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = create_state(bare, 0, make_mesh())
    checkpoints.save(1, state)
    checkpoints.close()
    assert_same(checkpoints.read_params("toy", make_mesh()), state.players["toy"].params)
    with pytest.raises(ValueError, match="kept: none"):
        checkpoints.read_params("toy", make_mesh(), "0.9")


def test_an_unwritable_place_names_it_and_the_remedy(tmp_path: Path):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    with pytest.raises(
        RunFailed, match=r"checkpoint .* could not be written to .*none before it.*run the same command"
    ):
        checkpoints.save(1, state_at(1))
        checkpoints.close()


def test_a_signal_while_reading_is_not_taken_for_damage(saved: Checkpoints, monkeypatch: pytest.MonkeyPatch):
    def signalled(*_: object) -> None:
        raise Stopped("stopped by SIGTERM")

    monkeypatch.setattr("fae_jax.training.checkpoints.ocp.load", signalled)
    for read in (restore, lambda checkpoints: checkpoints.read_params("toy", make_mesh())):
        with pytest.raises(Stopped):
            read(saved)
