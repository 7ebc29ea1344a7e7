"""Weights on disk and on the hub: safetensors in and out, nested dicts of arrays, hashes. Knows no network."""

from fae_jax.weights.tensors import Tensors, open_tensors, write_tensors
from fae_jax.weights.tree import flatten, hash_tree, load_tree, save_tree, unflatten

__all__ = [
    "Tensors",
    "flatten",
    "hash_tree",
    "load_tree",
    "open_tensors",
    "save_tree",
    "unflatten",
    "write_tensors",
]
