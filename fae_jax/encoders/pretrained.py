"""Published encoders, frozen: every name of `published.ENCODERS` answers to `create`.

`weights` is a folder as `transformers` writes it (config.json beside safetensors), one safetensors file, a hub name
(owner/name or owner/name@revision), or None for the repository the name stands for.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fae_jax.encoders.preprocess import Preprocessing, preparer
from fae_jax.encoders.published import ENCODERS, Published
from fae_jax.encoders.recognise import Recognised, recognise
from fae_jax.encoders.registry import Encoder, EncoderOutput, register
from fae_jax.encoders.vit import INTERPOLATIONS, ViT, ViTConfig
from fae_jax.weights import hub, mapping, open_tensors
from fae_jax.weights.tensors import Tensors

COMBINE = ("mean", "sum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """Where a network's files are: tensors, the contents of its config.json, its preprocessing, the hub's commit."""

    source: str
    folder: Path
    tensors: Tensors
    fields: Mapping[str, Any]
    preprocessing: Preprocessing | None
    commit: str | None = None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} instead of fields; fetch it again")
    return content


def find_files(weights: str | None, entry: Published | None, *, revision: str | None = None) -> Files:
    """Opens what `weights` names; a hub name is fetched if it is not in the cache.

    Args:
      entry: what the asked name stands for; its repository is the default, its fields stand in where a single file
        has no config.json beside it.

    Raises:
      FileNotFoundError, ValueError, OSError: see `fae_jax.weights.hub.pull` and `open_tensors`.
    """
    commit = None
    source = weights or (entry.repository if entry else "")
    path = Path(source)
    if not path.exists():
        if not hub.is_hub_name(source) or path.suffix == ".safetensors":
            raise FileNotFoundError(f"weights {source!r} are neither a file, a folder nor a hub name (owner/name)")
        pulled = hub.pull(source, revision=revision)
        path, commit = pulled.folder, pulled.commit
    tensors = open_tensors(path)
    folder = path if path.is_dir() else path.parent
    fields: Mapping[str, Any]
    if (folder / "config.json").is_file():
        fields = _json(folder / "config.json")
    elif entry is not None:
        fields = entry.fields
    else:
        raise FileNotFoundError(f"{folder} holds no config.json, which says what network the weights are of")
    prepared = folder / "preprocessor_config.json"
    preprocessing = Preprocessing.from_json(_json(prepared)) if prepared.is_file() else None
    if preprocessing is None and entry is not None:
        preprocessing = entry.preprocessing
    return Files(
        source=source, folder=folder, tensors=tensors, fields=fields, preprocessing=preprocessing, commit=commit
    )


def _same_network(name: str, found: ViTConfig, entry: Published) -> None:
    """Raises ValueError where weights describe another network than the name stands for (heads and options aside)."""
    wanted = recognise(entry.fields).config
    free: dict[str, Any] = {
        "classes": 0,
        "classifier": "cls",
        "projection": 0,
        "pooling": "none",
        "norm_epsilon": 0.0,
    }
    free |= {"interpolation": "bicubic", "layer_scale": None if found.layer_scale is None else 1.0}
    ours, theirs = (dataclasses.asdict(dataclasses.replace(config, **free)) for config in (wanted, found))
    differing = [
        f"{field} {theirs[field]} instead of {ours[field]}" for field in ours if ours[field] != theirs[field]
    ]
    if differing:
        raise ValueError(f"the weights are not those of {name!r}: {', '.join(differing)}")


def input_side(image_size: int, patch: int) -> int:
    """Side of the encoder's input for images of `image_size`: that size, where it is a multiple of the patch; else
    the size with as many patches as `image_size` has squares of 16 (256 → 224 for patches of 14), as in RAE.

    Raises:
      ValueError: `image_size` is a multiple of neither.
    """
    if image_size % patch == 0:
        return image_size
    if image_size % 16:
        raise ValueError(
            f"image_size={image_size} is a multiple of neither the encoder's patch {patch} nor of 16; "
            f"set input_size to the side the encoder is to read"
        )
    return image_size // 16 * patch


def shapes(config: ViTConfig) -> dict[str, Any]:
    """The parameters' shapes, a nested dict of `jax.ShapeDtypeStruct`s, without allocating any."""
    side = config.patch * 2
    pixels = jax.ShapeDtypeStruct((1, side, side, config.channels), jnp.float32)
    return jax.eval_shape(ViT(config, scan=True).init, jax.random.key(0), pixels)["params"]


def combined(output: EncoderOutput, combine: str) -> EncoderOutput:
    """An output whose patches are the mean or the sum of those of the layers it holds (RAEv2's feature)."""
    patches = [patches for patches, _ in output.layers]
    total = functools.reduce(jnp.add, patches)
    return output._replace(patches=total / len(patches) if combine == "mean" else total)


