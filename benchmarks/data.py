"""Images per second of the loader, beside `torch.utils.data.DataLoader` with PIL on the same files and pixels.

    python benchmarks/data.py --data 'shards/train-{00000..00003}.tar'            # image sources, by workers
    python benchmarks/data.py --latents 20000                                      # reading a latent cache
    python benchmarks/data.py --data … --memory 100000                             # resident memory over batches
    python benchmarks/data.py --latents 2000 --memory 100000                       # the same, of the latent loader
    python benchmarks/data.py --data … --profile                                   # where the time of an image goes
    python benchmarks/data.py --data … --enlarge 500x375                           # the same images, enlarged
    python benchmarks/data.py --data 'cc12m/{00000..00003}.tar' --captions         # what captions add to images alone

The same tar is repacked into a folder, a packed array_record and, with pyarrow, parquet. Both loaders read the same
bytes, crop by the same function and flip half (torch's as images of Pillow from file to crop), and before they are
timed both decode the same 200 images, compared bit for bit; torch's also runs as it usually is, to normalised
float32. Every measurement is a process of its own; repeats alternate, and the best of each is shown. Latents are read
cold (their files put out of the page cache) and warm. torch is optional, and so is simplejpeg, which ours then uses.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 3  # batches before the clock starts


def rate(batches: Iterator[Any], count: int, seconds: float, size: int) -> dict[str, float]:
    """Examples per second and peak memory, after a few batches of warming up."""
    for _ in range(WARM_UP):
        next(batches)
    begun, done = time.perf_counter(), 0
    while done < count and time.perf_counter() - begun < seconds:
        next(batches)
        done += 1
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"per_second": done * size / (time.perf_counter() - begun), "peak_mib": own}


def measure_ours(options: argparse.Namespace) -> dict[str, float]:
    from fae_jax.data.loader import Loader, Reading
    from fae_jax.data.sources.kinds import open_source

    source = open_source(options.kind, path=options.path, split="train", holdout=0.0, seed=0)
    reading, captions = Reading(workers=options.workers, threads=options.threads), options.measure == "captions"
    if captions and not source.captioned:
        raise ValueError(f"{options.path} holds images without captions")
    known = {"batch": options.batch, "seed": 0, "flip": True, "reading": reading, "keep": 0}
    loader = Loader(source=source, image_size=options.size, captions=captions, **known)
    with loader.at(0) as batches:
        return rate(batches, 10**9, options.seconds, options.batch)


def measure_torch(options: argparse.Namespace) -> dict[str, float]:
    import io

    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from fae_jax.data.sources.kinds import open_source
    from fae_jax.data.transforms import adm_centre_crop, centre_crop

    source = open_source(options.kind, path=options.path, split="train", holdout=0.0, seed=0)
    normalised = options.measure == "torch_float"

    def cropped(data: bytes) -> Image.Image:
        return centre_crop(Image.open(io.BytesIO(data)).convert("RGB"), options.size)

    for position in np.linspace(0, len(source) - 1, 200).astype(int).tolist():
        ours = adm_centre_crop(source[position]["image"], options.size)
        assert np.array_equal(ours, np.asarray(cropped(source.stored(position).data))), f"image {position} differs"

    class Images(Dataset):
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, position: int) -> tuple[Any, int]:
            stored = source.stored(position)
            image = cropped(stored.data)
            if torch.rand(()) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(np.array(image))
            if normalised:
                pixels = (pixels.permute(2, 0, 1).contiguous().float().div(255) - 0.5) / 0.5
            return pixels, stored.label

    torch.set_num_threads(1)
    ahead = {"prefetch_factor": 2, "persistent_workers": True} if options.workers else {}
    loader = DataLoader(Images(), options.batch, shuffle=True, num_workers=options.workers, drop_last=True, **ahead)

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    return rate(endless(), 10**9, options.seconds, options.batch)


def measure_latents(options: argparse.Namespace) -> dict[str, float]:
    from fae_jax.data.loader import Reading
    from fae_jax.data.stores.latent_loader import LatentLoader
    from fae_jax.data.stores.latents import LatentSource, read_header

    source = LatentSource(options.path, read_header(options.path))
    if options.cold:
        for shard in source.header.shards:
            with open(Path(options.path) / shard.file, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    reading = Reading(workers=options.workers, threads=options.threads)
    with LatentLoader(source=source, batch=options.batch, seed=0, flip=True, reading=reading).at(0) as batches:
        return rate(batches, 10**9, options.seconds, options.batch)


def measure_profile(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image of each part of the loader's work, one thread, the rest of the process asleep."""
    from fae_jax.data.batching import stack
    from fae_jax.data.decode import decode_image
    from fae_jax.data.sources.kinds import open_source
    from fae_jax.data.transforms import adm_centre_crop

    source = open_source(options.kind, path=options.path, split="train", holdout=0.0, seed=0)
    places = np.random.default_rng(0).permutation(len(source))[:1000].tolist()
    spent = dict.fromkeys(("read", "decode", "crop", "stack"), 0.0)
    for start in range(0, len(places), options.batch):
        clock = [time.perf_counter()]
        stored = [source.stored(place) for place in places[start : start + options.batch]]
        clock.append(time.perf_counter())
        images = [decode_image(each.data, "") for each in stored]
        clock.append(time.perf_counter())
        images = [adm_centre_crop(image, options.size)[:, :: 1 - 2 * (n % 2)] for n, image in enumerate(images)]
        clock.append(time.perf_counter())
        stack(({"image": image} for image in images), len(images))
        clock.append(time.perf_counter())
        for name, (begun, ended) in zip(spent, itertools.pairwise(clock), strict=True):
            spent[name] += ended - begun
    return {f"{name} ms": round(1000 * seconds / len(places), 4) for name, seconds in spent.items()}


