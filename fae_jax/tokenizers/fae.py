"""FAE as a tokenizer: frozen encoder, compressor, feature decoder, pixel decoder.

    image → encoder (x) → compressor (μ, log σ²) → z        z → feature decoder (x̂) → pixel decoder → image

x and x̂ are in the encoder's own space outside; the autoencoder works in the feature space between.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.autoencoder.decoders import PixelDecoder
from fae_jax.autoencoder.kinds import make_compressor, make_feature_decoder
from fae_jax.autoencoder.posterior import Posterior
from fae_jax.data.pixels import to_pixels
from fae_jax.encoders import Encoder
from fae_jax.encoders.frozen import open_encoder, outline
from fae_jax.nn.params import init_params, looped
from fae_jax.section import as_dict
from fae_jax.tokenizers.feature_space import FeatureSpace
from fae_jax.weights import hash_tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What must be known of the encoder to build the rest without it.

    Attributes:
      encoder: its name.
      weights: hash of its weights.
      settings: whatever else changes its output, as plain JSON values.
      grid: rows and columns of its patch tokens.
      width: channels of a patch token.
      tokens: patch tokens that the statistics were taken over.
      mean, std: of its features over the training images, per channel.
    """

    encoder: str
    weights: str
    settings: Mapping[str, Any]
    grid: tuple[int, int]
    width: int
    tokens: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, encoder: Encoder, dtype: str, tokens: int, mean: np.ndarray, std: np.ndarray) -> Facts:
        """Those of an encoder that computes in `dtype`, and the statistics of its features."""
        return cls(
            encoder=encoder.name,
            weights=encoder.weights_hash,
            settings={**encoder.settings, "dtype": dtype},
            grid=(encoder.grid[0], encoder.grid[1]),
            width=encoder.width,
            tokens=tokens,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Facts:
        """Inverse of `dataclasses.asdict` and JSON; what else stands there is left out."""
        lists = {name: tuple(values[name]) for name in ("grid", "mean", "std")}
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)} | lists)


