"""Checkpoints in a bucket: saved, restored, passed over where damaged or half written, and set aside."""

from collections.abc import Callable
from typing import Any

import pytest
from test_checkpoints import assert_same, restore, state_at

from fae_jax.files.paths import filesystem
from fae_jax.parallel.mesh import make_mesh
from fae_jax.training.checkpoints import Checkpoints


def save(place: Any, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(place, keep=2)
    for step in steps:
        checkpoints.save(step, state_at(step))
    checkpoints.close()
    return checkpoints


def objects(folder: Any) -> list[dict]:
    """From the largest."""
    return sorted(filesystem(folder).find(str(folder), detail=True).values(), key=lambda each: -each["size"])


def garble(folder: Any) -> None:
    name, files = objects(folder)[0]["name"], filesystem(folder)
    files.pipe_file(name, bytes(byte ^ 0xFF for byte in files.cat_file(name)))


def remove(folder: Any) -> None:
    filesystem(folder).rm_file(objects(folder)[0]["name"])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [garble, remove])
def test_the_newest_whole_one_comes_back_bit_for_bit_and_a_damaged_one_is_set_aside(
    bucket: Any, damage: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
):
    saved = save(bucket, 1, 3, 5)
    assert saved.steps() == [3, 5]
    step, state = restore(saved)
    assert step == 5
    assert_same(state, state_at(5))
    damage(bucket / "5")
    step, state = restore(saved)
    assert step == 3
    assert_same(state, state_at(3))
    assert f"warning: checkpoint {bucket}/5 is damaged" in capsys.readouterr().err
    assert_same(saved.read_params("toy", make_mesh(), None), state_at(3).players["toy"].params)
    again = save(bucket, 5)
    assert again.steps() == [3, 5] and (bucket / "5.damaged").is_dir()
    assert_same(restore(again)[1], state_at(5))


def test_one_that_a_kill_left_half_is_none_and_is_written_over(bucket: Any):
    saved = save(bucket, 3, 5)
    (bucket / "5" / "commit_success.txt").unlink()
    assert saved.steps() == [3] and restore(saved)[0] == 3
    again = save(bucket, 5)
    assert again.steps() == [3, 5]
    assert_same(restore(again)[1], state_at(5))
