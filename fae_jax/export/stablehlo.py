"""A trained model as StableHLO programs with their weights beside, which run with jax and numpy alone.

    encode     images (b, y, x, 3) → mean and log-variance of their latents, (b, rows, columns, c)
    decode     latents (b, rows, columns, c) → images
    generate   labels (b,), seed, first → images; image i is that of `FAE.generate` for (seed, first + i, label i)

Each is a file written by `jax.export`: for any batch size b, for CPU, CUDA and TPU. Weights are its arguments, not
its constants, and lie in one `.npz` for each part. `run.py`, which is `fae_jax.export.stablehlo_run`, goes with them.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path as LocalPath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import export
from jaxtyping import Array

from fae_jax import __version__
from fae_jax.diffusion.guidance import make_schedule, of_kind
from fae_jax.diffusion.samplers import sample_keys
from fae_jax.export import stablehlo_run
from fae_jax.files.moving import new_folder
from fae_jax.files.paths import Path
from fae_jax.files.storage import sha256
from fae_jax.files.writing import write_atomically, write_json
from fae_jax.model import FAE
from fae_jax.parallel.hosts import fetch
from fae_jax.parts import Parts
from fae_jax.weights import flatten

PLATFORMS = ("cpu", "cuda", "tpu")
FEW_STEPS = 8  # steps of the program beside the configured one, where nobody says otherwise
Program = tuple[Callable[..., Any], tuple[str, ...], Any]


def portable(parts: Parts) -> Parts:
    """The same parts, computed by what every platform has; blocks are looped over, so that programs are small."""
    made = copy.copy(parts)
    compute = dataclasses.replace(parts.config.compute, kernel="cpu", scan=True)
    made.config = dataclasses.replace(parts.config, compute=compute)
    for name in ("tokenizer", "encoder"):
        made.__dict__.pop(name, None)
    return made


def programs(fae: FAE, steps: tuple[int | None, ...]) -> dict[str, Program]:
    """{name: (function of parameters and inputs, the parts it reads, shapes of its inputs)}; b is any batch size.

    Args:
      steps: a program that generates for each; None is the configured sampler, a number that many Euler steps.

    Raises:
      ValueError: the generator is told something else than a class or nothing.
    """
    tokenizer, size = fae.tokenizer, fae.config.data.image_size
    (b,) = export.symbolic_shape("b")
    grid = tokenizer.grid
    images = jax.ShapeDtypeStruct((b, size, size, 3), jnp.float32)
    latents = jax.ShapeDtypeStruct((b, *grid, tokenizer.channels), jnp.float32)

    def encode(params: Any, images: Array) -> tuple[Array, ...]:
        return tuple(rearrange(x, "b (y x) c -> b y x c", y=grid[0]) for x in tokenizer.encode(params, images))

    def decode(params: Any, latents: Array) -> Array:
        return tokenizer.decode(params, rearrange(latents, "b y x c -> b (y x) c"))

    made: dict[str, Program] = {
        "encode": (encode, tokenizer.encodes, (images,)),
        "decode": (decode, tokenizer.decodes, (latents,)),
    }
    if not fae.parts.has_generator:
        return made
    nothing = fae.generator.condition.none(1)
    if not isinstance(nothing, Array) or nothing.shape != (1,):
        raise ValueError("a generator that is told more than a class cannot be exported as stablehlo: use bundle")
    number = jax.ShapeDtypeStruct((), jnp.uint32)
    inputs = (jax.ShapeDtypeStruct((b,), nothing.dtype), number, number)
    statistics, generator = fae.parts.statistics, fae.generator
    if of_kind(make_schedule(fae.config.sampling.guidance), "auto"):
        raise ValueError("autoguidance needs a second network, which stablehlo does not hold: set sampling.guidance")
    for count in steps:
        settings = fae.settings() if count is None else fae.settings(sampler="euler", steps=count)

        def generate(params: Any, labels: Array, seed: Any, first: Array, settings: Any = settings) -> Array:
            keys = sample_keys(seed, first + jnp.arange(labels.shape[0], dtype=jnp.uint32))
            latents = generator.sample(params["generator"], keys, labels, settings)
            return tokenizer.decode(params, statistics.unstandardise(latents))

        name = "generate" if count is None else f"generate_{count}_steps"
        made[name] = (generate, ("generator", *tokenizer.decodes), inputs)
    return made


def write_stablehlo(
    parts: Parts,
    folder: Path,
    *,
    ema: str | None = "",
    provenance: Mapping[str, Any] | None = None,
    few_steps: int = FEW_STEPS,
) -> Path:
    """See the module; `folder`, which is returned, is there whole or not at all.

    Args:
      parts, ema, provenance: see `fae_jax.bundle.write_bundle`.
      few_steps: Euler steps of a second program that generates, for small devices; 0 for none.

    Raises:
      ValueError: the folder is not empty, a part is not trained yet, the model cannot be exported, or flatbuffers is
        missing.
    """
    flatbuffers, fae = _flatbuffers(), FAE(portable(parts))
    chosen = programs(fae, (None, few_steps) if few_steps else (None,))
    with new_folder(folder, last="model.json") as into:
        trees = {}
        for part in dict.fromkeys(part for _, read, _ in chosen.values() for part in read):
            trees[part] = fetch(fae.parts.params(part, ema if part == "generator" else ""))
            np.savez(into / f"{part}.npz", **flatten(trees[part]))
        described: dict[str, dict[str, Any]] = {}
        for name, (function, read, inputs) in chosen.items():
            shapes = {part: jax.tree.map(jax.typeof, trees[part]) for part in read}
            exported = export.export(jax.jit(function), platforms=PLATFORMS)(shapes, *inputs)
            (into / f"{name}.jax").write_bytes(exported.serialize())
            described[name] = {"reads": list(read), "bytes": (into / f"{name}.jax").stat().st_size}
            if name == "generate":
                described[name] |= {"steps": fae.config.sampling.steps}
            elif name.startswith("generate"):
                described[name] |= {"steps": few_steps, **_measured(exported, {part: trees[part] for part in read})}
        shutil.copyfile(stablehlo_run.__file__, into / "run.py")
        shutil.copytree(flatbuffers, into / "flatbuffers", ignore=shutil.ignore_patterns("__pycache__"))
        content = _content(fae, described, ema, provenance)
        write_atomically(into / "README.md", _card(into, content))
        files = {str(path.relative_to(into)): sha256(path) for path in sorted(into.rglob("*")) if path.is_file()}
        write_json(into / "model.json", {**content, "files": files})
    return folder


def _measured(exported: export.Exported, params: Any) -> dict[str, Any]:
    """Seconds of one image on this machine, once compiled."""
    run, params, seconds = jax.jit(exported.call), jax.device_put(params), 0.0
    for _ in range(2):
        begun = time.perf_counter()
        run(params, np.zeros(1, np.int32), np.uint32(0), np.uint32(0)).block_until_ready()
        seconds = time.perf_counter() - begun
    return {"seconds_per_image": round(seconds, 4), "measured_on": jax.devices()[0].device_kind}


def _flatbuffers() -> LocalPath:
    """The folder of the package by which jax writes and reads its files: pure Python, and no dependency of jax."""
    spec = importlib.util.find_spec("flatbuffers")
    if spec is None or spec.origin is None:
        raise ValueError("the format stablehlo needs the package flatbuffers: pip install flatbuffers")
    return LocalPath(spec.origin).parent


def _content(fae: FAE, described: dict[str, Any], ema: str | None, provenance: Mapping[str, Any] | None) -> Any:
    config = fae.config
    has_generator = fae.parts.has_generator
    return {
        "format": stablehlo_run.FORMAT,
        "name": config.name,
        "versions": {
            "fae_jax": __version__,
            **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        },
        "platforms": PLATFORMS,
        "image_size": config.data.image_size,
        "latent": [*fae.tokenizer.grid, fae.tokenizer.channels],
        "labels": fae.generator.condition.classes if has_generator else 0,
        "classes": fae.classes if has_generator else (),
        "batch": config.sampling.batch,
        "sampling": dataclasses.asdict(config.sampling) if has_generator else {},
        "generator": fae.parts.read_generator.get(ema, {}),
        "programs": described,
        "provenance": dict(provenance or {}),
    }


def _card(into: LocalPath, content: Mapping[str, Any]) -> str:
    rows = []
    for name, program in content["programs"].items():
        weights = sum((into / f"{part}.npz").stat().st_size for part in program["reads"])
        seconds = f"{program['seconds_per_image']} on {program['measured_on']}" if "measured_on" in program else ""
        steps = program.get("steps", "")
        rows.append(f"| {name} | {steps} | {program['bytes'] / 1e6:.2f} | {weights / 1e6:.2f} | {seconds} |")
    made_of = "\n".join(f"- {name}: `{value}`" for name, value in content["provenance"].items())
    table = "\n".join(rows)
    return f"""# {content["name"] or "FAE"}

A Feature Auto-Encoder (arXiv 2512.07829) as programs for {", ".join(PLATFORMS)}, written by fae_jax {__version__}
with jax {jax.__version__}. `run.py` needs jax and numpy; jax promises to read such files for six months.

| program | steps | program, MB | weights, MB | seconds per image, one at a time |
|---|---|---|---|---|
{table}

```sh
python run.py --labels 0,1 --seed 0 --out images.npz
```

```python
from run import Model

model = Model()
images = model.generate([0, 1], seed=0)         # in [−1, 1]
latents = model.encode(images)
images = model.decode(latents)
```

{made_of}
"""
