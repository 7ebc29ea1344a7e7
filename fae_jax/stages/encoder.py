"""Training an encoder of one's own, where none is published for the images at hand (quickstart).

A ViT sees images with a share of patches blanked and learns two things at once, from its patch tokens p_i:

    L = CE(W' mean p_i + b', label) + λ mean over all i ‖W p_i + b − pixels_i‖² / (3 patch²)          (1)

so that they hold what the image is of (as a supervised encoder's) and what it looks like (as MAE's,
arXiv 2111.06377). Images are also shifted by up to `shift` pixels.

image → blanked image → ViT → (class logits, pixels of all patches) → loss
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from jaxtyping import Array

from fae_jax.data.pixels import side_by_side, to_pixels, to_uint8
from fae_jax.encoders import small
from fae_jax.encoders.frozen import trained_here
from fae_jax.encoders.vit import ViT, ViTConfig
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import patchify, sincos_table, unpatchify
from fae_jax.nn.params import init_params
from fae_jax.parallel.hosts import fetch, is_first
from fae_jax.parallel.xla_flags import jit_once
from fae_jax.parts import Parts
from fae_jax.section import at_least, like, option, share
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.stage import Record, Stage
from fae_jax.stages.training import train_stage
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.training.optimizer import TrainingSection, best_params, make_optimizer
from fae_jax.training.state import Player, TrainState
from fae_jax.training.task import Preview


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderTrainingSection(TrainingSection):
    """Training an encoder; read where `encoder.train` alone."""

    steps: int = option(0, "optimizer steps", at_least(0))
    batch: int = like(TrainingSection, "batch", 256)
    learning_rate: float = like(TrainingSection, "learning_rate", 1e-3)
    weight_decay: float = like(TrainingSection, "weight_decay", 0.05)
    mask: float = option(0.4, "share of patches hidden from the encoder", share)
    reconstruction_weight: float = option(
        1.0, "weight of the patches' pixel error beside the class loss", at_least(0)
    )
    label_smoothing: float = option(0.1, "label smoothing of the class loss", share)
    shift: int = option(0, "random translation, pixels", at_least(0))


def shift_images(images: Array, keys: Array, reach: int) -> Array:
    """Translates each image by up to `reach` pixels each way, edges repeated."""
    if not reach:
        return images
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")

    def cut(image: Array, key: Array) -> Array:
        y, x = jax.random.randint(key, (2,), 0, 2 * reach + 1)
        return jax.lax.dynamic_slice(image, (y, x, 0), images.shape[1:])

    return jax.vmap(cut)(padded, keys)


def blank_patches(keys: Array, tokens: int, share: float) -> Array:
    """For each key a mask over tokens, True for exactly round(share · tokens) blanked ones: (b, n)."""
    order = jax.vmap(lambda key: jax.random.permutation(key, tokens))(keys)
    return order < round(share * tokens)


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The networks of equation (1)."""

    config: ViTConfig
    size: int
    module: ViT
    to_patch: Any

    @classmethod
    def build(cls, config: Any) -> Pretraining:
        """For a configuration that trains its encoder."""
        vit = trained_here(config)
        module = ViT(vit, dtype=jnp.dtype(config.compute.dtype), scan=config.compute.scan)
        return cls(vit, config.data.image_size, module, Dense(vit.patch**2 * 3))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.config.grid(self.size, self.size)

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    def init(self, key: Array) -> dict[str, Any]:
        """Fresh parameters {"vit", "to_patch"}."""
        keys = jax.random.split(key)
        vit = init_params(self.module, keys[0], jnp.zeros((1, self.size, self.size, 3)))
        # Sines of full size from the start: a table of small numbers leaves a young ViT blind to where patches are.
        table = vit["trunk"]["position_table"]
        vit["trunk"]["position_table"] = table.at[-self.tokens :].set(sincos_table(self.config.width, self.grid))
        patches = jnp.zeros((1, self.tokens, self.config.width))
        return {"vit": vit, "to_patch": init_params(self.to_patch, keys[1], patches)}

    def blanked(self, images: Array, blank: Array) -> Array:
        """Images with those patches black."""
        patches = jnp.where(blank[..., None], 0.0, patchify(images, self.config.patch))
        return unpatchify(patches, self.grid, self.config.patch)

    def forward(self, params: Any, images: Array, blank: Array) -> tuple[Array, Array]:
        """Images with blanked patches → class logits, pixels of all patches."""
        out = self.module.apply({"params": params["vit"]}, self.blanked(images, blank))
        logits = self.module.apply({"params": params["vit"]}, out.patches, out.cls, method="classify")
        return logits, self.to_patch.apply({"params": params["to_patch"]}, out.patches)


