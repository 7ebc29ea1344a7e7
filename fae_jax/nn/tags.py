"""Names for what flows through a network: what the backward pass may keep, and what a mesh may split.

| tag | array |
|---|---|
| `stream` | the residual stream, (b, n, d) |
| `modulation` | adaLN's vectors of a block, (b, 6·d) |
| `qkv` | queries, keys and values, (b, n, 3, h, e) |
| `attended` | what attention puts out, (b, n, h, e) |
| `feed_forward_input` | (b, n, d) |
| `gate_and_value` | a gated feed-forward's inside before the gate, (b, n, 2, hidden) |
| `hidden` | the feed-forward's inside, (b, n, hidden) |

A network only says the name. Remat policies choose by it (`fae_jax.nn.blocks.REMAT_POLICIES`), and inside `placing`
a function is given every tagged array, to say where it lies (`fae_jax.parallel.rules.constrained`). Kernels that a
compiler cannot split are run through `on_each_device`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

TAGS = ("stream", "modulation", "qkv", "attended", "feed_forward_input", "gate_and_value", "hidden")
Place = Callable[[Array, str], Array]
Spread = Callable[[Callable[..., Array], tuple[Array, ...], str], Array]
_places: ContextVar[tuple[Place, Spread | None] | None] = ContextVar("places", default=None)


def tag(x: Array, name: str) -> Array:
    """`x`, known as `name` (one of `TAGS`) to remat policies and to `placing`."""
    places = _places.get()
    return checkpoint_name(x if places is None else places[0](x, name), name)


def on_a_mesh() -> bool:
    """Whether the program being traced is split over devices."""
    return _places.get() is not None


def on_each_device(function: Callable[..., Array], *arrays: Array, name: str) -> Array:
    """`function` of arrays that all lie like the tag `name`, run by each device on its own part inside `placing`."""
    places = _places.get()
    spread: Any = places[1] if places else None
    return function(*arrays) if spread is None else spread(function, arrays, name)


@contextlib.contextmanager
def placing(place: Place, spread: Spread | None = None) -> Iterator[None]:
    """While a program is traced inside, `place(x, name)` stands for every tagged array, and
    `spread(function, arrays, name)` for what runs on each device."""
    before = _places.set((place, spread))
    try:
        yield
    finally:
        _places.reset(before)
