"""A trained FAE as one object: images to latents, latents to features and images, labels to images.

fae = fae_jax.load("runs/imagenet256")           # a working directory, an exported bundle, or a hub name
z = fae.encode(images)                           # images in [−1, 1]
features = fae.reconstruct_features(z)           # in the encoder's own space: its heads accept them
images = fae.decode(z)
images = fae.generate(labels=[207, 360], guidance=2.5, seed=0)

It knows no working directory and no data: `Parts` say what it is made of, and each part is read when first used.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Key, Shaped

from fae_jax.conditions import make_condition
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.diffusion.guidance import Guidance, Schedule, make_schedule
from fae_jax.diffusion.samplers import sample_keys
from fae_jax.encoders.registry import Encoder, EncoderOutput
from fae_jax.generators import Generator, make_generator
from fae_jax.parallel.hosts import fetch
from fae_jax.parallel.mesh import batch_divisor, put_batch
from fae_jax.parallel.rules import constrained
from fae_jax.section import seed_range, validate
from fae_jax.weights import hash_tree

AnyArray = Array | np.ndarray
SLACK = 1e-3  # by which pixels may lie outside [-1, 1], as rounding leaves them
MOST = 10_000_000  # images of one set of samples
GUIDED_UP_TO = 0.7  # time below which a single guidance weight acts (paper: ablations)


class Parts(abc.ABC):
    """What a model is made of, wherever it is kept: a working directory, a bundle, or shapes in `fae compile`.

    Attributes:
      config: the experiment's configuration.
      mesh: the devices that parameters are put on.
      tokenizer: see `fae_jax.tokenizers.Tokenizer`.
      statistics: of the latents that the generator was trained on; asking raises ValueError where there is none.
      classes: names of the classes, by label; () where there are none.
      read_generator: {what `params` was asked for: {"checkpoint": its step, "ema": decay of the average, or None}} of
        the generator's weights that have been read.
    """

    config: Any
    mesh: jax.sharding.Mesh

    @functools.cached_property
    def read_generator(self) -> dict[str | None, dict[str, Any]]:
        return {}

    @property
    @abc.abstractmethod
    def tokenizer(self) -> Any: ...

    @property
    @abc.abstractmethod
    def has_generator(self) -> bool:
        """Whether there is a generator to draw with."""

    @property
    @abc.abstractmethod
    def statistics(self) -> LatentStatistics: ...

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def params(self, part: str, ema: str | None = "") -> Any:
        """Parameters of a part of the tokenizer, or of "generator", on the mesh.

        Args:
          part: its name.
          ema: decay of the EMA, "" for the largest kept, None for the raw weights.

        Raises:
          ValueError: they are not there, or no such EMA was kept; says what makes them.
        """


def generator_of(parts: Parts) -> Generator:
    """The generator that a model's configuration describes, for its tokenizer's latents.

    Raises:
      ValueError: sizes do not divide.
    """
    tokenizer = parts.tokenizer
    condition = make_condition(parts.config)
    return make_generator(parts.config, grid=tokenizer.grid, channels=tokenizer.channels, condition=condition)


def guidance_schedule(guidance: Guidance | str, configured: Schedule) -> Schedule:
    """A user's guidance as intervals.

    Args:
      guidance: "config" for the configured one, None for none, a weight (on times up to 0.7, as in the paper's
        ablations), or intervals (low, high, weight).
      configured: the configuration's intervals.

    Raises:
      ValueError: it is none of these.
    """
    if guidance == "config":
        return make_schedule(configured)
    if isinstance(guidance, Real) and not isinstance(guidance, bool):
        guidance = ((0.0, GUIDED_UP_TO, float(guidance)),)
    if isinstance(guidance, str) or not isinstance(guidance, Sequence | np.ndarray | None):
        raise ValueError(f"guidance {guidance!r} is not known: give a weight, intervals, none or config")
    return make_schedule(guidance)


class FAE:
    """See the module. Every method takes NumPy or JAX arrays and works on the model's devices."""

    def __init__(self, parts: Parts):
        self.parts = parts
        self.config = parts.config
        self.tokenizer = parts.tokenizer
        if hasattr(self.tokenizer, "looped"):
            self.tokenizer = self.tokenizer.looped(self.config.sampling.dtype)

    # What is given

    def _images(self, images: AnyArray) -> Array:
        size = self.config.data.image_size
        if images.shape[1:] != (size, size, 3) or not len(images):
            raise ValueError(f"images of this model have the shape (b, {size}, {size}, 3), got {images.shape}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images are floats in [-1, 1], got {images.dtype}: bytes become so by x / 127.5 - 1")
        if not isinstance(images, jax.core.Tracer):
            low, high = float(images.min()), float(images.max())
            if not -1 - SLACK <= low <= high <= 1 + SLACK:  # also where there is a NaN
                raise ValueError(f"images are floats in [-1, 1], got {low:g} to {high:g}: scale or clip them")
        return jnp.asarray(images)

    def _tokens(self, maps: AnyArray, channels: int) -> Array:
        if maps.shape[1:] != (*self.tokenizer.grid, channels) or not len(maps):
            whole = ", ".join(map(str, ("b", *self.tokenizer.grid, channels)))
            raise ValueError(f"an array of shape ({whole}) is needed, got {maps.shape}")
        return rearrange(jnp.asarray(maps), "b y x c -> b (y x) c")

    # Understanding

    @property
    def encoder(self) -> Encoder:
        """The frozen encoder; of tokenizers that have one."""
        return self._ability("encoder")

    def encode(
        self, images: Float[AnyArray, "b height width 3"], keys: Key[Array, " b"] | None = None
    ) -> Float[Array, "b y x c"]:
        """Images in [−1, 1] → latents: the posterior's mean, or with one key per image a sample of it."""
        mean, log_variance = self.posterior(images)
        if keys is None:
            return self._grid(mean)
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        return self._grid(mean + jnp.exp(0.5 * log_variance) * noise)

    def posterior(
        self, images: Float[AnyArray, "b height width 3"]
    ) -> tuple[Float[Array, "b n c"], Float[Array, "b n c"]]:
        """Images in [−1, 1] → mean and log-variance of the latents."""
        return tuple(self._encode(self._params(self.tokenizer.encodes), self._images(images)))

    def features(self, images: Float[AnyArray, "b height width 3"]) -> Float[Array, "b y x d"]:
        """Images in [−1, 1] → the frozen encoder's own patch features x."""
        return self._grid(self._features(self._params(("encoder",))["encoder"], self._images(images)))

    def outputs(self, images: Float[AnyArray, "b height width 3"], layers: int = 0) -> EncoderOutput:
        """Images in [−1, 1] → all that the frozen encoder says, with its last `layers` blocks where it can give them.

        Raises:
          ValueError: the encoder gives no layers, or has not so many.
        """
        encoder = self.encoder
        if layers and encoder.keep is None:
            raise ValueError(f"the encoder {encoder.name!r} gives no single blocks")
        return self._outputs(layers)(self._params(("encoder",))["encoder"], self._images(images))

    def spread(self, images: Shaped[np.ndarray, "b height width 3"]) -> Shaped[Array, "b height width 3"]:
        """A batch on the model's devices, split over them where it divides."""
        mesh = self.parts.mesh
        if jax.process_count() > 1 or len(images) % batch_divisor(mesh):
            return jnp.asarray(images)
        return put_batch({"image": images}, mesh)["image"]

    def compress(self, features: Float[AnyArray, "b y x d"]) -> Float[Array, "b y x c"]:
        """The encoder's features x → latents: `encode` without running the encoder."""
        tokens = self._tokens(features, self.tokenizer.width)
        return self._grid(self._compress(self._params(("compressor",)), tokens).mean)

    def reconstruct_features(self, latents: Float[AnyArray, "b y x c"]) -> Float[Array, "b y x d"]:
        """Latents → x̂, in the encoder's own space."""
        params = self._params(("feature_decoder",))
        return self._grid(self._reconstruct_features(params, self._tokens(latents, self.tokenizer.channels)))

    def decode(self, latents: Float[AnyArray, "b y x c"]) -> Float[Array, "b height width 3"]:
        """Latents → images, clipped to [−1, 1]."""
        return self._decode(self._params(self.tokenizer.decodes), self._tokens(latents, self.tokenizer.channels))

    # Generating

    @functools.cached_property
    def generator(self) -> Generator:
        """The generator, without parameters; its blocks are looped over, in `sampling.dtype`."""
        made = generator_of(self.parts)
        return made.looped(self.config.sampling.dtype) if hasattr(made, "looped") else made

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that can be asked for, by label; () where the generator is told none."""
        return self.parts.classes[: self.generator.condition.classes]

    def settings(self, *, guidance: Guidance | str = "config", **changes: Any) -> Any:
        """The section `sampling` with changes; those that are None are passed over.

        Args:
          guidance: see `guidance_schedule`.
          changes: other fields, such as `sampler`, `steps`, `shift`.

        Raises:
          ValueError: a value cannot work.
        """
        sampling = self.config.sampling
        given = {name: value for name, value in changes.items() if value is not None}
        changed = dataclasses.replace(sampling, **given)
        validate(changed, "sampling")
        chosen = dataclasses.replace(changed, guidance=guidance_schedule(guidance, sampling.guidance))
        self.generator.evaluations(chosen)
        return chosen

    def generate(
        self,
        labels: Sequence[int] | np.ndarray,
        *,
        guidance: Guidance | str = "config",
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        ema: str | None = "",
        progress: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "b height width 3"]:
        """One image per label, in [−1, 1]. Image i depends on (seed, i, label) only, not on how many are made.

        Args:
          labels: classes, 0 … classes − 1; `classes` means "of no class".
          guidance: see `guidance_schedule`.
          seed: of all noise.
          sampler, steps: by name and number; None for the configured ones.
          ema: decay of the EMA to use, "" for the largest kept, None for the raw weights.
          progress: told how many images are there, after each batch.

        Raises:
          ValueError: a label out of range, or guidance or an EMA that is not there.
        """
        chosen = self.settings(guidance=guidance, sampler=sampler, steps=steps)
        condition = self.generator.condition.request(labels)
        return np.concatenate(list(self.images(condition, chosen, seed=seed, ema=ema, progress=progress)))

    def images(
        self,
        condition: Any,
        settings: Any,
        *,
        seed: int = 0,
        ema: str | None = "",
        first: int = 0,
        guidance: Schedule | None = None,
        params: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Float[np.ndarray, "k height width 3"]]:
        """`generate` in pieces of at most `settings.batch`, so that no more are ever held.

        Args:
          condition: what `Condition.request` gives, one entry for each image.
          settings: see `settings`.
          first: number of the first image, where they are a part of a larger set.
          guidance: intervals in place of those of `settings`, as arguments of the program: one compilation serves
            all schedules of as many intervals.
          params: of the generator and all that decodes, in place of the model's own.
        """
        problem = seed_range(int(seed) if isinstance(seed, np.integer) else seed)
        if problem:
            raise ValueError(f"seed {problem}, got {seed!r}")
        count = len(jax.tree.leaves(condition)[0])
        size = min(settings.batch, count)
        run = self._sampling(settings if guidance is None else dataclasses.replace(settings, guidance=()))
        intervals = () if guidance is None else (jnp.asarray(make_schedule(guidance), jnp.float32),)
        params = params or {**self._params(self.tokenizer.decodes), **self._params(("generator",), ema)}
        for start in range(0, count, size):
            stop = min(start + size, count)

            def rows(leaf: np.ndarray, start: int = start, stop: int = stop) -> Array:
                part = leaf[start:stop]
                return jnp.asarray(np.concatenate([part, part[-1:].repeat(size - len(part), 0)]))

            keys = sample_keys(seed, jnp.arange(first + start, first + start + size))
            made = np.asarray(run(params, keys, jax.tree.map(rows, condition), *intervals))[: stop - start]
            if progress:
                progress(stop)
            yield made

    @functools.cache  # noqa: B019 -- lives as long as the model
    def hashes(self, parts: tuple[str, ...], ema: str | None = "") -> dict[str, str]:
        """SHA-256 of the weights of `parts`: of the tokenizer, or "generator"; `ema` as in `generate`."""
        return {part: hash_tree(fetch(self._part(part, ema if part == "generator" else ""))) for part in parts}

    # Parameters, read when first needed

    @functools.cache  # noqa: B019 -- lives as long as the model
    def _part(self, part: str, ema: str | None) -> Any:
        return self.parts.params(part, ema)

    def _params(self, parts: Sequence[str], ema: str | None = "") -> Mapping[str, Any]:
        return {part: self._part(part, ema) for part in parts}

    # Compiled pieces

    def _ability(self, name: str) -> Any:
        """What not every tokenizer has."""
        if not hasattr(self.tokenizer, name):
            kind = self.config.tokenizer.kind
            raise ValueError(f"the tokenizer {kind!r} has no {name.replace('_', ' ')}: it encodes and decodes alone")
        return getattr(self.tokenizer, name)

    def _grid(self, tokens: Array) -> Array:
        return rearrange(tokens, "b (y x) c -> b y x c", y=self.tokenizer.grid[0])

    @functools.cached_property
    def _features(self) -> Callable[..., Array]:
        return jax.jit(self.encoder.features)

    @functools.cache  # noqa: B019 -- lives as long as the model
    def _outputs(self, layers: int) -> Callable[..., EncoderOutput]:
        def outputs(params: Any, images: Array) -> EncoderOutput:
            pixels = self.encoder.preprocess(images)
            made = self.encoder.keep(params, pixels, layers) if layers else self.encoder.apply(params, pixels)
            return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), made)

        return jax.jit(outputs)

    @functools.cached_property
    def _encode(self) -> Callable[..., Any]:
        return jax.jit(self.tokenizer.encode)

    @functools.cached_property
    def _compress(self) -> Callable[..., Any]:
        return jax.jit(self._ability("compress"))

    @functools.cached_property
    def _reconstruct_features(self) -> Callable[..., Array]:
        return jax.jit(self._ability("reconstruct_features"))

    @functools.cached_property
    def _decode(self) -> Callable[..., Array]:
        return jax.jit(self.tokenizer.decode)

    @functools.cache  # noqa: B019 -- lives as long as the model
    def _sampling(self, settings: Any) -> Callable[..., Array]:
        """(parameters, keys, condition, guidance (k, 3) in place of the settings' own where it is given) → noise →
        sampler → undo standardisation → decoders → images, compiled."""
        statistics, generator = self.parts.statistics, self.generator

        def run(params: Any, keys: Array, condition: Any, guidance: Array | None = None) -> Array:
            chosen = settings if guidance is None else dataclasses.replace(settings, guidance=tuple(guidance))
            latents = generator.sample(params["generator"], keys, condition, chosen)
            return self.tokenizer.decode(params, statistics.unstandardise(latents))

        return jax.jit(constrained(run, self.parts.mesh))
