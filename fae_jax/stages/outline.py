"""An experiment without its weights: its networks as shapes, and what can be told from them before the first step."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.conditions import make_condition, reads_text
from fae_jax.config import check
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.parallel.mesh import batch_sharding, make_mesh
from fae_jax.parallel.rules import shardings
from fae_jax.parts import Parts, generator_of
from fae_jax.stages.stage import Stage
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.training.loop import abstract_state

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroup 2 and 1
NEEDS = {"cudnn": ("gpu", "an NVIDIA GPU"), "splash": ("tpu", "a TPU")}  # attention kernel → platform


class Shapes(Parts):
    """The parts of a model as shapes, placed on devices that need not be there.

    The same builders as in a run, under `jax.eval_shape`. Statistics, which a real run measures, are ones: no shape
    depends on them.

    Args:
      config: what the experiment is.
      mesh: the devices it would run on.
      own: one host's devices, for what hosts do each by themselves; None for the first host's of `mesh`.
      tokenizer: the experiment's, where it is made already; otherwise its outline is.
    """

    def __init__(
        self, config: Any, mesh: jax.sharding.Mesh, own: list[jax.Device] | None = None, tokenizer: Any = None
    ):
        self.config, self.mesh, self._own, self._tokenizer = check(config), mesh, own, tokenizer

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

    @functools.cached_property
    def tokenizer(self) -> Any:
        return self._tokenizer or tokenizer_kind(self.config).outline(self.config)

    @property
    def has_generator(self) -> bool:
        return True

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @functools.cached_property
    def statistics(self) -> LatentStatistics:
        ones = np.ones(self.tokenizer.channels)
        return LatentStatistics(count=1, mean=ones, deviation=ones, noise=ones)

    def params(self, part: str, ema: str | None = "", mesh: jax.sharding.Mesh | None = None) -> Any:
        """See `fae_jax.parts.Parts`; on `mesh` where it is given."""
        if part == "generator":
            shapes = jax.eval_shape(generator_of(self).init, jax.random.key(0))
        elif part == "text":
            shapes = make_condition(self.config).outline.params
        else:
            shapes = self.tokenizer.shapes(part)
        return _placed(shapes, mesh or self.mesh)

    def network(self, network: Any, weights: str = "") -> Any:
        return _placed(network.shapes, self.mesh)


def _placed(shapes: Any, mesh: jax.sharding.Mesh) -> Any:
    places = shardings(shapes, mesh)
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)


def batch_shapes(shapes: Shapes, stage: Stage) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of what a stage reads, split over the mesh."""
    tokenizer, data = shapes.tokenizer, shapes.config.data
    tokens, size = tokenizer.grid[0] * tokenizer.grid[1], data.image_size
    image: dict[str, tuple[tuple[int, ...], Any]] = {"image": ((size, size, 3), jnp.uint8)}
    whole = {"label": ((), jnp.int32), "index": ((), jnp.int32)}
    if stage.reads == "latents":
        latent = ((tokens, tokenizer.channels), jnp.bfloat16)
        told = make_condition(shapes.config).reads if reads_text(shapes.config) else {}
        fields = {"mean": latent, "log_variance": latent, **whole, **told}
    elif data.features and stage.reads.startswith("features"):
        stored = {"features": ((tokens, tokenizer.width), jnp.float16)}
        fields = {**(image | whole if stage.reads == "features and images" else {}), **stored}
    else:
        fields = image | whole
    batch, place = stage.section(shapes.config).batch, batch_sharding(shapes.mesh)
    return {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=place) for name, (shape, dtype) in fields.items()
    }


def per_device(tree: Any) -> int:
    """Bytes of a tree of shapes with places that one device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def host_memory() -> int:
    """Bytes of this machine, or what its container may have of it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # none, or "max"
            limits.append(int(Path(file).read_text()))
    return min(limits)


def device_memory(device: Any) -> int | None:
    """Bytes of a device that is here: its own limit on what programs may use, or None where it does not tell. The CPU
    devices of a process share the machine's memory."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    return host_memory() // jax.local_device_count()


def check_networks(shapes: Shapes, stage: Stage) -> None:
    """Refuses a stage whose networks cannot be made, or whose state or batch is larger than the memory there is.

    Raises:
      ValueError: sizes do not fit together, or it names what is too large.
    """
    field = stage.field or stage.name
    if stage.players is None:
        return _check_batch(shapes, field, "images")
    device = shapes.mesh.local_devices[0]
    try:
        state = abstract_state(stage.players(shapes), shapes.mesh)
    except (TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"the networks of stage {stage.name} cannot be made: {str(error)[:200]}") from error
    limit = device_memory(device)
    if limit and per_device(state) > limit:
        raise ValueError(
            f"the state of stage {stage.name} takes {per_device(state) / 1e9:,.1f} GB on each device, which has "
            f"{limit / 1e9:,.1f} GB; choose smaller networks, or more devices"
        )
    _check_batch(shapes, "sampling", "images")
    return _check_batch(shapes, field, stage.reads)


def _check_batch(shapes: Shapes, field: str, reads: str) -> None:
    # a stage of another package need not have a batch
    batch, memory = getattr(getattr(shapes.config, field, None), "batch", 0), host_memory()
    tokens = math.prod(shapes.tokenizer.grid)
    each = 4 * tokens * shapes.tokenizer.channels if reads == "latents" else 3 * shapes.config.data.image_size**2
    size = batch // jax.process_count() * each
    if size > memory:
        raise ValueError(
            f"field {field}.batch={batch} takes {size / 1e9:,.1f} GB on each host, which has {memory / 1e9:,.1f} GB; "
            "choose a smaller one"
        )


def check_kernel(kernel: str, platform: str) -> None:
    """Refuses an attention kernel that this machine has not.

    Raises:
      ValueError: it names the field.
    """
    needed, words = NEEDS.get(kernel, (platform, ""))
    if needed != platform:
        raise ValueError(f"field compute.kernel={kernel!r} needs {words}, and this is a {platform}; leave it at auto")
