"""Run by test_sharding with eight fake devices: trains, looks where everything lies, and prints what it saw."""

import contextlib
import functools
import itertools
import json
import tempfile
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType
from toy import batch, player
from toy import section as player_section

from fae_jax.config import check, default_config
from fae_jax.parallel.mesh import AXES, batch_divisor, make_mesh, put_batch
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.loop import Task, abstract_state, train
from fae_jax.training.monitoring import read_metrics
from fae_jax.training.state import create_state
from fae_jax.training.step import compile_step

WIDTH, SIZE, STEPS = 128, 16, 4  # a kernel of 128 × 128 is just large enough to be split
PLAYERS = {"toy": player(WIDTH, learning_rate=1e-3)}


def mesh_of(replica: int, fsdp: int, tensor: int = 1) -> jax.sharding.Mesh:
    devices = jax.devices()[: replica * fsdp * tensor]
    return jax.make_mesh((replica, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def run(mesh, state, steps):
    step, losses = compile_step(PLAYERS, 1, 0, mesh), []
    for number in steps:
        state, metrics = step(state, {}, put_batch(batch(number, SIZE, WIDTH), mesh))
        losses.append(float(metrics["loss"]))
    return state, losses


def share(tree) -> float:
    """The largest share of a tree's bytes that one device holds."""
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    held = [
        sum(
            piece.data.nbytes
            for leaf in jax.tree.leaves(tree)
            for piece in leaf.addressable_shards
            if piece.device == d
        )
        for d in jax.devices()
    ]
    return max(held) / total


mesh = make_mesh()
state = create_state(PLAYERS, 0, mesh)
lowered = compile_step(PLAYERS, 1, 0, mesh).lower(state, {}, put_batch(batch(0, SIZE, WIDTH), mesh)).as_text()
initial = state
state, losses = run(mesh, state, range(STEPS))
own = state.players["toy"]
adam = next(
    part for part in jax.tree.leaves(own.optimizer, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x := part, "mu")
)
_, alone = run(mesh_of(1, 1), create_state(PLAYERS, 0, mesh_of(1, 1)), range(STEPS))

restored = {}
with tempfile.TemporaryDirectory() as folder:
    checkpoints = Checkpoints(Path(folder) / "checkpoints")
    checkpoints.save(STEPS, state)
    checkpoints.close()
    _, onward = run(mesh, jax.tree.map(lambda leaf: leaf + 0, state), [STEPS])
    for name, other in {"4x2": mesh_of(4, 2), "2x4": mesh_of(2, 4), "1": mesh_of(1, 1)}.items():
        _, back = checkpoints.restore(abstract_state(PLAYERS, other))
        equal = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), back, state)
        params = checkpoints.read_params("toy", other, "0.9")
        averages = own.optimizer[-1].averages["0.9"]
        _, loss = run(other, back, [STEPS])
        restored[name] = {
            "bitwise": all(jax.tree.leaves(equal)),
            "average": all(
                jax.tree.leaves(
                    jax.tree.map(lambda a, b: bool((a == b).all()), *map(jax.device_get, (params, averages)))
                )
            ),
            "devices": len(jax.tree.leaves(back)[0].sharding.device_set),
            "next": loss[0],
        }


def trained(directory, meshes, ends):
    """The curve of `train`, which the data stops at each of `ends` and which then goes on on the next mesh."""
    section, config, seen = player_section(learning_rate=1e-3, steps=12, batch=SIZE), default_config(), []
    with config.unlocked():
        config.logging.update({"every": 1, "tensorboard": False})
        config.checkpoint.every = 3

    def batches(start, end):
        for number in itertools.count(start):
            if number == end:
                raise OSError("the machines are taken away")
            seen.append(number)
            yield batch(number, SIZE, WIDTH)

    for mesh, end in zip(meshes, [*ends, None], strict=True):
        read = functools.partial(batches, end=end)
        task = Task(name="toy", players=PLAYERS, frozen={}, batches=read, seed=0, section=section)
        with contextlib.suppress(OSError):
            train(task, directory, mesh, check(config))
    rows = read_metrics(directory / "metrics.jsonl")
    return {"seen": seen, "steps": [row["step"] for row in rows], "losses": [row["loss"] for row in rows]}


with tempfile.TemporaryDirectory() as folder:
    whole = trained(Path(folder) / "whole", [mesh_of(1, 8)], [])
    reshaped = trained(Path(folder) / "parts", [mesh_of(1, 8), mesh_of(1, 4), mesh_of(1, 8)], [4, 8])

print(
    json.dumps(
        {
            "devices": len(jax.devices()),
            "divisor": [batch_divisor(mesh), batch_divisor(mesh_of(4, 2)), batch_divisor(mesh_of(2, 2, 2))],
            "shares": {
                "params": share(own.params),
                "mu": share(adam.mu),
                "nu": share(adam.nu),
                "ema": share(own.optimizer[-1].averages),
            },
            "donated": all(leaf.is_deleted() for leaf in jax.tree.leaves(initial)),
            "constraint": [
                line for line in lowered.splitlines() if "harding" in line and f"<{SIZE}x{WIDTH}xf32>" in line
            ],
            "losses": losses,
            "alone": alone,
            "onward": onward[0],
            "restored": restored,
            "whole": whole,
            "reshaped": reshaped,
        }
    )
)
