"""Pretrained encoders and text towers: fetch them, check them, bring them into another form.

fae weights list                                 the names that are known
fae weights pull dinov2_g14                      fetch into the hub's cache (owner/name@revision works too)
fae weights check dinov2_g14                     every tensor's name, shape and values, and the hash
fae weights check FOLDER --as dinov2_g14
fae weights check FILE --as NAME                 the same by an encoder that another package registers
fae weights convert FILE --out FOLDER            one safetensors file from shards, .npz or .pth (never executed)
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fae_jax.encoders import registry
from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import ENCODERS, TEXT_TOWERS
from fae_jax.encoders.recognise import FAMILIES, recognise
from fae_jax.encoders.recognise_text import FAMILIES as TEXT_FAMILIES
from fae_jax.encoders.recognise_text import recognise_text
from fae_jax.files import storage
from fae_jax.files.progress import tell
from fae_jax.weights import flatten, hub, mapping, open_tensors, write_tensors
from fae_jax.weights.pickles import read_pickle
from fae_jax.weights.tensors import FILE, PICKLES
from fae_jax.weights.tree import check_finite

KNOWN = {**ENCODERS, **TEXT_TOWERS}
ACTIONS = ("list", "pull", "check", "convert")
IMAGE_SIZE = 256  # side of the images that a registered encoder is built for, to be checked
DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="action", help=", ".join(ACTIONS))
    parser.add_argument("weights", nargs="?", help="a known name, a hub name, a folder or a file")
    parser.add_argument("--as", dest="known", metavar="NAME", help="check: the known name the weights must fit")
    parser.add_argument("--revision", help="pull, check: a branch, tag or commit of the hub")
    parser.add_argument("--out", help="convert: folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="convert: dtype of the floating-point tensors")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.action == "list":
        return _list()
    if not arguments.weights:
        raise ValueError(f"fae weights {arguments.action} needs a name, a folder or a file")
    return {"pull": _pull, "check": _check, "convert": _convert}[arguments.action](arguments)


def _list() -> dict[str, Any]:
    for name, entry in KNOWN.items():
        tell(f"{name:22} {entry.repository}")
    registered = sorted({*registry.names()} - {*KNOWN})
    for name in registered:
        tell(f"{name:22} registered, without a repository of its own")
    return {"weights": {name: entry.repository for name, entry in KNOWN.items()}, "registered": registered}


def _pull(arguments: argparse.Namespace) -> dict[str, Any]:
    entry = KNOWN.get(arguments.weights)
    name = entry.repository if entry else arguments.weights
    if not hub.is_hub_name(name):
        raise ValueError(f"{name!r} is neither a known name (`fae weights list`) nor a hub name (owner/name)")
    pulled = hub.pull(name, revision=arguments.revision)
    digest = open_tensors(pulled.folder).hash()
    tell(f"{name}@{pulled.commit}: {pulled.fetched / 1e6:.1f} MB fetched, in {pulled.folder}\nweights {digest}")
    return {"folder": str(pulled.folder), "commit": pulled.commit, "fetched": pulled.fetched, "hash": digest}


def _networks(fields: Mapping[str, Any]) -> dict[str, tuple[mapping.NameMap, dict[str, tuple[int, ...]]]]:
    """The towers a config.json describes: how each is named in the file, and its leaves' shapes."""
    kind = fields.get("model_type")
    networks = {"images": recognise(fields)} if kind in FAMILIES or kind not in TEXT_FAMILIES else {}
    if kind in TEXT_FAMILIES:
        networks["text"] = recognise_text(fields)
    return {
        tower: (network.names, {name: tuple(leaf.shape) for name, leaf in flatten(network.shapes()).items()})
        for tower, network in networks.items()
    }


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    name = arguments.known or arguments.weights
    entry = KNOWN.get(name)
    if entry is None and name in registry.names():
        return _check_registered(name, arguments.weights if arguments.known else None)
    if arguments.known and entry is None:
        raise ValueError(f"{arguments.known!r} is not a known name; see `fae weights list`")
    given = None if arguments.weights in KNOWN else arguments.weights
    files = find_files(given, entry, revision=arguments.revision)
    counts = {}
    expected = _networks(entry.fields) if entry else {}
    for tower, (names, leaves) in _networks(files.fields).items():
        names, leaves = expected.get(tower, (names, leaves))
        mapping.check(files.source, names, leaves, files.tensors)
        counts[tower] = sum(int(np.prod(shape)) for shape in leaves.values())
    for tensor in files.tensors:
        check_finite(files.source, tensor, files.tensors.read(tensor))
    return _report(files.source, counts, len(files.tensors), files.tensors.size, files.tensors.hash())


def _check_registered(name: str, weights: str | None) -> dict[str, Any]:
    """Builds an encoder that is known by its builder alone, and looks at what it made of its weights."""
    encoder = registry.create(name, weights=weights, image_size=IMAGE_SIZE)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(encoder.params).items()}
    for path, leaf in leaves.items():
        check_finite(weights or name, path, leaf)
    tell(f"features {'×'.join(map(str, (*encoder.grid, encoder.width)))} of images of {IMAGE_SIZE} pixels")
    counts = {"images": sum(leaf.size for leaf in leaves.values())}
    size = sum(leaf.nbytes for leaf in leaves.values())
    return _report(weights or name, counts, len(leaves), size, encoder.weights_hash)


def _report(source: str, counts: dict[str, int], tensors: int, size: int, digest: str) -> dict[str, Any]:
    for tower, count in counts.items():
        tell(f"{tower}: {count:,} parameters")
    tell(f"{tensors} tensors, {size / 1e6:.1f} MB, all finite\nweights {digest}")
    return {"source": source, "parameters": counts, "tensors": tensors, "hash": digest}


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix in PICKLES:
        return read_pickle(path)
    if path.suffix == ".npz":
        return storage.read_arrays(str(path))
    tensors = open_tensors(path)
    return {name: tensors.read(name) for name in tensors}


def _convert(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.out:
        raise ValueError("fae weights convert needs --out FOLDER")
    source, out = Path(arguments.weights), Path(arguments.out)
    if (out / FILE).exists():
        raise ValueError(f"{out / FILE} exists already; choose another --out or remove it")
    tensors = _read(source)
    for name, array in tensors.items():
        check_finite(str(source), name, array)
        if arguments.dtype and jnp.issubdtype(array.dtype, jnp.floating):
            tensors[name] = array.astype(jnp.dtype(arguments.dtype))
    write_tensors(out / FILE, tensors)
    folder = source if source.is_dir() else source.parent
    for companion in ("config.json", hub.PROCESSOR, hub.IMAGE_PROCESSOR, "tokenizer.json"):
        if (folder / companion).is_file() and folder.resolve() != out.resolve():
            shutil.copyfile(folder / companion, out / companion)
    written = open_tensors(out)
    digest = written.hash()
    tell(f"{len(written)} tensors, {written.size / 1e6:.1f} MB, in {out}\nweights {digest}")
    if not (out / "config.json").is_file():
        tell(json.dumps({"note": "no config.json stood beside it; put the network's own there"}))
    return {"folder": str(out), "tensors": len(written), "bytes": written.size, "hash": digest}
