"""Pretrained encoders, text towers and extractors: fetch them, check them, bring them into another form.

fae weights list                                 the names that are known
fae weights pull dinov2_g14                      fetch into the hub's cache (owner/name@revision works too)
fae weights pull inception                       the network of the FID, from its release, as safetensors
fae weights pull FILE --as inception             the same from a file that you have
fae weights pull taef2_encoder                   half of a tokenizer, and the same for taef2_decoder
fae weights check dinov2_g14                     every tensor's name, shape and values, and the hash
fae weights check FOLDER --as dinov2_g14
fae weights check FILE --as NAME                 the same by an extractor, or another package's encoder
fae weights convert FILE --out FOLDER            one safetensors file from shards, .npz, .pth (never executed) or .pb
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
from fae_jax.extractors import EXTRACTORS, load_extractor
from fae_jax.files.progress import tell
from fae_jax.kinds import find, names
from fae_jax.tokenizers.convolutional import RELEASES
from fae_jax.weights import flatten, hub, mapping, open_tensors, unflatten, write_tensors
from fae_jax.weights.releases import read_arrays
from fae_jax.weights.tensors import FILE
from fae_jax.weights.tree import check_finite

KNOWN = {**ENCODERS, **TEXT_TOWERS}
ACTIONS = ("list", "pull", "check", "convert")
IMAGE_SIZE = 256  # side of the images that a registered encoder is built for, to be checked
DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="action", help=", ".join(ACTIONS))
    parser.add_argument("weights", nargs="?", help="a known name, a hub name, a folder or a file")
    parser.add_argument("--as", dest="known", metavar="NAME", help="check, pull: the name the weights are for")
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
    sources = {name: getattr(_extractor(name), "source", "") for name in names("extractors", EXTRACTORS)}
    for name, source in sources.items():
        tell(f"{name:22} {source or 'an extractor of another package'}")
    registered = sorted({*registry.names()} - {*KNOWN})
    for name in registered:
        tell(f"{name:22} registered, without a repository of its own")
    for name, release in RELEASES.items():
        tell(f"{name:22} {release.urls[0]}")
    repositories = {name: entry.repository for name, entry in KNOWN.items()}
    files = {name: release.urls[0] for name, release in RELEASES.items()}
    return {"weights": {**repositories, **files}, "extractors": sources, "registered": registered}


def _extractor(name: str) -> Any:
    """The kind of extractor called `name`, or None."""
    return find("extractors", EXTRACTORS, name) if name in names("extractors", EXTRACTORS) else None


def _pull(arguments: argparse.Namespace) -> dict[str, Any]:
    asked = arguments.known or arguments.weights
    entry, kind = KNOWN.get(arguments.weights), _extractor(asked)
    file = Path(arguments.weights) if arguments.known else None
    if hasattr(kind, "pull") or asked in RELEASES:
        release = RELEASES.get(asked)
        folder, fetched = release.pull(_as_published, file) if release else kind.pull(file)
        digest = open_tensors(folder).hash()
        tell(f"{asked}: {fetched / 1e6:.1f} MB fetched, in {folder}\nweights {digest}")
        return {"folder": str(folder), "fetched": fetched, "hash": digest}
    if arguments.known:
        raise ValueError(f"{asked!r} is fetched by its name alone: fae weights pull {asked}")
    name = entry.repository if entry else getattr(kind, "source", arguments.weights)
    if not hub.is_hub_name(name):
        raise ValueError(f"{name!r} is neither a known name (`fae weights list`) nor a hub name (owner/name)")
    pulled = hub.pull(name, revision=arguments.revision)
    digest = open_tensors(pulled.folder).hash()
    tell(f"{name}@{pulled.commit}: {pulled.fetched / 1e6:.1f} MB fetched, in {pulled.folder}\nweights {digest}")
    return {"folder": str(pulled.folder), "commit": pulled.commit, "fetched": pulled.fetched, "hash": digest}


def _as_published(file: Path) -> dict[str, Any]:
    return unflatten(read_arrays(file))


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
    if entry is None and _extractor(name) is not None:
        return _check_extractor(name, arguments.weights if arguments.known else "")
    if arguments.known and entry is None:
        raise ValueError(f"{arguments.known!r} is not a known name; see `fae weights list`")
    given = None if arguments.weights in KNOWN else arguments.weights
    files = find_files(given, entry, revision=arguments.revision)
    counts = {}
    expected = _networks(entry.fields) if entry else {}
    for tower, network in _networks(files.fields).items():
        layout, leaves = expected.get(tower, network)
        mapping.check(files.source, layout, leaves, files.tensors)
        counts[tower] = sum(int(np.prod(shape)) for shape in leaves.values())
    for tensor in files.tensors:
        check_finite(files.source, tensor, files.tensors.read(tensor))
    return _report(files.source, counts, len(files.tensors), files.tensors.size, files.tensors.hash())


def _check_registered(name: str, weights: str | None) -> dict[str, Any]:
    """Builds an encoder that is known by its builder alone, and looks at what it made of its weights."""
    encoder = registry.create(name, weights=weights, image_size=IMAGE_SIZE)
    tell(f"features {'×'.join(map(str, (*encoder.grid, encoder.width)))} of images of {IMAGE_SIZE} pixels")
    return _check_params(weights or name, encoder.params, encoder.weights_hash)


def _check_extractor(name: str, weights: str) -> dict[str, Any]:
    """Reads an extractor's weights, and refuses them where they lack something."""
    extractor = load_extractor(name, weights)
    for tap, reason in extractor.lacks.items():
        raise ValueError(f"{weights or name} gives no {tap!r}: {reason}")
    tell(extractor.variant)
    return _check_params(weights or name, extractor.params, extractor.weights_hash)


def _check_params(source: str, params: Any, digest: str) -> dict[str, Any]:
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    for path, leaf in leaves.items():
        check_finite(source, path, leaf)
    counts = {"images": sum(leaf.size for leaf in leaves.values())}
    size = sum(leaf.nbytes for leaf in leaves.values())
    return _report(source, counts, len(leaves), size, digest)


def _report(source: str, counts: dict[str, int], tensors: int, size: int, digest: str) -> dict[str, Any]:
    for tower, count in counts.items():
        tell(f"{tower}: {count:,} parameters")
    tell(f"{tensors} tensors, {size / 1e6:.1f} MB, all finite\nweights {digest}")
    return {"source": source, "parameters": counts, "tensors": tensors, "hash": digest}


def _convert(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.out:
        raise ValueError("fae weights convert needs --out FOLDER")
    source, out = Path(arguments.weights), Path(arguments.out)
    if (out / FILE).exists():
        raise ValueError(f"{out / FILE} exists already; choose another --out or remove it")
    tensors = read_arrays(source)
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
