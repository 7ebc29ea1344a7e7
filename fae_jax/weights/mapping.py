"""From the names and layouts of a published file to a nested dict of ours, one leaf at a time.

A rule says of what one of our leaves is made:

    leaf = parts side by side along the last axis,    part = layout(tensor)                       (1)

and where a tensor's name holds `{layer}` the leaf has a leading axis over layers, as `fae_jax.nn.blocks.stack` keeps
them. Only one leaf's worth of memory is needed beside the result, and a leaf goes straight to its shards.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

import jax
import numpy as np

from fae_jax.weights.tensors import Tensors
from fae_jax.weights.tree import check_finite, compare, flatten, unflatten

Shape = tuple[int, ...]


def _no_way_back(array: np.ndarray) -> np.ndarray:
    raise NotImplementedError("this layout is only read")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor lies in the file: its shape there, given ours, the way from there to here, and where it is needed
    the way back."""

    shape_in_file: Callable[[Shape], Shape]
    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray] = _no_way_back


KEEP = Layout(lambda shape: shape, lambda array: array, lambda array: array)
LINEAR = Layout(lambda shape: shape[::-1], lambda array: array.T, lambda array: array.T)  # (out, in) there
CONVOLUTION = Layout(  # (out, in, y, x) there, (y, x, in, out) here
    lambda shape: (shape[3], shape[2], shape[0], shape[1]), lambda array: array.transpose(2, 3, 1, 0)
)


def leading(ones: int) -> Layout:
    """A tensor with `ones` leading axes of size 1 more than ours (or fewer, where negative)."""
    if ones < 0:
        return Layout(lambda shape: shape[-ones:], lambda array: array.reshape((1,) * -ones + array.shape))
    return Layout(lambda shape: (1,) * ones + shape, lambda array: array.reshape(array.shape[ones:]))


def convolution(patch: int, channels: int) -> Layout:
    """A patch embedding kept as a convolution (out, c, y, x); here a linear on patches of (y, x, c) values."""
    return Layout(
        lambda shape: (shape[-1], channels, patch, patch),
        lambda array: array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0]),
        lambda array: array.reshape(patch, patch, channels, -1).transpose(3, 2, 0, 1),
    )


def rotary_halves(heads: int) -> Layout:
    """Weight or bias of a query or key whose rotary pairs are (i, i + e/2) in every head; here (2i, 2i + 1)."""

    def read(array: np.ndarray) -> np.ndarray:
        split = array.reshape(heads, 2, -1, *array.shape[1:])
        return split.swapaxes(1, 2).reshape(array.shape).T

    return Layout(lambda shape: shape[::-1], read)


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor of the file; `absent`: the value that stands in where the file may lack it, None if it may not."""

    name: str
    layout: Layout = KEEP
    absent: float | None = None


@dataclasses.dataclass(frozen=True)
class Rule:
    """Equation (1) for the leaf `target`."""

    target: str
    parts: tuple[Part, ...]


def linear(target: str, *names: str, bias: bool = True, layout: Layout = LINEAR) -> list[Rule]:
    """Rules of a linear: `names` are the modules in the file whose outputs lie side by side here."""
    rules = [Rule(f"{target}.kernel", tuple(Part(f"{name}.weight", layout) for name in names))]
    if bias:
        rules.append(Rule(f"{target}.bias", tuple(Part(f"{name}.bias") for name in names)))
    return rules


def norm(target: str, name: str, *, bias: bool = True) -> list[Rule]:
    """Rules of a LayerNorm (or, without bias, an RMSNorm)."""
    rules = [Rule(f"{target}.scale", (Part(f"{name}.weight"),))]
    return [*rules, Rule(f"{target}.bias", (Part(f"{name}.bias"),))] if bias else rules


@dataclasses.dataclass(frozen=True)
class NameMap:
    """All rules of a network.

    Attributes:
      rules: one per leaf. Every file holds the first one's first tensor.
      prefixes: what may stand in front of every name in a file but those that begin with a slash, tried in order.
      ignored: a regular expression for tensors that this network does not need (full names, prefix included).
    """

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("",)
    ignored: str = r"$^"

    def prefix(self, names: Container[str]) -> str:
        """The prefix that `names` use; the first one where it is none of them."""
        first = self.rules[0].parts[0].name.format(layer=0)
        return next((prefix for prefix in self.prefixes if prefix + first in names), self.prefixes[0])


def _in_file(prefix: str, part: Part, layer: int) -> str:
    """The name of one layer's tensor as the file spells it."""
    name = part.name.format(layer=layer)
    return name[1:] if name.startswith("/") else prefix + name


