"""The finished latent cache of an experiment, found by the record that its stage left: no images, no encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fae_jax.data.sources.mixture import Drawn
from fae_jax.data.stores.latents import POSTERIORS, LatentSource, read_header
from fae_jax.files import storage
from fae_jax.stages.stage import read_record
from fae_jax.workdir import Workdir

FOLDER = "latents"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents:
    """An opened cache.

    Attributes:
      source: its posteriors.
      mixture: how its sources are drawn from, where there are several.
      facts: what the generator's record takes from it.
    """

    source: LatentSource
    mixture: Drawn | None
    facts: Mapping[str, Any]


def latents_directory(workdir: Workdir) -> str:
    """Where the cache is, or is being written.

    Raises:
      ValueError: the stage cache has not begun.
    """
    record = read_record(workdir, FOLDER)
    if record is None:
        raise ValueError(f"{workdir.root} has no latent cache: run `fae cache --workdir {workdir.root}` first")
    directory = record.facts["directory"]
    # A relative one moves with its working directory.
    return directory if storage.is_remote(directory) else str(workdir.root / directory)


def open_latents(workdir: Workdir) -> Latents:
    """The finished cache.

    Raises:
      FileNotFoundError, ValueError: it is not there, not finished, damaged, or another than the record says.
    """
    directory = latents_directory(workdir)
    record = read_record(workdir, FOLDER)
    assert record is not None
    header = read_header(directory, POSTERIORS)
    if header.identity.hash != record.facts["hash"]:
        raise ValueError(
            f"latent cache {directory} is {header.identity.hash}, and {workdir.root} was made with "
            f"{record.facts['hash']}: put that one back, or remove {workdir.stage(FOLDER)} and run `fae cache`"
        )
    drawn = record.facts["mixture"]
    mixture = Drawn(tuple(drawn["starts"]), tuple(drawn["weights"])) if drawn else None
    facts = {
        **{name: record.facts[name] for name in ("hash", "grid", "channels")},
        "classes": list(header.classes),
        "statistics": header.statistics.to_json(),
    }
    return Latents(source=LatentSource(directory, header), mixture=mixture, facts=facts)
