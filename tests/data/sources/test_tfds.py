"""Data sets that TensorFlow Datasets prepared: splits, nested features, captions, and what is refused."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tensorflow_datasets import features

from fae_jax.commands.prepare import kind_of
from fae_jax.data.sources.columns import Columns
from fae_jax.data.sources.record_files import writing
from fae_jax.data.sources.tfds import TfdsSource, folder_and_split

Stored = Sequence[tuple[str, int, bytes]]


def opened(path: Any, split: str = "train", holdout: float = 0.0, **columns: str) -> TfdsSource:
    return TfdsSource(str(path), split=split, holdout=holdout, seed=0, columns=Columns(**columns))


@pytest.fixture
def labelled(tmp_path: Path, images: Stored, write_tfds: Callable[..., None]) -> Path:
    """25 training images in three shards, 6 of validation."""
    kinds = {"image": features.Image(), "label": features.ClassLabel(names=["cat", "dog", "eel"])}
    examples = [{"image": data, "label": label} for _, label, data in images]
    write_tfds(tmp_path, features.FeaturesDict(kinds), {"train": examples[:25], "validation": examples[30:36]})
    return tmp_path


def files(source: TfdsSource) -> list[bytes]:
    return [source.stored(position).data for position in range(len(source))]


def test_slices_and_sums_of_splits_are_tfdss_own(labelled: Path, images: Stored) -> None:
    stored = [data for _, _, data in images]
    for split, expected in {
        "": stored[:25],
        ":train[8:12]": stored[8:12],
        ":train[40%:]": stored[10:25],
        ":validation[:2]+train[-1:]": [*stored[30:32], stored[24]],
    }.items():
        source = opened(f"{labelled}{split}")
        assert files(source) == expected, split
        assert files(pickle.loads(pickle.dumps(source))) == expected
    assert files(opened(f"{labelled}:train[:3]", "heldout")) == stored[30:36]


def test_a_record_is_the_same_one_however_the_split_is_cut(labelled: Path) -> None:
    whole, cut = opened(labelled), opened(f"{labelled}:train[8:12]")
    np.testing.assert_array_equal(cut.keys, whole.keys[8:12])
    assert cut.name(2) == whole.name(10) == f"{labelled}/three-train.array_record-00001-of-00003, record 0"
    assert len({cut.fingerprint, whole.fingerprint, opened(f"{labelled}:train[8:13]").fingerprint}) == 3
    parts = [opened(f"{labelled}:train[:20]", split, 0.25) for split in ("train", "heldout")]
    assert sorted(np.concatenate([part.keys for part in parts])) == sorted(whole.keys[:20])


def test_a_colon_belongs_to_the_split_only_behind_the_last_slash() -> None:
    assert folder_and_split("gs://bucket/set/1.0.0") == ("gs://bucket/set/1.0.0", "train")
    assert folder_and_split("gs://bucket/set/1.0.0:test") == ("gs://bucket/set/1.0.0", "test")
    assert folder_and_split("/a:b/1.0.0:train[:5%]") == ("/a:b/1.0.0", "train[:5%]")
    assert folder_and_split("/a:b/") == ("/a:b/", "train")


def test_slices_are_read_in_buckets_and_seen_by_prepare(
    labelled: Path, images: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(labelled / "cache"))
    bucket = fsspec.filesystem("memory")
    bucket.put(str(labelled), "/tfds/three", recursive=True)
    try:
        assert files(opened("memory://tfds/three:train[8:12]")) == [data for _, _, data in images[8:12]]
    finally:
        bucket.rm("/tfds", recursive=True)
    assert kind_of(f"{labelled}:train[8:12]", "imagenet") == "tfds"


def test_nested_features_and_lists_of_captions(
    tmp_path: Path, images: Stored, write_tfds: Callable[..., None]
) -> None:
    kinds = {
        "captions": features.Sequence({"id": np.int64, "text": features.Text()}),
        "image/filename": features.Text(),
        "objects": features.Sequence({"label": features.ClassLabel(num_classes=80), "crop": features.Image()}),
        "paragraphs": features.Sequence({"text": features.Sequence(features.Text())}),
        "photo": {"image": features.Image(), "mask": features.LabeledImage(labels=3, shape=(None, None, 1))},
    }
    example = {"image/filename": b"a.jpg", "photo/image": images[0][2], "photo/mask": b"no PNG"}
    texts = ["größe".encode(), b"b"]
    examples = [example | {"captions/text": texts}, example | {"captions/text": []}]
    write_tfds(tmp_path, features.FeaturesDict(kinds), {"train": examples})
    source = opened(tmp_path)
    assert source.captioned and source.classes == ()
    assert source[0]["captions"] == ("größe", "b") and source[0]["label"] == -1 and source[0]["image"].ndim == 3
    with pytest.raises(ValueError, match="holds no caption"):
        source.stored(1)


def test_of_several_classes_the_one_meant_is_read(
    tmp_path: Path, images: Stored, write_tfds: Callable[..., None]
) -> None:
    def source(name: str, kinds: dict[str, Any], **about: Any) -> TfdsSource:
        example = {"image": images[0][2], **dict.fromkeys(kinds, 1)}
        (tmp_path / name).mkdir()
        both = features.FeaturesDict({"image": features.Image(), **kinds})
        write_tfds(tmp_path / name, both, {"train": [example]}, **about)
        return opened(tmp_path / name)

    coarse, fine = features.ClassLabel(names=["x", "y"]), features.ClassLabel(names=["a", "b", "c"])
    assert source("usual", {"coarse_label": coarse, "label": fine}).classes == ("a", "b", "c")
    keys = {"supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "coarse"}]}}}
    assert source("supervised", {"coarse": coarse, "fine": fine}, **keys).classes == ("x", "y")
    with pytest.raises(ValueError, match="several columns of classes: coarse, fine; .*data.columns.label=coarse"):
        source("open", {"coarse": coarse, "fine": fine})
    both = [opened(tmp_path / "open", label=name) for name in ("coarse", "fine")]
    assert [each.classes for each in both] == [("x", "y"), ("a", "b", "c")]
    assert both[0].fingerprint != both[1].fingerprint
    with pytest.raises(ValueError, match="hold classes or captions: file_name, image; .*data.columns.caption=NAME"):
        source("none", {"file_name": features.Text()})


def test_of_several_nested_texts_the_one_named_is_read(
    tmp_path: Path, images: Stored, write_tfds: Callable[..., None]
) -> None:
    kinds = {
        "image": features.Image(),
        "captions": features.Sequence({"text": features.Text(), "author": features.Text()}),
        "summary": {"text": features.Text()},
        "label": features.ClassLabel(names=["x", "y"]),
    }
    example = {"captions/text": [b"a", b"b"], "captions/author": [b"i", b"you"], "summary/text": b"all", "label": 1}
    write_tfds(tmp_path, features.FeaturesDict(kinds), {"train": [example | {"image": images[0][2]}]})
    assert opened(tmp_path).classes == ("x", "y") and opened(tmp_path)[0]["label"] == 1
    for name, texts in {
        "captions/text": ("a", "b"),
        "captions/author": ("i", "you"),
        "summary/text": ("all",),
    }.items():
        source = opened(tmp_path, caption=name)
        assert source.captioned and source[0]["captions"] == texts
    unlabelled = features.FeaturesDict({name: kind for name, kind in kinds.items() if name != "label"})
    write_tfds(tmp_path, unlabelled, {"train": [example | {"image": images[0][2]}]})
    several = "several columns of captions: captions/author, captions/text, summary/text; choose one, as in "
    with pytest.raises(ValueError, match=f"{several}--config.data.columns.caption=captions/author"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="no column of captions called 'captions' .*; there is captions/author, "):
        opened(tmp_path, caption="captions")
    with pytest.raises(ValueError, match=r"no column of images called 'label' .*; there is image"):
        opened(tmp_path, image="label")


def test_what_cannot_be_read_is_named(labelled: Path, images: Stored) -> None:
    with pytest.raises(ValueError, match="has the splits train, validation, not tran; name one of them"):
        opened(f"{labelled}:tran")
    with pytest.raises(ValueError, match=r"holds no images"):
        opened(f"{labelled}:train[:0]")
    shard = labelled / "three-train.array_record-00001-of-00003"
    whole = shard.read_bytes()
    with writing(shard) as write:
        for _ in range(10):
            write(b"<html>")
    with pytest.raises(ValueError, match=r"the record is not what features.json describes"):
        opened(labelled).stored(13)
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="three-train.*00001.* is no whole array_record file"):
        opened(labelled).stored(13)
    shard.unlink()
    assert len(opened(f"{labelled}:train[:10]")) == 10
    with pytest.raises(FileNotFoundError, match="shard .*three-train.*00001-of-00003 of train is missing"):
        opened(labelled)
    about = json.loads((labelled / "dataset_info.json").read_text())
    (labelled / "dataset_info.json").write_text(json.dumps(about | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="stored as tfrecord.*file_format='array_record'"):
        opened(labelled)
    (labelled / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as a TFDS data set"):
        opened(labelled)
    with pytest.raises(FileNotFoundError, match="is no prepared TFDS data set: it has no dataset_info.json"):
        opened(labelled.parent)


def test_tensorflow_is_never_imported(labelled: Path) -> None:
    code = (
        "import sys; from fae_jax.data.sources.tfds import TfdsSource\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"source = TfdsSource({str(labelled)!r}, split='train', holdout=0.0, seed=0)\n"
        "print(source[3]['image'].shape[2], 'tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["3", "True", "False"], done.stderr


@pytest.mark.real_data
def test_what_tfds_itself_wrote() -> None:
    root = os.environ.get("FAE_REAL_DATA")
    if root is None:
        pytest.skip("FAE_REAL_DATA is not set")
    captions = opened(f"{root}/tfds/captions40/1.0.0")
    assert captions.captioned and len(captions) == 40
    assert len(captions[0]["captions"]) == 5
    assert captions[0]["captions"][1] == "A black and white dog is running through the grass ."
    photographs = opened(f"{root}/tfds/imagenette60/1.0.0:train[10%:20%]")
    assert len(photographs) == 6 and len(photographs.classes) == 10 and photographs[0]["label"] == 5
    assert len(opened(f"{root}/tfds/imagenette60/1.0.0", "heldout")) == 20
