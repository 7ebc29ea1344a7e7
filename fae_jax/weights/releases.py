"""Weights that are published as one file at an address: fetched once, compared with their hash, kept as safetensors.

They lie in `fae_jax/weights/NAME` under `XDG_CACHE_HOME`, by default `~/.cache`, beside `origin.json`, which holds
the address, the published file's SHA-256 and the hash of what was kept; a file that no longer has it is refused.
Where no network is, a file that came by other means takes the place of the address.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import constants

from fae_jax.files import storage
from fae_jax.files.retry import retried
from fae_jax.files.writing import read_json, write_json
from fae_jax.weights import graphs
from fae_jax.weights.pickles import read_pickle
from fae_jax.weights.tensors import FILE, PICKLES, open_tensors
from fae_jax.weights.tree import save_tree

ORIGIN = "origin.json"
_BLOCK = 2**20


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file or folder, an .npz, a PyTorch file, of which nothing is executed, or a
    frozen graph of TensorFlow.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: it is damaged, or holds more than tensors.
    """
    path = Path(path)
    if path.suffix in PICKLES:
        return read_pickle(path)
    if path.suffix == graphs.SUFFIX:
        return graphs.read_graph(path)
    if path.suffix == ".npz":
        return storage.read_arrays(str(path))
    tensors = open_tensors(path)
    return {name: tensors.read(name) for name in tensors}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """A published file.

    Attributes:
      name: of its folder in the cache.
      urls: where the same bytes are; the first that answers is taken.
      sha256: of these bytes, hexadecimal; "" where whoever publishes them gives none.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str

    @property
    def _folder(self) -> Path:
        return storage.cache_folder() / "weights" / self.name

    def folder(self, asked: str) -> Path:
        """Where the weights are kept.

        Raises:
          FileNotFoundError: they were not brought yet; `asked` is what to bring.
          ValueError: they are not as they were written.
        """
        if not (self._folder / ORIGIN).is_file():
            raise FileNotFoundError(
                f"the weights of {asked!r} are not on this machine; bring them: fae weights pull {asked} "
                f"(a file that you have: fae weights pull FILE --as {asked})"
            )
        remedy = f"remove {self._folder} and bring it again: fae weights pull {asked}"
        origin = read_json(self._folder / ORIGIN, remedy)
        if open_tensors(self._folder).hash() != origin.get("hash"):
            raise ValueError(f"the weights in {self._folder} have changed since they were fetched; {remedy}")
        return self._folder

    def pull(self, convert: Callable[[Path], Mapping[str, Any]], file: Path | None = None) -> tuple[Path, int]:
        """(the folder, bytes fetched just now).

        Args:
          convert: gives what is kept of a file.
          file: what is kept, in place of what was there, and of the published file; it need not be that one.

        Raises:
          ValueError: the file is not one of these weights.
          FileNotFoundError: HF_HUB_OFFLINE is set and it is not here yet, or there is no `file`.
          OSError: no address answers.
        """
        if file is not None:
            return self._keep(convert(file), file.name, _hash(file)), 0
        if (self._folder / ORIGIN).is_file():
            return self.folder(self.name), 0
        if constants.HF_HUB_OFFLINE:
            raise FileNotFoundError(f"{self.name} is not in the cache, and HF_HUB_OFFLINE forbids fetching it")
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as scratch:
            target = Path(scratch) / self.urls[0].rsplit("/", 1)[-1]
            url, digest = self._fetch(target)
            return self._keep(convert(target), url, digest), target.stat().st_size

    def _keep(self, params: Mapping[str, Any], source: str, sha256: str) -> Path:
        save_tree(self._folder / FILE, params)
        digest = open_tensors(self._folder).hash()
        write_json(self._folder / ORIGIN, {"source": source, "sha256": sha256, "hash": digest})  # last: all is there
        return self._folder

    def _fetch(self, target: Path) -> tuple[str, str]:
        """Writes the published file; returns the address that gave it, and its hash."""
        problems = []
        for url in self.urls:
            try:
                digest = retried(lambda url=url: _download(url, target), f"fetching {url}")
            except OSError as error:
                reason = getattr(error, "reason", error)
                problems.append(f"{url}: {reason}")
                continue
            if digest == (self.sha256 or digest):
                return url, digest
            problems.append(f"{url}: its hash is {digest[:12]}… instead of {self.sha256[:12]}…")
        raise OSError(
            f"{self.name} could not be fetched ({'; '.join(problems)}); if you get the "
            f"file by other means: fae weights pull FILE --as {self.name}"
        )


def _download(url: str, target: Path) -> str:
    """SHA-256 of what `url` holds, which is then in `target`."""
    with urllib.request.urlopen(url, timeout=60) as answer, open(target, "wb") as file:
        shutil.copyfileobj(answer, file, _BLOCK)
        length = answer.headers.get("Content-Length")
        if length is not None and file.tell() != int(length):
            raise ConnectionError(f"the connection broke after {file.tell()} of {length} bytes")
    return _hash(target)


def _hash(path: Path) -> str:
    """SHA-256, hexadecimal, of a file, or of the one that a folder of weights holds."""
    return storage.sha256(path / FILE if path.is_dir() else path)