def encoder_loss(
    networks: Pretraining,
    section: Any,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, dict[str, Array]]:
    """Equation (1) of a batch of uint8 images and labels."""
    shift_keys, blank_keys = rearrange(jax.vmap(jax.random.split)(keys), "b two -> two b")
    images = shift_images(to_pixels(batch["image"]), shift_keys, section.shift)
    blank = blank_patches(blank_keys, networks.tokens, section.mask)
    logits, patches = networks.forward(params, images, blank)
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), section.label_smoothing)
    class_loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
    pixel_loss = jnp.mean((patches - patchify(images, networks.config.patch)) ** 2)
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
    total = class_loss + section.reconstruction_weight * pixel_loss
    return total, {"class_loss": class_loss, "pixel_loss": pixel_loss, "accuracy": accuracy}


def players(parts: Parts) -> dict[str, Player]:
    """The ViT with its head."""
    section, networks = parts.config.encoder_training, Pretraining.build(parts.config)
    loss = functools.partial(encoder_loss, networks, section)
    return {"encoder": Player(init=networks.init, loss=loss, optimizer=make_optimizer(section))}


def preview(parts: Parts, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Preview:
    """Images, with patches blanked, and filled in."""
    networks, images = Pretraining.build(parts.config), to_pixels(batch["image"])
    keys = jax.random.split(jax.random.key(0), len(images))
    blank = blank_patches(keys, networks.tokens, parts.config.encoder_training.mask)

    @jit_once
    def draw(params: Any) -> tuple[Array, Array]:
        patches = networks.forward(params, images, blank)[1]
        filled = jnp.where(blank[..., None], patches, patchify(images, networks.config.patch))
        return networks.blanked(images, blank), unpatchify(filled, networks.grid, networks.config.patch)

    def paint(state: TrainState) -> tuple[np.ndarray, str]:
        rows = [to_uint8(part) for part in (images, *draw(best_params(state, "encoder")))]
        return side_by_side(rows), "held-out images; with patches blanked; blanked patches filled in by the encoder"

    return paint


def run(experiment: Experiment, stage: Stage) -> None:
    """Trains it, and leaves `encoder/config.json` and `encoder/model.safetensors`."""
    section = experiment.config.encoder_training
    settings = {"steps": section.steps, "batch": section.batch, "objective": "class + blanked patches"}

    def save(state: TrainState) -> None:
        params = fetch(best_params(state, "encoder"))
        if is_first():
            folder = experiment.workdir.stage("encoder")
            small.save(folder, trained_here(experiment.config), params["vit"], settings)

    train_stage(experiment, stage, save)


def is_there(experiment: Experiment, record: Record) -> bool:
    """Whether the trained weights are."""
    return (experiment.workdir.stage("encoder") / "model.safetensors").is_file()


def absent(config: Any) -> str:
    """A published encoder, and a tokenizer that no stage trains."""
    if not config.encoder.train:
        return f"encoder {config.encoder.name!r} is pretrained (encoder.train=False); there is nothing to train"
    if not tokenizer_kind(config).trained:
        return f"the tokenizer {config.tokenizer.kind!r} has no stage encoder: there is nothing to do"
    return ""


STAGE = Stage(
    name="encoder",
    run=run,
    players=players,
    preview=preview,
    is_there=is_there,
    absent=absent,
    field="encoder_training",
)