class FAETokenizer:
    """See `fae_jax.tokenizers.Tokenizer`.

    Attributes:
      grid, width: of the encoder's features.
      compressor, feature_decoder, pixel_decoder: the networks, without parameters.
      space: where the autoencoder works.
      reconstructs: parts that `reconstruct_features` reads.
    """

    Section = None
    encodes: tuple[str, ...] = ("encoder", "compressor")
    decodes: tuple[str, ...] = ("feature_decoder", "pixel_decoder")
    reconstructs: tuple[str, ...] = ("feature_decoder",)
    trained: Mapping[str, tuple[tuple[str, ...], str]] = {
        "compressor": (("features",), "autoencoder/compressor"),
        "feature_decoder": (("features",), "autoencoder/feature_decoder"),
        "pixel_decoder": (("pixels", "finetune"), "pixel_decoder"),
    }

    def __init__(self, config: Any, facts: Facts, encoder: Callable[[], Encoder]):
        image, grid, width = config.data.image_size, tuple(facts.grid), facts.width
        if image % grid[0] or grid[0] != grid[1]:
            raise ValueError(f"data.image_size={image} must be a multiple of the encoder's {grid[0]}×{grid[1]} grid")
        self.grid, self.width, self.facts, self._open = grid, width, facts, functools.cache(encoder)
        shape: dict[str, Any] = {"grid": grid, "width": width, "compute": config.compute}
        self.compressor = make_compressor(config.compressor, **shape)
        self.feature_decoder = make_feature_decoder(config.feature_decoder, **shape)
        self.pixel_decoder = PixelDecoder(
            grid=grid,
            patch=image // grid[0],
            **as_dict(config.pixel_decoder),
            **config.compute.blocks,
        )
        self.space = FeatureSpace(
            mean=np.asarray(facts.mean, np.float32),
            std=np.maximum(np.asarray(facts.std, np.float32), 1e-6),
            standardise=config.encoder.feature_norm == "standardise",
        )
        self._structure = json.dumps(as_dict(config.compressor), sort_keys=True)

    @classmethod
    def build(cls, config: Any, facts: Facts) -> FAETokenizer:
        """For a configuration; the encoder is opened when something first asks for it."""
        return cls(config, facts, functools.partial(open_encoder, config))

    @classmethod
    def outline(cls, config: Any, encoder: Encoder | None = None) -> FAETokenizer:
        """With shapes in the place of the encoder's weights, and statistics of 1, which decide no shape.

        Args:
          encoder: where it is open already.
        """
        encoder = encoder or outline(config)
        ones = np.ones(encoder.width)
        return cls(config, Facts.of(encoder, config.compute.dtype, 1, ones, ones), lambda: encoder)

    def looped(self, dtype: str = "") -> FAETokenizer:
        """With blocks compiled once, for programs that run few times; decoders in `dtype` where it is given."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        for part in ("compressor", "feature_decoder", "pixel_decoder"):
            setattr(made, part, looped(getattr(self, part), dtype if part in self.decodes else ""))
        return made

    # The contract

    @property
    def channels(self) -> int:
        return self.compressor.latent_width

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The frozen encoder, with its weights.

        Raises:
          ValueError, FileNotFoundError: they are not there, or not those that the facts are of.
        """
        encoder = self._open()
        if self.facts.weights and encoder.weights_hash != self.facts.weights:
            raise ValueError(
                f"encoder {encoder.name!r} has weights {encoder.weights_hash[:12]}, and this experiment was made "
                f"with {self.facts.encoder!r} {self.facts.weights[:12]}: name those with encoder.weights"
            )
        for name, value in encoder.settings.items():
            before = self.facts.settings.get(name, value)
            if value != before and name not in ("source", "commit"):
                raise ValueError(
                    f"encoder {encoder.name!r} has {name}={value!r}, and this experiment was made with {before!r}: "
                    f"set encoder.{name} to that in config.json, or begin anew in another directory"
                )
        return encoder

    def load(self, part: str) -> Any:
        return self.encoder.params

    def shapes(self, part: str) -> Any:
        if part == "encoder":
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.encoder.params)
        return jax.eval_shape(functools.partial(self.init, part), jax.random.key(0))

    def identity(self, params: Mapping[str, Any]) -> dict[str, Any]:
        digest = hashlib.sha256(hash_tree(jax.device_get(params["compressor"])).encode())
        digest.update(self._structure.encode())
        if self.space.standardise:
            digest.update(self.space.mean.tobytes() + self.space.std.tobytes())
        return {**self.encoder_identity, "compressor": digest.hexdigest()}

    def encode(self, params: Mapping[str, Any], images: Float[Array, "b y x 3"]) -> Posterior:
        return self.compress(params, self.encoder.features(params["encoder"], images))

    def decode(self, params: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b y x 3"]:
        features = self.feature_decoder.apply({"params": params["feature_decoder"]}, latents)
        return jnp.clip(self.pixel_decoder.apply({"params": params["pixel_decoder"]}, features), -1, 1)

    # What FAE has beside it

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """Which encoder, as `CacheIdentity` names it."""
        return {
            "encoder": self.facts.encoder,
            "encoder_weights": self.facts.weights,
            "encoder_settings": dict(self.facts.settings),
        }

    @property
    def has_autoencoder(self) -> bool:
        """Whether compressor or feature decoder has anything to learn."""
        return bool(jax.tree.leaves((self.shapes("compressor"), self.shapes("feature_decoder"))))

    @property
    def has_divergence(self) -> bool:
        """Whether the latent's posterior has a KL divergence to N(0, 1)."""
        kind = getattr(self.compressor, "posterior", None)
        return kind is not None and kind.has_divergence

    def init(self, part: str, key: Array) -> Any:
        """Fresh parameters of a part that is trained."""
        tokens = math.prod(self.grid)
        latents, features = jnp.zeros((1, tokens, self.channels)), jnp.zeros((1, tokens, self.width))
        return init_params(getattr(self, part), key, latents if part == "feature_decoder" else features)

    def raw_features(self, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Float[Array, "b n d"]:
        """x of a batch of stored features, or of uint8 images; float32, runs on device."""
        if "features" in batch:
            return jnp.asarray(batch["features"], jnp.float32)
        return self.encoder.features(frozen["encoder"], to_pixels(batch["image"]))

    def compress(self, params: Mapping[str, Any], features: Float[Array, "b n d"]) -> Posterior:
        """The encoder's own features → the posterior of their latents."""
        return self.compressor.apply({"params": params["compressor"]}, self.space.enter(features))

    def reconstruct_features(
        self, params: Mapping[str, Any], latents: Float[Array, "b n c"]
    ) -> Float[Array, "b n d"]:
        """Latents → x̂, in the encoder's own space."""
        return self.space.leave(self.feature_decoder.apply({"params": params["feature_decoder"]}, latents))
