"""What is left of a bad step is enough to do it again, and full memory is answered with what helps."""

import itertools
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fae_jax.errors import RunFailed
from fae_jax.files.paths import as_path
from fae_jax.parallel.mesh import make_mesh, put_batch
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.curve import NotFinite
from fae_jax.training.loop import abstract_state
from fae_jax.training.remedies import explained, is_out_of_memory, read_inputs
from fae_jax.training.state import create_state
from fae_jax.training.step import compile_step
from fae_jax.training.task import Task

PLAYERS = {"toy": toy.player()}


def poisoned(start: int) -> Iterator[dict[str, np.ndarray]]:
    for number in itertools.count(start):
        batch = toy.batch(number)
        batch["x"][number, 0] = np.nan
        yield batch


def make_task(**changes: Any) -> Task:
    section = toy.section(**changes)
    return Task(name="toy", players=PLAYERS, frozen={}, batches=poisoned, seed=3, section=section)


def test_a_bad_step_can_be_done_again_from_what_is_left_of_it(folder: Any):
    mesh, task = make_mesh(), make_task()
    step = compile_step(PLAYERS, 1, task.seed, mesh)
    state = create_state(PLAYERS, task.seed, mesh)
    for batch in itertools.islice(poisoned(0), 4):
        state, metrics = step(state, {}, put_batch(batch, mesh))
    # Step 2 is found to be the second in a row when steps 3 and 4 are on their way, and bad as well.
    with (
        pytest.raises(RunFailed, match=rf"toy: 2 steps in a row .*what the step took is in {folder}"),
        explained(task, folder, lambda: state),
    ):
        raise NotFinite(2, 2)
    batch, number, seed, about = read_inputs(folder / "nonfinite" / "2.npz")
    assert (number, seed, about["step"]) == (1, 3, 2)
    np.testing.assert_array_equal(batch["x"], next(poisoned(1))["x"])
    place = as_path(about["state"])
    _, saved = Checkpoints(place.parent).restore(abstract_state(PLAYERS, mesh))
    jax.tree.map(np.testing.assert_array_equal, saved.players, state.players)
    again = saved.replace(step=jnp.asarray(number, jnp.int32))
    _, metrics = step(again, {}, put_batch(batch, mesh))
    assert not np.isfinite(float(metrics["loss"]))


def test_where_a_later_step_was_good_the_last_checkpoint_is_named(tmp_path: Path):
    mesh, task = make_mesh(), make_task()
    state = create_state(PLAYERS, task.seed, mesh).replace(step=jnp.asarray(4, jnp.int32))  # none skipped in a row
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(RunFailed), explained(task, tmp_path, lambda: state):
        raise NotFinite(2, 2)
    about = json.loads((tmp_path / "nonfinite" / "2.json").read_text())
    assert about == {"step": 2, "hosts": 1, "checkpoint": str(tmp_path / "checkpoints" / "1")}


def test_memory_that_is_full_is_answered_with_the_field_to_change(tmp_path: Path):
    task = make_task(microbatches=2)
    with pytest.raises(RunFailed) as caught, explained(task, tmp_path, lambda: None):
        jax.jit(lambda: jnp.zeros((2**45,), jnp.float32) + 1)().block_until_ready()  # 128 TiB
    message = str(caught.value)
    assert message.startswith("toy: the memory of a device is full: --config.toy.microbatches=3 makes a step smaller")
    assert "--config.compute.remat=full" in message and f"what lay there is in {tmp_path / 'memory.prof'}" in message
    assert (tmp_path / "memory.prof").read_bytes()[:2] == b"\x1f\x8b"  # pprof's files are gzip


def test_other_errors_are_left_as_they_are(tmp_path: Path):
    error = RuntimeError("INTERNAL: something else")
    assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError) as caught, explained(make_task(), tmp_path, types.SimpleNamespace):
        raise error
    assert caught.value is error and list(tmp_path.iterdir()) == []
