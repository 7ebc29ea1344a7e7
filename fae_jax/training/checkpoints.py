"""Checkpoints by Orbax: asynchronous, sharded, restorable on another mesh, and never trusted blindly."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from fae_jax.errors import RunFailed
from fae_jax.files.paths import Path, absolute, epath, filesystem, is_remote
from fae_jax.files.progress import say
from fae_jax.files.retry import ATTEMPTS, retried
from fae_jax.files.writing import json_hash
from fae_jax.parallel.hosts import agree, gather_text, is_first, wait_for_all
from fae_jax.parallel.rules import path_name, shardings
from fae_jax.section import at_least, option, whole_numbers
from fae_jax.training.digests import check_digests, digests

_COMMITTED = "commit_success.txt"  # Orbax's last object of a checkpoint in a bucket; on a disk it renames the folder
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)


def _name(error: BaseException) -> str:
    """What went wrong in a few words: the operating system's where it has some, since storage libraries bury them."""
    text = " ".join(str(error).split())
    known = next((os.strerror(number) for number in _STORAGE_ERRORS if os.strerror(number) in text), None)
    return known or f"{type(error).__name__}: {text}"[:300]


class _NoSuchEMA(ValueError):
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSection:
    """When a stage saves, and what it keeps."""

    operational: ClassVar[bool] = True
    every: int = option(5_000, "steps between checkpoints; one is written at the end in any case", at_least(1))
    keep: int = option(2, "newest checkpoints kept", at_least(1))
    keep_at: tuple[Any, ...] = option((), "steps whose checkpoints are kept for good", whole_numbers(1))
    pause_at: int = option(
        0, "step after which a stage stops, saved, as a signal would stop it; 0 = none", at_least(0)
    )


