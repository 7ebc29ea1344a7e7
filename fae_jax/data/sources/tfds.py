"""A data set that TensorFlow Datasets prepared as array_record, read by that library and without TensorFlow.

The path is the folder of one version. A colon behind it adds a split, or slices of splits, in the library's own
notation: `…/imagenet2012/5.1.0:train[10%:20%]`; without it, "train" is meant. The library reads what the folder says
of itself, cuts the splits and decodes the records; `RecordFiles` reads the files.
"""

from __future__ import annotations

import functools
import operator
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.data.sources.columns import UNNAMED, Chosen, Columns, choose
from fae_jax.data.sources.listing import listing_hash, name_hashes, split_positions
from fae_jax.data.sources.record_files import RecordFiles
from fae_jax.data.sources.stored import StoredImage, StoredSource
from fae_jax.files import storage

HELDOUT_SPLITS = ("validation", "test")
NO_CAPTIONS = ("file_name", "filename", "image/filename", "id", "image/id", "url")  # texts that describe nothing

Place = tuple[str, ...]  # the names that lead to a feature
Leaf = tuple[Place, Any]  # a feature, and where it is


class TfdsSource(StoredSource):
    """Labelled or captioned images of a prepared TFDS data set.

    With a held-out share of 0, "heldout" is the data set's own validation or test split; otherwise both splits come
    from what the path names, chosen by record number.

    Raises:
      FileNotFoundError: `path` is not a prepared data set, or a shard is missing.
      ValueError: its files are not array_record, it has no such split, it has no image beside a class or a text, or
        several and `columns` does not say which are meant.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int, columns: Columns = UNNAMED):
        folder, part = folder_and_split(path)
        info = _info(folder)
        if split == "heldout" and not holdout:
            split, part = "train", next((name for name in HELDOUT_SPLITS if name in info.splits), HELDOUT_SPLITS[0])
        leaves = {"/".join(place): (place, feature) for place, feature in _leaves(info.features)}
        image, label, caption, unusual = _chosen(columns, info, leaves, folder)
        self.captioned = not label
        self._image, self._about = leaves[image][0], leaves[label or caption][0]
        self.classes = tuple(leaves[label][1].names) if label else ()
        self._features = _reduced(info.features, (self._image, self._about))
        files = _files(info, part, folder)
        paths = [storage.join(folder, file.basename()) for file in files]
        self._records = RecordFiles(paths, [file.examples_in_shard for file in files])
        starts = np.cumsum([0, *self._records.counts])
        rows = [
            start + np.arange(file.skip, file.skip + file.take) for start, file in zip(starts, files, strict=False)
        ]
        keys = name_hashes(_names(info, files))
        chosen = split_positions(keys, np.zeros(len(keys), np.int32), split=split, holdout=holdout, seed=seed)
        self.keys, self._rows = keys[chosen], np.concatenate(rows)[chosen]
        marks = name_hashes([f"name={info.name}", f"version={info.version}", *unusual])
        self.fingerprint = listing_hash("tfds", marks, self.keys, np.asarray(self._records.counts))

    def name(self, position: int) -> str:
        return self._records.place(int(self._rows[position]))

    def stored(self, position: int) -> StoredImage:
        from tensorflow_datasets import decode

        record = self._records.read([int(self._rows[position])])[0]
        decoders = functools.reduce(lambda inner, name: {name: inner}, reversed(self._image), decode.SkipDecoding())
        try:
            example = self._features.deserialize_example_np(record, decoders=decoders)
        except Exception as error:  # protobuf's own, or whatever the features stumble over
            raise ValueError("the record is not what features.json describes") from error
        data, about = (functools.reduce(operator.getitem, place, example) for place in (self._image, self._about))
        if not self.captioned:
            return StoredImage(data, int(about))
        captions = tuple(text.decode("utf-8") for text in ([about] if isinstance(about, bytes) else about))
        if not any(captions):
            raise ValueError("the record holds no caption")
        return StoredImage(data, -1, captions)


def folder_and_split(path: str) -> tuple[str, str]:
    """The folder and the split that a path names; "train" where it names none."""
    before, slash, last = path.rpartition("/")
    name, _, split = last.partition(":")
    return before + slash + name, split or "train"


def _info(folder: str) -> Any:
    """What the library knows of a data set, from the small files beside its shards."""
    import tensorflow_datasets as tfds

    for name in ("dataset_info.json", "features.json"):
        if not storage.exists(storage.join(folder, name)):
            raise FileNotFoundError(f"{folder} is no prepared TFDS data set: it has no {name}")
    with tempfile.TemporaryDirectory() as copy:
        if storage.is_remote(folder):
            for file in storage.find_files(folder, (".json", ".txt")):
                (Path(copy) / file.name).write_bytes(storage.read_bytes(file.path))
        try:
            info = tfds.builder_from_directory(copy if storage.is_remote(folder) else folder).info
        except Exception as error:  # a dozen kinds
            raise ValueError(f"{folder} cannot be read as a TFDS data set: {' '.join(str(error).split())}") from error
    if info.file_format.value != "array_record":
        raise ValueError(
            f"{folder} is stored as {info.file_format.value}, which has no random access; "
            "prepare it again with file_format='array_record'"
        )
    return info


def _files(info: Any, part: str, folder: str) -> list[Any]:
    """The library's instructions for a split: of each file, how many records to skip and to take."""
    try:
        files = info.splits[part].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{folder} has the splits {', '.join(info.splits)}, not {part}; name one of them, or slices such as "
            "train[10%:20%], or hold out a share of train"
        ) from error
    if not files:
        raise ValueError(f"{part} of {folder} holds no images")
    for file in files:
        path = storage.join(folder, file.basename())
        if not storage.exists(path):
            raise FileNotFoundError(f"shard {path} of {part} is missing")
    return files


