"""Sweeps: many experiments that differ in a few fields, declared in one file.

from fae_jax.sweeps import Sweep, grid

def get_sweep() -> Sweep:
    return Sweep(points=grid({"features.beta": (1e-4, 5e-4, 2e-3)}), stages=("features",), metric="features.loss")
"""

from fae_jax.sweeps.axes import grid, listed, log_uniform, product, random, uniform, whole, zipped
from fae_jax.sweeps.declaration import Halving, Sweep

__all__ = [
    "Halving",
    "Sweep",
    "grid",
    "listed",
    "log_uniform",
    "product",
    "random",
    "uniform",
    "whole",
    "zipped",
]
