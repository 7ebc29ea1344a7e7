"""Objects in a bucket, written and removed under a condition.

An object is written whole or not at all. Each version of it has a number, its *generation*; a write may ask that the
object still have a given one, or (0) that there be none, which is what makes a lock of an object.
"""

from __future__ import annotations

from fae_jax.files.paths import Path, filesystem


def check_bucket(path: Path) -> None:
    """Asks once for the bucket of a path.

    Raises:
      FileNotFoundError, PermissionError, ConnectionError: see `bucket.Buckets`.
    """
    files = filesystem(path)
    files.call("GET", "b/{}/o", files.split_path(str(path))[0], maxResults=1)


def upload(path: Path, data: bytes, generation: str, timeout: float | None = None) -> str:
    """Writes an object that has this generation ("0": that is not there); returns its new one.

    Raises:
      FileExistsError: it has another.
      TimeoutError: it was not written within `timeout` seconds.
      OSError: see `bucket.Buckets`.
    """
    from fsspec.asyn import sync

    files = filesystem(path)
    bucket, key, _ = files.split_path(str(path))
    place = files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o"
    about = {"uploadType": "media", "name": key, "ifGenerationMatch": generation}
    answer = sync(files.loop, files._call, "POST", place, bucket, data=data, json_out=True, timeout=timeout, **about)
    return str(answer["generation"])


def read(path: Path) -> tuple[bytes, str]:
    """An object and its generation.

    Raises:
      FileNotFoundError: it is not there, or was replaced meanwhile.
    """
    files = filesystem(path)
    generation = str(files.info(str(path))["generation"])
    return files.cat_file(str(path), generation=generation), generation


def remove(path: Path, generation: str) -> None:
    """Removes an object that has this generation.

    Raises:
      FileExistsError: it has another.
      FileNotFoundError: it is not there.
    """
    files = filesystem(path)
    bucket, key, _ = files.split_path(str(path))
    files.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=generation)
