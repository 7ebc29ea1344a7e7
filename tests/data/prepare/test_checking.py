"""Checking a source: filters, reasons, duplicates, resuming; and what `fae prepare` writes, which trains."""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.commands import prepare
from fae_jax.data.loader import Loader
from fae_jax.data.prepare import checking
from fae_jax.data.prepare.checking import Filters, check_source
from fae_jax.data.prepare.summary import summarise
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.tars import TarSource


def jpeg(width: int = 30, height: int = 20, shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 50, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path, write_tar: Any) -> Path:
    """Captioned images of which 0 and 1 are good, and the others each wrong in one way."""
    samples = {
        "good": (jpeg(), "a boat on a river"),
        "also": (jpeg(shade=99), "ein Boot auf dem Fluß"),
        "tiny": (jpeg(30, 9, 1), "a small image"),
        "ribbon": (jpeg(90, 20, 2), "a long image"),
        "copy": (jpeg(), "the same boat again"),
        "short": (jpeg(shade=60), "x"),
        "signs": (jpeg(shade=80), "$$$ !!! ### a"),
        "repeat": (jpeg(shade=100), "buy buy buy buy buy"),
        "address": (jpeg(shade=120), "https://example.com/boat"),
        "lost": (jpeg(shade=140), "a gro\ufffd\ufffde boat"),
        "cut": (jpeg(shade=160)[:300], "a broken image"),
        "page": (b"<html></html>", "a web page"),
    }
    members = {}
    for key, (data, caption) in samples.items():
        members |= {f"{key}.jpg": data, f"{key}.txt": caption.encode(), f"{key}.json": b'{"status": "success"}'}
    members |= {"gone.jpg": b"", "gone.txt": b"gone", "gone.json": b'{"status": "failed", "error_message": "404"}'}
    (tmp_path / "raw").mkdir()
    write_tar(tmp_path / "raw" / "00000.tar", members)
    return tmp_path / "raw"


FILTERS = Filters(min_side=10, max_aspect=3.0, min_caption=3, max_repeat=3, min_letters=0.5, duplicates=False)
REASONS = {
    "img2dataset could not fetch it": 1,
    "its shorter side is under 10 pixels": 1,
    "it is more than 3 times as long as wide": 1,
    "it is identical to an earlier one": 1,
    "its caption is not of 3 to 2147483648 characters": 1,
    "its caption is less than 50% letters and digits": 1,
    "its caption repeats a word more than 3 times": 1,
    "its caption is an address or a file name": 1,
    "its caption has characters that were lost": 1,
    "it cannot be decoded": 2,
}


def opened(path: Path) -> TarSource:
    return TarSource(str(path), split="train", holdout=0.0, seed=0)


def test_every_filter_leaves_out_its_own(shards: Path, tmp_path: Path) -> None:
    source = opened(shards)
    checked = check_source(source, FILTERS, tmp_path / "checked")
    assert checked["used"].tolist() == [0, 1]
    summary = summarise(source, checked)
    assert {reason: entry["count"] for reason, entry in summary["reasons"].items()} == REASONS
    assert summary["found"] == 13 and summary["used"] == 2 and summary["skipped"] == 11
    assert summary["duplicates"] == {"groups": 1, "extra": 1}
    assert summary["bytes"] == len(jpeg()) + len(jpeg(shade=99))
    assert summary["shorter side"]["median"] == 20 and summary["caption length"]["max"] == 21
    assert any("web page" in text for text in summary["reasons"]["it cannot be decoded"]["examples"])


def test_without_filters_only_what_makes_no_sense_goes(shards: Path, tmp_path: Path) -> None:
    assert check_source(opened(shards), Filters(), tmp_path)["used"].tolist() == list(range(8))


