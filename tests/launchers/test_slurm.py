"""Batch scripts and how they are handed in, by a program that stands for sbatch (the real one: see beside)."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fae_jax.errors import RunFailed
from fae_jax.launchers import Phase, Task, slurm

POINTS = Phase(name="points", tasks=tuple(Task(name=f"p{n}", words=("sweep", "--point", str(n))) for n in range(4)))
TABLE = Phase(name="table", tasks=(Task(name="table", words=("sweep", "--table")),), alone=True)


def directives(text: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.M))


def test_a_script_says_what_a_point_needs(tmp_path: Path):
    settings = slurm.Settings(
        nodes=2, tasks_per_node=4, gpus_per_task=1, time="4:00:00", parallel=2, options="--exclusive --mail-type=END"
    )
    lines = directives(slurm.script(POINTS, settings, "betas", tmp_path))
    assert lines == {
        "job-name": "betas-points",
        "array": "0-3%2",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-task": "1",
        "time": "4:00:00",
        "signal": "B:USR1@120",
        "open-mode": "append",
        "output": f"{tmp_path}/logs/points-%a.log",
        "requeue": "",
        "exclusive": "",
        "mail-type": "END",
    }


def test_what_sbatch_would_misread_is_quoted_or_refused(tmp_path: Path):
    folder = tmp_path / 'a b";$(x)#%j'
    settings = slurm.Settings(tasks_per_node=8, gpus_per_task=1, options="--comment='a b'")
    points = slurm.script(POINTS, settings, "s", folder).splitlines()
    name = str(folder).replace('"', '\\"').replace("%", "%%")
    assert f'#SBATCH "--output={name}/logs/points-%a.log"' in points and '#SBATCH "--comment=a b"' in points
    for letter in "\n\\":
        with pytest.raises(ValueError, match="which sbatch cannot take; choose another --workdir"):
            slurm.script(POINTS, settings, "s", tmp_path / f"a{letter}b")


def test_the_table_is_made_by_one_process(tmp_path: Path):
    settings = slurm.Settings(nodes=2, tasks_per_node=8, gpus_per_task=1)
    lines = directives(slurm.script(TABLE, settings, "s", tmp_path))
    assert (lines["nodes"], lines["ntasks-per-node"]) == ("1", "1") and "gpus-per-task" not in lines


def run_script(tmp_path: Path, srun: str, *, signal: str = "") -> tuple[int, str]:
    """Runs a script beside programs that stand for Slurm's; (exit code, what they noted)."""
    log = tmp_path / "log"
    programs = {
        "scancel": f'#!/bin/bash\necho "scancel $*" >>{log}\nkill -TERM "$(cat {tmp_path}/srun.pid)"',
        "srun": f"#!/bin/bash\necho srun >>{log}\necho $$ >{tmp_path}/srun.pid\n{srun}",
        "scontrol": f'#!/bin/bash\necho "scontrol $*" >>{log}',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    settings = slurm.Settings(prelude=f"export LOG={log}")
    (tmp_path / "s.sh").write_text(slurm.script(POINTS, settings, "s", tmp_path))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "77"}
    process = subprocess.Popen(["bash", tmp_path / "s.sh"], env=environment)
    if signal:
        while not log.exists() or "up" not in log.read_text():
            assert process.poll() is None
        told = [str(process.pid), *([(tmp_path / "srun.pid").read_text().strip()] if signal == "TERM" else [])]
        subprocess.run(["kill", f"-{signal}", *told], check=True)  # Slurm sends SIGTERM to the tasks, too
    return process.wait(20), log.read_text()


WAITS = 'trap \'echo saved >>"$LOG"; exit 1\' TERM; echo up >>"$LOG"; for i in $(seq 200); do sleep 0.05; done\n'


def test_a_task_of_the_array_runs_its_own_command(tmp_path: Path):
    code, output = run_script(tmp_path, 'echo "$*" >>"$LOG"; exit 0\n')
    assert code == 0 and output.splitlines()[1].endswith("fae_jax sweep --point 2")
    assert output.splitlines()[1].startswith("--kill-on-bad-exit=1 bash -c exec ")


def test_told_that_time_is_up_it_saves_and_queues_itself_again(tmp_path: Path):
    code, output = run_script(tmp_path, WAITS, signal="USR1")
    assert (
        output.split("\n") == ["srun", "up", "scancel --signal=TERM 77", "saved", "scontrol requeue 77", ""]
        and code == 1
    )


def test_cancelled_it_saves_and_stays_away(tmp_path: Path):
    code, output = run_script(tmp_path, WAITS, signal="TERM")
    assert output.split("\n") == ["srun", "up", "saved", ""] and code == 1


def test_a_run_that_fails_by_itself_is_not_queued_again(tmp_path: Path):
    assert run_script(tmp_path, "exit 2\n") == (2, "srun\n")


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "log"
    file = tmp_path / "bin" / "sbatch"
    file.parent.mkdir()
    file.write_text(
        f'#!/bin/bash\necho "$*" >>{log}\n[ -e {tmp_path}/full ] && {{ echo "no such partition" >&2; exit 1; }}\n'
        f'echo "$((100 + $(wc -l <{log})));cluster"\n'
    )
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:/usr/bin:/bin")
    return log


def test_phases_are_handed_in_one_after_the_other(tmp_path: Path, sbatch: Path):
    jobs = slurm.launch([POINTS, TABLE], slurm.Settings(), "s", tmp_path / "launch")
    folder = tmp_path / "launch"
    assert jobs == ["101", "102"] and (folder / "logs").is_dir()
    handed = [
        "--parsable " + str(folder / "points.sh"),
        f"--parsable --dependency=afterany:101 {folder / 'table.sh'}",
    ]
    assert sbatch.read_text().splitlines() == handed
    described = slurm.describe([POINTS, TABLE], slurm.Settings(), "s", folder)
    assert f"# {folder}/points.sh\n" + (folder / "points.sh").read_text() in described
    assert (
        described.splitlines()[-1]
        == f"job_table=$(sbatch --parsable --dependency=afterany:$job_points {folder}/table.sh)"
    )


def test_a_refusal_of_sbatch_is_repeated(tmp_path: Path, sbatch: Path):
    (tmp_path / "full").touch()
    with pytest.raises(RunFailed, match="sbatch refused .*points.sh: no such partition"):
        slurm.launch([POINTS], slurm.Settings(), "s", tmp_path / "launch")


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt-get install shellcheck)"
)
def test_generated_scripts_pass_shellcheck(tmp_path: Path):
    for settings in (slurm.Settings(), slurm.Settings(prelude="module load cuda", nodes=2)):
        text = slurm.script(POINTS, settings, "s", tmp_path)
        done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
