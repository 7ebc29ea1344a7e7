"""The working directory of an experiment: what lies where, and how it is written without ever being half written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from fae_jax.config import differences, from_json, from_root, to_json
from fae_jax.files import locks, objects
from fae_jax.files.paths import Path, as_path, is_remote
from fae_jax.files.progress import say
from fae_jax.files.writing import write_atomically, write_json


class Workdir:
    """Paths of a working directory, here or in a bucket, and the configuration it belongs to.

    Raises:
      ValueError: it cannot be written to; see `as_path`.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = as_path(root)

    def stage(self, name: str) -> Path:
        """Where a stage keeps its checkpoints, metrics and previews."""
        return self.root / name

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def config_file(self) -> Path:
        return self.root / "config.json"

    def read_config(self) -> ConfigDict:
        """The configuration this directory was begun with.

        Raises:
          FileNotFoundError: it is no working directory.
          ValueError: its configuration cannot be read.
          OSError: its bucket does not exist, refuses or does not answer.
        """
        self._check_bucket()
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"{self.root} is not a working directory: it has no config.json; begin one with "
                f"`fae run --config CONFIG --workdir {self.root}`"
            )
        try:
            return from_json(self.config_file.read_text())
        except ValueError as error:
            raise ValueError(f"{self.config_file} cannot be read: {error}") from error

    def check_config(self, config: Any) -> None:
        """Refuses a directory that belongs to another experiment; changes nothing.

        Raises:
          ValueError: fields that decide the result differ; they are listed.
          OSError: its bucket does not exist, refuses or does not answer.
        """
        self._check_bucket()
        there = next((path for path in (self.root, *self.root.parents) if path.exists()), None)
        if there is not None and not there.is_dir():
            raise ValueError(f"working directory {self.root} cannot be: {there} is a file; name a directory")
        if not self.config_file.is_file():
            return
        different = differences(from_root(config), from_root(self.read_config()))
        if not (self.stage("post_training") / "stage.json").is_file():  # it may be added to what is there
            different = [each for each in different if not each.startswith("post_training.")]
        if different:
            listed = "; ".join(different[:8]) + (f"; and {len(different) - 8} more" if len(different) > 8 else "")
            raise ValueError(
                f"working directory {self.root} belongs to another experiment ({listed}); choose another --workdir "
                "or leave those fields as they were"
            )

    def begin(self, config: Any) -> None:
        """Makes the directory for `config` if it is new, and records operational changes if it is not."""
        self.check_config(config)
        text = to_json(config)
        if not self.config_file.is_file() or self.config_file.read_text() != text:
            write_atomically(self.config_file, text)

    def _check_bucket(self) -> None:
        if is_remote(self.root):
            objects.check_bucket(self.root)

    @contextlib.contextmanager
    def lock(self, lost: Callable[[str], object] = locks.stop) -> Iterator[None]:
        """Holds the directory for one process at a time; a process that dies lets go of it.

        Args:
          lost: called with a message, by a thread, when a bucket's lock is no longer ours; does not return in a run.

        Raises:
          ValueError: another process holds it; it is named.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with locks.lock(self.root / ".lock", f"working directory {self.root}", lost):
            yield

    def add_time(self, phase: str, seconds: float) -> None:
        """Adds to the seconds a phase has taken, over all its restarts, in `timings.json`."""
        times = self._times()
        times[phase] = round(times.get(phase, 0.0) + seconds, 3)
        write_json(self.root / "timings.json", times)

    def add_phases(self, seconds: Mapping[str, float]) -> None:
        """Adds to what training has spent by phase, in `timings.json` under "training", and the goodput of it all."""
        times = self._times()
        before = times.get("training", {})
        total = {name: round(before.get(name, 0.0) + spent, 3) for name, spent in seconds.items()}
        share = total["step"] / max(sum(total.values()), 1e-9)
        write_json(self.root / "timings.json", {**times, "training": {**total, "goodput": round(share, 4)}})

    def _times(self) -> dict[str, Any]:
        file = self.root / "timings.json"
        try:
            return dict(json.loads(file.read_text())) if file.is_file() else {}
        except (ValueError, TypeError) as error:
            say(f"warning: {file} is damaged and begun anew ({error})")
            return {}
