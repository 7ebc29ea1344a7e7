"""A real Slurm: GPUs shared out, folders of any name, and a sweep of four points, cancelled, asked, requeued, one of
them as two tasks that JAX joins."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import ROOT, TINY, curve, environment, fae, lines
from slurm_cluster import SlurmCluster, missing_programs

from fae_jax import __version__
from fae_jax.launchers import Phase, Task, slurm
from fae_jax.sweeps.directory import SweepDirectory

pytestmark = [pytest.mark.slurm(seconds=25), pytest.mark.timeout(420)]
STEPS = 150
SWEEP = """\
from fae_jax.sweeps import Sweep, grid

def get_sweep():
    points = grid({"features.beta": (1e-4, 1e-3, 1e-2, 1e-1)})
    return Sweep(points=points, stages=("features",), metric="features.feature_error")
"""


@contextlib.contextmanager
def started(**machine: int) -> Iterator[SlurmCluster]:
    missing = missing_programs()
    if os.geteuid() != 0:
        missing = ["the right to start daemons: run as root"]
    if missing:
        reason = f"needs a Slurm to start: {', '.join(missing)} missing (apt-get install slurm-wlm munge)"
        if os.environ.get("FAE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="fae_slurm_"))  # not pytest's: munged wants folders that others can pass
    root.chmod(0o755)
    try:
        with SlurmCluster(root, **machine) as cluster:
            yield cluster
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    with started(cpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def eight_gpus() -> Iterator[SlurmCluster]:
    with started(cpus=16, gpus=8) as cluster:
        yield cluster


def until(reached: Callable[[], bool], what: str, limit: float = 240.0) -> None:
    deadline = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not happen in {limit} s"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("asked", "tasks"),
    [
        (("--ntasks-per-node=8", "--gpus-per-task=1"), 8),  # each task sees its own
        (("--ntasks-per-node=8", "--gpus-per-node=8"), 8),  # each sees all
        (("--ntasks-per-node=2", "--gpus-per-task=4"), 2),
        (("--ntasks-per-node=1", "--gpus-per-node=8"), 1),  # one task has the whole node
    ],
)
def test_every_gpu_of_a_node_is_used_by_one_task(
    eight_gpus: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], tasks: int
):
    (tmp_path / "fae").write_text(
        f"#!{sys.executable}\nimport os\nfrom fae_jax.parallel.startup import local_devices\n"
        "seen = os.environ['CUDA_VISIBLE_DEVICES'].split(',')\n"
        "print('uses', *[seen[own] for own in local_devices(os.environ)], 'by', os.environ['SRUN_CPUS_PER_TASK'])\n"
    )
    (tmp_path / "fae").chmod(0o755)
    script = ROOT / "launch" / "slurm_run.sh"
    output = tmp_path / "out"
    monkeypatch.setenv("FAE", str(tmp_path / "fae"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = ["--parsable", "--cpus-per-task=2", f"--output={output}", *asked, str(script)]
    job = eight_gpus.run("sbatch", *words)
    until(lambda: eight_gpus.state(job) in ("COMPLETED", "FAILED"), f"the end of {asked}", 100)
    assert eight_gpus.state(job) == "COMPLETED", output.read_text()
    used = [line.partition(" by ") for line in output.read_text().splitlines() if line.startswith("uses ")]
    assert len(used) == tasks and {cpus for *_, cpus in used} == {"2"}
    assert sorted(gpu for gpus, *_ in used for gpu in gpus.split()[1:]) == list("01234567")


def test_a_folder_of_any_name_and_the_table_once(
    eight_gpus: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment(**eight_gpus.environment).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / f"a b;$(touch {tmp_path.name})#'\"%j ü" / "launch"
    version = (Task(name="version", words=("--version",)),)
    phases = [Phase(name="points", tasks=version), Phase(name="table", tasks=version, alone=True)]
    settings = slurm.Settings(tasks_per_node=8, gpus_per_task=1, options="--comment='a b'")
    monkeypatch.chdir(tmp_path)
    jobs = slurm.launch(phases, settings, folder.parent.name, folder)
    for job in jobs:
        until(lambda job=job: eight_gpus.state(job) == "COMPLETED", f"the end of {job}", 60)
    logs = {file.name: file.read_text().splitlines() for file in (folder / "logs").iterdir()}
    assert logs == {"points-0.log": [f"fae_jax {__version__}"] * 8, "table-0.log": [f"fae_jax {__version__}"]}
    assert [path.name for path in tmp_path.iterdir()] == [folder.parent.name]  # nothing in the name was run


def test_a_sweep_is_cancelled_asked_and_requeued_and_one_point_has_two_tasks(cluster: SlurmCluster, tmp_path: Path):
    (tmp_path / "betas.py").write_text(SWEEP)
    root = tmp_path / "sweep"
    given = ("--config", TINY, f"--config.features.steps={STEPS}", "--config.checkpoint.every=25")
    begin = (*given, "--sweep", tmp_path / "betas.py", "--workdir", root, "--launcher", "slurm", "--json")
    surroundings = environment(**cluster.environment)

    def sbatch(*words: object) -> list[str]:
        out, _ = fae("sweep", *begin, *words, env=surroundings)
        return json.loads(out.splitlines()[-1])["jobs"]

    def log(job_log: str) -> str:
        file = root / "launch" / "logs" / f"{job_log}.log"
        return file.read_text() if file.is_file() else "no log"

    shared, points, _ = sbatch("--points", "0-2")
    directory = SweepDirectory.open(root)
    assert directory.shared == ("encoder",)
    metrics = [point.workdir.stage("features") / "metrics.jsonl" for point in directory.points]

    # Point 0 is cancelled: it saves in Slurm's grace period. Requeued, it goes on.
    until(lambda: lines(metrics[0]) >= 2, f"point 0 ({log('shared-0')}, {log('points-0')})")
    cluster.run("scancel", f"{points}_0")
    # Point 1 is told that its time is nearly over, as `--signal=B:USR1@120` tells it: it queues itself again.
    until(lambda: lines(metrics[1]) >= 2, f"point 1 ({log('points-1')})")
    cluster.run("scancel", "--signal=USR1", "--batch", f"{points}_1")
    until(lambda: cluster.state(f"{points}_0") == "CANCELLED", "the end of point 0")
    until(lambda: "stopped by SIGTERM" in log("points-0"), f"saving of point 0 ({log('points-0')})")
    stopped = [int(folder.name) for folder in (metrics[0].parent / "checkpoints").iterdir() if folder.name.isdigit()]
    assert 0 < max(stopped) < STEPS and max(stopped) == lines(metrics[0])
    cluster.run("scontrol", "requeue", f"{points}_0")

    # Point 3 as two tasks: each would refuse the directory that the other holds, had JAX not made them one run.
    (pair,) = [jobs[0] for jobs in [sbatch("--points", "3", "--launch", "tasks_per_node=2")]]
    for job, name in ((f"{points}_0", "points-0"), (f"{points}_1", "points-1"), (f"{points}_2", "points-2")):
        until(lambda job=job: cluster.state(job) == "COMPLETED", f"the end of {name} ({log(name)})")
    until(lambda: cluster.state(pair) == "COMPLETED", f"the end of point 3 ({log('points-0')})")
    assert "stopped by SIGTERM" in log("points-1")

    # The same sweep here, without Slurm and without interruption.
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(root / "sweep.json", again)
    shutil.copytree(root / "shared", again / "shared")
    fae("sweep", "--workdir", again, "--points", "0-1,3", "--launch", "parallel=2")
    for number in (0, 1):
        ours, theirs = (d.points[number].workdir.root for d in (directory, SweepDirectory.open(again)))
        assert len(curve(ours, "features")) == STEPS
        assert curve(ours, "features") == curve(theirs, "features")
    ours, theirs = (d.points[3].workdir.root for d in (directory, SweepDirectory.open(again)))
    for two, one in zip(curve(ours, "features"), curve(theirs, "features"), strict=True):
        assert json.loads(two)["loss"] == pytest.approx(json.loads(one)["loss"], rel=2e-3)

    out, _ = fae("sweep", "--workdir", root, "--table", "--json")
    table = json.loads((root / "table.json").read_text())
    assert [point["state"] for point in table["points"]] == ["done"] * 4
    assert json.loads(out.splitlines()[-1])["best"] == directory.points[0].name