def measure_floor(options: argparse.Namespace) -> dict[str, float]:
    """Images per second of decoding and cropping alone, by Pillow and as we do it, on one and on two threads."""
    import io
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    from fae_jax.data.decode import decode_image
    from fae_jax.data.sources.kinds import open_source
    from fae_jax.data.transforms import adm_centre_crop, centre_crop

    source = open_source(options.kind, path=options.path, split="train", holdout=0.0, seed=0)
    places = np.random.default_rng(0).permutation(len(source))[:1000].tolist()
    files = [source.stored(place).data for place in places]

    def pillow(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    work = {
        "Pillow decodes": lambda data: np.asarray(pillow(data)),
        "Pillow decodes and crops": lambda data: np.asarray(centre_crop(pillow(data), options.size)),
        "ours decodes": lambda data: decode_image(data, ""),
        "ours decodes and crops": lambda data: adm_centre_crop(decode_image(data, ""), options.size),
    }
    found = {}
    for name, each in work.items():
        for threads in (1, 2):
            spent = []
            for _ in range(3):
                begun = time.perf_counter()
                with ThreadPoolExecutor(threads) as pool:
                    list(
                        pool.map(
                            lambda part, each=each: [each(data) for data in part], [files[k::10] for k in range(10)]
                        )
                    )
                spent.append(time.perf_counter() - begun)
            found[f"{name}, {threads} threads"] = round(len(files) / min(spent))
    return found


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory, workers included, every tenth of `count` batches: of tiny images, or of latents."""
    import psutil

    from fae_jax.data.loader import Loader, Reading
    from fae_jax.data.sources.kinds import open_source
    from fae_jax.data.stores.latent_loader import LatentLoader
    from fae_jax.data.stores.latents import LatentSource, read_header

    known = {"batch": options.batch, "seed": 0, "flip": True, "reading": Reading(workers=options.workers)}
    if options.kind == "latents":
        loader: Any = LatentLoader(source=LatentSource(options.path, read_header(options.path)), **known)
    else:
        path = None if options.kind == "digits" else options.path
        source = open_source(options.kind, path=path, split="train", holdout=0.0, seed=0)
        keep = 2**30 if options.kind == "digits" else 0
        loader = Loader(source=source, image_size=options.size, keep=keep, **known)
    resident, process = [], psutil.Process()
    with loader.at(0) as batches:
        for number in range(options.count):
            next(batches)
            if number == 1000 or (number + 1) % (options.count // 10) == 0:
                family = [process, *process.children(recursive=True)]
                resident.append(round(sum(member.memory_info().rss for member in family) / 2**20, 1))
    return {"batches": options.count, "resident_mib": resident}


def write_latents(folder: Path, images: int) -> float:
    """A latent cache of the paper's size (256 tokens of 32, with twins), of random numbers; its bytes per image."""
    from fae_jax.data.sources.digits import DigitsSource
    from fae_jax.data.sources.mixture import Mixture
    from fae_jax.data.stores.latent_writer import write_cache
    from fae_jax.data.stores.latents import CacheIdentity

    digits = DigitsSource(split="train", holdout=0.0, seed=0)
    repeats = -(-images // len(digits))
    source = Mixture([digits] * repeats, [1.0] * repeats)
    known = {"encoder": "noise", "encoder_weights": "-", "compressor": "-", "image_size": 32, "flip": True}
    generator = np.random.default_rng(0)

    def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        noise = generator.standard_normal((len(images), 256, 32), np.float32)
        return noise, noise

    header = write_cache(folder, CacheIdentity(source=source.fingerprint, **known), source, encode, batch=64)
    assert header is not None
    return sum(shard.size for shard in header.shards) / header.images


def alone(measure: str, **options: Any) -> dict[str, Any]:
    """A measurement in a process of its own."""
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, f"--measure={measure}", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["."] + sys.path), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def repack(pattern: str, folder: Path) -> dict[str, str]:
    """The same images as a folder, packed, and as parquet."""
    from fae_jax.data.sources.packed import write_packed
    from fae_jax.data.sources.tars import TarSource

    source = TarSource(pattern, split="train", holdout=0.0, seed=0)
    for position in range(len(source)):
        stored = source.stored(position)
        place = folder / "folder" / f"{stored.label:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{position:07d}.jpg").write_bytes(stored.data)
    write_packed(folder / "packed", source, np.arange(len(source)))
    kinds = {"tar": pattern, "folder": str(folder / "folder"), "array_record": str(folder / "packed")}
    with contextlib.suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        (folder / "parquet").mkdir()
        images = [source.stored(position) for position in range(len(source))]
        columns = {
            "image": [{"bytes": each.data, "path": ""} for each in images],
            "label": [each.label for each in images],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "parquet" / "0.parquet", row_group_size=100)
        kinds["parquet"] = str(folder / "parquet")
    return kinds


