"""A trained FAE whose every number can be said beforehand: images of four pixels, four tokens of three channels.

x of a token is its pixel's colour, z its first two channels, and x̂ puts a zero (or `blue`) in place of the third.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from fae_jax.config import default_config
from fae_jax.encoders.registry import Encoder, EncoderOutput
from fae_jax.evaluation.views import View
from fae_jax.model import FAE
from fae_jax.parallel.mesh import make_mesh

GRID, WIDTH = (2, 2), 3


def fake_encoder(*, cls: bool = True, **more) -> Encoder:
    """An encoder whose class token is the image's brightest value per channel."""

    def apply(params, pixels):
        tokens = pixels.reshape(len(pixels), 4, WIDTH)
        return EncoderOutput(tokens, tokens.max(axis=1) if cls else None)

    def keep(params, pixels, count):
        output = apply(params, pixels)
        older = [(output.patches, output.cls - age) for age in reversed(range(count))]
        return output._replace(layers=tuple(older))

    fields = {"keep": keep if cls else None, **more}
    return Encoder(
        name="fake",
        apply=apply,
        params={},
        preprocess=lambda images: images,
        grid=GRID,
        width=WIDTH,
        weights_hash="0" * 64,
        **fields,
    )


class FakeFAE(FAE):
    """With `faithful`, z is x, and so is x̂."""

    def __init__(self, encoder=None, *, classes=3, blue=0.0, image_size=2, faithful=False):
        encoder = encoder or fake_encoder()
        self.config = default_config()
        self.config.data.classes, self.config.data.image_size = classes, image_size
        self.config.sampling.batch = 4
        self.config.compute.dtype = "float32"
        self.tokenizer = SimpleNamespace(grid=encoder.grid, width=encoder.width, encoder=encoder)
        self.blue, self.faithful = blue, faithful
        self.parts = SimpleNamespace(params=lambda part, ema="": encoder.params, mesh=make_mesh())

    def spread(self, images):
        return jnp.asarray(images)

    def compress(self, features):
        return jnp.asarray(features) if self.faithful else jnp.asarray(features)[..., :2]

    def reconstruct_features(self, latents):
        if self.faithful:
            return jnp.asarray(latents)
        return jnp.concatenate([jnp.asarray(latents), jnp.full((*latents.shape[:-1], 1), self.blue)], axis=-1)


class Images:
    """A source of random images of four pixels; image i has class i mod `classes`, and captions where given."""

    def __init__(self, count, *, classes=3, seed=0, captions=None):
        self.captions, self.captioned = captions, captions is not None
        self.images = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
        self.classes, self.fingerprint = tuple(map(str, range(classes))), "f"

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        label = np.int32(position % len(self.classes))
        element = {"image": self.images[position], "label": label, "index": np.int64(position)}
        return element | {"captions": self.captions[position]} if self.captioned else element


def view(fae, images, labels=None, *, layers=0):
    """One batch of images (b, 2, 2, 3) uint8 without filling."""
    count = len(images)
    labels = np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32)
    return View(fae, {"image": images, "label": labels, "mask": np.ones(count, bool)}, layers)


def colours(images):
    """x of uint8 images."""
    return images.reshape(len(images), 4, 3).astype(np.float32) / 127.5 - 1
