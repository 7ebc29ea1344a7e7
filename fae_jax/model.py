"""A trained FAE as one object: images to latents, latents to features and images, labels to images.

fae = fae_jax.load("runs/imagenet256")
z = fae.encode(images)                           # images in [−1, 1]
features = fae.reconstruct_features(z)           # in the encoder's own space: its heads accept them
images = fae.decode(z)
images = fae.generate(labels=[207, 360], guidance=2.5, seed=0)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Key, Shaped

from fae_jax.diffusion.guidance import Guidance, Schedule, function_evaluations, guided, make_schedule
from fae_jax.diffusion.samplers import Sampler, make_sampler, sample, sample_keys
from fae_jax.encoders.registry import EncoderOutput
from fae_jax.networks import looped
from fae_jax.parallel.mesh import batch_divisor, put_batch
from fae_jax.parallel.rules import constrained
from fae_jax.stages import check_stages
from fae_jax.stages.experiment import Experiment
from fae_jax.workdir import Workdir

AnyArray = Array | np.ndarray
GUIDED_UP_TO = 0.7  # time below which a single guidance weight acts (paper: ablations)


def guidance_schedule(guidance: Guidance | str, configured: Schedule) -> Schedule:
    """What a user says of guidance → intervals.

    Args:
      guidance: "config" for the configured one, None for none, a weight (on times up to 0.7, as in the paper's
        ablations), or intervals (low, high, weight).
      configured: the configuration's intervals.

    Raises:
      ValueError: it is none of these.
    """
    if guidance == "config":
        return make_schedule(configured)
    if isinstance(guidance, str):
        raise ValueError(f"guidance {guidance!r} is not known: give a weight, intervals, none or config")
    if isinstance(guidance, int | float):
        guidance = ((0.0, GUIDED_UP_TO, float(guidance)),)
    return make_schedule(guidance)


class FAE:
    """See the module. Every method takes NumPy or JAX arrays and works on the experiment's devices."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.config = experiment.config
        self.encoder = experiment.encoder
        self.networks = looped(experiment.networks)
        self.space = experiment.space

    # Understanding

    def encode(
        self, images: Float[AnyArray, "b height width 3"], keys: Key[Array, " b"] | None = None
    ) -> Float[Array, "b y x c"]:
        """Images in [−1, 1] → latents: the posterior's mean, or with one key per image a sample of it."""
        posterior = self._encode(self._encoder_params, self._autoencoder_params["compressor"], jnp.asarray(images))
        return self._grid(posterior.mean if keys is None else posterior.sample(keys))

    def posterior(
        self, images: Float[AnyArray, "b height width 3"]
    ) -> tuple[Float[Array, "b n c"], Float[Array, "b n c"]]:
        """Images in [−1, 1] → mean and log-variance of the latents."""
        return tuple(self._encode(self._encoder_params, self._autoencoder_params["compressor"], jnp.asarray(images)))

    def features(self, images: Float[AnyArray, "b height width 3"]) -> Float[Array, "b y x d"]:
        """Images in [−1, 1] → the frozen encoder's own patch features x."""
        return self._grid(self._features(self._encoder_params, jnp.asarray(images)))

    def outputs(self, images: Float[AnyArray, "b height width 3"], layers: int = 0) -> EncoderOutput:
        """Images in [−1, 1] → all that the frozen encoder says, with its last `layers` blocks where it can give them.

        Raises:
          ValueError: the encoder gives no layers, or has not so many.
        """
        if layers and self.encoder.keep is None:
            raise ValueError(f"the encoder {self.encoder.name!r} gives no single blocks")
        return self._outputs(layers)(self._encoder_params, jnp.asarray(images))

    def spread(self, images: Shaped[np.ndarray, "b height width 3"]) -> Shaped[Array, "b height width 3"]:
        """A batch on the experiment's devices, split over them where it divides."""
        mesh = self.experiment.mesh
        if jax.process_count() > 1 or len(images) % batch_divisor(mesh):
            return jnp.asarray(images)
        return put_batch({"image": images}, mesh)["image"]

    def compress(self, features: Float[AnyArray, "b y x d"]) -> Float[Array, "b y x c"]:
        """The encoder's features x → latents: `encode` without running the encoder."""
        compressor = self._autoencoder_params["compressor"]
        return self._grid(self._compress(compressor, self._tokens(features)).mean)

    def reconstruct_features(self, latents: Float[AnyArray, "b y x c"]) -> Float[Array, "b y x d"]:
        """Latents → x̂, in the encoder's own space."""
        tokens = self._tokens(latents)
        return self._grid(
            self.space.leave(self._decode_features(self._autoencoder_params["feature_decoder"], tokens))
        )

    def decode(self, latents: Float[AnyArray, "b y x c"]) -> Float[Array, "b height width 3"]:
        """Latents → images, clipped to [−1, 1]."""
        params = (self._autoencoder_params["feature_decoder"], self._pixel_params)
        return self._decode(*params, self._tokens(latents))

    # Generating

    def sampler(self, name: str | None = None, steps: int | None = None) -> Sampler:
        """A sampler by name with a number of steps, each from the configuration where it is None."""
        sampling = self.config.sampling
        return make_sampler(
            name or sampling.sampler,
            steps=sampling.steps if steps is None else steps,
            shift=sampling.shift,
            last_step=sampling.last_step,
        )

    def generate(
        self,
        labels: Sequence[int] | np.ndarray,
        *,
        guidance: Guidance | str = "config",
        seed: int = 0,
        sampler: Sampler | None = None,
        average: str | None = "",
        progress: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "b height width 3"]:
        """One image per label, in [−1, 1]. Image i depends on (seed, i, label) only, not on how many are made.

        Args:
          labels: classes, 0 … classes − 1; `classes` means "of no class".
          guidance: see `guidance_schedule`.
          seed: of all noise.
          sampler: see `FAE.sampler`; None for the configured one.
          average: decay of the parameter average to use, "" for the slowest, None for the bare parameters.
          progress: told how many images are there, after each batch.

        Raises:
          ValueError: a label out of range, or guidance or an average that is not there.
        """
        labels = np.asarray(labels, np.int32)
        classes = self.config.data.classes
        if labels.ndim != 1 or not len(labels):
            raise ValueError("labels must be a list of at least one class")
        if labels.min() < 0 or labels.max() > classes:
            raise ValueError(f"label {labels.min() if labels.min() < 0 else labels.max()} is not in 0 … {classes}")
        check_stages(self.experiment, "generating", ("pixels", "cache", "generator"))
        schedule = guidance_schedule(guidance, self.config.sampling.guidance)
        run = self._sampling(cast(Hashable, sampler or self.sampler()), schedule)
        params = self._generator_params(average)
        done = []
        for indices, chosen in _chunks(labels, min(self.config.sampling.batch, len(labels))):
            images = run(*params, sample_keys(seed, jnp.asarray(indices)), jnp.asarray(chosen))
            done.append(np.asarray(images))
            if progress:
                progress(min(sum(map(len, done)), len(labels)))
        return np.concatenate(done)[: len(labels)]

    def evaluations(self, sampler: Sampler, guidance: Guidance | str = "config") -> int:
        """Network evaluations one image takes."""
        schedule = guidance_schedule(guidance, self.config.sampling.guidance)
        return function_evaluations(sampler.evaluation_times(), schedule)

    # Parameters, loaded when first needed

    @property
    def _encoder_params(self) -> Any:
        return self.experiment.frozen_encoder["encoder"]

    @functools.cached_property
    def _autoencoder_params(self) -> Any:
        return self.experiment.load_params("features", "autoencoder")

    @functools.cached_property
    def _pixel_params(self) -> Any:
        """Of the pixel decoder: fine-tuned, where that stage is done."""
        stage = "finetune" if self.experiment.is_done("finetune") else "pixels"
        check_stages(self.experiment, "decoding images", (stage,))
        return self.experiment.load_params(stage, "pixel_decoder")

    @functools.cache  # noqa: B019 -- lives as long as the model
    def _generator_params(self, average: str | None) -> tuple[Any, Any, Any]:
        dit = self.experiment.load_params("generator", "dit", average)
        return dit, self._autoencoder_params["feature_decoder"], self._pixel_params

    # Compiled pieces

    def _grid(self, tokens: Array) -> Array:
        return rearrange(tokens, "b (y x) c -> b y x c", y=self.networks.grid[0])

    def _tokens(self, maps: AnyArray) -> Array:
        return rearrange(jnp.asarray(maps), "b y x c -> b (y x) c")

    @functools.cached_property
    def _features(self) -> Callable[..., Array]:
        return jax.jit(self.encoder.features)

    @functools.cache  # noqa: B019 -- lives as long as the model
    def _outputs(self, layers: int) -> Callable[..., EncoderOutput]:
        def outputs(params: Any, images: Array) -> EncoderOutput:
            pixels = self.encoder.preprocess(images)
            found = self.encoder.keep(params, pixels, layers) if layers else self.encoder.apply(params, pixels)
            return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), found)

        return jax.jit(outputs)

    def _posterior_of(self, compressor: Any, features: Array) -> Any:
        return self.networks.compressor.apply({"params": compressor}, self.space.enter(features))

    @functools.cached_property
    def _compress(self) -> Callable[..., Any]:
        return jax.jit(self._posterior_of)

    @functools.cached_property
    def _encode(self) -> Callable[..., Any]:
        def encode(encoder: Any, compressor: Any, images: Array) -> Any:
            return self._posterior_of(compressor, self.encoder.features(encoder, images))

        return jax.jit(encode)

    @functools.cached_property
    def _decode_features(self) -> Callable[..., Array]:
        return jax.jit(lambda params, z: self.networks.feature_decoder.apply({"params": params}, z))

    @functools.cached_property
    def _decode(self) -> Callable[..., Array]:
        def decode(feature_decoder: Any, pixel_decoder: Any, latents: Array) -> Array:
            features = self.networks.feature_decoder.apply({"params": feature_decoder}, latents)
            return jnp.clip(self.networks.pixel_decoder.apply({"params": pixel_decoder}, features), -1, 1)

        return jax.jit(decode)

    @functools.cache  # noqa: B019 -- lives as long as the model
    def _sampling(self, sampler: Sampler, schedule: Schedule) -> Callable[..., Array]:
        """noise → sampler over guided velocity → undo standardisation → features → pixels, compiled."""
        dit, statistics = self.networks.dit, self.experiment.cache.header.statistics
        shape = (self.networks.grid[0] * self.networks.grid[1], self.networks.compressor.latent_width)

        def run(params: Any, feature_decoder: Any, pixel_decoder: Any, keys: Array, labels: Array) -> Array:
            velocity = guided(
                lambda z, t, label: dit.apply({"params": params}, z, t, label), schedule, self.config.data.classes
            )
            latents = sample(sampler, lambda z, t: velocity(z, t, labels), keys, shape)
            return self._decode(feature_decoder, pixel_decoder, statistics.unstandardise(latents))

        return jax.jit(constrained(run, self.experiment.mesh))


def _chunks(labels: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices, labels) in chunks of exactly `size`; the last one is filled up with its last label."""
    for start in range(0, len(labels), size):
        part = labels[start : start + size]
        yield np.arange(start, start + size), np.pad(part, (0, size - len(part)), mode="edge")


def load(path: str | Path) -> FAE:
    """A trained FAE from its working directory.

    Raises:
      FileNotFoundError: there is none.
      ValueError: its encoder or features stage is not finished; says which command makes it. What later stages
        train is asked for when it is first used, and refused there.
    """
    workdir = Workdir(path)
    experiment = Experiment(workdir.read_config(), workdir)
    for stage in ("encoder", "features"):
        if not experiment.is_done(stage):
            raise ValueError(f"{path} has no finished stage {stage}; run `fae train {stage} --workdir {path}` first")
    return FAE(experiment)