def test_finished_chunks_are_not_done_again(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = opened(shards), []
    monkeypatch.setattr(checking, "CHUNK", 5)
    stored = source.stored

    def stop(position: int) -> Any:
        seen.append(position)
        if position == 7 and len(seen) < 9:
            raise KeyboardInterrupt
        return stored(position)

    source.stored = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        check_source(source, FILTERS, tmp_path, threads=1)
    seen[:] = range(100)
    again = check_source(source, FILTERS, tmp_path, threads=1)
    assert min(seen[100:]) == 5 and again["used"].tolist() == [0, 1]
    fresh = check_source(opened(shards), FILTERS, tmp_path / "other")
    for path in sorted(tmp_path.glob("*/*.arrow"))[:1]:
        path.write_bytes(path.read_bytes()[:-100])  # a damaged chunk is made anew
    for checked in (again, check_source(source, FILTERS, tmp_path)):
        assert fresh.keys() == checked.keys()
        for name in fresh:
            np.testing.assert_array_equal(fresh[name], checked[name])


def prepared(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.run(argparse.Namespace(**vars(parser.parse_args(words)), overrides=[]))


@pytest.mark.parametrize("pack", [False, True])
def test_what_is_prepared_can_be_trained_on(shards: Path, tmp_path: Path, pack: bool) -> None:
    options = ["--min_side", "10", "--drop_duplicates", *(["--pack"] if pack else [])]
    out = tmp_path / "out"
    result = prepared("cc12m", str(shards), "--out", str(out), *options)
    assert result["used"] == 2 and result["skipped"] == 11 and result["source"] == "tar"
    summary = json.loads((out / "summary.json").read_text())
    assert {reason: entry["count"] for reason, entry in summary["reasons"].items()} == {
        reason.replace("2147483648", "1000"): count for reason, count in REASONS.items()
    }
    assert "left out" in (out / "summary.html").read_text()
    kind = "array_record" if pack else "tar"
    source = open_source(kind, path=str(out), split="train", holdout=0.0, seed=0)
    assert [source[i]["captions"] for i in range(2)] == [("a boat on a river",), ("ein Boot auf dem Fluß",)]
    with Loader(source=source, batch=8, seed=0, image_size=16, flip=True, caption_dropout=0.3).at(0) as batches:
        batch = next(batches)
    assert set(batch["caption"].tolist()) <= {"", "a boat on a river", "ein Boot auf dem Fluß"}
    assert batch["caption"].dtype.kind == "U" and (batch["label"] == -1).all()
    assert prepared("cc12m", str(shards), "--out", str(out), *options)["used"] == 2


def test_folders_are_prepared_where_they_are(photographs: Path, tmp_path: Path) -> None:
    result = prepared("folder", str(photographs), "--out", str(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert result["used"] == 39 and summary["classes"] == {"cat": 13, "dog": 13, "eel": 13}
    assert (
        prepared("imagenet", str(photographs), "--classes", "3", "--out", str(tmp_path / "b"), "--pack")["used"] == 39
    )
    packed = open_source("array_record", path=str(tmp_path / "b"), split="train", holdout=0.0, seed=0)
    folder = open_source("folder", path=str(photographs), split="train", holdout=0.0, seed=0)
    for position in range(39):
        np.testing.assert_array_equal(packed[position]["image"], folder[position]["image"])


def test_requests_that_cannot_be_met(shards: Path, photographs: Path, tmp_path: Path, write_tar: Any) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(ValueError, match="has 3 classes, not 1000"):
        prepared("imagenet", str(photographs), "--out", out)
    with pytest.raises(ValueError, match="is read by its classes; prepare it as imagenet$"):
        prepared("cc12m", str(photographs), "--out", out)
    with pytest.raises(ValueError, match="how .*nowhere is stored cannot be seen"):
        prepared("imagenet", str(tmp_path / "nowhere"), "--out", out)
    with pytest.raises(ValueError, match="no image that can be used: its shorter side is under 999 pixels"):
        prepared("cc12m", str(shards), "--out", out, "--min_side", "999")
