"""An experiment of shapes: every stage's program as it will run, without images, weights or the devices.

What a stage asks of its `Experiment` is answered with `jax.ShapeDtypeStruct`s that carry their places on a mesh, of
devices that need not be there. Statistics, which are measured in a real run, are ones: they decide no shape.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.encoders import registry
from fae_jax.networks import encoder_outline
from fae_jax.parallel.mesh import batch_sharding, make_mesh
from fae_jax.parallel.rules import shardings
from fae_jax.stages import features, generator, pixels
from fae_jax.stages.experiment import PREVIEWS, Experiment
from fae_jax.stages.feature_space import FeatureSpace
from fae_jax.training.loop import Task
from fae_jax.training.state import initial_state
from fae_jax.workdir import Workdir

# stage → what makes its task
TASKS: dict[str, Callable[[Experiment], Task]] = {
    "features": features.make_task,
    "pixels": pixels.pixels_task,
    "finetune": pixels.finetune_task,
    "generator": generator.make_task,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Batches:
    """A loader that yields shapes."""

    shapes: dict[str, jax.ShapeDtypeStruct]

    def at(self, step: int) -> Iterator[dict[str, jax.ShapeDtypeStruct]]:
        while True:
            yield self.shapes


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Header:
    statistics: LatentStatistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cache:
    header: _Header


def placed(tree: Any, places: Any) -> Any:
    """Shapes with the shardings of a tree like them."""
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), tree, places)


class Outline(Experiment):
    """See the module.

    Args:
      config: what the experiment is.
      mesh: of the devices it would run on.
      own: one host's devices, for what hosts do each by themselves; None for the first host's of `mesh`.
    """

    def __init__(self, config: Any, mesh: jax.sharding.Mesh, own: list[jax.Device] | None = None):
        super().__init__(config, Workdir("."))
        self._mesh, self._own = mesh, own

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return self._mesh

    @functools.cached_property
    def hosts(self) -> int:
        """Machines that the devices are spread over."""
        return len({device.process_index for device in self._mesh.devices.flat})

    @functools.cached_property
    def own_mesh(self) -> jax.sharding.Mesh:
        first = self._mesh.devices.flat[0].process_index
        own = self._own or [device for device in self._mesh.devices.flat if device.process_index == first]
        return self._mesh if self.hosts == 1 else make_mesh(devices=own)

    @functools.cached_property
    def own_encoder(self) -> Any:
        params = self.encoder.params
        return placed(params, shardings(params, self.own_mesh))

    @functools.cached_property
    def encoder(self) -> registry.Encoder:
        return encoder_outline(self.config)

    @functools.cached_property
    def frozen_encoder(self) -> dict[str, Any]:
        params = self.encoder.params
        return {"encoder": placed(params, shardings(params, self.mesh))}

    @functools.cached_property
    def space(self) -> FeatureSpace:
        ones = np.ones(self.encoder.width, np.float32)
        return FeatureSpace(mean=ones, std=ones, standardise=self.config.encoder.feature_norm == "standardise")

    def shaped(self, batch: int, **fields: tuple[tuple[int, ...], Any]) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of examples of these shapes and dtypes, split over the mesh."""
        place = batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=place)
            for name, (shape, dtype) in fields.items()
        }

    def loader(self, batch: int) -> Any:
        size = self.config.data.image_size
        image = ((size, size, 3), jnp.uint8)
        return _Batches(shapes=self.shaped(batch, image=image, label=((), jnp.int32), index=((), jnp.int32)))

    @property
    def _stored(self) -> tuple[int, int]:
        """(n, d) of an image's stored features."""
        return self.networks.grid[0] * self.networks.grid[1], self.networks.width

    def feature_loader(self, batch: int, *, images: bool) -> Any:
        if not self.config.data.features:
            return self.loader(batch)
        shown = self.loader(batch).shapes if images else {}
        return _Batches(shapes={**shown, **self.shaped(batch, features=(self._stored, jnp.float16))})

    @functools.cache  # noqa: B019 -- an outline lives as long as its process
    def preview_features(self) -> dict[str, np.ndarray]:
        stored = self.config.data.features
        features = {"features": np.zeros((PREVIEWS, *self._stored), np.float32)} if stored else {}
        return {**self.preview_batch(), **features}

    def latent_loader(self, batch: int) -> Any:
        latent = (
            (self.networks.grid[0] * self.networks.grid[1], self.networks.compressor.latent_width),
            jnp.bfloat16,
        )
        whole = ((), jnp.int32)
        return _Batches(shapes=self.shaped(batch, mean=latent, log_variance=latent, label=whole, index=whole))

    @functools.cache  # noqa: B019 -- an outline lives as long as its process
    def preview_batch(self) -> dict[str, np.ndarray]:
        size = self.config.data.image_size
        return {"image": np.zeros((PREVIEWS, size, size, 3), np.uint8)}

    @functools.cached_property
    def cache(self) -> Any:
        width = self.networks.compressor.latent_width
        statistics = LatentStatistics(count=1, mean=np.ones(width), deviation=np.ones(width), noise=np.ones(width))
        return _Cache(header=_Header(statistics=statistics))

    def load_params(
        self, stage: str, player: str, average: str | None = "", mesh: jax.sharding.Mesh | None = None
    ) -> Any:
        if stage == "features" and not self.has_autoencoder:
            return {"compressor": {}, "feature_decoder": {}}
        players = TASKS[stage](self).players
        params = jax.eval_shape(lambda: initial_state(players, 0)).players[player].params
        return placed(params, shardings(params, mesh or self.mesh))
