"""Writing the latent cache: encode once, on every host, going on where an earlier run stopped.

    image i → crop → encoder and compressor (μ, log σ²) → bfloat16 → record and statistics, and so its mirrored twin

Work is cut into shards of consecutive images, shard s for host s mod H. A shard is written under another name,
flushed, checked, given its name, and only then described by its own JSON file; what that describes is never redone.
The header follows when every shard is described; hosts that are done wait for it with `wait_for_hosts`. Statistics
are of the values as stored, gathered image by image, so that no bit of them depends on batches or hosts.

An identity without a compressor makes a feature store: image i → crop → encoder (x) → float16 → record.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path as LocalPath
from typing import Any

import numpy as np

from fae_jax.data.batching import READ_AHEAD, Reading
from fae_jax.data.loader import ordered_batches
from fae_jax.data.replacement import BadImages
from fae_jax.data.sources import record_files
from fae_jax.data.sources.listing import Source
from fae_jax.data.stores.latents import HEADER, CacheIdentity, Header, Layout, Shard, pack
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.files import storage
from fae_jax.files.locks import last_sign, lock
from fae_jax.files.moving import put_file
from fae_jax.files.paths import Path, as_path, is_remote
from fae_jax.files.writing import read_json, write_json
from fae_jax.parallel.ending import end_now

Encode = Callable[[np.ndarray], tuple[Any, ...]]
Progress = Callable[[int, int], None]


def write_cache(
    directory: str | os.PathLike[str],
    identity: CacheIdentity,
    source: Source,
    encode: Encode,
    *,
    batch: int,
    shard_size: int = 4096,
    host: int = 0,
    hosts: int = 1,
    reading: Reading = READ_AHEAD,
    tolerate: int = 100,
    progress: Progress | None = None,
) -> Header | None:
    """Writes this host's part of a cache, and its header once every part is there.

    Args:
      directory: the cache's own folder, made if missing.
      identity: what is being encoded; its `source` is the source's fingerprint.
      source: the images.
      encode: uint8 images (batch, size, size, 3) → the layout's parts, each (batch, n, c): mean and log-variance,
        or features alone; always whole batches.
      batch: images per call of `encode`.
      shard_size: images per file.
      host, hosts: which shards are this process's.
      reading: how images are read ahead.
      tolerate: how many images may be undecodable; they are left out, and named in `bad-images-0.txt`.
      progress: called with images done and images in all, of this host.

    Returns:
      The header; None when other hosts still have shards to write.

    Raises:
      ValueError: another run is writing this cache, another identity is in this folder, the source is not the one of
        the identity, or the encoder gives numbers that are not finite.
      OSError: the disk is full or cannot be written, or more images than tolerated cannot be decoded; finished
        shards stay.
    """
    directory = as_path(directory)
    if identity.source != source.fingerprint:
        raise ValueError(f"source {source.fingerprint} is not the one of the cache's identity, {identity.source}")
    if shard_size < 1 or len(source) == 0:
        raise ValueError(f"nothing to cache: {len(source)} images in shards of {shard_size}")
    directory.mkdir(parents=True, exist_ok=True)
    with lock(_writer(directory, host), str(directory), end_now) as alive:
        _claim(directory, identity, shard_size)
        firsts = range(0, len(source), shard_size)
        mine = range(host, len(firsts), hosts)
        total = sum(min(shard_size, len(source) - firsts[number]) for number in mine)
        missing = [number for number in mine if _finished(directory, number) is None]
        done = total - sum(min(shard_size, len(source) - firsts[number]) for number in missing)
        bad = BadImages(source, tolerate, directory / f"bad-images-{host}.txt")
        if progress:
            progress(done, total)
        for number in missing:
            stop = min(firsts[number] + shard_size, len(source))
            batches = ordered_batches(
                source,
                batch=batch,
                image_size=identity.image_size,
                start=firsts[number],
                stop=stop,
                reading=reading,
                bad=bad,
            )
            with contextlib.closing(batches):
                encoded = _encoded(_each(batches, alive), encode, identity.flip)
                report = (lambda count, done=done: progress(done + count, total)) if progress else None
                _write_shard(
                    directory / _shard_name(number),
                    range(firsts[number], stop),
                    encoded,
                    identity.layout,
                    bad=bad,
                    report=report,
                )
            done += stop - firsts[number]
        return _finish(directory, identity, source, len(firsts))


def wait_for_hosts(
    directory: str | os.PathLike[str],
    identity: CacheIdentity,
    source: Source,
    *,
    shard_size: int,
    hosts: int,
    patience: float = 600.0,
    every: float = 1.0,
) -> Header:
    """Waits until every host has written its part of a cache; the header it then has.

    Hosts see each other in the folder they share, by the signs of life in their locks.

    Args:
      directory, identity, source, shard_size, hosts: as for `write_cache`.
      patience: seconds without a sign of life from any host that still has to write.
      every: seconds between looks.

    Raises:
      OSError: a host gives no sign of life; it is named.
    """
    directory, shards = as_path(directory), -(-len(source) // shard_size)
    seen, since = None, time.monotonic()
    while (header := _finish(directory, identity, source, shards)) is None:
        missing = [number for number in range(shards) if _finished(directory, number) is None]
        signs = (missing, [last_sign(_writer(directory, host)) for host in range(hosts)])
        if signs != seen:
            seen, since = signs, time.monotonic()
        if missing and time.monotonic() - since > patience:
            raise OSError(
                f"host {missing[0] % hosts} of {hosts} has written nothing to {directory} for {patience:g} seconds; "
                "see what it said, and give the same command again: finished shards are kept"
            )
        time.sleep(every)
    return header


def _writer(directory: Path, host: int) -> Path:
    """A host's lock; it leaves a sign of life there at every batch."""
    return directory / f"writer-{host}.lock"


