"""A sweep on a real Slurm: four points, cancelled, asked, requeued, and one of them as two tasks that JAX joins."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import TINY, curve, environment, fae, lines
from slurm_cluster import SlurmCluster, missing_programs

from fae_jax.sweeps.directory import SweepDirectory

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]
STEPS = 150
SWEEP = """\
from fae_jax.sweeps import Sweep, grid

def get_sweep():
    points = grid({"features.beta": (1e-4, 1e-3, 1e-2, 1e-1)})
    return Sweep(points=points, stages=("features",), metric="features.feature_error")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
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
        with SlurmCluster(root, cpus=2) as started:
            yield started
    finally:
        shutil.rmtree(root, ignore_errors=True)


def until(reached: Callable[[], bool], what: str, limit: float = 240.0) -> None:
    deadline = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not happen in {limit} s"
        time.sleep(0.05)


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
