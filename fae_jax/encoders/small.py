"""The encoder called `vit`: a small vision transformer trained here, kept as a folder, frozen when it is read again.

The folder holds `config.json` (the `ViTConfig` and the settings of its training) and `model.safetensors`. Pixels go
in as images in [−1, 1], as they are.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fae_jax.encoders.registry import Encoder, register
from fae_jax.encoders.vit import ViT, ViTConfig
from fae_jax.files import storage
from fae_jax.files.moving import Outbox
from fae_jax.files.paths import as_path
from fae_jax.files.writing import read_json
from fae_jax.weights import hash_tree, load_tree, save_tree
from fae_jax.weights.tensors import FILE

NAME = "vit"
CONFIG = "config.json"


def save(
    folder: str | os.PathLike[str], config: ViTConfig, params: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """Writes a trained encoder for `create("vit", weights=folder, …)`; returns the hash of its weights.

    Args:
      params: what `ViT(config).init(...)["params"]` made and training changed.
      settings: plain JSON values that say how it was trained; they come back as `Encoder.settings["training"]`.
    """
    outbox = Outbox(as_path(folder))
    content = {"model_type": "fae_vit", "vit": dataclasses.asdict(config), "training": dict(settings)}
    (outbox.folder / CONFIG).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    save_tree(outbox.folder / FILE, params)  # last: where there are weights, everything is there
    outbox.close()
    return hash_tree(params)


def build(
    *, weights: str | None, image_size: int, dtype: str = "float32", scan: bool = False, kernel: str = "auto"
) -> Encoder:
    """Reads the encoder that `save` wrote in the folder `weights`.

    Raises:
      FileNotFoundError: nothing was trained there yet.
      ValueError: the folder holds another network, or `image_size` is not a multiple of the patch.
    """
    folder = as_path(weights) if weights is not None else None
    if folder is None or not (folder / CONFIG).is_file():
        where = "no folder was named" if folder is None else f"{folder} holds no {CONFIG}"
        raise FileNotFoundError(
            f"the encoder {NAME!r} is not trained yet ({where}); run: fae train encoder --workdir W"
        )
    content = read_json(folder / CONFIG, "give it back as it was, or train an encoder in another --workdir")
    if content.get("model_type") != "fae_vit":
        raise ValueError(f"{folder / CONFIG} describes a {content.get('model_type')!r}, not the encoder {NAME!r}")
    config = ViTConfig.from_json(content["vit"])
    made = outline(config=config, image_size=image_size, dtype=dtype, scan=scan, kernel=kernel)
    params = jax.tree.map(jnp.asarray, load_tree(storage.local_copy(str(folder / FILE)), made.params))
    settings = {**made.settings, "training": content.get("training", {})}
    return dataclasses.replace(made, params=params, weights_hash=hash_tree(params), settings=settings)


def outline(
    *, config: ViTConfig, image_size: int, dtype: str = "float32", scan: bool = False, kernel: str = "auto"
) -> Encoder:
    """The encoder that `config` describes, with shapes in the place of its weights and no hash.

    Raises:
      ValueError: `image_size` is not a multiple of the patch.
    """
    grid = config.grid(image_size, image_size)
    module = ViT(config, dtype=jnp.dtype(dtype), kernel=kernel, scan=scan)
    pixels = jax.ShapeDtypeStruct((1, image_size, image_size, config.channels), jnp.float32)

    def classify(params: Any, patches: jax.Array, cls: jax.Array | None) -> jax.Array:
        return module.apply({"params": params}, patches, cls, method="classify")

    return Encoder(
        name=NAME,
        apply=lambda params, pixels: module.apply({"params": params}, pixels),
        params=jax.eval_shape(module.init, jax.random.key(0), pixels)["params"],
        preprocess=lambda images: images.astype(jnp.float32),
        grid=grid,
        width=config.width,
        weights_hash="",
        settings={"interpolation": config.interpolation},
        head=classify if config.classes else None,
    )


register(NAME, build)
