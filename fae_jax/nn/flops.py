"""Multiply-adds of a function, counted exactly from its trace: nothing is computed, no weights are needed.

A matrix product of (b, m, k) with (b, k, n) is b·m·k·n multiply-adds, a convolution its output's size times what one
output reads, without the zeros between dilated inputs; a loop counts its body once per turn, a branch its dearest
side. Everything else (norms, softmax, activations) is not counted, as is the custom in the field. One
multiply-add is two FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def multiply_adds(function: Callable[..., Any], *inputs: Any) -> int:
    """Multiply-adds of one call of `function`; `inputs` are arrays or `jax.ShapeDtypeStruct`s, or trees of them.

    Raises:
      ValueError: it has a loop without a fixed number of turns, or a kernel of unknown cost.
    """
    return _count(jax.make_jaxpr(function)(*inputs).jaxpr)


def _count(program: Jaxpr) -> int:
    return sum(_cost(equation) for equation in program.eqns)


def _cost(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        outputs = kernel[numbers.rhs_spec[0]] * math.prod(params["lhs_dilation"])
        return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr)
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    inner = sum(_count(program) for program in programs_in(params))
    if inner and name == "while":
        raise ValueError("multiply-adds of a loop cannot be counted when its number of turns is not fixed")
    if name in ("pallas_call", "custom_call", "ffi_call", "dot_product_attention_fwd"):
        raise ValueError(f"multiply-adds inside {name} cannot be counted; count with compute.kernel=xla")
    return inner


def programs_in(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Every program that an equation runs."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part
