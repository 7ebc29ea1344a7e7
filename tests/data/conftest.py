"""Small sources for the data tests, and the same images stored in every way."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

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


def _example(**features: bytes | int) -> bytes:
    """A tf.train.Example, put together by hand."""

    def field(number: int, content: bytes) -> bytes:
        size, prefix = len(content), bytes([number << 3 | 2])
        while size > 127:
            prefix += bytes([size & 127 | 128])
            size >>= 7
        return prefix + bytes([size]) + content

    entries = b""
    for name, value in features.items():
        held = field(1, field(1, value)) if isinstance(value, bytes) else field(3, field(1, bytes([value])))
        entries += field(1, field(1, name.encode()) + field(2, held))
    return field(1, entries)


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
        about = {"name": "three", "version": "1.0.0", "fileFormat": "array_record"}
        about["splits"] = [{"name": "train", "shardLengths": [str(len(images))]}]
        (folder / "dataset_info.json").write_text(json.dumps(about))
        kinds = {"image": "x.Image", "label": "x.ClassLabel", "file_name": "x.Text"}
        features = {name: {"pythonClassName": kind} for name, kind in kinds.items()}
        (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
        (folder / "label.labels.txt").write_text("\n".join(classes) + "\n")
        with writing(folder / "three-train.array_record-00000-of-00001") as write:
            for key, label, data in images:
                write(_example(file_name=key.encode(), image=data, label=label))
    elif kind == "array_record":
        source = TarSource(repack("tar", images, folder / "tars", classes), split="train", holdout=0.0, seed=0)
        write_packed(folder / "packed", source, np.arange(len(source)), shard_size=17)
        return str(folder / "packed")
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
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
    found = []
    for label, name in enumerate(CLASSES):
        for path in sorted((photographs / name).iterdir()):
            buffer = io.BytesIO()
            Image.open(path).save(buffer, "JPEG", quality=95)
            found.append((f"{name}-{path.stem}", label, buffer.getvalue()))
    return found


@pytest.fixture(scope="session", name="repack")
def _repack() -> Callable[..., str]:
    return repack


@pytest.fixture(scope="session", name="write_tar")
def _write_tar() -> Callable[..., None]:
    return write_tar


@pytest.fixture(scope="session", params=KINDS)
def stored(
    request: pytest.FixtureRequest, images: list[StoredFile], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Each kind of source, and a path where it holds `images`."""
    return request.param, repack(request.param, images, tmp_path_factory.mktemp(request.param) / "data")
