"""Where commands run: this machine, Slurm, TPU VMs, GKE. Knows command lines, and nothing of experiments.

A plan is a list of phases, a phase a list of tasks that may run side by side; a phase begins when the one before it
has ended. Every launcher shows the exact commands first (`describe`) and then does just that (`launch`).
"""

from types import ModuleType

from fae_jax.launchers import gke, local, slurm, tpu
from fae_jax.launchers.plan import Phase, Task

__all__ = ["LAUNCHERS", "Phase", "Task", "needed_program"]

# Each has Settings, WAITS, describe(phases, settings, name, folder) and launch(phases, settings, name, folder).
LAUNCHERS: dict[str, ModuleType] = {"local": local, "slurm": slurm, "tpu": tpu, "gke": gke}
PROGRAMS = {"slurm": "sbatch", "tpu": "gcloud"}  # what they cannot do without; GKE has the choice of two


def needed_program(launcher: str, settings: object) -> str | None:
    """The program that `launch` will call, or None."""
    return settings.via if isinstance(settings, gke.Settings) else PROGRAMS.get(launcher)
