"""Training an encoder of one's own, where none is published for the images at hand (quickstart).

A ViT sees images with a share of patches blanked and learns two things at once, from its patch tokens p_i:

    L = CE(W' mean p_i + b', label) + λ mean over all i ‖W p_i + b − pixels_i‖² / (3 patch²)          (1)

so that they hold what the image is of (as a supervised encoder's) and what it looks like (as MAE's,
arXiv 2111.06377). Images are also shifted by up to `shift` pixels.

image → blanked image → ViT → (class logits, pixels of all patches) → loss
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from jaxtyping import Array

from fae_jax.encoders import small
from fae_jax.encoders.vit import ViT
from fae_jax.networks import init_params, trained_encoder
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import patchify, sincos_table, unpatchify
from fae_jax.parallel.hosts import fetch, is_first
from fae_jax.section import at_least, like, option, share
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.images import side_by_side, to_pixels, to_uint8
from fae_jax.training.loop import Task
from fae_jax.training.optimizer import TrainingSection, make_optimizer
from fae_jax.training.state import Player, TrainState


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


def run(experiment: Experiment) -> None:
    """Trains it, and leaves `encoder/config.json` and `encoder/model.safetensors`."""
    section, config = experiment.config.encoder_training, trained_encoder(experiment.config)
    module = ViT(config, dtype=jnp.dtype(experiment.config.compute.dtype), scan=experiment.config.compute.scan)
    to_patch = Dense(config.patch**2 * 3)
    size = experiment.config.data.image_size
    grid = config.grid(size, size)
    tokens = grid[0] * grid[1]

    def init(key: Array) -> dict[str, Any]:
        keys = jax.random.split(key)
        vit = init_params(module, keys[0], jnp.zeros((1, size, size, 3)))
        # Sines of full size from the start: a table of small numbers leaves a young ViT blind to where patches are.
        table = vit["trunk"]["position_table"]
        vit["trunk"]["position_table"] = table.at[-tokens:].set(sincos_table(config.width, grid))
        return {"vit": vit, "to_patch": init_params(to_patch, keys[1], jnp.zeros((1, tokens, config.width)))}

    def forward(params: Any, images: Array, blank: Array) -> tuple[Array, Array]:
        seen = unpatchify(jnp.where(blank[..., None], 0.0, patchify(images, config.patch)), grid, config.patch)
        out = module.apply({"params": params["vit"]}, seen)
        logits = module.apply({"params": params["vit"]}, out.patches, out.cls, method="classify")
        return logits, to_patch.apply({"params": params["to_patch"]}, out.patches)

    def loss(params: Any, frozen: Mapping[str, Any], batch: Mapping[str, Array], keys: Array, step: Array):
        shift_keys, blank_keys = rearrange(jax.vmap(jax.random.split)(keys), "b two -> two b")
        images = shift_images(to_pixels(batch["image"]), shift_keys, section.shift)
        blank = blank_patches(blank_keys, tokens, section.mask)
        logits, patches = forward(params, images, blank)
        wanted = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), section.label_smoothing)
        class_loss = jnp.mean(optax.softmax_cross_entropy(logits, wanted))
        pixel_loss = jnp.mean((patches - patchify(images, config.patch)) ** 2)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        total = class_loss + section.reconstruction_weight * pixel_loss
        return total, {"class_loss": class_loss, "pixel_loss": pixel_loss, "accuracy": accuracy}

    shown = experiment.preview_batch()
    images = to_pixels(shown["image"])
    blank = blank_patches(jax.random.split(jax.random.key(0), len(images)), tokens, section.mask)

    @jax.jit
    def paint(params: Any) -> tuple[Array, Array]:
        seen = jnp.where(blank[..., None], 0.0, patchify(images, config.patch))
        filled = jnp.where(blank[..., None], forward(params, images, blank)[1], patchify(images, config.patch))
        return unpatchify(seen, grid, config.patch), unpatchify(filled, grid, config.patch)

    def preview(state: TrainState) -> tuple[np.ndarray, str]:
        rows = [to_uint8(part) for part in (images, *paint(experiment.best_params(state, "encoder")))]
        return side_by_side(rows), "held-out images; with patches blanked; blanked patches filled in by the encoder"

    player = Player(init=init, loss=loss, optimizer=make_optimizer(section))
    task = Task(
        name="encoder",
        players={"encoder": player},
        frozen={},
        batches=experiment.loader(section.batch).at,
        seed=experiment.seed("encoder"),
        field="encoder_training",
        section=section,
        preview=preview,
    )
    state = experiment.train(task)
    params = fetch(experiment.best_params(state, "encoder"))
    settings = {"steps": section.steps, "batch": section.batch, "objective": "class + blanked patches"}
    if is_first():
        small.save(experiment.workdir.stage("encoder"), config, params["vit"], settings)
