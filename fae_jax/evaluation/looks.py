"""What frozen networks say of images: each is read once, and spread over this host's devices.

Images are looked at `BLOCK` per device at a time, the last ones filled up, so that one program serves a size of image
and what is said of an image does not depend on how many come together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from fae_jax.extractors import Extractor, load_extractor
from fae_jax.extractors.encoders import own
from fae_jax.model import FAE
from fae_jax.parallel.hosts import fetch, own_mesh
from fae_jax.parallel.mesh import batch_divisor, make_mesh, put_batch, replicated
from fae_jax.parallel.rules import shardings

BLOCK = {"cpu": 8}
BLOCK_ELSEWHERE = 32


class Taps(dict[str, Float[np.ndarray, "b d"]]):
    """Taps by name; one that the extractor does not have is a ValueError that says why."""

    def __init__(self, taps: Mapping[str, np.ndarray], extractor: Extractor):
        super().__init__(taps)
        self._extractor = extractor

    def __missing__(self, tap: str) -> np.ndarray:
        reason = self._extractor.lacks.get(tap) or f"it gives {', '.join(self)}"
        raise ValueError(f"the extractor {self._extractor.name!r} gives no {tap!r}: {reason}")


class Looks:
    """Extractors by name, "encoder" among them: the experiment's own, whose tap `mean` is x averaged over patches.

    Args:
      fae: the model whose encoder and devices are used; None: there is no "encoder", and all of this host's devices.
    """

    def __init__(self, fae: FAE | None = None):
        self._fae = fae
        self._mesh = own_mesh(fae.parts.mesh) if fae else make_mesh(devices=jax.local_devices())

    def look(self, name: str, images: UInt8[np.ndarray, "b y x 3"]) -> Taps:
        """What the extractor `name` says of images, at least one.

        Raises:
          ValueError: there is no such extractor, or it does not take such images.
          FileNotFoundError: its weights are not here.
        """
        extractor, run = self._open(name)
        size = BLOCK.get(jax.default_backend(), BLOCK_ELSEWHERE) * batch_divisor(self._mesh)
        made = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            part = np.concatenate([part, part[-1:].repeat(size - len(part), 0)])
            made.append(run(put_batch({"image": part}, self._mesh)["image"]))
        whole = jax.tree.map(lambda *parts: np.concatenate(jax.device_get(parts))[: len(images)], *made)
        return Taps(whole, extractor)

    def origin(self, name: str) -> dict[str, str]:
        """Which network `name` is, for a result to carry."""
        extractor = self._open(name)[0]
        return {each: getattr(extractor, each) for each in ("name", "variant", "weights_hash")}

    @functools.cache  # noqa: B019 -- lives as long as an evaluation
    def _open(self, name: str) -> tuple[Extractor, Callable[[Array], Mapping[str, Array]]]:
        extractor = self._own() if name == "encoder" else load_extractor(name)
        # an experiment's encoder may be too large for a copy on each device; it lies as the model has it
        where = shardings(extractor.params, self._mesh) if name == "encoder" else replicated(self._mesh)
        params = jax.device_put(extractor.params, where)
        return extractor, functools.partial(jax.jit(extractor.apply), params)

    def _own(self) -> Extractor:
        """The experiment's encoder as an extractor."""
        if self._fae is None:
            raise ValueError("'encoder' is the encoder of an experiment, and there is none; name another extractor")
        params = self._fae.parts.params("encoder")
        params = params if jax.process_count() == 1 else fetch(params)
        return dataclasses.replace(own(self._fae.encoder, self._fae.config.data.image_size), params=params)
