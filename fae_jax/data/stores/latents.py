"""The latent cache: every image's posterior, encoded once, addressed at random, in files that say what they are.

The same files, with another record, keep the encoder's own features for the stages that train on them: a *feature
store*. What follows says "posteriors" for both; `Layout` is where they differ.

A cache is a folder named after the hash of its `CacheIdentity`:

    header.json                 identity, statistics, shards; written last, so a cache without one is not finished
    shard-00000.array_record    posteriors of images 0, 1, … of the source, one record per view; undecodable ones
                                are left out, named in the header
    shard-00000.json            that shard's sizes and statistics

Record v + V i of a shard is view v of its i-th image, V = 2 with flips (view 1 is the mirrored image), else 1:

    int64 source index, int32 label, uint32 bytes of captions; μ (n c) bfloat16; log σ² (n c) bfloat16;
    captions as a JSON list in UTF-8. All little-endian. In a feature store: x (n d) float16 in place of μ and log σ².
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from fae_jax.data.sources.record_files import RecordFiles
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.files import storage
from fae_jax.files.writing import json_hash

FORMAT = 2
HEADER = "header.json"
COPIED_AT_ONCE = 8
_PREFIX = struct.Struct("<qiI")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What the values of a record are.

    Attributes:
      parts: their names, in order; each is (n, c).
      dtype: the same for every part, two bytes wide.
      noun, maker: what such files are called, and the command that writes them.
    """

    parts: tuple[str, ...]
    dtype: Any
    noun: str
    maker: str