class Checkpoints:
    """The checkpoints of one stage, a folder per step.

    Args:
      directory: where they lie; made at the first save.
      keep: how many of the newest are kept.
      keep_at: steps whose checkpoints are kept for good.
    """

    def __init__(self, directory: Path, keep: int = 2, keep_at: Collection[int] = ()):
        self.directory = absolute(directory)
        self._keep, self._keep_at = keep, tuple(keep_at)
        self._checkpointer: ocp.training.Checkpointer | None = None
        self._begun: int | None = None
        self.read: dict[str, Any] = {}

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        if is_remote(self.directory):
            folders = [path.parent for path in self.directory.glob(f"*/{_COMMITTED}")]
        else:
            folders = list(self.directory.glob("*"))
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def listing(self, step: int) -> str:
        """A hash of the names and sizes of a checkpoint's files, which a power cut changes; empty without one."""
        folder = self.directory / str(step)
        if step not in self.steps():
            return ""
        if is_remote(folder):
            start = len(str(folder).split("://")[1]) + 1
            objects = filesystem(folder).find(str(folder), detail=True).values()
            sizes = [(each["name"][start:], each["size"]) for each in objects]
        else:
            files = [path for path in folder.rglob("*") if path.is_file()]
            sizes = [(str(path.relative_to(folder)), path.stat().st_size) for path in files]
        return json_hash(sorted(sizes))

    def _agreed_steps(self) -> list[int]:
        """`steps` as the first host sees them."""
        return json.loads(gather_text(json.dumps(self.steps()))[0])

    def _open(self, step: int) -> ocp.training.Checkpointer:
        if self._checkpointer is None:
            self._set_aside(step)
            self._checkpointer = ocp.training.Checkpointer(
                self.directory,
                preservation_policy=self._preserved(),
                cleanup_tmp_directories=True,
            )
        return self._checkpointer

    def _preserved(self) -> Any:
        policies = ocp.training.preservation_policies
        newest = policies.LatestN(self._keep)
        return (
            policies.AnyPreservationPolicy([newest, policies.CustomSteps(self._keep_at)]) if self._keep_at else newest
        )

    def _set_aside(self, step: int) -> None:
        """Renames what lies at `step` or after: damaged checkpoints that were passed over and are in the way now."""
        for later in self.steps() if is_first() else ():
            if later >= step:
                aside = epath.Path(self.directory / f"{later}.damaged")
                aside.rmtree(missing_ok=True)
                epath.Path(self.directory / str(later)).rename(aside)
        wait_for_all("damaged checkpoints set aside")

    def save(self, step: int, state: Any) -> None:
        """Begins to save; the device copy is taken before this returns, the writing goes on behind.

        What could not be written for a moment (`fae_jax.files.retry`) is tried again, with this newer state.

        Raises:
          RunFailed: this or the save before could not be written (disk full, read-only); older ones are intact.
        """
        self._retried(step, lambda: self._begin(step, state))

    def finish(self, step: int, state: Any) -> None:
        """Saves, unless that was begun, and returns when all is on disk.

        Raises:
          RunFailed: it could not be written.
        """

        def attempt() -> None:
            if self._begun != step:
                self._begin(step, state)
            assert self._checkpointer is not None
            self._checkpointer.wait()

        self._retried(step, attempt)

    def _begin(self, step: int, state: Any) -> None:
        self._open(step).save_async(step, state, force=True, custom_metadata={"digests": digests(state)})
        self._begun = step

    def _retried(self, step: int, call: Callable[[], None]) -> None:
        def attempt() -> None:
            try:
                call()
            except Exception:
                self._checkpointer = self._begun = None  # Orbax's object is of no use after an error
                raise

        # Hosts save together: one of them cannot try again alone.
        attempts = ATTEMPTS if jax.process_count() == 1 else 1
        try:
            retried(attempt, f"the checkpoint of step {step}", attempts=attempts)
        except Exception as error:
            raise self._unwritable(step, error) from error

    def wait(self) -> None:
        """Returns when everything begun is on disk.

        Raises:
          RunFailed: it could not be written.
        """
        if self._checkpointer is not None:
            try:
                self._checkpointer.wait()
            except Exception as error:
                raise self._unwritable(None, error) from error

    def close(self) -> None:
        """Waits, then lets go of threads."""
        self.wait()
        if self._checkpointer is not None:
            self._checkpointer.close()
            self._checkpointer = None

    def let_go(self) -> None:
        """Waits for a save that was begun: a run that ends for another reason keeps it."""
        with contextlib.suppress(Exception):
            self.close()

    def _unwritable(self, step: int | None, error: Exception) -> RunFailed:
        self._checkpointer = self._begun = None
        what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        newest = self.steps()
        kept = f"the last good one is of step {newest[-1]}" if newest else "there is none before it"
        return RunFailed(
            f"{what} could not be written to {self.directory} ({_name(error)}); {kept}: make room or give a writable "
            "--workdir, and run the same command again"
        )

    def restore(self, abstract: Any, step: int | None = None) -> tuple[int, Any] | None:
        """The newest state that every host can read, falling back with a warning over damaged ones.

        Args:
          abstract: tree of ShapeDtypeStruct with shardings; `ocp.PLACEHOLDER` leaves are not read.
          step: only this one, instead of the newest.

        Returns:
          (step, state), or None if there is no checkpoint.

        Raises:
          RunFailed: there are checkpoints and none can be read.
        """
        steps = self._agreed_steps() if step is None else [step]
        for candidate in reversed(steps):
            state = None
            try:
                folder = self.directory / str(candidate)
                state = ocp.load(folder, abstract)
                check_digests(state, (ocp.metadata(folder).custom_metadata or {}).get("digests"))
            except Exception as error:
                self._pass_over(candidate, error)
                state = None
            if agree(state is not None):
                return candidate, state
        if steps:
            raise RunFailed(
                f"no checkpoint in {self.directory} can be read (steps {', '.join(map(str, steps))}); "
                "move that folder away to begin the stage anew"
            )
        return None

    def read_params(self, player: str, mesh: Mesh, ema: str | None = "", step: int | None = None) -> Any:
        """One player's parameters from the newest checkpoint, without the rest of the state.

        Args:
          player: its name.
          mesh: where to put them, by the sharding rules.
          ema: the decay of an EMA, "" for the largest if there are any, None for the raw weights.
          step: the checkpoint to read, instead of the newest.

        Returns:
          The parameters; `read` says of which step, and of which average.

        Raises:
          ValueError: there is no such EMA or checkpoint; those there are are named.
          RunFailed: no checkpoint can be read.
        """
        steps = self._agreed_steps()
        if step is not None and step not in steps:
            kept = ", ".join(map(str, steps)) or "none"
            raise ValueError(f"there is no checkpoint of step {step} in {self.directory}; kept: {kept}")
        for candidate in reversed(steps) if step is None else (step,):
            read = None
            try:
                about = ocp.metadata(self.directory / str(candidate))
                tree = about.metadata
                prefix = f"players/{player}/{self._place(tree['players'][player], ema)}/"
                places = shardings(tree, mesh)

                def pick(path: Any, leaf: Any, place: Any, prefix: str = prefix) -> Any:
                    if not path_name(path).startswith(prefix):
                        return ocp.PLACEHOLDER
                    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

                read = ocp.load(self.directory / str(candidate), jax.tree_util.tree_map_with_path(pick, tree, places))
                check_digests(read, (about.custom_metadata or {}).get("digests"))
                for key in prefix.strip("/").split("/"):
                    read = read[int(key) if isinstance(read, list | tuple) else key]
            except _NoSuchEMA:
                raise
            except Exception as error:
                self._pass_over(candidate, error)
                read = None
            if agree(read is not None):
                average = prefix.strip("/").split("/")[-1]
                self.read = {"checkpoint": candidate, "ema": None if average == "params" else average}
                return read
        raise RunFailed(f"no checkpoint in {self.directory} can be read")

    def _pass_over(self, step: int, error: Exception) -> None:
        where = self.directory / str(step)
        say(f"warning: checkpoint {where} is damaged and passed over ({_name(error)})")

    def _place(self, player: Any, ema: str | None) -> str:
        """Where the parameters asked for are in a player's tree."""
        kept = player["optimizer"][-1]["averages"] or {}
        if ema == "":
            ema = max(kept, key=float, default=None)
        if ema is None:
            return "params"
        if ema not in kept:
            known = ", ".join(kept) or "none"
            raise _NoSuchEMA(f"no EMA of decay {ema} is kept in {self.directory}; kept: {known}")
        return f"optimizer/{len(player['optimizer']) - 1}/averages/{ema}"
