"""Writing that is never half done."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.files.retry import retried


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Writes all of `content` or nothing: to a temporary neighbour, synced, then renamed. Makes
    the folder; returns `path`.

    Tried again where a share fails for a moment.
    """
    retried(lambda: _write(path, content), f"writing {path}")
    return path


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, written atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def plain(value: Any) -> Any:
    """`value` with NumPy scalars and arrays, tuples, paths and keys turned into plain JSON values."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def write_result(path: Path, result: Mapping[str, Any]) -> Path:
    """Writes `result` as indented JSON, atomically; returns `path`.

    Raises:
      ValueError: the result holds a NaN or an infinity.
      OSError: the place cannot be written or the disk is full; what was there is kept.
    """
    try:
        text = json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name} holds a number that is not finite; evaluate finite features") from error
    return write_atomically(path, text + "\n")
