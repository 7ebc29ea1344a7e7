"""Small folders that look like published ones, written without `transformers`."""

import json

import numpy as np

from fae_jax.encoders.recognise import recognise
from fae_jax.weights import flatten, mapping, write_tensors
from fae_jax.weights.tensors import Tensors

DINOV2 = {
    "model_type": "dinov2_with_registers",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 14,
    "image_size": 70,
    "num_register_tokens": 2,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "patch_size": 16,
    "image_size": 64,
}


def arrays(fields, seed=0):
    """Random tensors under the names of a family's files."""
    network = recognise(fields)
    rng = np.random.default_rng(seed)
    leaves = {name: leaf.shape for name, leaf in flatten(network.shapes()).items()}
    tensors = mapping.expected(network.names, leaves, Tensors({}))
    return {name: rng.standard_normal(shape).astype(np.float32) * 0.2 for name, shape in tensors.items()}


def write(folder, fields, tensors=None, processor=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    write_tensors(folder / "model.safetensors", arrays(fields) if tensors is None else tensors)
    return str(folder)
