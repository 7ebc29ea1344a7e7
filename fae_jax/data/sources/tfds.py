"""A data set that TensorFlow Datasets prepared as array_record, read without TensorFlow or TFDS.

The folder (`…/imagenet2012/5.1.0`) holds `dataset_info.json` (splits and their shards), `features.json` (which
feature is the image, the class, the text), `label.labels.txt`, and the shards. Records are `tf.train.Example`
messages:

    Example { features: 1 { feature: 1 { key: 1, value: 2 { bytes_list: 1 | float_list: 2 | int64_list: 3 } } } }

of which only lists of bytes and of integers are needed here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fae_jax.data.sources.listing import listing_hash, name_hashes, split_positions
from fae_jax.data.sources.record_files import RecordFiles
from fae_jax.data.sources.stored import StoredImage, StoredSource
from fae_jax.files import storage

HELDOUT_SPLITS = ("validation", "test")


class TfdsSource(StoredSource):
    """One split of a prepared TFDS data set of labelled or captioned images.

    With a held-out share of 0, "heldout" is the data set's own validation or test split; otherwise both splits come
    from its training split, chosen by record number.

    Raises:
      FileNotFoundError: `path` is not a prepared data set, or a shard is missing.
      ValueError: its files are not array_record, it has no such split, or no image and class or text in it.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int):
        path = path if storage.is_remote(path) else os.path.expanduser(path)
        info, features = (_json(path, name) for name in ("dataset_info.json", "features.json"))
        if info.get("fileFormat") != "array_record":
            raise ValueError(
                f"{path} is stored as {info.get('fileFormat', 'tfrecord')}, which has no random access; "
                "prepare it again with file_format='array_record'"
            )
        kinds = {
            name: about.get("pythonClassName", "") for name, about in features["featuresDict"]["features"].items()
        }
        image, label, text = (
            next((name for name, kind in kinds.items() if kind.endswith(wanted)), None)
            for wanted in (".Image", ".ClassLabel", ".Text")
        )
        if image is None or (label is None and text is None):
            raise ValueError(f"{path} has no feature that is an image beside one that is a class or a text: {kinds}")
        self._image, self._about = image, label or text or ""
        self.captioned = label is None
        self.classes = () if label is None else _class_names(path, label, features)
        own = next(iter(HELDOUT_SPLITS)) if split == "heldout" and not holdout else "train"
        own, self._records = _shards(path, info, own)
        keys = name_hashes(f"{own} {number}" for number in range(len(self._records)))
        chosen, share = ("train", 0.0) if own != "train" else (split, holdout)
        self._rows = split_positions(keys, np.zeros(len(keys), np.int32), split=chosen, holdout=share, seed=seed)
        self.keys = keys[self._rows]
        marks = [f"{name}={info.get(name)}" for name in ("name", "version")]
        self.fingerprint = listing_hash("tfds", name_hashes(marks), self.keys, np.asarray(self._records.counts))

    def name(self, position: int) -> str:
        return self._records.place(int(self._rows[position]))

    def stored(self, position: int) -> StoredImage:
        example = parse_example(self._records.read([int(self._rows[position])])[0])
        data, about = example[self._image][0], example[self._about]
        if not self.captioned:
            return StoredImage(data, about[0])
        return StoredImage(data, -1, tuple(text.decode("utf-8") for text in about))


def _json(path: str, name: str) -> dict[str, Any]:
    file = storage.join(path, name)
    if not storage.exists(file):
        raise FileNotFoundError(f"{path} is no prepared TFDS data set: it has no {name}")
    try:
        return json.loads(storage.read_bytes(file))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _class_names(path: str, label: str, features: dict[str, Any]) -> tuple[str, ...]:
    file = storage.join(path, f"{label}.labels.txt")
    if storage.exists(file):
        return tuple(storage.read_bytes(file).decode().splitlines())
    about = features["featuresDict"]["features"][label]
    return tuple(str(number) for number in range(int(about["classLabel"]["numClasses"])))


def _shards(path: str, info: dict[str, Any], wanted: str) -> tuple[str, RecordFiles]:
    splits = {split["name"]: split for split in info["splits"]}
    names = [wanted] if wanted == "train" else [name for name in HELDOUT_SPLITS if name in splits]
    if not names or names[0] not in splits:
        raise ValueError(f"{path} has the splits {', '.join(splits)}, not {wanted}; hold out a share of train")
    split = splits[names[0]]
    counts = [int(count) for count in split["shardLengths"]]
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    paths = []
    for number in range(len(counts)):
        words = {
            "DATASET": info["name"],
            "SPLIT": names[0],
            "FILEFORMAT": "array_record",
            "SHARD_X_OF_Y": f"{number:05d}-of-{len(counts):05d}",
            "SHARD_INDEX": f"{number:05d}",
            "NUM_SHARDS": f"{len(counts):05d}",
        }
        paths.append(storage.join(path, template.format(**words)))
        if not storage.exists(paths[-1]):
            raise FileNotFoundError(f"shard {paths[-1]} of split {names[0]!r} is missing")
    return names[0], RecordFiles(paths, counts)


def parse_example(message: bytes) -> dict[str, list[Any]]:
    """Features of a `tf.train.Example` by name: lists of bytes or of integers; lists of floats come out empty.

    Raises:
      ValueError: the bytes are no such message.
    """
    try:
        example: dict[str, list[bytes] | list[int]] = {}
        for features in _fields(message, 1):
            for entry in _fields(features, 1):
                name = next(_fields(entry, 1)).decode()
                value = next(_fields(entry, 2), b"")
                texts = [text for held in _fields(value, 1) for text in _fields(held, 1)]
                example[name] = texts or [number for held in _fields(value, 3) for number in _integers(held)]
        return example
    except (IndexError, KeyError, StopIteration, TypeError, UnicodeDecodeError) as error:
        raise ValueError("the record is no tf.train.Example") from error


def _integers(message: bytes) -> Iterator[int]:
    """Field 1 of an Int64List, packed or not."""
    for value in _fields(message, 1):
        position = 0
        values = [value] if isinstance(value, int) else []
        while not isinstance(value, int) and position < len(value):
            number, position = _varint(value, position)
            values.append(number)
        yield from (number - 2**64 if number >= 2**63 else number for number in values)


def _fields(message: bytes, wanted: int) -> Iterator[Any]:
    """Values of one field of a protocol-buffer message: integers, or bytes."""
    position = 0
    value: int | bytes
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
        else:
            size, position = _varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
            value, position = message[position : position + size], position + size
            if position > len(message):
                raise IndexError
        if tag >> 3 == wanted:
            yield value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
