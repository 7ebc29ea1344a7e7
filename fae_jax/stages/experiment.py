"""One configuration in one working directory, on the devices there are: what every stage starts from."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fae_jax.config import check
from fae_jax.encoders.frozen import with_trained
from fae_jax.parallel.hosts import is_first, own_mesh
from fae_jax.parallel.mesh import batch_divisor, make_mesh
from fae_jax.section import as_dict
from fae_jax.stages.images import Images
from fae_jax.stages.stage import Stage, read_record
from fae_jax.stages.trained import Trained
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.task import Score
from fae_jax.workdir import Workdir


class Experiment:
    """Everything is made when it is first asked for, so that a request can be checked without computing anything.

    Args:
      config: what the experiment is.
      workdir: where it is kept.
      origin: the arguments that gave the configuration (`--config C …`), to repeat them in advice.
    """

    def __init__(self, config: Any, workdir: Workdir, origin: str | None = None):
        self.config = check(config)
        self.workdir = workdir
        self.origin = origin
        self.scorer: Callable[[Experiment], Score | None] | None = None  # gives what scores a generator in training
        # Set before `parts` is asked for:
        self.step: int | None = None  # the generator's checkpoint, where one is asked for
        self.apart = False  # whether each host computes by itself, with whole parameters on its own devices

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(**as_dict(self.config.mesh))

    @functools.cached_property
    def own_mesh(self) -> jax.sharding.Mesh:
        """This host's devices: for encoding, which hosts do each by themselves."""
        return own_mesh(self.mesh)

    @functools.cached_property
    def images(self) -> Images:
        """The images it is trained on, and those held out."""
        return Images(self.config.data, self.seed, self.workdir.root)

    @functools.cached_property
    def parts(self) -> Trained:
        """What its stages have left so far."""
        config = with_trained(self.config, str(self.workdir.stage("encoder")))
        mesh = self.own_mesh if self.apart else self.mesh
        return Trained(config, self.workdir, mesh, self.own_mesh, self.images, self.step)

    def reopen(self) -> None:
        """Has `parts` read anew what the stages have left."""
        self.__dict__.pop("parts", None)

    @property
    def suffix(self) -> str:
        """What the names of results end in: the generator's step, where one is asked for."""
        return "" if self.step is None else f"-step-{self.step}"

    def seed(self, purpose: str) -> int:
        """A seed for one purpose, derived from the experiment's."""
        return int.from_bytes(hashlib.sha256(f"{self.config.seed}/{purpose}".encode()).digest()[:4], "little") >> 1

    def checkpoints(self, stage: Stage) -> Checkpoints:
        """Those of a stage."""
        kept = self.config.checkpoint
        return Checkpoints(self.workdir.stage(stage.folder or stage.name) / "checkpoints", kept.keep, kept.keep_at)

    def is_done(self, stage: Stage) -> bool:
        """Whether a stage has nothing left to do: its record says so, and what it left is there."""
        record = read_record(self.workdir, stage.folder or stage.name)
        if record is None or record.finished is None:
            return False
        if stage.is_there is not None:
            return stage.is_there(self, record)
        if record.finished == 0 and not record.checkpoint:  # there was nothing to train
            return True
        enough = record.finished >= stage.section(self.config).steps
        return enough and self.checkpoints(stage).listing(record.finished) == record.checkpoint

    def check_batch(self, field: str, size: int, parts: int = 1) -> None:
        """Refuses a batch that does not divide over the devices.

        Raises:
          ValueError: it names the field.
        """
        divisor = batch_divisor(self.mesh) * parts
        if size % divisor:
            raise ValueError(f"field {field}={size} must be a multiple of {divisor} on these devices")

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the time of its body to `timings.json`, also when it is interrupted."""
        begun = time.monotonic()
        try:
            yield
        finally:
            if is_first():
                with contextlib.suppress(OSError):
                    self.workdir.add_time(phase, time.monotonic() - begun)