POSTERIORS = Layout(
    parts=("mean", "log_variance"), dtype=ml_dtypes.bfloat16, noun="latent cache", maker="`fae cache`"
)
# Features keep three more digits of precision in float16 than in bfloat16, and none comes near its limit of 65,504.
FEATURES = Layout(parts=("features",), dtype=np.float16, noun="feature store", maker="`fae train features`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheIdentity:
    """Everything that decides what is in a cache.

    Attributes:
      encoder: its name.
      encoder_weights: hash of its weights.
      encoder_settings: whatever else changes its output, position interpolation among them, as plain JSON values.
      compressor: hash of the compressor's structure and weights; empty for the encoder's own features.
      source: fingerprint of the listing of images.
      image_size: side of the square images, in pixels.
      crop: how images were made square.
      flip: whether mirrored twins are stored.
      format: version of the layout, and of the code that decides pixels.
    """

    encoder: str
    encoder_weights: str
    encoder_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    compressor: str
    source: str
    image_size: int
    crop: str = "adm_centre"
    flip: bool
    format: int = FORMAT

    @property
    def layout(self) -> Layout:
        """What is stored of an image."""
        return POSTERIORS if self.compressor else FEATURES

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits, different for different identities."""
        return json_hash(self.to_json())[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One finished file of a cache.

    Attributes:
      file: its name.
      first, span: the positions of the source it was made from, `first` to `first + span`.
      images: how many of them could be decoded and are in it.
      left_out: the others, and why.
      size: bytes of the file.
      statistics: over its posteriors, all views.
    """

    file: str
    first: int
    span: int
    images: int
    left_out: tuple[str, ...]
    size: int
    statistics: LatentStatistics

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        own = {name: getattr(self, name) for name in ("file", "first", "span", "images", "size")}
        return {**own, "left_out": list(self.left_out), "statistics": self.statistics.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Shard:
        """Inverse of `to_json`."""
        statistics = LatentStatistics.from_json(values["statistics"])
        return cls(**{**values, "left_out": tuple(values["left_out"]), "statistics": statistics})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What a finished cache says of itself.

    Attributes:
      identity: what was encoded, and by what.
      classes: names of the classes, by label.
      shape: tokens and channels of a latent.
      shards: its files, in order.
    """

    identity: CacheIdentity
    classes: tuple[str, ...]
    shape: tuple[int, int]
    shards: tuple[Shard, ...]

    @property
    def images(self) -> int:
        """Images in the cache, twins not counted."""
        return sum(shard.images for shard in self.shards)

    @property
    def views(self) -> int:
        """Records per image."""
        return 2 if self.identity.flip else 1

    @property
    def statistics(self) -> LatentStatistics:
        """Over all shards, merged in order."""
        merged = LatentStatistics.empty(self.shape[1])
        for shard in self.shards:
            merged = merged.merge(shard.statistics)
        return merged

    def to_json(self) -> dict[str, Any]:
        """Plain values, and their hash; totals are repeated for readers, and not read back."""
        content = {
            "identity": self.identity.to_json(),
            "hash": self.identity.hash,
            "images": self.images,
            "views": self.views,
            "bytes": sum(shard.size for shard in self.shards),
            "classes": list(self.classes),
            "shape": list(self.shape),
            "statistics": self.statistics.to_json(),
            "shards": [shard.to_json() for shard in self.shards],
        }
        return {**content, "sha256": json_hash(content)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Header:
        """Inverse of `to_json`; headers of before there was a hash are taken as they are.

        Raises:
          ValueError: it is not as it was written.
        """
        content = {name: value for name, value in values.items() if name != "sha256"}
        if values.get("sha256", json_hash(content)) != json_hash(content):
            raise ValueError("its hash is of another content")
        return cls(
            identity=CacheIdentity(**values["identity"]),
            classes=tuple(values["classes"]),
            shape=(values["shape"][0], values["shape"][1]),
            shards=tuple(Shard.from_json(shard) for shard in values["shards"]),
        )


def planned_bytes(images: int, shape: tuple[int, int], flip: bool, layout: Layout = POSTERIORS) -> int:
    """How many bytes a cache will take: the records, without captions and the files' own index (under 1 %).

    ImageNet's 1,281,167 images, 256 tokens of 32 channels, with twins: 84.0 GB.
    """
    return images * (2 if flip else 1) * (_PREFIX.size + 2 * len(layout.parts) * shape[0] * shape[1])


def read_header(directory: str | os.PathLike[str], layout: Layout = POSTERIORS) -> Header:
    """The header of a finished cache; `layout` gives errors their words.

    Raises:
      FileNotFoundError: there is no cache, or it is not finished.
      ValueError: the header is damaged or of another format.
    """
    path = storage.join(str(directory), HEADER)
    if not storage.exists(path):
        state = "is not finished" if storage.exists(str(directory)) else "does not exist"
        raise FileNotFoundError(f"{layout.noun} {directory} {state}; {layout.maker} makes it, or goes on with it")
    try:
        return Header.from_json(json.loads(storage.read_bytes(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{layout.noun} header {path} cannot be read ({error}); {layout.maker} mends it") from error


def open_cache(directory: str | os.PathLike[str], expected: CacheIdentity) -> LatentSource:
    """Opens a finished cache.

    Raises:
      FileNotFoundError: there is none, it is not finished, or a shard is missing.
      ValueError: it is not the one `expected`, field by field side by side; or a shard is not as the header says.
    """
    layout = expected.layout
    header = read_header(directory, layout)
    here, asked = header.identity.to_json(), expected.to_json()
    lines = [f"{name}: {here[name]!r} here, {asked[name]!r} wanted" for name in asked if here[name] != asked[name]]
    if lines:
        raise ValueError(f"{layout.noun} {directory} is of something else ({'; '.join(lines)}); run {layout.maker}")
    return LatentSource(directory, header)


class LatentSource:
    """Random access to the posteriors of a finished cache, here or in a bucket.

    Raises:
      FileNotFoundError: a shard is missing.
      ValueError: a shard is not of the size that the header says.
    """

    def __init__(self, directory: str | os.PathLike[str], header: Header):
        self.directory = str(directory)
        self.header = header
        self.classes = header.classes
        self.layout = layout = header.identity.layout
        counts = [shard.images * header.views for shard in header.shards]
        paths = [storage.join(self.directory, shard.file) for shard in header.shards]
        self._records = RecordFiles(paths, counts)
        sizes = {file.name: file.size for file in storage.list_files(self.directory, ".array_record")}
        for path, shard in zip(paths, header.shards, strict=True):
            size = sizes.get(shard.file)
            if size is None:
                raise FileNotFoundError(
                    f"shard {path} of the {layout.noun} is missing; {layout.maker} writes it again"
                )
            if size != shard.size:
                raise ValueError(
                    f"shard {path} has {size} bytes, its header says {shard.size}; remove it and run {layout.maker}"
                )

    def fetch(self) -> None:
        """Copies what is in a bucket to this host, several shards at once: batches then wait for none.

        Records are read at random and a batch touches every shard, so that a request per record would cost more.
        """
        with concurrent.futures.ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
            list(pool.map(storage.local_copy, self._records.paths))

    def __reduce__(self) -> tuple[Any, ...]:
        return LatentSource, (self.directory, self.header)

    def __len__(self) -> int:
        return self.header.images

    def __getitem__(self, position: int) -> dict[str, Any]:
        """{"mean", "log_variance": bfloat16 (n, c), "label": int32, "index": int64}, of the image as it stands.

        A feature store has "features", float16 (n, d), in place of the first two.
        """
        return {name: values[0] for name, values in self.read([position], [0]).items()}

    def read(self, positions: Sequence[int], views: Sequence[int]) -> dict[str, np.ndarray]:
        """Several at once, of the views asked for: arrays as `__getitem__` describes, with a leading axis."""
        numbers = [position * self.header.views + view for position, view in zip(positions, views, strict=True)]
        return unpack(self._records.read(numbers), self.header.shape, self.layout)


def pack(*parts: np.ndarray, label: int, index: int, captions: Sequence[str] = ()) -> bytes:
    """One record; `parts` are the layout's, (n, c) each."""
    text = json.dumps(list(captions), ensure_ascii=False).encode("utf-8", "backslashreplace") if captions else b""
    return _PREFIX.pack(index, label, len(text)) + b"".join(part.tobytes() for part in parts) + text


def unpack(records: Sequence[bytes], shape: tuple[int, int], layout: Layout = POSTERIORS) -> dict[str, np.ndarray]:
    """Records → arrays with a leading axis."""
    count = len(layout.parts) * shape[0] * shape[1]
    values = np.stack([np.frombuffer(record, "<u2", count, _PREFIX.size) for record in records])
    values = values.view(layout.dtype).reshape(len(records), len(layout.parts), *shape)
    prefixes = [_PREFIX.unpack_from(record) for record in records]
    batch = {
        **{name: values[:, number] for number, name in enumerate(layout.parts)},
        "label": np.array([label for _, label, _ in prefixes], np.int32),
        "index": np.array([index for index, _, _ in prefixes], np.int64),
    }
    if any(size for _, _, size in prefixes):
        texts = [bytes(record[len(record) - size :]) for record, (_, _, size) in zip(records, prefixes, strict=True)]
        batch["captions"] = np.array([text.decode() or "[]" for text in texts])
    return batch
