"""Streams of given features: what metrics of features see of images that do not matter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.evaluation.metrics import Batch, Metric, take_in


def batches(taps: Mapping[str, np.ndarray], size: int, start: int = 0, stop: int | None = None) -> list[Batch]:
    """Rows `start` to `stop` of each tap, EXTRACTOR:TAP → (n, d), in batches of `size`."""
    stop = len(next(iter(taps.values()))) if stop is None else stop

    def batch(first: int) -> Batch:
        rows = slice(first, min(first + size, stop))

        def look(extractor: str) -> dict[str, np.ndarray]:
            return {
                name.partition(":")[2]: values[rows]
                for name, values in taps.items()
                if name.startswith(extractor + ":")
            }

        index = np.arange(rows.start, rows.stop)
        return Batch(images=np.zeros((len(index), 1, 1, 3), np.uint8), labels=index * 0, index=index, look=look)

    return [batch(first) for first in range(start, stop, size)]


def taken(
    name: str, taps: Mapping[str, np.ndarray], *, size: int = 64, parts: Sequence[int] = (), section=None
) -> Any:
    """The metric called `name` after a stream in batches of `size`; cut at `parts`, those are merged from states."""
    metrics: list[Metric] = []
    for start, stop in zip((0, *parts), (*parts, None), strict=True):
        metrics.append(take_in(batches(taps, size, start, stop), [name], section, ())[name])
    first, *rest = metrics
    for other in rest:
        received = take_in([], [name], section, ())[name]
        received.restore(other.state())
        first.merge(received)
    return first


def score(name: str, samples: Any, real: Any) -> dict[str, Any]:
    """What a metric says of samples against a reference; both as `taken` gives them."""
    return samples.result({"reference": real})[name]
