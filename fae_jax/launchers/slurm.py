"""Slurm: a batch script per phase, tasks as a job array, each phase after the one before it.

A task is one `srun` over all its processes; JAX finds coordinator, count and rank by itself. The run is told ahead of
the time limit, saves, and the job queues itself again; a preempted or cancelled one saves in Slurm's own grace period
(KillWait), and `scontrol requeue` continues it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import stat
from pathlib import Path

from fae_jax.files.progress import say
from fae_jax.files.writing import write_atomically
from fae_jax.launchers.plan import Phase, run_quietly
from fae_jax.section import at_least, option

WAITS = False  # `launch` submits, and returns
SCRIPT = """\
#!/bin/bash
{directives}

# One task of the array runs one of these.
commands=(
{commands}
)

asked=""
# shellcheck disable=SC2317 # called by the trap
save() {{ # asks the run, not srun, which would not wait for it
  asked=yes
  scancel --signal=TERM "$SLURM_JOB_ID"
}}
trap save USR1
trap : TERM # Slurm tells the run itself; this script waits for it

{prelude}
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then # which srun takes from the job no more, since Slurm 22.05
  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi
srun --kill-on-bad-exit=1 bash -c "exec ${{commands[$SLURM_ARRAY_TASK_ID]}}" &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends `wait`, not the run
  code=0
  wait "$step" || code=$?
done
if [ -n "$asked" ] && [ "$code" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Slurm launcher; empty and 0 leave the choice to Slurm."""

    nodes: int = option(1, "nodes per point", at_least(1))
    tasks_per_node: int = option(1, "tasks of a point on a node, one process each", at_least(1))
    cpus_per_task: int = option(0, "processors per process", at_least(0))
    gpus_per_task: int = option(0, "GPUs per process", at_least(0))
    time: str = option("", "time limit, as 24:00:00")
    partition: str = option("", "as `sbatch` has it")
    account: str = option("", "as `sbatch` has it")
    qos: str = option("", "as `sbatch` has it")
    constraint: str = option("", "as `sbatch` has it")
    grace: int = option(120, "seconds before the limit at which the run is told to save", at_least(1))
    parallel: int = option(0, "points at a time; 0 = all", at_least(0))
    prelude: str = option("", "shell line before the run, such as `source venv/bin/activate`")
    options: str = option("", "more words for `sbatch`")

    def check(self) -> None:
        try:
            shlex.split(self.options)
        except ValueError as error:
            raise ValueError(f"options={self.options!r} cannot be split into words: {error}") from error


def _escaped(word: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", word)


def script(phase: Phase, settings: Settings, name: str, folder: Path) -> str:
    """The batch script of a phase.

    Raises:
      ValueError: the folder's name has a line break or backslash.
    """
    count = len(phase.tasks)
    side_by_side = f"%{settings.parallel}" if settings.parallel and settings.parallel < count else ""
    if phase.alone:
        settings = dataclasses.replace(settings, nodes=1, tasks_per_node=1, gpus_per_task=0)
    if set("\n\\") & set(str(folder)):  # a backslash would switch %a off in --output
        raise ValueError(
            f"{str(folder)!r} has a line break or backslash, which sbatch cannot take; choose another --workdir"
        )
    directives = {
        "job-name": f"{name}-{phase.name}",
        "array": f"0-{count - 1}{side_by_side}",
        "nodes": settings.nodes,
        "ntasks-per-node": settings.tasks_per_node,
        "cpus-per-task": settings.cpus_per_task,
        "gpus-per-task": settings.gpus_per_task,
        "time": settings.time,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "signal": f"B:USR1@{settings.grace}",
        "open-mode": "append",
        "output": f"{str(folder).replace('%', '%%')}/logs/{phase.name}-%a.log",
    }
    words = [f"--{key}={value}" for key, value in directives.items() if value]
    words += ["--requeue", *shlex.split(settings.options)]
    # sbatch reads these lines by rules of its own, in which double quotes are as in the shell
    quoted = [word if re.fullmatch(r"[\w/.,:=@%+-]+", word) else f'"{_escaped(word)}"' for word in words]
    lines = [f"#SBATCH {word}" for word in quoted]
    commands = "\n".join(f"  {shlex.quote(task.command())} # {number}" for number, task in enumerate(phase.tasks))
    prelude = settings.prelude or ":"
    return SCRIPT.format(directives="\n".join(lines), commands=commands, prelude=prelude)


def describe(phases: list[Phase], settings: Settings, name: str, folder: Path) -> str:
    """Every script, and the commands that submit them."""
    folder = folder.absolute()
    scripts, commands, before = [], [], ""
    for phase in phases:
        file = folder / f"{phase.name}.sh"
        scripts.append(f"# {file}\n{script(phase, settings, name, folder)}")
        variable = "job_" + re.sub(r"\W", "_", phase.name)
        after = f" --dependency=afterany:${before}" if before else ""
        commands.append(f"{variable}=$(sbatch --parsable{after} {shlex.quote(str(file))})\n")
        before = variable
    return "".join(scripts + commands)


def launch(phases: list[Phase], settings: Settings, name: str, folder: Path) -> list[str]:
    """Writes and submits the scripts; returns the jobs' numbers.

    Raises:
      RunFailed: sbatch refused a script.
    """
    folder = folder.absolute()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    jobs: list[str] = []
    for phase in phases:
        file = folder / f"{phase.name}.sh"
        write_atomically(file, script(phase, settings, name, folder))
        os.chmod(file, file.stat().st_mode | stat.S_IXUSR)
        after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
        words = ["sbatch", "--parsable", *after, str(file)]
        jobs.append(run_quietly(words, f"sbatch refused {file}").split(";")[0])
        say(f"sweep: job {jobs[-1]}: {phase.name}, {len(phase.tasks)} tasks ({file})")
    return jobs
