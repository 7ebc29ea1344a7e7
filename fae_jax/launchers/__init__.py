"""Where commands run: this machine, Slurm, TPU VMs, GKE. Knows command lines, and nothing of experiments.

A plan is a list of phases, a phase a list of tasks that may run side by side; a phase begins when the one before it
has ended. Every launcher shows the exact commands first (`describe`) and then does just that (`launch`).
"""

import shutil
from types import ModuleType

from fae_jax.launchers import gke, local, slurm, tpu
from fae_jax.launchers.plan import Phase, Task

__all__ = ["LAUNCHERS", "Phase", "Task", "check_program"]

# Each has Settings, WAITS, describe(phases, settings, name, folder) and launch(phases, settings, name, folder).
LAUNCHERS: dict[str, ModuleType] = {"local": local, "slurm": slurm, "tpu": tpu, "gke": gke}
PROGRAMS = {"slurm": "sbatch", "tpu": "gcloud"}  # what they cannot do without; GKE has the choice of two


def check_program(launcher: str, settings: object) -> None:
    """Refuses a launcher whose `launch` will call a program that is not there.

    Raises:
      ValueError: it is not installed here.
    """
    program = settings.via if isinstance(settings, gke.Settings) else PROGRAMS.get(launcher)
    if program and shutil.which(program) is None:
        raise ValueError(
            f"launcher {launcher} needs the program `{program}`, which is not on the PATH; install it, "
            "run this where it is installed, or see what would run with --dry_run"
        )
