"""Every way of storing images gives the same pixels and labels, and the same batches on any hosts and workers."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
from damage import flipped
from PIL import Image

from fae_jax.commands.quickstart import configure
from fae_jax.config import default_config, override
from fae_jax.config.composing import freeze
from fae_jax.data.batching import Reading
from fae_jax.data.decode import BadImage, decode_image
from fae_jax.data.loader import Loader
from fae_jax.data.prepare.checking import Filters, check_source
from fae_jax.data.sources.columns import Columns
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.packed import PackedSource, write_packed
from fae_jax.data.sources.parquet import ParquetSource
from fae_jax.data.sources.tars import TarSource
from fae_jax.data.sources.tfds import TfdsSource
from fae_jax.stages.images import open_images

Stored = tuple[str, str]


def opened(kind: str, path: str, **options: Any) -> Source:
    return open_source(kind, path=path, **{"split": "train", "holdout": 0.0, "seed": 0, **options})


def test_every_source_gives_the_same_pixels_and_labels(stored: Stored, images: list) -> None:
    source = opened(*stored)
    assert len(source) == len(images) and source.classes == ("cat", "dog", "eel")
    for position, (key, label, data) in enumerate(images):
        element = source[position]
        np.testing.assert_array_equal(element["image"], decode_image(data, key))
        assert element["label"] == label and element["label"].dtype == np.int32
        assert element["index"] == position and element["index"].dtype == np.int64


def test_splits_and_fingerprints_of_every_source(stored: Stored) -> None:
    whole, again = opened(*stored), opened(*stored)
    assert whole.fingerprint == again.fingerprint
    if stored[0] == "tfds":
        with pytest.raises(ValueError, match="has the splits train, not validation"):
            opened(*stored, split="heldout")
    parts = [opened(*stored, split=split, holdout=0.25) for split in ("train", "heldout")]
    assert len(parts[0]) + len(parts[1]) == 39 and 9 <= len(parts[1]) <= 10
    prints = {part.fingerprint for part in (whole, *parts)}
    assert len(prints) == 3
    pixels = [part[i]["image"].tobytes() for part in parts for i in range(len(part))]
    assert len(set(pixels)) == 39


def test_one_image_more_is_another_data_set(images: list, tmp_path: Path, repack: Any) -> None:
    for kind in ("folder", "tar", "array_record", "tfds", "parquet"):
        paths = [repack(kind, images[:count], tmp_path / f"{kind} {count}") for count in (38, 39)]
        assert len({opened(kind, path).fingerprint for path in paths}) == 2, kind


def test_the_limit_on_pixels_is_the_configurations(images: list, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.bmp").write_bytes(as_bmp(images[0][2]))
    words = {"source": "folder", "path": str(tmp_path), "classes": "2"}
    for limit, readable in (("100", False), ("100000", True)):
        fields = [(f"data.{name}", value) for name, value in (words | {"max_pixels": limit}).items()]
        source = open_images(freeze(override(default_config(), fields)).data, "train", 0)
        checked = check_source(source, Filters(max_pixels=int(limit)), tmp_path.parent / limit)
        assert (len(checked["used"]) == 2) == readable
        with contextlib.nullcontext() if readable else pytest.raises(BadImage, match="are more than 100 pixels"):
            source[0]


def as_bmp(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "BMP")
    return buffer.getvalue()


def test_folders_of_splits_are_no_classes(images: list, tmp_path: Path) -> None:
    for folder in ("train", "Val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(images[0][2])
    with pytest.raises(ValueError, match="are splits, not classes: Val, train; name the one to train on"):
        opened("folder", str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "note", "message"),
    [
        ([1, 3, 2], "{}", "counts its 3 classes from 1.*subtract 1 from the column label"),
        ([0, 2**40, 1], "{}", "class 1,099,511,627,776, and classes are at most 1,000,000"),
        ([0, 2**31 - 1, 1], "{}", "class 2,147,483,647, and classes are at most 1,000,000"),
        ([0, 1, 2], "[1]", "is no whole parquet file"),
        ([0, 1, 2], "[" * 100_000, "is no whole parquet file"),
        ([0, 1, 2], '{"info": {"features": {"label": {"names": 3}}}}', "is no whole parquet file"),
    ],
)
def test_parquet_whose_classes_are_none(
    images: list, tmp_path: Path, labels: list[int], note: str, message: str
) -> None:
    table = pyarrow.table({"image": [data for *_, data in images[:3]], "label": labels})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        opened("parquet", str(tmp_path))


def batches(source: Source, steps: int, start: int = 0, **options: Any) -> list[dict[str, np.ndarray]]:
    loader = Loader(**{"source": source, "batch": 8, "seed": 5, "image_size": 24, "flip": True, "keep": 0, **options})
    with loader.at(start) as iterator:
        return [next(iterator) for _ in range(steps)]


STEPS = 201  # batches 0 to 200


def hold_for(source: Source, assert_equal: Callable[..., None], **options: Any) -> None:
    """Batches 0 to 200 are the same on 1, 2, 4 and 8 hosts, with any number of workers, and after seeking."""
    expected = batches(source, STEPS, **options)
    for hosts in (2, 4, 8):
        parts = [batches(source, STEPS, host=host, hosts=hosts, **options) for host in range(hosts)]
        joined = [{k: np.concatenate([p[i][k] for p in parts]) for k in expected[0]} for i in range(STEPS)]
        assert_equal(joined, expected)
    for workers in (1, 2):
        assert_equal(batches(source, STEPS, reading=Reading(workers=workers), **options), expected)
    for step in (1, 77, 200):
        after = expected[step : step + 4]
        assert_equal(batches(source, len(after), start=step, **options), after)


@pytest.mark.slow
def test_hosts_workers_and_seeking_change_nothing_for_every_source(
    stored: Stored, assert_equal: Callable[..., None]
) -> None:
    hold_for(opened(*stored), assert_equal)


def test_random_crops_are_as_deterministic(images: list, tmp_path: Path, repack: Any, assert_equal: Any) -> None:
    source = opened("tar", repack("tar", images, tmp_path / "data"))
    expected = batches(source, 6, crop="random_resized")
    parts = [batches(source, 6, crop="random_resized", host=host, hosts=4) for host in range(4)]
    assert_equal([{k: np.concatenate([p[i][k] for p in parts]) for k in expected[0]} for i in range(6)], expected)
    assert (expected[0]["image"] != batches(source, 1)[0]["image"]).any()


@pytest.mark.parametrize("kind", ["folder", "tar", "array_record", "tfds", "parquet"])
def test_buckets_are_read_in_place(
    kind: str, images: list, tmp_path: Path, repack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = repack(kind, images, tmp_path / "data")
    bucket = fsspec.filesystem("memory")
    bucket.put(local, f"/{kind}/data", recursive=True)
    try:
        remote = opened(kind, f"memory://{kind}/data", holdout=0.25)
        here = opened(kind, local, holdout=0.25)
        assert remote.fingerprint == here.fingerprint and len(remote) == len(here)
        if kind == "folder":
            assert configure(f"memory://{kind}/data", []).data.path == f"memory://{kind}/data"
        for position in range(0, len(here), 5):
            np.testing.assert_array_equal(remote[position]["image"], here[position]["image"])
            assert remote[position]["label"] == here[position]["label"]
    finally:
        bucket.rm(f"/{kind}", recursive=True)
    with pytest.raises((FileNotFoundError, ValueError)):
        opened(kind, f"memory://{kind}/data")


def test_an_unknown_protocol_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match="paths that begin with nowhere:// cannot be read here"):
        opened("tar", "nowhere://bucket/shards")


def test_damaged_stores_are_named(images: list, tmp_path: Path, repack: Any) -> None:
    with pytest.raises(FileNotFoundError, match="holds no finished packed images"):
        opened("array_record", str(tmp_path))
    packed = Path(repack("array_record", images, tmp_path / "packed"))
    (packed / "header.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="its format is 'other'"):
        opened("array_record", str(packed))


def test_damaged_tables_of_packed_images_are_named_and_made_anew(images: list, tmp_path: Path, repack: Any) -> None:
    packed = Path(repack("array_record", images, tmp_path / "packed"))
    whole, rng = (packed / "images.npz").read_bytes(), np.random.default_rng(0)
    fingerprint = opened("array_record", str(packed)).fingerprint
    cuts = [whole[:length] for length in (0, 10, len(whole) // 2, len(whole) - 1)]
    for damaged in (*cuts, *(flipped(whole, rng) for _ in range(40)), b"not an archive"):
        (packed / "images.npz").write_bytes(damaged)
        try:
            assert opened("array_record", str(packed)).fingerprint == fingerprint
        except ValueError as error:
            assert "cannot be opened" in str(error) and "`fae prepare --pack` mends them" in str(error)
    tars = opened("tar", str(packed.parent / "tars"))
    write_packed(packed, tars, np.arange(len(tars)), shard_size=17)
    assert opened("array_record", str(packed)).fingerprint == fingerprint


def test_damaged_parquet_is_named(images: list, tmp_path: Path, repack: Any) -> None:
    path = Path(repack("parquet", images, tmp_path / "parquet"))
    (file,) = path.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match="is no whole parquet file"):
        opened("parquet", str(path))


def test_parquet_with_two_columns_of_classes(images: list, tmp_path: Path) -> None:
    def written(*names: str) -> str:
        kinds = {name: {"names": [f"{name} {n}" for n in range(3)], "_type": "ClassLabel"} for name in names}
        columns = {name: [label for _, label, _ in images] for name in names}
        table = pyarrow.table({"image": [data for *_, data in images], **columns})
        note = {"huggingface": json.dumps({"info": {"features": kinds}})}
        pyarrow.parquet.write_table(table.replace_schema_metadata(note), tmp_path / "a.parquet")
        return str(tmp_path)

    for names in (("label", "coarse"), ("coarse", "label")):
        assert opened("parquet", written(*names)).classes == ("label 0", "label 1", "label 2")
    path = written("fine", "coarse")
    with pytest.raises(ValueError, match="several columns of classes: fine, coarse; choose one") as refused:
        opened("parquet", path)
    field, _, name = str(refused.value).partition("--config.data.columns.")[2].partition("=")
    chosen = [opened("parquet", path, columns=Columns(**{field: each})) for each in (name, "coarse")]
    assert [source.classes[0] for source in chosen] == ["fine 0", "coarse 0"]
    assert chosen[0].fingerprint != chosen[1].fingerprint
    with pytest.raises(ValueError, match="no column of classes called 'course' .*there is fine, coarse"):
        opened("parquet", path, columns=Columns(label="course"))


def test_nested_columns_of_parquet_are_named_or_refused(images: list, tmp_path: Path) -> None:
    row = {
        "photo": {"image": {"bytes": images[0][2], "path": "a"}, "mask": {"bytes": images[1][2], "path": "b"}},
        "sentences": [{"text": "a cat", "id": 1}, {"text": "its tail", "id": 2}],
        "spoken": {"text": "miaow"},
        "about": {"label": 1, "fur": 2},
    }
    rows = [row, row | {"sentences": [], "about": {"label": None, "fur": 0}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")

    def source(**columns: str) -> ParquetSource:
        return ParquetSource(str(tmp_path), split="train", holdout=0.0, seed=0, columns=Columns(**columns))

    plain = source()
    assert not plain.captioned and plain.stored(0) == (images[0][2], 1, ())
    with pytest.raises(BadImage, match="class -1 is not one of 2"):
        _ = plain[1]
    assert source(label="about/fur", image="photo/mask").stored(0) == (images[1][2], 2, ())
    captioned = source(caption="sentences/text")
    assert captioned.captioned and captioned.stored(0) == (images[0][2], -1, ("a cat", "its tail"))
    with pytest.raises(ValueError, match="the row holds no caption"):
        captioned.stored(1)
    prints = [plain, captioned, source(label="about/fur"), source(image="photo/mask"), source(caption="spoken/text")]
    assert len({each.fingerprint for each in prints}) == 5
    assert plain.fingerprint == source(image="photo/image", label="about/label").fingerprint
    unlabelled = [{name: value for name, value in row.items() if name != "about"}] * 2
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(unlabelled), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="several columns of captions: sentences/text, spoken/text; choose one"):
        source()
    assert source(caption="spoken/text").stored(1).captions == ("miaow",)
    pyarrow.parquet.write_table(pyarrow.table({"one": [b"a"], "two": [b"b"], "words": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="several columns of images: one, two; choose one"):
        source()
    with pytest.raises(ValueError, match="hold classes or captions: one, two, words; .*data.columns.caption=NAME"):
        source(image="one")
    assert source(image="one", caption="words").stored(0) == (b"a", -1, ("x",))
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"a"], "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet has no column 'one', which .*a\.parquet has"):
        source(image="one", caption="words")


def test_the_remedy_for_several_columns_is_one_that_prepare_takes(images: list, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"fine_label": [2, 1, 0], "coarse_label": [0, 0, 1], "image": [data for *_, data in images[:3]]}
    note = {name: {"_type": "ClassLabel", "names": ["x", "y", "z"]} for name in ("fine_label", "coarse_label")}
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": note}})})
    pyarrow.parquet.write_table(table, path)
    words = ["prepare", "imagenet", str(path), "--classes", "3", "--out", str(tmp_path / "out")]

    def fae(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "fae_jax", *words, *more], capture_output=True, text=True)

    refused = fae()
    remedy = re.search(r"choose one, as in (\S+)", refused.stderr)
    assert refused.returncode == 2 and remedy, refused.stderr
    assert remedy[1] == "--config.data.columns.label=fine_label"
    assert fae(remedy[1]).returncode == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["classes"] == {"x": 1, "y": 1, "z": 1}
    other = fae("--config.features.steps=3")
    assert other.returncode == 2 and "no configuration but data.columns.image, .label and .caption" in other.stderr


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_folder_of_two_splits_is_refused_and_a_pattern_chooses(
    kind: str, images: list, tmp_path: Path, repack: Any
) -> None:
    (tmp_path / "both").mkdir()
    for split in ("train", "test"):
        made = Path(repack(kind, images, tmp_path / split))
        for number, file in enumerate(sorted(made.glob(f"*.{kind}"))):
            file.rename(tmp_path / "both" / f"{split}-{number:05d}.{kind}")
    with pytest.raises(ValueError, match=rf"both holds files of test and of train; .*both/train-\*\.{kind}"):
        opened(kind, str(tmp_path / "both"))
    assert len(opened(kind, str(tmp_path / "both" / f"train-*.{kind}"))) == len(images)
    assert len(opened(kind, str(tmp_path / "both" / f"*.{kind}"))) == 2 * len(images)


def real(name: str) -> Path:
    root = os.environ.get("FAE_REAL_DATA")
    if root is None:
        pytest.skip("FAE_REAL_DATA is not set")
    path = Path(root) / name
    assert path.exists(), f"{path} is missing"
    return path


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("crop", ["adm_centre", "random_resized"])
@pytest.mark.parametrize("kind", ["folder", "tar", "tfds", "array_record", "parquet"])
def test_real_batches_of_every_source(kind: str, crop: str, tmp_path: Path, repack: Any, assert_equal: Any) -> None:
    """Of 200 of the validation photographs, augmentations included."""
    names = [f"class {label}" for label in range(10)]
    place = repack(kind, archived("imagenette224-val-00000.tar")[::7][:200], tmp_path / kind, classes=names)
    hold_for(opened(kind, place), assert_equal, crop=crop)


@pytest.mark.slow
@pytest.mark.real_data
def test_real_batches_with_captions(assert_equal: Callable[..., None]) -> None:
    source = opened("tar", str(real("captions/flickr8k-00000.tar")))
    assert source.captioned and len(source) == 500
    hold_for(source, assert_equal, caption_dropout=0.1)


def archived(name: str) -> list[tuple[str, int, bytes]]:
    """Key, class and file of every photograph of the tars, as tarfile reads them, by class."""
    images = []
    for path in sorted(real("images").glob(name)):
        with tarfile.open(path) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        keys = [name[:-4] for name in members if name.endswith(".jpg")]
        images += [(key, int(members[f"{key}.cls"]), members[f"{key}.jpg"]) for key in keys]
    return sorted(images, key=lambda image: image[1])


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["folder", "tfds", "array_record", "parquet"])
def test_all_real_photographs_are_the_same_however_stored(kind: str, tmp_path: Path, repack: Any) -> None:
    """Labels, bytes and pixels of all 10,969."""
    images = archived("imagenette224-*.tar")
    assert len(images) == 10_969
    place = repack(kind, images, tmp_path / kind, classes=[f"class {label}" for label in range(10)])
    source = opened(kind, place)
    assert len(source) == len(images)
    for position, (key, label, data) in enumerate(images):
        element, stored = source[position], source.stored(position)
        assert stored.data == data and element["label"] == stored.label == label
        np.testing.assert_array_equal(element["image"], decode_image(data, key))


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["folder", "tfds", "array_record", "parquet"])
def test_real_photographs_are_the_same_however_stored(kind: str, tmp_path: Path, repack: Any) -> None:
    """Every file of the 1,500 validation photographs, and the pixels of every tenth."""
    path = real("images/imagenette224-val-00000.tar")
    tars = TarSource(str(path), split="train", holdout=0.0, seed=0)
    images = archived("imagenette224-val-00000.tar")
    there = {tars.stored(position).data: position for position in range(len(tars))}
    assert len(tars) == len(there) == 1500
    kinds = {"folder": opened, "tfds": TfdsSource, "array_record": PackedSource, "parquet": ParquetSource}
    place = repack(kind, images, tmp_path / kind, classes=[f"class {label}" for label in range(10)])
    source = opened(kind, place) if kind == "folder" else kinds[kind](place, split="train", holdout=0.0, seed=0)
    assert len(source) == 1500
    for position in range(1500):
        stored = source.stored(position)
        original = tars.stored(there[stored.data])
        assert stored.label == original.label == images[position][1]
        if position % 10 == 0:
            np.testing.assert_array_equal(source[position]["image"], tars[there[stored.data]]["image"])
