"""Published repositories through `huggingface_hub`: a name becomes a folder of its cache.

The cache, the token and the offline switch are that library's own (`HF_HOME`, `HF_TOKEN` or `hf auth login`,
`HF_HUB_OFFLINE`). A revision is a branch, a tag or a commit; what it meant is the commit in the folder's name.
Every file is hashed and compared with the hash by which the hub knows it before anything reads it, whether it was
fetched just now or lay in the cache: SHA-256 of large files, and of small ones Git's SHA-1.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from fae_jax.files.storage import sha256
from fae_jax.weights.tensors import DIFFUSERS, FILE, INDEX, PICKLES

PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"
PATTERNS = (
    "config.json",
    PROCESSOR,
    IMAGE_PROCESSOR,
    FILE,
    INDEX,
    DIFFUSERS,
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
)
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pulled:
    """A repository on this machine: its folder, the commit, and how many bytes were fetched just now."""

    folder: Path
    commit: str
    fetched: int


def is_hub_name(text: str) -> bool:
    """Whether `text` looks like owner/name or owner/name@revision."""
    return bool(_NAME.fullmatch(text))


def _blobs(folder: Path) -> dict[str, Path]:
    """File name → the blob it stands for, of a snapshot folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): Path(os.path.realpath(path)) for path in paths}


def _digests(blob: Path) -> list[str]:
    """The hashes that a blob may be named after: SHA-256, or SHA-1 as Git takes it, or as some mirrors do."""
    if len(blob.name) == 64:
        return [sha256(blob)]
    content = blob.read_bytes()
    starts = (b"blob %d\0" % len(content), b"")
    return [hashlib.sha1(start + content, usedforsecurity=False).hexdigest() for start in starts]


def _verify(folder: Path, patterns: Sequence[str]) -> None:
    """Compares the files that are asked for with the hashes that name their blobs; a wrong one is removed.

    Raises:
      ValueError: a file's hash is not the one the hub gave.
    """
    for name, blob in _blobs(folder).items():
        if not _HASH.fullmatch(blob.name) or not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        digests = _digests(blob)
        if blob.name not in digests:
            blob.unlink()
            (folder / name).unlink(missing_ok=True)
            raise ValueError(
                f"{name} in {folder} has the hash {digests[0][:12]}… instead of the hub's {blob.name[:12]}…; it was "
                "deleted, run the same command again to fetch it"
            )


def pull(
    name: str,
    *,
    revision: str | None = None,
    patterns: Sequence[str] = PATTERNS,
    needs: Collection[str] = (FILE, INDEX, DIFFUSERS),
) -> Pulled:
    """Fetches what is missing of a repository's weights, configuration and tokenizer; resumes a broken download.

    Args:
      name: owner/name, or owner/name@revision.
      revision: a branch, tag or commit; overrides one in `name`; main where neither is given.
      patterns: files to fetch.
      needs: files of which one must be there.

    Raises:
      FileNotFoundError: the repository, the revision or the cached copy does not exist, or it holds no safetensors.
      ValueError: the token does not open the repository, or a file is not the one the hub keeps.
      OSError: the hub cannot be reached, or the connection broke.
    """
    name, _, pinned = name.partition("@")
    revision = revision or pinned or None
    offline = constants.HF_HUB_OFFLINE
    endpoint = os.environ.get("HF_ENDPOINT")  # as it is now, not as it was at import
    what = f"{name}@{revision}" if revision else name
    common: dict[str, Any] = {
        "repo_id": name,
        "revision": revision,
        "cache_dir": os.environ.get("HF_HUB_CACHE"),
        "allow_patterns": list(patterns),
    }
    before = _cached(common)
    try:
        folder = Path(huggingface_hub.snapshot_download(**common, endpoint=endpoint, local_files_only=offline))
    except Exception as error:
        raise _explained(error, name, revision, what) from error.__cause__
    files = _blobs(folder)
    if not set(needs) & set(files):
        pickles = [] if offline else _pickles(name, revision, endpoint)
        seen = f" (only {', '.join(pickles)}, which may run code and are not opened)" if pickles else ""
        kind = "safetensors" if FILE in needs else " or ".join(needs)
        raise FileNotFoundError(f"{what} holds no {kind}{seen}")
    _verify(folder, patterns)
    fetched = sum(files[file].stat().st_size for file in files if file not in before)
    return Pulled(folder=folder, commit=folder.name, fetched=fetched)


def check_push(name: str) -> None:
    """Refuses what `push` could not do, before anything is made to be pushed.

    Raises:
      ValueError: it is no name of a repository, there is no token, or the hub is switched off.
    """
    if not is_hub_name(name) or "@" in name:
        raise ValueError(f"{name!r} is not a hub name to push to: give owner/name")
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"{name} cannot be pushed while HF_HUB_OFFLINE is set: unset it")
    if not huggingface_hub.get_token():
        raise ValueError(f"pushing to {name} needs a token that may write: set HF_TOKEN or run `hf auth login`")


def push(folder: Path, name: str, message: str) -> str:
    """Uploads a folder as one commit, and returns its hash. A repository that is not there is made, private.

    Raises:
      ValueError: see `check_push`, or the hub refuses.
      OSError: the hub cannot be reached, or the connection broke.
    """
    check_push(name)
    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return api.upload_folder(repo_id=name, folder_path=folder, commit_message=message).oid
    except Exception as error:
        raise _explained(error, name, None, name, "sending") from error.__cause__


def _cached(common: dict[str, Any]) -> set[str]:
    """Names of files the cache holds already."""
    try:
        folder = huggingface_hub.snapshot_download(**common, local_files_only=True)
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, FileNotFoundError):
        return set()
    return set(_blobs(Path(folder)))


def _pickles(name: str, revision: str | None, endpoint: str | None) -> list[str]:
    info = huggingface_hub.HfApi(endpoint=endpoint).model_info(name, revision=revision)
    return [file.rfilename for file in info.siblings or () if file.rfilename.endswith(PICKLES)]


def _explained(error: Exception, name: str, revision: str | None, what: str, doing: str = "fetching") -> Exception:
    """What the hub library's error means to a user, with the remedy; an error that is not the hub's, as it is."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    responses = [getattr(each, "response", None) for each in (error, error.__cause__)]
    status = next((response.status_code for response in responses if response is not None), None)
    if isinstance(error, errors.GatedRepoError):
        return ValueError(
            f"{what} is gated: accept its terms on https://huggingface.co/{name}, "
            f"then set HF_TOKEN or run `hf auth login`"
        )
    if status in (401, 403):
        return ValueError(
            f"the hub refuses access to {what} ({status}); set HF_TOKEN to a token with access, "
            f"run `hf auth login`, or check the name"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(f"{name} has no revision {revision!r} on the hub")
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(f"{what} does not exist on the hub (404); check the name")
    if isinstance(error, errors.LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return FileNotFoundError(
            f"{what} is not in the cache, and HF_HUB_OFFLINE forbids fetching it; "
            f"run `fae weights pull {what}` without HF_HUB_OFFLINE"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return OSError(f"the hub cannot be reached for {what}: {first}")
    if isinstance(error, errors.HfHubHTTPError):
        return OSError(f"the hub failed on {what}: {first}")
    if isinstance(error, errors.HFValidationError):
        return ValueError(f"{name!r} is not a hub name: {first}")
    # the HTTP client's own, whatever its version calls them
    if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
        return OSError(
            f"the connection to the hub broke while {doing} {what} ({first})"
            + ("; run it again; complete files are kept" if doing == "fetching" else "")
        )
    return error
