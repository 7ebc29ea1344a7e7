"""A trained FAE as one object: images to latents, latents to features and images, labels or prompts to images.

fae = fae_jax.load("runs/imagenet256")           # a working directory, an exported bundle, or a hub name
z = fae.encode(images)                           # images in [−1, 1]
features = fae.reconstruct_features(z)           # in the encoder's own space: its heads accept them
images = fae.decode(z)
images = fae.generate(labels=[207, 360], guidance=2.5, seed=0)
images = fae.generate(prompts=["a dog beside a fountain"])     # a model that reads text

It knows no working directory and no data: `fae_jax.parts.Parts` say what it is made of, and each part is read when
first used.
"""

from __future__ import annotations

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

from fae_jax.conditions import told
from fae_jax.diffusion.guidance import Guidance, Schedule, make_schedule, split
from fae_jax.diffusion.samplers import is_adaptive, sample_keys
from fae_jax.encoders.registry import Encoder, EncoderOutput
from fae_jax.generators import Generator
from fae_jax.parallel.hosts import fetch
from fae_jax.parallel.mesh import batch_divisor, put_batch
from fae_jax.parallel.rules import constrained
from fae_jax.parts import Parts, generator_of
from fae_jax.section import seed_range, validate
from fae_jax.weights import hash_tree

