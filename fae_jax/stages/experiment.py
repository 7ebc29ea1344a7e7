"""What every stage shares: the configuration, the working directory, the mesh, data, encoder and networks."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.config import check
from fae_jax.data.loader import Loader, Reading, ordered_batches
from fae_jax.data.replacement import BadImages, Readable
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.mixture import Mixture
from fae_jax.data.stores.feature_store import FeatureStore
from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.data.stores.latents import HEADER, CacheIdentity, LatentSource, open_cache
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.data.transforms import adm_centre_crop
from fae_jax.encoders import registry
from fae_jax.files import storage
from fae_jax.networks import Networks, build_networks, encoder_options
from fae_jax.parallel.chips import peak_flops
from fae_jax.parallel.hosts import is_first, own_mesh
from fae_jax.parallel.mesh import batch_divisor, make_mesh, put_batch
from fae_jax.parallel.rules import shardings
from fae_jax.section import as_dict
from fae_jax.stages.costs import step_flops
from fae_jax.stages.feature_space import FeatureSpace, load_or_measure, measure, over_hosts
from fae_jax.stages.images import open_images, to_pixels
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.goodput import Phases
from fae_jax.training.loop import Task, train
from fae_jax.training.optimizer import slowest_average
from fae_jax.training.state import TrainState
from fae_jax.weights import hash_tree
from fae_jax.workdir import Workdir

SECTIONS = {"encoder": "encoder_training"}  # stages whose section of the configuration has another name
PREVIEWS = 16  # images in a preview


class Experiment:
    """One configuration in one working directory, on the devices there are.

    Everything is made when it is first asked for, so that a request can be checked without computing anything.

    Args:
      config: what the experiment is.
      workdir: where it is kept.
      origin: the arguments that gave the configuration (`--config C …`), to repeat them in advice.
    """

    def __init__(self, config: Any, workdir: Workdir, origin: str | None = None):
        self.config = check(config)
        self.workdir = workdir
        self.origin = origin

    # What is there

    def section(self, stage: str) -> Any:
        """The training section of the configuration for a stage."""
        return getattr(self.config, SECTIONS.get(stage, stage))

    def checkpoints(self, stage: str) -> Checkpoints:
        return Checkpoints(self.workdir.stage(stage) / "checkpoints", self.config.checkpoint.keep)

    def is_done(self, stage: str) -> bool:
        """Whether a stage has nothing left to do; a pretrained encoder always has.

        Without compression there is nothing to learn between encoder and latent: the features stage then ends with
        the features' statistics.
        """
        if stage == "encoder":
            return not self.config.encoder.train or (self.workdir.stage("encoder") / "model.safetensors").is_file()
        if stage == "features" and not self.has_autoencoder:
            return (self.workdir.stage("features") / "statistics.json").is_file()
        if stage == "cache":
            return self.is_done("features") and storage.exists(storage.join(self.cache_directory, HEADER))
        steps = self.checkpoints(stage).steps()
        return bool(steps) and steps[-1] >= self.section(stage).steps

    @property
    def has_autoencoder(self) -> bool:
        """Whether compressor or feature decoder has anything to learn."""
        return (self.config.compressor.kind, self.config.feature_decoder.kind) != ("identity", "identity")

    def seed(self, purpose: str) -> int:
        """A seed for one purpose, derived from the experiment's."""
        return int.from_bytes(hashlib.sha256(f"{self.config.seed}/{purpose}".encode()).digest()[:4], "little") >> 1

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the time of its body to `timings.json`, also when it is interrupted."""
        begun = time.monotonic()
        try:
            yield
        finally:
            if is_first():
                with contextlib.suppress(OSError):
                    self.workdir.add_time(phase, time.monotonic() - begun)

    # Devices and data

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(**as_dict(self.config.mesh))

    @functools.cached_property
    def own_mesh(self) -> jax.sharding.Mesh:
        """This host's devices: for encoding, which hosts do each by themselves."""
        return own_mesh(self.mesh)

    def check_batch(self, field: str, size: int, parts: int = 1) -> None:
        """Refuses a batch that does not divide over the devices.

        Raises:
          ValueError: it names the field.
        """
        divisor = batch_divisor(self.mesh) * parts
        if size % divisor:
            raise ValueError(f"field {field}={size} must be a multiple of {divisor} on these devices")

    @functools.cache  # noqa: B019 -- an experiment lives as long as its process
    def source(self, split: str) -> Source:
        """The images of a split, "train" or "heldout"; see `open_images`."""
        return open_images(self.config.data, split, self.seed("holdout"))

    @property
    def _hosts(self) -> dict[str, Any]:
        return {"host": jax.process_index(), "hosts": jax.process_count()}

    @property
    def _reading(self) -> Reading:
        data = self.config.data
        return Reading(workers=data.workers, threads=data.threads, ahead=data.ahead)

    @property
    def _reading_stored(self) -> Reading:
        """Of what needs no decoding: handing it on from another process would take longer than reading it."""
        return dataclasses.replace(self._reading, workers=0)

    @property
    def _bad_images(self) -> Path:
        return self.workdir.root / f"bad-images-{jax.process_index()}.txt"

    def loader(self, batch: int) -> Loader:
        """Shuffled batches of training images and labels; undecodable ones are named in the working directory."""
        data = self.config.data
        return Loader(
            source=self.source("train"),
            batch=batch,
            seed=self.seed("data"),
            image_size=data.image_size,
            flip=data.flip,
            crop=data.crop,
            crop_area=data.crop_area,
            captions=False,
            tolerate=data.tolerate,
            bad_images=self._bad_images,
            reading=self._reading,
            keep=2**40 if data.in_memory else 0,
            **self._hosts,
        )

    def ordered(self, split: str, batch: int) -> Any:
        """One pass over a split, in order, in batches of `batch` with a mask."""
        source, size = self.source(split), self.config.data.image_size
        bad = BadImages(source, self.config.data.tolerate, self._bad_images)
        return ordered_batches(source, batch=batch, image_size=size, reading=self._reading, bad=bad, **self._hosts)

    @functools.cache  # noqa: B019
    def preview_batch(self) -> dict[str, np.ndarray]:
        """The images shown in previews: the first held-out ones, or training ones if none are held out."""
        split = "heldout" if self.config.data.holdout or self.config.data.heldout_path else "train"
        source, size = Readable(self.source(split)), self.config.data.image_size
        places = np.linspace(0, len(source) - 1, PREVIEWS).astype(int)
        return {"image": np.stack([adm_centre_crop(source[int(place)]["image"], size) for place in places])}

    # Networks and their parameters

    @functools.cached_property
    def encoder(self) -> registry.Encoder:
        """The frozen encoder.

        Raises:
          ValueError, FileNotFoundError: it is unknown or its weights are not there.
        """
        encoder = self.config.encoder
        return registry.create(
            encoder.name,
            weights=str(self.workdir.stage("encoder")) if encoder.train else encoder.weights or None,
            image_size=self.config.data.image_size,
            **encoder_options(self.config),
        )

    @functools.cached_property
    def frozen_encoder(self) -> dict[str, Any]:
        """{"encoder": its parameters, on the devices}."""
        params = self.encoder.params
        return {"encoder": jax.device_put(params, shardings(params, self.mesh))}

    @functools.cached_property
    def own_encoder(self) -> Any:
        """The encoder's parameters on this host's devices."""
        if jax.process_count() == 1:
            return self.frozen_encoder["encoder"]
        params = self.encoder.params
        return jax.device_put(params, shardings(params, self.own_mesh))

    @functools.cached_property
    def networks(self) -> Networks:
        return build_networks(self.config, self.encoder.grid, self.encoder.width)

    def run_here(self, function: Callable[..., Any], *params: Any) -> Callable[[np.ndarray], Any]:
        """`function(*params, images)` of this host's images, on this host's devices; no other host has part in it.

        Images are padded to divide over the devices, and what is made of them is cut to their number.
        """
        run = jax.jit(function)

        def encode(images: np.ndarray) -> Any:
            missing = -len(images) % batch_divisor(self.own_mesh)
            padded = np.concatenate([images, images[-1:].repeat(missing, 0)]) if missing else images
            made = run(*params, put_batch({"image": padded}, self.own_mesh)["image"])
            return jax.tree.map(lambda part: part[: len(images)], made) if missing else made

        return encode

    @functools.cached_property
    def encode_here(self) -> Callable[[np.ndarray], Array]:
        """uint8 images of this host → features, on this host's devices."""
        return self.run_here(lambda params, image: self.encoder.features(params, to_pixels(image)), self.own_encoder)

    @property
    def feature_store(self) -> FeatureStore | None:
        """Where the training images' features are kept, if they are (`data.features`)."""
        return self.feature_store_of("train")

    @functools.cache  # noqa: B019
    def feature_store_of(self, split: str) -> FeatureStore | None:
        """The same for a split."""
        data, encoder = self.config.data, self.encoder
        if not data.features:
            return None
        return FeatureStore(
            root=Path(data.features),
            identity=CacheIdentity(compressor="", **{**self._encoded, "source": self.source(split).fingerprint}),
            source=self.source(split),
            shape=(encoder.grid[0] * encoder.grid[1], encoder.width),
            encode=self.encode_here,
            batch=max(self.config.cache.batch // jax.process_count(), 1),
            shard_size=self.config.cache.shard_size,
            reading=Reading(workers=data.workers),
        )

    def stored_features(self, split: str) -> LatentSource | None:
        """A split's features for who only reads patches, where they are kept and are all that the encoder says of a
        image; those of held-out images are written when first asked for. Position i is image i."""
        size, store = self.config.data.image_size, self.feature_store_of(split)
        pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        said = jax.eval_shape(lambda x: self.encoder.apply(self.encoder.params, self.encoder.preprocess(x)), pixels)
        if store is None or said.cls is not None:
            return None
        found = store.open()
        return found if len(found) == len(store.source) else None

    def feature_loader(self, batch: int, *, images: bool) -> Loader | LatentLoader:
        """Shuffled batches for a stage that trains on features: "features" from the store where there is one, with
        "image" beside them if `images`; else "image" alone, to be encoded at every step."""
        if self.feature_store is None:
            return self.loader(batch)
        data = self.config.data
        return LatentLoader(
            source=self.feature_store.open(),
            batch=batch,
            seed=self.seed("data"),
            flip=data.flip,
            images=self.source("train") if images else None,
            image_size=data.image_size,
            captions=False,
            mixture=self._mixture,
            reading=self._reading if images else self._reading_stored,
            **self._hosts,
        )

    def features_of(self, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Array:
        """The raw features of a `feature_loader`'s batch, float32; runs on device."""
        if "features" in batch:
            return jnp.asarray(batch["features"], jnp.float32)
        return self.encoder.features(frozen["encoder"], to_pixels(batch["image"]))

    @functools.cache  # noqa: B019
    def preview_features(self) -> dict[str, Any]:
        """`preview_batch` as `features_of` takes it."""
        shown = self.preview_batch()
        return (
            {**shown, "features": np.asarray(self.encode_here(shown["image"]))}
            if self.config.data.features
            else shown
        )

    @property
    def frozen_for_features(self) -> dict[str, Any]:
        """What `features_of` needs: the encoder, unless features are stored."""
        return {} if self.config.data.features else self.frozen_encoder

    @functools.cached_property
    def space(self) -> FeatureSpace:
        """The space the autoencoder works in; measured over the training images the first time, by all hosts, or
        taken from the feature store."""
        store = self.feature_store
        identity = {"encoder": self.encoder.weights_hash, "source": self.source("train").fingerprint}
        if store is not None:
            identity["store"] = store.identity.hash

        def measured() -> LatentStatistics:
            if store is not None:
                return store.open().header.statistics
            batches = self.ordered("train", self.config.cache.batch)
            return over_hosts(measure(np.asarray(self.encode_here(part["image"]))[part["mask"]] for part in batches))

        file = self.workdir.stage("features") / "statistics.json"
        return load_or_measure(file, identity, measured, self.config.encoder.feature_norm == "standardise")

    def best_params(self, state: TrainState, player: str) -> Any:
        """What later stages will use: the slowest parameter average, or the parameters where none is kept."""
        own = state.players[player]
        return slowest_average(own.optimizer, own.params)

    def load_params(
        self, stage: str, player: str, average: str | None = "", mesh: jax.sharding.Mesh | None = None
    ) -> Any:
        """A finished stage's parameters, on the devices or those of `mesh`; see `Checkpoints.read_params`."""
        if stage == "features" and not self.has_autoencoder:
            return {"compressor": {}, "feature_decoder": {}}
        return self.checkpoints(stage).read_params(player, mesh or self.mesh, average)

    def train(self, task: Task) -> TrainState:
        """Trains a stage to its end.

        Raises:
          ValueError: its batch does not divide over the devices.
          RunFailed: see `fae_jax.training.loop.train`.
        """
        section = task.section
        self.check_batch(f"{SECTIONS.get(task.name, task.name)}.batch", section.batch, section.microbatches)
        task = dataclasses.replace(task, **self._cost(task.name))
        phases = Phases()
        try:
            return train(task, self.workdir.stage(task.name), self.mesh, self.config, phases)
        finally:
            if is_first():
                with contextlib.suppress(OSError):
                    self.workdir.add_phases(phases.seconds())

    def _cost(self, stage: str) -> dict[str, Any]:
        """FLOPs of a stage's step and of the devices, as `Task` wants them; None where they cannot be told."""
        config = self.config
        made = None if config.encoder.train or registry.has_outline(config.encoder.name) else self.encoder
        try:
            flops = float(step_flops(config, stage, made))
        except ValueError:
            return {"flops": None, "peak": None}
        peak = peak_flops(self.mesh.devices.flat[0].device_kind)
        return {"flops": flops, "peak": peak and peak * self.mesh.size}

    # The latent cache

    def _compressor_hash(self) -> str:
        """Of everything that decides a latent after the encoder: feature space, structure and weights."""
        compressor = jax.device_get(self.load_params("features", "autoencoder", mesh=self.own_mesh)["compressor"])
        digest = hashlib.sha256(hash_tree(compressor).encode())
        digest.update(json.dumps(as_dict(self.config.compressor), sort_keys=True).encode())
        if self.space.standardise:
            digest.update(self.space.mean.tobytes() + self.space.std.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def cache_identity(self) -> CacheIdentity:
        """What this experiment's latent cache must be of; needs the features stage."""
        return CacheIdentity(compressor=self._compressor_hash(), **self._encoded)

    @property
    def _encoded(self) -> dict[str, Any]:
        """The part of an identity that says which images went through which encoder."""
        return {
            "encoder": self.encoder.name,
            "encoder_weights": self.encoder.weights_hash,
            "encoder_settings": {**self.encoder.settings, "dtype": self.config.compute.dtype},
            "source": self.source("train").fingerprint,
            "image_size": self.config.data.image_size,
            "flip": self.config.data.flip,
        }

    @property
    def cache_directory(self) -> str:
        """Where the latent cache is, or will be; perhaps in a bucket."""
        return storage.join(self.config.cache.path or str(self.workdir.latents), self.cache_identity.hash)

    @functools.cached_property
    def cache(self) -> LatentSource:
        """The finished latent cache.

        Raises:
          FileNotFoundError, ValueError: it is not there, not finished, or of something else.
        """
        return open_cache(self.cache_directory, self.cache_identity)

    def latent_loader(self, batch: int) -> LatentLoader:
        """Shuffled batches of cached posteriors."""
        data = self.config.data
        return LatentLoader(
            source=self.cache,
            batch=batch,
            seed=self.seed("latents"),
            flip=data.flip,
            caption_dropout=data.caption_dropout,
            mixture=self._mixture,
            reading=self._reading_stored,
            **self._hosts,
        )

    @property
    def _mixture(self) -> Mixture | None:
        source = self.source("train")
        return source if isinstance(source, Mixture) else None