def _each(batches: Iterator[dict[str, Any]], alive: Callable[[], None]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        alive()
        yield batch


def _encoded(batches: Iterator[dict[str, Any]], encode: Encode, flip: bool) -> Iterator[dict[str, Any]]:
    """Batches with "encoded": per view the parts (batch, n, c), device arrays not yet waited for.

    One batch is kept in flight, so that the device encodes while the host writes.
    """
    waiting: dict[str, Any] | None = None
    for batch in batches:
        images = batch.pop("image")
        views = (images, np.ascontiguousarray(images[:, :, ::-1])) if flip else (images,)
        batch["encoded"] = [encode(view) for view in views]
        if waiting is not None:
            yield waiting
        waiting = batch
    if waiting is not None:
        yield waiting


def _write_shard(
    path: Path,
    span: range,
    batches: Iterator[dict[str, Any]],
    layout: Layout,
    *,
    bad: BadImages,
    report: Callable[[int], None] | None,
) -> None:
    # The library that writes records knows files of this machine only.
    elsewhere = LocalPath(tempfile.gettempdir()) / f"fae-{os.getpid()}-{path.name}"
    temporary = elsewhere if is_remote(path) else path.with_name(f"{path.name}.part")
    statistics, images, records = None, 0, 0
    shape: tuple[int, ...] = ()
    try:
        with record_files.writing(temporary) as write:
            for number, batch in enumerate(batches):
                rows = np.flatnonzero(batch["mask"])
                at = span.start + number * len(batch["mask"])
                views = [tuple(_stored(part, rows, at, layout) for part in parts) for parts in batch["encoded"]]
                for place, row in enumerate(rows):
                    about = {"label": int(batch["label"][row]), "index": int(batch["index"][row])}
                    captions = json.loads(batch["captions"][row]) if "captions" in batch else ()
                    for view in views:
                        parts = [part[place] for part in view]
                        piece = LatentStatistics.of_parts(*parts)
                        statistics = piece if statistics is None else statistics.merge(piece)
                        shape = parts[0].shape
                        write(pack(*parts, captions=captions, **about))
                        records += 1
                images += len(rows)
                if report:
                    report(min((number + 1) * len(batch["mask"]), len(span)))
        if statistics is None:
            raise OSError(f"none of the images {span.start} to {span.stop - 1} can be decoded")
        size = record_files.settle(temporary, records)
        put_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    shard = Shard(
        file=path.name,
        first=span.start,
        span=len(span),
        images=images,
        left_out=tuple(bad.reasons[position] for position in span if position in bad.reasons),
        size=size,
        statistics=statistics,
    )
    write_json(path.with_suffix(".json"), {**shard.to_json(), "shape": list(shape)})


def _stored(values: Any, rows: np.ndarray, position: int, layout: Layout) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        stored = np.asarray(values)[rows].astype(layout.dtype)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"what the encoder gives is not all finite in the batch that begins with image {position}, or too "
            f"large for {np.dtype(layout.dtype).name}; nothing of this shard is kept"
        )
    return stored


def _finish(directory: Path, identity: CacheIdentity, source: Source, shards: int) -> Header | None:
    if sum(file.name.startswith("shard-") for file in storage.list_files(str(directory), ".json")) < shards:
        return None
    described = [_finished(directory, number) for number in range(shards)]
    whole = tuple(shard for shard in described if shard is not None)
    if len(whole) < len(described):
        return None
    shape = json.loads((directory / _shard_name(0).replace(".array_record", ".json")).read_text())["shape"]
    header = Header(identity=identity, classes=tuple(source.classes), shape=tuple(shape), shards=whole)
    write_json(directory / HEADER, header.to_json())
    return header


def _finished(directory: Path, number: int) -> Shard | None:
    """A shard that an earlier run finished, or None."""
    path = directory / _shard_name(number)
    try:
        values = json.loads(path.with_suffix(".json").read_text())
        values.pop("shape")
        shard = Shard.from_json(values)
        return shard if storage.stat(str(path)).size == shard.size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _claim(directory: Path, identity: CacheIdentity, shard_size: int) -> None:
    """Writes down what the folder is for, or checks that it is for this."""
    path = directory / "identity.json"
    claim = {"identity": identity.to_json(), "shard_size": shard_size}
    if not path.exists():
        write_json(path, claim)
    elif (begun := read_json(path, "choose another folder or remove this one")) != claim:
        raise ValueError(
            f"{identity.layout.noun} {directory} was begun with {json.dumps(begun)}, "
            f"asked for is {json.dumps(claim)}; choose another folder or remove this one"
        )


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.array_record"