def _names(info: Any, files: list[Any]) -> Iterator[str]:
    """Names of the records: their split and their number in all of it, however it is cut."""
    first = {}
    for split, about in info.splits.items():
        number = 0
        for file in about.file_instructions:
            first[file.filename], number = (split, number), number + file.examples_in_shard
    for file in files:
        split, start = first[file.filename]
        yield from (f"{split} {number}" for number in range(start + file.skip, start + file.skip + file.take))


def _chosen(columns: Columns, info: Any, leaves: dict[str, Leaf], folder: str) -> Chosen:
    """The features to read: what the configuration names, the supervised keys, then usual names."""
    from tensorflow_datasets import features

    kinds = {"image": features.Image, "label": features.ClassLabel, "caption": features.Text}
    supervised = {name for name in info.supervised_keys or () if isinstance(name, str)}
    possible, likely = {}, {}
    for role, kind in kinds.items():
        possible[role] = sorted(name for name, (_, feature) in leaves.items() if type(feature) is kind)
        telling = [name for name in possible[role] if leaves[name][0][-1] not in NO_CAPTIONS]
        likely[role] = [name for name in telling if name in supervised] or telling
    return choose(columns, possible, likely, folder, sorted(leaves))


def _leaves(feature: Any, place: Place = (), listed: bool = False) -> Iterator[Leaf]:
    """Features that an example has one of, at any depth; and texts that it has a list of."""
    from tensorflow_datasets import features

    if type(feature) is features.Sequence and not listed:
        feature, listed = feature.feature, True
    if type(feature) is features.FeaturesDict:
        for name, part in feature.items():
            yield from _leaves(part, (*place, name), listed)
    elif type(feature) is features.Text or not listed:
        yield place, feature


def _reduced(feature: Any, places: Sequence[Place]) -> Any:
    """Features cut down to those at some places, so that nothing else is decoded."""
    from tensorflow_datasets import features

    if () in places:
        return feature
    if type(feature) is features.Sequence:
        return features.Sequence(_reduced(feature.feature, places))
    names = {place[0] for place in places}
    rest = {name: [place[1:] for place in places if place[0] == name] for name in names}
    return features.FeaturesDict({name: _reduced(feature[name], inner) for name, inner in rest.items()})