AnyArray = Array | np.ndarray
SLACK = 1e-3  # by which pixels may lie outside [-1, 1], as rounding leaves them
MOST = 10_000_000  # images of one set of samples
GUIDED_UP_TO = 0.7  # time below which a single guidance weight acts (paper: ablations)


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

    @functools.cached_property
    def guide(self) -> FAE:
        """The model whose generator is the weaker one of autoguidance, that of `sampling.guide`.

        Raises:
          ValueError, FileNotFoundError: it is not there, or is of other latents or another condition.
        """
        path = self.config.sampling.guide
        weaker = self.parts.another(path, self.config.sampling.guide_step)
        ours, theirs = ((each.parts.statistics, each.generator) for each in (self, weaker))
        if not hasattr(theirs[1], "velocity"):
            raise ValueError(f"field sampling.guide={path}: its generator has no velocity to compare with")
        same = [np.array_equal(getattr(ours[0], name), getattr(theirs[0], name)) for name in ("mean", "deviation")]
        if not all(same):
            raise ValueError(f"field sampling.guide={path} was trained on other latents: give both the same cache")
        if ours[1].condition != theirs[1].condition:
            raise ValueError(f"field sampling.guide={path} is told another condition than this generator")
        return weaker

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
        labels: Sequence[int] | np.ndarray | None = None,
        *,
        prompts: Sequence[str] | None = None,
        negative_prompt: str = "",
        guidance: Guidance | str = "config",
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        ema: str | None = "",
        progress: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "b height width 3"]:
        """One image per label or prompt, in [−1, 1]. Image i depends on (seed, i, label) only, not on their number.

        Args:
          labels: classes, 0 … classes − 1; `classes` means "of no class".
          prompts: texts in their place, of a model that reads text; "" means "of no text".
          negative_prompt: what guidance leads away from; empty for "of no text".
          guidance: see `guidance_schedule`.
          seed: of all noise.
          sampler, steps: by name and number; None for the configured ones.
          ema: decay of the EMA to use, "" for the largest kept, None for the raw weights.
          progress: told how many images are there, after each batch.

        Raises:
          ValueError: a label out of range, labels or prompts that this model does not read, or guidance or an EMA
            that is not there.
        """
        if labels is not None and prompts is not None:
            raise ValueError("give labels or prompts, not both")
        chosen = self.settings(guidance=guidance, sampler=sampler, steps=steps)
        condition = self.generator.condition.request(labels if prompts is None else prompts)
        how: dict[str, Any] = {"seed": seed, "ema": ema, "progress": progress}
        return np.concatenate(list(self.images(condition, chosen, against=self.against(negative_prompt), **how)))

    def against(self, negative_prompt: str) -> Any:
        """A negative prompt as `images` takes it; None for an empty one.

        Raises:
          ValueError: this model reads no text.
        """
        if not negative_prompt:
            return None
        if not self.reads_text:
            raise ValueError(
                "a negative prompt goes with a model that reads text, and this one reads none: leave it out"
            )
        return self.generator.condition.request([negative_prompt])

    @property
    def reads_text(self) -> bool:
        """Whether images are asked for by prompts."""
        return hasattr(self.generator.condition, "encode")

    def images(
        self,
        condition: Any,
        settings: Any,
        *,
        seed: int = 0,
        ema: str | None = "",
        first: int = 0,
        guidance: Schedule | None = None,
        against: Any = None,
        params: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
        counted: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Float[np.ndarray, "k height width 3"]]:
        """`generate` in pieces of at most `settings.batch`, so that no more are ever held.

        Args:
          condition: what `Condition.request` gives, one entry for each image.
          settings: see `settings`.
          first: number of the first image, where they are a part of a larger set.
          guidance: intervals in place of those of `settings`, as arguments of the program: one compilation serves
            all schedules of as many intervals.
          against: what guidance leads away from, as `against` gives it; None for "nothing".
          params: of the generator, the text tower and all that decodes, in place of the model's own.
          counted: told the network evaluations of each image of a batch, where they are not known beforehand.
        """
        problem = seed_range(int(seed) if isinstance(seed, np.integer) else seed)
        if problem:
            raise ValueError(f"seed {problem}, got {seed!r}")
        count = len(jax.tree.leaves(condition)[0])
        size = min(settings.batch, count)
        plain = [split(interval) for interval in make_schedule(settings.guidance if guidance is None else guidance)]
        kinds = tuple(kind for _, kind in plain)
        run = self._sampling(settings if guidance is None else dataclasses.replace(settings, guidance=kinds))
        intervals = () if guidance is None else (jnp.asarray([each for each, _ in plain], jnp.float32),)
        if params is None:
            text = ("text",) if self.reads_text else ()
            params = {**self._params((*self.tokenizer.decodes, *text)), **self._params(("generator",), ema)}
        params = {**params, **self._params(("guide",) if "auto" in kinds else ())}
        for start in range(0, count, size):
            stop = min(start + size, count)

            def rows(leaf: np.ndarray, start: int = start, stop: int = stop) -> Array:
                part = leaf[start:stop]
                return jnp.asarray(np.concatenate([part, part[-1:].repeat(size - len(part), 0)]))

            keys = sample_keys(seed, jnp.arange(first + start, first + start + size))
            asked = jax.tree.map(rows, condition)
            images, evaluations = run(params, keys, asked, *intervals, against=against)
            made = np.asarray(images)[: stop - start]
            if counted and evaluations is not None:
                counted(np.asarray(evaluations)[: stop - start])
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
        return self.guide._part("generator", "") if part == "guide" else self.parts.params(part, ema)

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
    def _sampling(self, settings: Any) -> Callable[..., tuple[Array, Array | None]]:
        """(parameters, keys, condition, guidance (k, 3) in place of the settings' own, which are then the kinds of
        the k intervals, and what it leads away from) → noise → sampler → undo standardisation → decoders → images,
        and evaluations of each where they are not known beforehand; compiled."""
        statistics = self.parts.statistics

        def run(
            params: Any, keys: Array, condition: Any, guidance: Array | None = None, against: Any = None
        ) -> tuple[Array, Array | None]:
            generator: Any = self.generator
            chosen, more = settings, {}
            if guidance is not None:
                intervals = tuple(zip(guidance, settings.guidance, strict=True))
                chosen = dataclasses.replace(settings, guidance=intervals)
            if against is not None:
                nothing = dataclasses.replace(generator.condition, instead=told(generator.condition, params, against))
                generator = dataclasses.replace(generator, condition=nothing)
            if "guide" in params:
                weaker: Any = self.guide.generator
                more["weaker"] = functools.partial(weaker.velocity, params["guide"])
            condition = told(generator.condition, params, condition)
            given, evaluations = (params["generator"], keys, condition, chosen), None
            if hasattr(generator, "counted") and is_adaptive(chosen):
                latents, evaluations = generator.counted(*given, **more)
            else:
                latents = generator.sample(*given, **more)
            return self.tokenizer.decode(params, statistics.unstandardise(latents)), evaluations

        return jax.jit(constrained(run, self.parts.mesh))
