"""Run by test_tensor with eight fake devices: a small DiT trained on several meshes, and where everything lay."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from toy import section

import fae_jax.parallel.mesh as mesh_module
from fae_jax.generators.networks.dit import DiT
from fae_jax.nn.params import init_params
from fae_jax.parallel.mesh import make_mesh, put_batch
from fae_jax.training.optimizer import make_optimizer
from fae_jax.training.state import Player, create_state
from fae_jax.training.step import compile_step

STEPS, SIZE, TOKENS, CHANNELS = 20, 16, 16, 4
DIT = DiT(grid=(4, 4), classes=10, width=128, depth=2, heads=4, hidden=192, qk_norm=True, remat="qkv")
ODD = DIT.clone(width=100, heads=5, hidden=150)  # 4 divides its widths, and 8 does not


def players(dit):
    def init(key):
        latents, label = jnp.zeros((1, TOKENS, CHANNELS)), jnp.zeros((1,), jnp.int32)
        return init_params(dit, key, latents, jnp.zeros((1,)), label)

    def loss(params, frozen, batch, keys, step):
        noise = jax.vmap(lambda key: jax.random.normal(key, (TOKENS, CHANNELS)))(keys)
        velocity = dit.apply({"params": params}, batch["z"] + noise, batch["t"], batch["label"])
        return jnp.mean((velocity - noise + batch["z"]) ** 2), {}

    optimizer = make_optimizer(section(learning_rate=1e-3, ema=(0.9,)))
    return {"dit": Player(init=init, loss=loss, optimizer=optimizer)}


def batch(step):
    random = np.random.default_rng(step)
    return {
        "z": random.normal(size=(SIZE, TOKENS, CHANNELS)).astype(np.float32),
        "t": random.uniform(size=SIZE).astype(np.float32),
        "label": random.integers(0, 11, SIZE).astype(np.int32),
    }


def bytes_held(tree):
    """Bytes on each device, and of the whole tree."""
    leaves = jax.tree.leaves(tree)
    held = [sum(p.data.nbytes for x in leaves for p in x.addressable_shards if p.device == d) for d in jax.devices()]
    return {"largest": max(held), "total": sum(x.nbytes for x in leaves)}


def run(sizes, parts, dit=DIT):
    devices, trained = jax.devices()[: np.prod(sizes)], players(dit)
    mesh = make_mesh(*sizes, devices=devices)
    state, step, losses = create_state(trained, 0, mesh), compile_step(trained, parts, 0, mesh), []
    lowered = step.lower(state, {}, put_batch(batch(0), mesh)).as_text()
    for number in range(STEPS):
        state, metrics = step(state, {}, put_batch(batch(number), mesh))
        losses.append(float(metrics["loss"]))
    own = state.players["dit"]
    adam = next(x for x in jax.tree.leaves(own.optimizer, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu"))
    trees = {"params": own.params, "mu": adam.mu, "nu": adam.nu, "ema": own.optimizer[-1].averages}
    return {
        "losses": losses,
        "held": {name: bytes_held(tree) for name, tree in trees.items()},
        "qkv": str(own.params["blocks"]["block"]["attention"]["qkv"]["kernel"].sharding.spec),
        "out": str(own.params["blocks"]["block"]["attention"]["out"]["kernel"].sharding.spec),
        "constraints": sorted({line.split(" : ")[0].split("<", 1)[1] + line.split(" : ")[1]
                               for line in lowered.splitlines() if "sharding_constraint" in line}),
    }  # fmt: skip


meshes = {"1": ((1, 1, 1), 1), "1,8,1": ((1, 8, 1), 1), "2,4,1": ((2, 4, 1), 2)}
meshes |= {"1,4,2": ((1, 4, 2), 1), "2,2,2": ((2, 2, 2), 1)}
seen = {name: run(*how) for name, how in meshes.items()}
mesh_module.FSDP_FIRST = 4  # as if eight devices were more than the widths of networks divide by
seen |= {"odd": run((1, 1, 1), 1, ODD), "odd 1,8,1": run((1, 8, 1), 1, ODD)}
print(json.dumps(seen))
