"""Small sources for the data tests, and the same images stored in every way."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.data.sources.digits import DigitsSource
from fae_jax.data.sources.packed import write_packed
from fae_jax.data.sources.record_files import writing
from fae_jax.data.sources.tars import TarSource


@pytest.fixture(scope="session")
def digits() -> DigitsSource:
    return DigitsSource(split="heldout", holdout=0.2, seed=0)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes of 13 PNG images of odd sizes, each of smooth noise."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for label in ("cat", "dog", "eel"):
        (root / label).mkdir()
        for number in range(13):
            height, width = rng.integers(20, 90, 2)
            coarse = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8))
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    """Compares two lists of batches bit for bit, dtypes included."""

    def check(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> None:
        assert len(left) == len(right)
        for step, (a, b) in enumerate(zip(left, right, strict=True)):
            assert a.keys() == b.keys()
            for key in a:
                assert a[key].dtype == b[key].dtype
                np.testing.assert_array_equal(a[key], b[key], f"step {step}, {key}")

    return check


StoredFile = tuple[str, int, bytes]  # key, label, file
CLASSES = ("cat", "dog", "eel")


def write_tfds(folder: Path, features: Any, splits: dict[str, Sequence[dict[str, Any]]], **about: Any) -> None:
    """A data set as TensorFlow Datasets prepares it, which itself needs TensorFlow to write; ten records a shard.

    Args:
      features: tfds features.
      splits: the examples of each; flat names (a/b) → bytes, a whole number, or a list of bytes.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    features.save_config(folder)
    listed = []
    for split, examples in splits.items():
        shards = [examples[start : start + 10] for start in range(0, len(examples), 10)]
        for number, shard in enumerate(shards):
            with writing(folder / f"three-{split}.array_record-{number:05d}-of-{len(shards):05d}") as write:
                for example in shard:
                    record = tf_example_pb2.Example()
                    for name, value in example.items():
                        feature = record.features.feature[name]
                        if isinstance(value, int):
                            feature.int64_list.value.append(value)
                        else:
                            feature.bytes_list.value.extend([value] if isinstance(value, bytes) else value)
                    write(record.SerializeToString())
        listed.append({"name": split, "shardLengths": [str(len(shard)) for shard in shards]})
        listed[-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {"name": "three", "version": "1.0.0", "fileFormat": "array_record", "splits": listed, **about}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def repack(kind: str, images: Sequence[StoredFile], folder: Path, classes: Sequence[str] = CLASSES) -> str:
    """Stores images as `kind` in `folder`, in their order, and gives the path to open."""
    folder.mkdir(parents=True)
    if kind == "folder":
        for number, (_, label, data) in enumerate(images):
            (folder / classes[label]).mkdir(exist_ok=True)
            (folder / classes[label] / f"{number:06d}.jpg").write_bytes(data)
    elif kind == "tar":
        (folder / "classes.json").write_text(json.dumps(classes))
        half = len(images) // 2
        for number, part in enumerate((images[:half], images[half:])):
            members = {}
            for key, label, data in part:
                members |= {f"{key}.jpg": data, f"{key}.cls": str(label).encode()}
            write_tar(folder / f"{number:05d}.tar", members)
    elif kind == "tfds":
        from tensorflow_datasets import features

        kinds = {"image": features.Image(), "label": features.ClassLabel(names=classes), "file_name": features.Text()}
        examples = [{"file_name": key.encode(), "image": data, "label": label} for key, label, data in images]
        write_tfds(folder, features.FeaturesDict(kinds), {"train": examples})
    elif kind == "array_record":
        source = TarSource(repack("tar", images, folder / "tars", classes), split="train", holdout=0.0, seed=0)
        write_packed(folder / "packed", source, np.arange(len(source)), shard_size=17)
        return str(folder / "packed")
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        note = {"info": {"features": {"label": {"names": list(classes), "_type": "ClassLabel"}}}}
        columns = {
            "image": [{"bytes": data, "path": key} for key, _, data in images],
            "label": [label for _, label, _ in images],
        }
        table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(note)})
        pyarrow.parquet.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=10)
    return str(folder)


KINDS = ("folder", "tar", "tfds", "array_record", "parquet")


@pytest.fixture(scope="session")
def images(photographs: Path) -> list[StoredFile]:
    """The photographs as JPEG files with keys and labels, by label."""
    stored = []
    for label, name in enumerate(CLASSES):
        for path in sorted((photographs / name).iterdir()):
            buffer = io.BytesIO()
            Image.open(path).save(buffer, "JPEG", quality=95)
            stored.append((f"{name}-{path.stem}", label, buffer.getvalue()))
    return stored


@pytest.fixture(scope="session", name="repack")
def _repack() -> Callable[..., str]:
    return repack


@pytest.fixture(scope="session", name="write_tfds")
def _write_tfds() -> Callable[..., None]:
    return write_tfds


@pytest.fixture(scope="session", name="write_tar")
def _write_tar() -> Callable[..., None]:
    return write_tar


@pytest.fixture(scope="session", params=KINDS)
def stored(
    request: pytest.FixtureRequest, images: list[StoredFile], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Each kind of source, and a path where it holds `images`."""
    return request.param, repack(request.param, images, tmp_path_factory.mktemp(request.param) / "data")
