"""Launchers by name."""

from __future__ import annotations

from types import ModuleType

from fae_jax.launchers import gke, local, slurm, tpu

# Each has Settings, WAITS, describe(phases, settings, name, folder) and launch(phases, settings, name, folder).
LAUNCHERS: dict[str, ModuleType] = {"local": local, "slurm": slurm, "tpu": tpu, "gke": gke}
PROGRAMS = {"slurm": "sbatch", "tpu": "gcloud"}  # what they cannot do without; GKE has the choice of two


def needed_program(launcher: str, settings: object) -> str | None:
    """The program that `launch` will call, or None."""
    return settings.via if isinstance(settings, gke.Settings) else PROGRAMS.get(launcher)
