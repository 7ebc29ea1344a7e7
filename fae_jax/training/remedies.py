"""What a run leaves behind for whoever has to find out why it stopped: bad steps, and memory that ran out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fae_jax.errors import RunFailed
from fae_jax.files.moving import Outbox
from fae_jax.files.paths import Path
from fae_jax.files.writing import write_file, write_json
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.curve import NotFinite
from fae_jax.training.state import TrainState
from fae_jax.training.task import Task


@contextlib.contextmanager
def explained(task: Task, directory: Path, state: Callable[[], TrainState]) -> Iterator[None]:
    """Turns what stops a step into one line with the remedy, and keeps what is needed to look into it.

    Args:
      task: what is trained.
      directory: of the stage.
      state: the newest one.

    Raises:
      RunFailed: too many steps in a row were not finite, or a device's memory is full.
    """
    try:
        yield
    except NotFinite as error:
        file = save_inputs(task, directory, error, state())
        raise RunFailed(
            f"{task.name}: {error.count} steps in a row up to step {error.step} had a loss or gradient that is not "
            "finite; try a lower learning rate of this stage or dtype float32 in another --workdir, since they "
            f"change the result; what the step took is in {file}"
        ) from error
    except (RuntimeError, ValueError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(_out_of_memory(task, directory, error)) from error


def save_inputs(task: Task, directory: Path, bad: NotFinite, newest: TrainState) -> Path:
    """Everything the step `bad.step` took: `nonfinite/STEP.npz`, of further hosts `STEP-host-H.npz`, and the state.

    The batch is drawn again. A step that is not finite changes no parameter, so that the newest state is still the
    one the step took, unless a step behind it was finite; then the last checkpoint leads there. The file holds
    `batch/NAME`, this host's rows; `seed`; and `step`, counted from 0 as the keys are drawn from it. `STEP.json`
    beside it says where the state is.

    Returns:
      The file of this host.
    """
    folder, host, step = directory / "nonfinite", jax.process_index(), bad.step
    batches = task.batches(step - 1)
    batch = next(batches)
    getattr(batches, "close", lambda: None)()
    file = folder / (f"{step}-host-{host}.npz" if host else f"{step}.npz")
    arrays = {f"batch/{name}": np.asarray(value) for name, value in batch.items()}
    numbers = {"step": np.int64(step - 1), "seed": np.int64(task.seed)}
    write_file(file, lambda opened: np.savez(opened, allow_pickle=False, **numbers, **arrays))  # type: ignore
    row, reached = (int(jax.device_get(value)) for value in (newest.skipped_in_a_row, newest.step))
    about: dict[str, Any] = {"step": step, "hosts": jax.process_count()}
    if row - bad.count == reached - step:
        checkpoints = Checkpoints(folder / "state", keep=1)
        checkpoints.finish(reached, newest)
        checkpoints.close()
        about["state"] = str(folder / "state" / str(reached))
    else:
        before = Checkpoints(directory / "checkpoints").steps()
        about["checkpoint"] = str(directory / "checkpoints" / str(before[-1])) if before else None
    if host == 0:
        write_json(folder / f"{step}.json", about)
    return file


def read_inputs(file: Path) -> tuple[dict[str, np.ndarray], int, int, dict[str, Any]]:
    """What `save_inputs` left: (batch, step counted from 0, seed, what stands in the JSON file beside it)."""
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        batch = {name.removeprefix("batch/"): arrays[name] for name in arrays.files if name.startswith("batch/")}
        step, seed = int(arrays["step"]), int(arrays["seed"])
    return batch, step, seed, json.loads((file.parent / f"{step + 1}.json").read_text())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of JAX says that a device has no memory left."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _out_of_memory(task: Task, directory: Path, error: BaseException) -> str:
    """The line to say instead of JAX's, with a snapshot of the memory beside the stage."""
    snapshot = directory / "memory.prof"
    where = "no snapshot of the memory could be taken"
    with contextlib.suppress(Exception):
        outbox = Outbox(directory)
        jax.profiler.save_device_memory_profile(str(outbox.folder / snapshot.name))
        outbox.close()
        where = f"what lay there is in {snapshot} (for pprof)"
    field, section = task.field or task.name, task.section
    parts = next((n for n in range(section.microbatches + 1, section.batch + 1) if section.batch % n == 0), None)
    split = f"--config.{field}.microbatches={parts} makes a step smaller and keeps its result; " if parts else ""
    return (
        f"{task.name}: the memory of a device is full: {split}--config.compute.remat=full keeps less of the forward "
        f"pass; more devices in mesh.fsdp share the state; {where}; JAX says: {' '.join(str(error).split())[:160]}"
    )
