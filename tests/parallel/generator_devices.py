"""Run by test_generator_devices with eight fake devices: MeanFlow, STARFlow and post-training on one and on eight."""

import functools
import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "stages")]

from running import TINY  # noqa: E402
from test_post_training import toy  # noqa: E402

from fae_jax.config import check, load_config, with_values  # noqa: E402
from fae_jax.diffusion.samplers import sample_keys  # noqa: E402
from fae_jax.parallel.mesh import make_mesh, put_batch, replicated  # noqa: E402
from fae_jax.parallel.rules import constrained  # noqa: E402
from fae_jax.stages import generator as stage  # noqa: E402
from fae_jax.stages.outline import Shapes  # noqa: E402
from fae_jax.training.optimizer import make_optimizer  # noqa: E402
from fae_jax.training.state import Player, create_state  # noqa: E402
from fae_jax.training.step import compile_step  # noqa: E402

SIZES = {"width": 128, "depth": 1, "heads": 4, "hidden": 128}  # just large enough to be split
KINDS = {
    "starflow": {**SIZES, "shallow_blocks": 1, "shallow_depth": 1, "block": 8, "iterations": 1},
    "mean_flow": {"guidance": "asked", **{f"dit.{name}": value for name, value in SIZES.items()}},
}
WATCHED = {"starflow": "bits_per_dimension", "mean_flow": "squared_error"}


def batch(number):
    random = np.random.default_rng(number)
    latents, label = random.normal(size=(16, 16, 4)).astype(np.float32), random.integers(0, 10, 16)
    return {"z": latents, "label": label.astype(np.int32)}


def run(kind, devices, parts):
    fields = {f"generator.{kind}.{name}": value for name, value in KINDS[kind].items()}
    fields |= {"generator.kind": kind, "sampling.guidance": ((0.0, 1.0, 2.0),), "sampling.steps": 2}
    fields |= {"generator.learning_rate": 1e-3, "generator.ema": (0.9,)}
    config, mesh = check(with_values(load_config(str(TINY)), fields)), make_mesh(devices=devices)
    generator = stage.generator_of(Shapes(config, mesh))

    def loss(params, frozen, batch, keys, step):
        return generator.loss(params, batch["z"], batch["label"], keys, step)

    players = {"generator": Player(init=generator.init, loss=loss, optimizer=make_optimizer(config.generator))}
    state, step, losses = create_state(players, 0, mesh), compile_step(players, parts, 0, mesh), []
    for number in range(3):
        state, metrics = step(state, {}, put_batch(batch(number), mesh))
        losses.append(float(metrics[WATCHED[kind]]))
    params = state.players["generator"].params
    draw = functools.partial(generator.sample, settings=config.sampling)
    drawn = jax.jit(constrained(draw, mesh))(params, sample_keys(0, np.arange(8)), np.arange(8, dtype=np.int32))
    largest = max(jax.tree.leaves(params), key=lambda leaf: leaf.size)
    return {
        "losses": losses,
        "drawn": np.asarray(drawn).tolist(),
        "held": largest.addressable_shards[0].data.size / largest.size,
    }


def post_train(decay, devices):
    """Distances, and the memory and the parameters at the end."""
    mesh, (players, frozen) = make_mesh(devices=devices), toy(decay)
    frozen = jax.device_put(frozen, replicated(mesh))
    state, step, losses = create_state(players, 0, mesh), compile_step(players, 1, 0, mesh), []
    for _ in range(7):
        state, metrics = step(state, frozen, put_batch({"index": np.zeros(64, np.int32)}, mesh))
        losses.append(float(metrics["frechet_whole"]))
    return [losses, np.asarray(state.players["generator"].params["kernel"]).tolist()]


result = {kind: [run(kind, jax.devices()[:1], 1), run(kind, jax.devices(), 2)] for kind in KINDS}
places = (jax.devices()[:1], jax.devices())
result["post_training"] = {decay: [post_train(decay, devices) for devices in places] for decay in (0.0, 0.8)}
print(json.dumps(result))