def enlarged(pattern: str, size: str, folder: Path, count: int = 1500) -> str:
    """A tar of the first images, resized to WIDTHxHEIGHT: most photographs of ImageNet are 500 by 375."""
    import io
    import tarfile

    from PIL import Image

    from fae_jax.data.sources.tars import TarSource

    source = TarSource(pattern, split="train", holdout=0.0, seed=0)
    width, height = map(int, size.split("x"))
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for position in range(min(count, len(source))):
            stored, buffer = source.stored(position), io.BytesIO()
            small = Image.open(io.BytesIO(stored.data)).convert("RGB")
            small.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            for suffix, data in (("jpg", buffer.getvalue()), ("cls", str(stored.label).encode())):
                about = tarfile.TarInfo(f"{position:06d}.{suffix}")
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
    return str(folder / "00000.tar")


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="fae-bench-") as folder:
        if arguments.enlarge:
            arguments.data = enlarged(arguments.data, arguments.enlarge, Path(folder) / "enlarged")
        kinds = {"tar": arguments.data} if arguments.kinds == "tar" else repack(arguments.data, Path(folder))
        wanted = arguments.kinds.split(",") if arguments.kinds else list(kinds)
        for kind in wanted:
            for workers in arguments.workers_list:
                measures = ["ours"]
                with contextlib.suppress(ImportError):
                    import torch  # noqa: F401

                    measures += ["torch_uint8", "torch_float"]
                best: dict[str, dict[str, Any]] = {}
                for _ in range(arguments.repeats):
                    for measure in measures:
                        found = alone(
                            measure,
                            path=kinds[kind],
                            kind=kind,
                            workers=workers,
                            size=arguments.size,
                            batch=arguments.batch,
                            seconds=arguments.seconds,
                            threads=arguments.threads,
                        )
                        if found["per_second"] > best.get(measure, {"per_second": 0})["per_second"]:
                            best[measure] = found
                row = {"source": kind, "workers": workers}
                for measure, found in best.items():
                    row[f"{measure} images/s"] = round(found["per_second"])
                    row[f"{measure} peak MiB"] = round(found["peak_mib"])
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def compare_captions(arguments: argparse.Namespace) -> None:
    """Prints what captions add to the time of an image, by workers: the best and the median of the repeats."""
    for workers in arguments.workers_list:
        seconds: dict[str, list[float]] = {"ours": [], "captions": []}
        for turn in range(arguments.repeats):
            for measure in sorted(seconds, reverse=bool(turn % 2)):
                options = {name: getattr(arguments, name) for name in ("size", "batch", "seconds", "threads")}
                ended = alone(measure, path=arguments.data, kind="tar", workers=workers, **options)
                seconds[measure].append(1 / ended["per_second"])
        row: dict[str, Any] = {"workers": workers, "images/s": round(1 / min(seconds["ours"]))}
        row["images with captions/s"] = round(1 / min(seconds["captions"]))
        for name, of in (("best", min), ("median", statistics.median)):
            row[f"captions add %, {name}"] = round(100 * (of(seconds["captions"]) / of(seconds["ours"]) - 1), 1)
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="tar shards with classes")
    parser.add_argument("--kinds", help="kinds of source, separated by commas; default: all")
    parser.add_argument("--workers_list", type=lambda text: [int(w) for w in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--enlarge", metavar="WIDTHxHEIGHT", help="resize the images of --data first")
    parser.add_argument("--latents", type=int, help="images in a made-up latent cache to read")
    parser.add_argument("--memory", type=int, help="batches over which resident memory is watched")
    parser.add_argument("--profile", action="store_true", help="milliseconds per image of each part of the work")
    parser.add_argument("--captions", action="store_true", help="what captions add to the time of images alone")
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement")
    hidden = (("measure", str), ("path", str), ("kind", str), ("workers", int), ("count", int), ("cold", int))
    for name, kind in hidden:
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2, help="threads of our loader, in each worker")
    arguments = parser.parse_args()
    if arguments.measure:
        measures = {"ours": measure_ours, "captions": measure_ours}
        measures |= {"torch_uint8": measure_torch, "torch_float": measure_torch}
        measures |= {"latents": measure_latents, "memory": measure_memory, "profile": measure_profile}
        measures["floor"] = measure_floor
        print(json.dumps(measures[arguments.measure](arguments)))
        return
    if arguments.latents:
        with tempfile.TemporaryDirectory(prefix="fae-bench-") as folder:
            size = write_latents(Path(folder) / "cache", arguments.latents)
            if arguments.memory:
                options = {"path": Path(folder) / "cache", "kind": "latents", "batch": 2}
                print(
                    json.dumps(alone("memory", count=arguments.memory, workers=arguments.workers_list[0], **options))
                )
                return
            print(f"{size:.0f} bytes per image with its twin; ImageNet {size * 1281167 / 1e9:.1f} GB", flush=True)
            for workers in arguments.workers_list:
                for cold in (1, 0):
                    options = {"path": Path(folder) / "cache", "workers": workers, "batch": 256, "cold": cold}
                    found = [alone("latents", seconds=arguments.seconds, **options) for _ in range(arguments.repeats)]
                    best = max(found, key=lambda one: one["per_second"])
                    row = {"workers": workers, "cold": bool(cold), "latents/s": round(best["per_second"])}
                    print(json.dumps({**row, "peak MiB": round(best["peak_mib"])}), flush=True)
    elif arguments.memory:
        kind = "tar" if arguments.data else "digits"
        options = {"path": arguments.data, "kind": kind, "size": 16 if arguments.data else 32, "batch": 2}
        print(json.dumps(alone("memory", count=arguments.memory, workers=arguments.workers_list[0], **options)))
    elif arguments.data and arguments.profile:
        with tempfile.TemporaryDirectory(prefix="fae-bench-") as folder:
            path = arguments.data
            if arguments.enlarge:
                path = enlarged(path, arguments.enlarge, Path(folder) / "enlarged")
            for measure in ("profile", "floor"):
                print(json.dumps(alone(measure, path=path, kind="tar", size=arguments.size, batch=64)), flush=True)
    elif arguments.data and arguments.captions:
        compare_captions(arguments)
    elif arguments.data:
        compare(arguments)
    else:
        parser.error("one of --data, --latents and --memory says what to measure")


if __name__ == "__main__":
    main()
