"""The networks an experiment's configuration describes, without parameters, and their exact sizes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from fae_jax.autoencoder import PixelDecoder, make_compressor, make_feature_decoder
from fae_jax.encoders import registry, small
from fae_jax.encoders.vit import ViTConfig
from fae_jax.generators import DiT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """Modules for an encoder whose features are (grid rows · grid columns, width)."""

    grid: tuple[int, int]
    width: int
    compressor: Any
    feature_decoder: Any
    pixel_decoder: PixelDecoder
    dit: DiT

    @property
    def has_divergence(self) -> bool:
        """Whether the latent's posterior has a KL divergence to N(0, 1)."""
        kind = getattr(self.compressor, "posterior", None)
        return kind is not None and kind.has_divergence


def build_networks(config: Any, grid: tuple[int, int], width: int) -> Networks:
    """The modules of `config` for features of the given grid and width.

    Raises:
      ValueError: sizes that do not divide.
    """
    image = config.data.image_size
    if image % grid[0] or grid[0] != grid[1]:
        raise ValueError(f"data.image_size={image} must be a multiple of the encoder's {grid[0]}×{grid[1]} grid")
    compute = config.compute
    shape: dict[str, Any] = {"grid": grid, "width": width, "compute": compute}
    dit = dataclasses.asdict(config.generator.flow_matching.dit)
    pixel_decoder = dataclasses.asdict(config.pixel_decoder)
    return Networks(
        grid=grid,
        width=width,
        compressor=make_compressor(config.compressor, **shape),
        feature_decoder=make_feature_decoder(config.feature_decoder, **shape),
        pixel_decoder=PixelDecoder(grid=grid, patch=image // grid[0], **pixel_decoder, **compute.blocks),
        dit=DiT(grid=grid, classes=config.data.classes, **dit, **compute.blocks),
    )


def trained_encoder(config: Any) -> ViTConfig:
    """The ViT that `config.encoder` describes where it is trained here, with a class head."""
    # The class is read off the mean patch alone, so that patch tokens, which FAE keeps, have to hold it.
    return small.small_config(
        image_size=config.data.image_size,
        classes=config.data.classes,
        classifier="mean",
        **{name: getattr(config.encoder, name) for name in ("patch", "width", "depth", "heads", "hidden")},
    )


def encoder_outline(config: Any) -> registry.Encoder:
    """The frozen encoder of `config` with shapes in the place of its weights.

    Raises:
      ValueError, FileNotFoundError: see `fae_jax.encoders.registry.outline`.
    """
    image_size = config.data.image_size
    if config.encoder.train:
        compute = {name: getattr(config.compute, name) for name in ("dtype", "kernel", "scan")}
        return small.outline(config=trained_encoder(config), image_size=image_size, **compute)
    weights = config.encoder.weights or None
    return registry.outline(config.encoder.name, weights=weights, image_size=image_size, **encoder_options(config))


def encoder_options(config: Any) -> dict[str, Any]:
    """What a configuration says of a published encoder beside its name, weights and images."""
    encoder = config.encoder
    names = ("input_size", "interpolation", "resize", "layers", "revision")
    options = {name: getattr(encoder, name) for name in names if getattr(encoder, name)}
    if encoder.layers:
        options["combine"] = encoder.combine
    return {**options, **{name: getattr(config.compute, name) for name in ("dtype", "kernel", "scan")}}


def looped(networks: Networks) -> Networks:
    """The same networks with blocks compiled once and looped over: for programs that run few times on a CPU."""
    fields = ("compressor", "feature_decoder", "pixel_decoder", "dit")
    modules = {name: getattr(networks, name) for name in fields}
    with_loop = {name: module.clone(scan=True) for name, module in modules.items() if hasattr(module, "scan")}
    return dataclasses.replace(networks, **with_loop)


def init_params(module: nn.Module, key: Array, *inputs: Array) -> Any:
    """Fresh parameters of a module for inputs of these shapes.

    Blocks are initialised by a loop over one compiled block, also where they will run unrolled: the numbers are the
    same, and compiling takes a fraction of the time.
    """
    looped = module.clone(scan=True) if hasattr(module, "scan") else module
    return looped.init(key, *inputs).get("params", {})


def count_parameters(networks: Networks) -> dict[str, int]:
    """Exact number of parameters by network, without allocating any; the DiT's includes its fixed table."""
    tokens = math.prod(networks.grid)
    features = jax.ShapeDtypeStruct((1, tokens, networks.width), jnp.float32)
    latents = jax.ShapeDtypeStruct((1, tokens, networks.compressor.latent_width), jnp.float32)
    time, label = jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)

    def count(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> int:
        shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    return {
        "compressor": count(networks.compressor, features),
        "feature_decoder": count(networks.feature_decoder, latents),
        "pixel_decoder": count(networks.pixel_decoder, features),
        "dit": count(networks.dit, latents, time, label) + networks.dit.fixed_values,
    }
