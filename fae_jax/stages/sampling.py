"""Samples of a model, drawn into a folder: samples.npz, grid.png, settings.json."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from fae_jax.data.pixels import to_uint8
from fae_jax.files.paths import Path
from fae_jax.files.writing import write_file, write_json
from fae_jax.model import FAE
from fae_jax.nn.params import count
from fae_jax.stages.figures import class_grid


def choose_labels(classes: Sequence[int], number: int, policy: str, seed: int) -> np.ndarray:
    """`number` labels: "balanced", the classes in turn, as many of each, or "random", each drawn by itself."""
    if policy == "random":
        return np.random.default_rng(seed).choice(np.asarray(classes, np.int32), number)
    return np.resize(np.asarray(classes, np.int32), number)


def draw(
    fae: FAE,
    folder: Path,
    labels: np.ndarray,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: Any = "config",
    single: bool = False,
    seed: int = 0,
    ema: str | None = "",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Samples one image per label into `folder`; as `single` files too, in place of those of an earlier call.

    Returns:
      {"images": uint8 (n, y, x, 3), "labels": (n,), "sampling": how they were made}.
    """
    settings = fae.settings(guidance=guidance, sampler=sampler, steps=steps)
    condition = fae.generator.condition.request(labels)
    pieces = fae.images(condition, settings, seed=seed, ema=ema, progress=progress)
    images = np.concatenate([to_uint8(piece) for piece in pieces])
    sampling = {
        "sampler": settings.sampler,
        "steps": settings.steps,
        "function_evaluations": fae.generator.evaluations(settings),
        "guidance": fae.config.sampling.guidance if guidance == "config" else guidance,
        "label_policy": settings.labels,
        "seed": seed,
        **fae.parts.read_generator.get(ema, {}),
        "shift": settings.shift,
        "last_step": settings.last_step,
        "dtype": settings.dtype or fae.config.compute.dtype,
    }
    grid = class_grid(images, labels, fae.classes or ("all",))
    write_file(folder / "samples.npz", lambda file: np.savez(file, images=images, labels=labels))
    write_file(folder / "grid.png", lambda file: grid.save(file, "PNG"))
    if single:
        for earlier in (folder / "images").glob("*-*.png"):
            earlier.unlink()
        names = [re.sub(r"[^\w.-]+", "_", name) for name in fae.classes] or ["all"]
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / "images" / f"{number:06d}-{names[label]}.png"
            write_file(file, lambda file, image=image: Image.fromarray(image).save(file, "PNG"))
    write_json(folder / "settings.json", {**sampling, "count": len(labels)})
    return {"images": images, "labels": labels, "sampling": sampling}


def write_sizes(fae: FAE, root: Path) -> None:
    """Writes `sizes.json`: shapes of image, features and latent, and parameters by network."""
    size, tokenizer = fae.config.data.image_size, fae.tokenizer
    parameters = {part: count(tokenizer.shapes(part)) for part in (*tokenizer.encodes, *tokenizer.decodes)}
    generator = fae.generator
    fixed = getattr(getattr(generator, "network", None), "fixed_values", 0)
    parameters["generator"] = count(jax.eval_shape(generator.init, jax.random.key(0))) + fixed
    sizes = {
        "image": [size, size, 3],
        "features": [*tokenizer.grid, getattr(tokenizer, "width", tokenizer.channels)],
        "latent": [*tokenizer.grid, tokenizer.channels],
        "parameters": parameters,
    }
    write_json(root / "sizes.json", sizes)
