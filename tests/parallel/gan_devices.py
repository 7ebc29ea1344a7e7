"""Run by test_gan_devices with eight fake devices: a decoder and PatchGAN's discriminator on one device and on eight.

In float64. A discriminator's gradient is the small difference of two large sums, over images and over decoded images,
and AdamW divides it by its own size: in float32 the order of the sums alone moves its norm by 1.5e-5 in the first
step, and its parameters by 3e-5 of a learning rate of 1e-3.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64  # before the package is read: what it names float32 is float64 here
sys.path[:0] = [str(Path(__file__).parents[1] / "stages")]

from pixel_players import pixel_batch, pixel_players  # noqa: E402

from fae_jax.losses.pixel import gan  # noqa: E402
from fae_jax.losses.pixel.patch import PatchDiscriminator  # noqa: E402
from fae_jax.parallel.mesh import make_mesh, put_batch  # noqa: E402
from fae_jax.training.state import create_state  # noqa: E402
from fae_jax.training.step import compile_step  # noqa: E402

# Neither L1 nor pixels of 8 bits: where they jump, the last bit of a sum decides.
GAN = {"adaptive": True, "lecam": 0.1, "lecam_decay": 0.5, "augment": True, "learning_rate": 1e-3}
with mock.patch.object(
    gan, "PatchDiscriminator", lambda **fields: PatchDiscriminator(**fields | {"dtype": jnp.float64})
):
    PLAYERS = pixel_players((("l2", 1.0), ("gan", 0.5, 1)), gan=GAN, batch=16, learning_rate=1e-3)


def curve(devices, parts):
    mesh = make_mesh(devices=devices)
    state, step, rows = create_state(PLAYERS, 0, mesh), compile_step(PLAYERS, parts, 0, mesh), []
    for number in range(4):
        batch = pixel_batch(number, 16)
        batch["features"] = batch["features"].astype("float64")
        state, metrics = step(state, {}, put_batch(batch, mesh))
        rows.append({name: float(value) for name, value in metrics.items()})
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.players["gan"].params)} == {"float64"}
    return rows


print(json.dumps({"one": curve(jax.devices()[:1], 1), "eight": curve(jax.devices(), 2)}))
