"""The parts of a model as shapes, placed on devices that need not be there: what `fae compile` builds programs from.

The same builders as in a run, under `jax.eval_shape`. Statistics, which are measured in a real run, are ones: they
decide no shape.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from fae_jax.config import check
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.model import Parts, generator_of
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parallel.rules import shardings
from fae_jax.tokenizers import tokenizer_kind


class Shapes(Parts):
    """See `fae_jax.model.Parts`.

    Args:
      config: what the experiment is.
      mesh: the devices it would run on.
      own: one host's devices, for what hosts do each by themselves; None for the first host's of `mesh`.
    """

    def __init__(self, config: Any, mesh: jax.sharding.Mesh, own: list[jax.Device] | None = None):
        self.config, self.mesh, self._own = check(config), mesh, own

    @functools.cached_property
    def hosts(self) -> int:
        """Machines that the devices are spread over."""
        return len({device.process_index for device in self.mesh.devices.flat})

    @functools.cached_property
    def own_mesh(self) -> jax.sharding.Mesh:
        """One host's devices."""
        first = self.mesh.devices.flat[0].process_index
        own = self._own or [device for device in self.mesh.devices.flat if device.process_index == first]
        return self.mesh if self.hosts == 1 else make_mesh(devices=own)

    @property
    def has_generator(self) -> bool:
        return True

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @functools.cached_property
    def tokenizer(self) -> Any:
        return tokenizer_kind(self.config).outline(self.config)

    @functools.cached_property
    def statistics(self) -> LatentStatistics:
        ones = np.ones(self.tokenizer.channels)
        return LatentStatistics(count=1, mean=ones, deviation=ones, noise=ones)

    def params(self, part: str, ema: str | None = "", mesh: jax.sharding.Mesh | None = None) -> Any:
        """See `fae_jax.model.Parts`; on `mesh` where it is given."""
        if part == "generator":
            shapes = jax.eval_shape(generator_of(self).init, jax.random.key(0))
        else:
            shapes = self.tokenizer.shapes(part)
        return placed(shapes, shardings(shapes, mesh or self.mesh))


def placed(tree: Any, places: Any) -> Any:
    """Shapes with the shardings of a tree like them."""
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), tree, places)
