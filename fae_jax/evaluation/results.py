"""How a score reaches the disk: whole or not at all, as JSON that every reader accepts.

A result is written beside its place under a temporary name, flushed, and renamed. An interrupted evaluation, or
one on a full disk, leaves the result that was there before. Values that JSON has no word for (NaN, infinity) are
refused here rather than written in a dialect that browsers and `jq` reject.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


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


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes `content` to `path` whole or not at all, making the folders above it; returns `path`.

    Raises:
      OSError: the place cannot be written or the disk is full; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def write_result(path: Path, result: Mapping[str, Any]) -> Path:
    """Writes `result` as indented JSON, atomically; returns `path`.

    Raises:
      ValueError: the result holds a NaN or an infinity.
      OSError: as `write_bytes`.
    """
    try:
        text = json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name} holds a number that is not finite; evaluate finite features") from error
    return write_bytes(path, (text + "\n").encode())
