"""A model from wherever it is: a working directory, a bundle, or a name on the hub."""

from __future__ import annotations

import os

from fae_jax.bundle import FILE, FILES, Bundle
from fae_jax.files.paths import as_path
from fae_jax.model import FAE
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.running import stages_of
from fae_jax.weights import hub
from fae_jax.workdir import Workdir


def load(path: str | os.PathLike[str], step: int | None = None) -> FAE:
    """A trained FAE. Each part is read when it is first used, and what later stages train is asked for then.

    Args:
      path: a working directory or the folder of a bundle, here or in a bucket, or a hub name such as "owner/model".
      step: the generator's checkpoint to use, of a working directory; None for the newest.

    Raises:
      FileNotFoundError: there is none.
      ValueError: its encoder or features stage is not finished; says which command makes it.
    """
    folder = as_path(path)
    if (folder / FILE).is_file():
        return FAE(Bundle(folder))
    if not folder.exists() and hub.is_hub_name(str(path)):
        return FAE(Bundle(as_path(hub.pull(str(path), patterns=FILES, needs=(FILE,)).folder)))
    workdir = Workdir(folder)
    experiment = Experiment(workdir.read_config(), workdir)
    experiment.step = step
    for stage in stages_of(experiment.config):
        name = stage.name
        if name in ("encoder", "features") and not experiment.is_done(stage):
            raise ValueError(f"{path} has no finished stage {name}; run `fae train {name} --workdir {path}` first")
    return FAE(experiment.parts)
