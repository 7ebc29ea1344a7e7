"""Settings by name, programs that are missing, and names that clouds accept."""

import dataclasses
import re
import sys

import pytest

from fae_jax.errors import RunFailed
from fae_jax.launchers import LAUNCHERS, Task, check_program
from fae_jax.launchers.gke import Settings as Gke
from fae_jax.launchers.plan import cloud_name, parse_settings, run_quietly
from fae_jax.launchers.slurm import Settings as Slurm
from fae_jax.launchers.tpu import Settings as Tpu


def test_settings_have_the_types_of_their_fields():
    settings = parse_settings(Slurm, "slurm", ["nodes=2", "time=1:00:00", "options=--exclusive -x bad"])
    assert (settings.nodes, settings.time, settings.options) == (2, "1:00:00", "--exclusive -x bad")
    tpu = parse_settings(Tpu, "tpu", ["zone=z", "type=v6e-8", "version=v", "spot=true", "queued=False"])
    assert tpu.spot is True and tpu.queued is False


@pytest.mark.parametrize(
    ("launcher", "words", "text"),
    [
        ("slurm", ["node=2"], "launcher slurm has no setting 'node'; did you mean 'nodes'?"),
        ("slurm", ["nodes=two"], "field slurm.nodes is of type int (now 1), got 'two'"),
        ("slurm", ["nodes=0"], "nodes must be at least 1, got 0"),
        ("slurm", ["nodes"], "--launch nodes needs a value"),
        ("local", ["parallel=0"], "parallel must be at least 1"),
        ("tpu", ["zone=z", "type=t"], "launcher tpu needs --launch version=…"),
        (
            "tpu",
            ["zone=z", "type=t", "version=v", "spot=yes"],
            "field tpu.spot is of type bool (now False), got 'yes'",
        ),
        ("gke", ["image=i"], "field gke.accelerator is needed by kubectl: --launch accelerator=…"),
        ("gke", ["image=i", "via=xpk", "cluster=c"], "field gke.type is needed by xpk: --launch type=…"),
        ("gke", ["image=i", "via=helm"], "via must be one of kubectl, xpk, got 'helm'"),
        ("gke", ["image=i", "accelerator=a", "topology=16"], "topology must look like 4x4"),
    ],
)
def test_wrong_settings(launcher: str, words: list[str], text: str):
    with pytest.raises(ValueError) as refused:
        parse_settings(LAUNCHERS[launcher].Settings, launcher, words)
    assert text in str(refused.value)


def test_every_setting_is_explained():
    for launcher in LAUNCHERS.values():
        for field in dataclasses.fields(launcher.Settings):
            assert field.metadata["comment"], field.name


def test_a_missing_program_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for launcher, settings, program in (
        ("slurm", Slurm(), "sbatch"),
        ("gke", Gke(image="i", via="xpk", cluster="c", type="t"), "xpk"),
        ("gke", Gke(image="i", accelerator="a", topology="2x2"), "kubectl"),
    ):
        with pytest.raises(ValueError, match=f"launcher {launcher} needs the program `{program}`, which is not on"):
            check_program(launcher, settings)
    check_program("local", None)


def test_a_program_that_fails_says_its_last_line():
    with pytest.raises(RunFailed, match="making it: no quota"):
        run_quietly(
            [sys.executable, "-c", "import sys; print('x\\nno quota', file=sys.stderr); sys.exit(3)"], "making it"
        )
    assert run_quietly([sys.executable, "-c", "print(3)"], "counting") == "3"


def test_names_that_clouds_accept():
    assert cloud_name("Quickstart_β", "point-3") == "quickstart-point-3"
    assert cloud_name("7up") == "fae-7up"
    long = [cloud_name("x" * 60, f"point-{number}", limit=36) for number in range(3)]
    assert len(set(long)) == 3 and all(re.fullmatch(r"[a-z][a-z0-9-]{0,35}", name) for name in long)


def test_a_task_is_a_shell_line():
    task = Task(name="t", words=("sweep", "--workdir", "/a b"))
    assert task.command("fae") == "fae sweep --workdir '/a b'"
    assert task.command() == f"{sys.executable} -P -m fae_jax sweep --workdir '/a b'"
