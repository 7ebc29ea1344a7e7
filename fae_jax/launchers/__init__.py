"""Where commands run: this machine, Slurm, TPU VMs, GKE. Knows command lines, and nothing of experiments.

A plan is a list of phases, a phase a list of tasks that may run side by side; a phase begins when the one before it
has ended. Every launcher shows the exact commands first (`describe`) and then does just that (`launch`).
"""

from fae_jax.launchers.plan import Phase, Task

__all__ = ["Phase", "Task"]