def build(
    name: str,
    entry: Published | None,
    *,
    weights: str | None,
    image_size: int,
    input_size: int | None = None,
    interpolation: str | None = None,
    resize: str = "bicubic",
    layers: tuple[int, ...] = (),
    combine: str = "mean",
    dtype: str = "float32",
    parameter_dtype: str = "float32",
    kernel: str = "auto",
    scan: bool = True,
    revision: str | None = None,
    place: Callable[[Any], Any] | None = None,
) -> Encoder:
    """Reads a published encoder.

    Args:
      name, entry: what was asked for.
      weights: see the module.
      image_size: side of the square images it will be shown.
      input_size: side they are resized to; None for `input_side`.
      interpolation: how the position table becomes another grid's (`bicubic`, `bicubic_offset`: the first DINOv2
        way, `bicubic_antialias`: the second); None for what the family's reference does.
      resize: how images become that size, see `fae_jax.encoders.preprocess.prepare`.
      layers: blocks, counted from 0 or from the end (−1), whose patches after the last norm are combined into the
        feature; empty for the last alone.
      combine: `mean` or `sum`.
      dtype, kernel, scan: of the computation, see `fae_jax.nn`; parameter_dtype: of the weights in memory.
      revision: of a hub name.
      place: shapes of the parameters → their `jax.sharding.Sharding`s; None for the default device.

    Raises:
      ValueError: an option is unknown, or the weights do not fit; FileNotFoundError, OSError: see `find_files`.
    """
    files = find_files(weights, entry, revision=revision)
    found: Recognised = recognise(files.fields)
    if entry is not None:
        _same_network(name, found.config, entry)
    config, side = _structure(found.config, image_size, input_size, interpolation, combine)
    like = shapes(config)
    params = mapping.load(
        files.source,
        found.names,
        files.tensors,
        like,
        dtype=jnp.dtype(parameter_dtype),
        shardings=None if place is None else place(like),
    )
    made = _assemble(
        *(name, config, params, side, image_size, files.preprocessing, resize, layers, combine),
        ViT(config, dtype=jnp.dtype(dtype), kernel=kernel, scan=scan),
    )
    settings = {"source": files.source, "commit": files.commit, **made.settings}
    return dataclasses.replace(made, weights_hash=files.tensors.hash(), settings=settings)


def outline(
    name: str,
    entry: Published,
    *,
    image_size: int,
    input_size: int | None = None,
    interpolation: str | None = None,
    resize: str = "bicubic",
    layers: tuple[int, ...] = (),
    combine: str = "mean",
    dtype: str = "float32",
    parameter_dtype: str = "float32",
    kernel: str = "auto",
    scan: bool = True,
    revision: str | None = None,
) -> Encoder:
    """A published encoder without its weights: shapes in their place and no hash; arguments as `build`'s.

    Raises:
      ValueError: an option is unknown, or sizes do not fit.
    """
    config, side = _structure(recognise(entry.fields).config, image_size, input_size, interpolation, combine)
    held = jnp.dtype(parameter_dtype)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, held), shapes(config))
    module = ViT(config, dtype=jnp.dtype(dtype), kernel=kernel, scan=scan)
    return _assemble(name, config, params, side, image_size, entry.preprocessing, resize, layers, combine, module)


def _structure(
    config: ViTConfig, image_size: int, input_size: int | None, interpolation: str | None, combine: str
) -> tuple[ViTConfig, int]:
    """The network and the side of its input, options applied."""
    if combine not in COMBINE:
        raise ValueError(f"combine {combine!r} is unknown; choose one of {', '.join(COMBINE)}")
    if interpolation is not None and interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation {interpolation!r} is unknown; choose one of {', '.join(INTERPOLATIONS)}")
    if interpolation is not None:
        config = dataclasses.replace(config, interpolation=interpolation)
    return config, input_size or input_side(image_size, config.patch)


def _assemble(
    name: str,
    config: ViTConfig,
    params: Any,
    side: int,
    image_size: int,
    preprocessing: Preprocessing | None,
    resize: str,
    layers: tuple[int, ...],
    combine: str,
    module: ViT,
) -> Encoder:
    """The encoder around `params`, wherever they are from."""
    grid = config.grid(side, side)
    preprocessing = preprocessing or Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)

    def apply(params: Any, pixels: jax.Array) -> EncoderOutput:
        output = module.apply({"params": params}, pixels, layers)
        return combined(output, combine) if layers else output

    def keep(params: Any, pixels: jax.Array, count: int) -> EncoderOutput:
        output = module.apply({"params": params}, pixels, (*layers, *range(-count, 0)))
        own, last = output.layers[: len(layers)], output.layers[len(layers) :]
        feature = combined(output._replace(layers=own), combine) if layers else output
        return feature._replace(layers=last)

    def method(which: str) -> Callable[..., jax.Array]:
        return lambda params, patches, cls: module.apply({"params": params}, patches, cls, method=which)

    return Encoder(
        name=name,
        apply=apply,
        params=params,
        preprocess=preparer(side, resize, preprocessing),
        grid=grid,
        width=config.width,
        weights_hash="",
        settings={
            "input_size": side,
            "resize": resize if side != image_size else "none",
            "interpolation": config.interpolation if config.table_grid not in (None, grid) else "none",
            "layers": list(layers),
            "combine": combine if layers else "none",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        head=method("classify") if config.classes else None,
        pool=method("pool") if config.pooling != "none" else None,
        keep=keep,
    )


for _name, _entry in ENCODERS.items():
    register(_name, functools.partial(build, _name, _entry), functools.partial(outline, _name, _entry))
register("pretrained", functools.partial(build, "pretrained", None))
