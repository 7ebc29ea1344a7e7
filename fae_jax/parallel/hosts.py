"""What the hosts of a run tell each other between steps: values, agreement, and that all are there.

Every function is called by all hosts, in the same order, and returns at once where there is one.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fae_jax.parallel.mesh import make_mesh
from fae_jax.parallel.rules import shardings


def is_first() -> bool:
    """Whether this is the host that writes what is written once."""
    return jax.process_index() == 0


def gather_text(text: str) -> list[str]:
    """Every host's text, by host."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32)).reshape(-1)
    padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def agree(value: bool) -> bool:
    """Whether it is true on every host."""
    return all(text == "1" for text in gather_text("1" if value else "0"))


def first_says(value: bool) -> bool:
    """What the first host says: hosts look at a shared folder at different moments, and must see the same."""
    return gather_text("1" if value else "0")[0] == "1"


def wait_for_all(what: str) -> None:
    """Returns when every host is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def fetch(tree: Any) -> Any:
    """Arrays on the devices of all hosts → NumPy arrays, whole, on each of them."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def whole(leaf: Any) -> np.ndarray:
        spread = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated
        return multihost_utils.process_allgather(leaf, tiled=True) if spread else np.asarray(jax.device_get(leaf))

    return jax.tree.map(whole, tree)


def own_mesh(mesh: Mesh) -> Mesh:
    """A mesh of this host's devices, for work that hosts do each by themselves; `mesh` where there is one host."""
    return mesh if jax.process_count() == 1 else make_mesh(devices=jax.local_devices())


def on_own_devices(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the devices of all hosts → the same on each host's, whole; as they are where there is one host.

    Args:
      mesh: of this host's devices, as `own_mesh` gives it.
    """
    if jax.process_count() == 1:
        return tree
    whole = fetch(tree)
    return jax.device_put(whole, shardings(whole, mesh))