def _part_shape(rule: Rule, shape: Shape) -> Shape:
    """Our shape of one part of one layer."""
    if "{layer}" in rule.parts[0].name:
        shape = shape[1:]
    if len(rule.parts) == 1:
        return shape
    return (*shape[:-1], shape[-1] // len(rule.parts))


def expected(names: NameMap, shapes: Mapping[str, Shape], tensors: Tensors) -> dict[str, Shape]:
    """Names and shapes that a file must hold for a network whose flattened leaves have `shapes`."""
    prefix = names.prefix(tensors)
    in_file = {}
    for rule in names.rules:
        shape = shapes[rule.target]
        for part in rule.parts:
            for layer in range(shape[0]) if "{layer}" in part.name else (0,):
                name = _in_file(prefix, part, layer)
                if part.absent is None or name in tensors:
                    in_file[name] = part.layout.shape_in_file(_part_shape(rule, shape))
    return in_file


def check(source: str, names: NameMap, shapes: Mapping[str, Shape], tensors: Tensors) -> None:
    """Raises ValueError that lists every missing, extra and misshapen tensor, if there is one."""
    unmapped = set(shapes) ^ {rule.target for rule in names.rules}
    if unmapped:
        raise ValueError(f"the name map and the network disagree on {', '.join(sorted(unmapped))}")
    ignored = re.compile(names.ignored)
    needed = expected(names, shapes, tensors)
    present = {name: tensors[name].shape for name in tensors if name in needed or not ignored.search(name)}
    compare(source, needed, present)


def _aligned(shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory on a boundary from which JAX's CPU client takes an array over without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _assemble(
    source: str, names: NameMap, rule: Rule, tensors: Tensors, shape: Shape, dtype: np.dtype, layers: slice
) -> np.ndarray:
    """One leaf, or the layers `layers` of it."""
    prefix, stacked = names.prefix(tensors), "{layer}" in rule.parts[0].name
    chosen = range(*layers.indices(shape[0])) if stacked else (0,)
    out = _aligned((len(chosen), *shape[1:]) if stacked else shape, dtype)
    width = _part_shape(rule, shape)[-1] if shape else 1
    for place, layer in enumerate(chosen):
        into = out[place] if stacked else out
        for i, part in enumerate(rule.parts):
            name = _in_file(prefix, part, layer)
            side = into if len(rule.parts) == 1 else into[..., i * width : (i + 1) * width]
            if name not in tensors:
                side[...] = part.absent
                continue
            array = tensors.read(name)
            if array.dtype.kind in "biu":
                raise ValueError(
                    f"{source}: tensor {name!r} has dtype {array.dtype}; quantised weights cannot be read, "
                    "fetch the ones in floating point"
                )
            check_finite(source, name, array)
            side[...] = part.layout.read(array)
    return out


def load(
    source: str,
    names: NameMap,
    tensors: Tensors,
    like: Mapping[str, Any],
    *,
    dtype: Any = np.float32,
    shardings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Reads a published file into a nested dict of JAX arrays.

    Args:
      source: what to call the file in messages.
      like: a nested dict of `jax.ShapeDtypeStruct`s, as `jax.eval_shape` of the network's `init` gives it.
      dtype: dtype of the parameters.
      shardings: a nested dict like `like` of `jax.sharding.Sharding`s; None puts all on the default device. Only
        the layers that a process's own devices hold are read.

    Raises:
      ValueError: tensors are missing, extra or misshapen (all are listed), or hold values that are not finite.
    """
    shapes = {name: tuple(leaf.shape) for name, leaf in flatten(like).items()}
    check(source, names, shapes, tensors)
    places = flatten(shardings) if shardings is not None else {}
    params = {}
    for rule in names.rules:
        shape = shapes[rule.target]

        def part(index: tuple[slice, ...] | None, rule: Rule = rule, shape: Shape = shape) -> np.ndarray:
            index = index or ()
            layers = index[0] if index and "{layer}" in rule.parts[0].name else slice(None)
            leaf = _assemble(source, names, rule, tensors, shape, np.dtype(dtype), layers)
            return leaf[(slice(None), *index[1:])] if layers != slice(None) else leaf[index]

        if rule.target in places:
            params[rule.target] = jax.make_array_from_callback(shape, places[rule.target], part)
        else:
            params[rule.target] = jax.device_put(part((slice(None),) * len(shape)))
    return unflatten(params)


def store(names: NameMap, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors that `load` would read into `params`, by the names of the file; every layout has a way back."""
    leaves, tensors = flatten(params), {}
    for rule in names.rules:
        leaf = np.asarray(leaves[rule.target])
        for part, side in zip(rule.parts, np.split(leaf, len(rule.parts), axis=-1), strict=True):
            for layer in range(len(leaf)) if "{layer}" in part.name else (None,):
                name = _in_file(names.prefixes[0], part, layer or 0)
                tensors[name] = part.layout.write(side if layer is None else side[layer])
    return tensors
