"""What an experiment's stages have left in its working directory, as the parts of a model."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.data.batching import Reading
from fae_jax.data.pixels import to_pixels
from fae_jax.data.stores.feature_store import FeatureStore
from fae_jax.data.stores.latents import CacheIdentity, LatentSource
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.encoders import Encoder
from fae_jax.encoders.frozen import open_encoder
from fae_jax.files.paths import as_path
from fae_jax.parallel.hosts import first_says
from fae_jax.parallel.mesh import batch_divisor, put_batch
from fae_jax.parallel.rules import shardings
from fae_jax.parts import Parts
from fae_jax.stages import every_stage, stage_of
from fae_jax.stages.images import Images
from fae_jax.stages.stage import Record, read_record
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.tokenizers.fae import Facts
from fae_jax.tokenizers.feature_space import measure, over_hosts
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.workdir import Workdir

WITH_FACTS = ("features", "pixels", "finetune")  # stages whose records hold the facts of the encoder


class Trained(Parts):
    """See `fae_jax.parts.Parts`. Nothing is opened before it is needed: a record says what an encoder and images
    would, so that what is trained can be used without them.

    Args:
      config, workdir: of the experiment.
      mesh, own_mesh: all devices, and this host's.
      images: what the first stage measures its features over.
      step: the generator's checkpoint to use; None for the newest.
    """

    def __init__(
        self,
        config: Any,
        workdir: Workdir,
        mesh: jax.sharding.Mesh,
        own_mesh: jax.sharding.Mesh,
        images: Images | None = None,
        step: int | None = None,
    ):
        self.config, self.workdir, self.mesh, self.own_mesh = config, workdir, mesh, own_mesh
        self._images, self.step = images, step
        drawn = stage_of(self.drawn_with).drawn
        self.config = drawn(config) if drawn else config

    def record(self, folder: str) -> Record | None:
        """What a stage left."""
        return read_record(self.workdir, folder)

    @property
    def drawn_with(self) -> str:
        """The stage whose network is drawn with: the last finished one that leaves a generator, unless a checkpoint
        of the generator is asked for."""
        after = () if self.step is not None else (stage for stage in reversed(every_stage()) if stage.drawn)
        done = (each.name for each in after if not each.absent(self.config) and self._finished(each.name))
        return next(done, "generator")

    # Parts of a model

    @functools.cached_property
    def here(self) -> Trained:
        """See `Parts`."""
        if self.mesh is self.own_mesh:
            return self
        return Trained(self.config, self.workdir, self.own_mesh, self.own_mesh, self._images, self.step)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """See `fae_jax.tokenizers.Tokenizer`."""
        kind = tokenizer_kind(self.config)
        tokenizer = kind.build(self.config, self.facts if kind.trained else None)
        if "encoder" in self.__dict__ and hasattr(kind, "encoder"):
            tokenizer.__dict__["encoder"] = self.encoder  # opened already
        return tokenizer

    @property
    def has_generator(self) -> bool:
        return self.record("generator") is not None

    @property
    def statistics(self) -> LatentStatistics:
        return LatentStatistics.from_json(self._latents["statistics"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._latents["classes"])

    @functools.cached_property
    def _latents(self) -> dict[str, Any]:
        record = self.record("generator")
        if record is None:
            raise ValueError(
                f"{self.workdir.root} has no generator: run `fae train generator --workdir {self.workdir.root}` first"
            )
        return dict(record.facts)

    def another(self, path: str, step: int) -> Any:
        """See `Parts`."""
        from fae_jax.stages.running import load

        return load(path, step or None)

    def params(
        self, part: str, ema: str | None = "", mesh: jax.sharding.Mesh | None = None, step: int | None = None
    ) -> Any:
        """See `Parts`; on the devices of `mesh` where it is given, from the checkpoint of `step`."""
        mesh = mesh or self.mesh
        if part == "generator":
            stage = self.drawn_with if step is None else "generator"
            return self._read(stage, "generator", ema, mesh, self.step if step is None else step)
        if part == "text":
            return self.text(mesh)
        if part not in self.tokenizer.trained:
            params = self.tokenizer.load(part)
            return jax.device_put(params, shardings(params, mesh))
        if not jax.tree.leaves(self.tokenizer.shapes(part)):
            return {}
        stages, path = self.tokenizer.trained[part]
        begun = [stage for stage in stages if self._finished(stage)]
        if not begun:
            raise ValueError(
                f"{self.workdir.root} has no finished stage {stages[0]}, which trains the {part.replace('_', ' ')}: "
                f"run `fae train {stages[0]} --workdir {self.workdir.root}` first"
            )
        player, *inside = path.split("/")
        params = self._read(begun[-1], player, "", mesh, None)
        for key in inside:
            params = params[key]
        return params

    def _finished(self, stage: str) -> bool:
        record = self.record(stage)
        return record is not None and record.finished is not None

    def _read(self, stage: str, player: str, ema: str | None, mesh: jax.sharding.Mesh, step: int | None) -> Any:
        checkpoints = Checkpoints(self.workdir.stage(stage) / "checkpoints", self.config.checkpoint.keep)
        params = checkpoints.read_params(player, mesh, ema, step)
        if player == "generator":
            self.read_generator[ema] = checkpoints.read | ({} if stage == "generator" else {"stage": stage})
        return params

    # Facts of the encoder: recorded by the first stage that needs them, measured once

    @functools.cached_property
    def facts(self) -> Facts:
        """As recorded; measured over the training images by all hosts where no stage has begun."""
        known = next((record for stage in WITH_FACTS if (record := self.record(stage))), None)
        if first_says(known is not None):
            assert known is not None
            return Facts.from_json(known.facts)
        statistics = self._measured()
        dtype = self.config.compute.dtype
        return Facts.of(self.encoder, dtype, statistics.count, statistics.mean, statistics.std)

    def _measured(self) -> LatentStatistics:
        assert self._images is not None, "features are measured where there are images"
        store = self.feature_store("train")
        if store is not None:
            return store.open().header.statistics
        batches = self._images.ordered("train", self.config.cache.batch)
        return over_hosts(measure(np.asarray(self.encode_here(part["image"]))[part["mask"]] for part in batches))

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The frozen encoder.

        Raises:
          ValueError, FileNotFoundError: it is unknown or its weights are not there.
        """
        if "tokenizer" in self.__dict__:
            return self.tokenizer.encoder
        return open_encoder(self.config)

    def encoder_identity(self) -> dict[str, Any]:
        """Which encoder it is, as `CacheIdentity` names it."""
        encoder = self.encoder
        return {
            "encoder": encoder.name,
            "encoder_weights": encoder.weights_hash,
            "encoder_settings": {**encoder.settings, "dtype": self.config.compute.dtype},
        }

    @functools.cached_property
    def own_encoder(self) -> Any:
        """The encoder's parameters on this host's devices."""
        params = self.encoder.params
        return jax.device_put(params, shardings(params, self.own_mesh))

    # What this host encodes by itself

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

    @functools.cache  # noqa: B019 -- lives as long as its process
    def feature_store(self, split: str) -> FeatureStore | None:
        """Where a split's features are kept, if they are (`data.features`)."""
        data, images = self.config.data, self._images
        if not data.features or images is None or not hasattr(tokenizer_kind(self.config), "encoder"):
            return None
        encoder = self.encoder
        identity = CacheIdentity(
            compressor="",
            source=images.source(split).fingerprint,
            image_size=data.image_size,
            flip=data.flip,
            **self.encoder_identity(),
        )
        return FeatureStore(
            root=as_path(data.features),
            identity=identity,
            source=images.source(split),
            shape=(encoder.grid[0] * encoder.grid[1], encoder.width),
            encode=self.encode_here,
            batch=max(self.config.cache.batch // jax.process_count(), 1),
            shard_size=self.config.cache.shard_size,
            reading=Reading(workers=data.workers),
        )

    def stored_features(self, split: str) -> LatentSource | None:
        """A split's features for who only reads patches, where they are kept and are all that the encoder says of an
        image; those of held-out images are written when first asked for. Position i is image i."""
        size, store = self.config.data.image_size, self.feature_store(split)
        if store is None:
            return None
        pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        output = jax.eval_shape(lambda x: self.encoder.apply(self.encoder.params, self.encoder.preprocess(x)), pixels)
        if output.cls is not None:
            return None
        opened = store.open()
        return opened if len(opened) == len(store.source) else None


def as_json(facts: Facts) -> dict[str, Any]:
    """Facts as plain JSON values, for a record."""
    return json.loads(json.dumps(dataclasses.asdict(facts)))
