"""Run by test_gan_devices with eight fake devices: a decoder and its discriminator on one device and on eight."""

import json
import sys
from pathlib import Path

import jax

sys.path[:0] = [str(Path(__file__).parents[1] / "stages")]

from pixel_players import pixel_batch, pixel_players  # noqa: E402

from fae_jax.parallel.mesh import make_mesh, put_batch  # noqa: E402
from fae_jax.training.state import create_state  # noqa: E402
from fae_jax.training.step import compile_step  # noqa: E402

# Neither L1 nor pixels of 8 bits: where they jump, the last bit of a sum decides.
GAN = {"adaptive": True, "lecam": 0.1, "lecam_decay": 0.5, "augment": True, "learning_rate": 1e-3}
PLAYERS = pixel_players((("l2", 1.0), ("gan", 0.5, 2)), gan=GAN, linear=True, batch=16, learning_rate=1e-3)


def curve(devices, parts):
    mesh = make_mesh(devices=devices)
    state, step, rows = create_state(PLAYERS, 0, mesh), compile_step(PLAYERS, parts, 0, mesh), []
    for number in range(5):
        state, metrics = step(state, {}, put_batch(pixel_batch(number, 16), mesh))
        rows.append({name: float(value) for name, value in metrics.items()})
    return rows


print(json.dumps({"one": curve(jax.devices()[:1], 1), "eight": curve(jax.devices(), 2)}))
