"""How hosts find each other: by hand, by JAX, or not at all; and where compiled programs are kept."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from running import ROOT, environment, fae

from fae_jax.parallel.startup import by_hand, cache_folder, cluster, keep_compiled, local_devices

GOOD = {"FAE_COORDINATOR": "node1:4000", "FAE_HOSTS": "4", "FAE_HOST": "2"}


def test_three_variables_name_the_hosts():
    arguments = by_hand({**GOOD, "PATH": "/bin"})
    assert (arguments["coordinator_address"], arguments["num_processes"], arguments["process_id"]) == (
        "node1:4000",
        4,
        2,
    )
    assert by_hand({"PATH": "/bin", "FAE_HOSTS": ""}) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"FAE_HOST": ""}, "FAE_COORDINATOR, FAE_HOSTS set without FAE_HOST"),
        ({"FAE_COORDINATOR": "node1"}, "'node1' must be HOST:PORT"),
        ({"FAE_COORDINATOR": "node1:http"}, "must be HOST:PORT"),
        ({"FAE_HOSTS": "four"}, "'four' and FAE_HOST='2' must be whole numbers"),
        ({"FAE_HOST": "4"}, "FAE_HOST=4 must be from 0 to 3, since FAE_HOSTS=4"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(changed: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        by_hand({**GOOD, **changed})


TASK = {"SLURM_LOCALID": "3", "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "8(x2),4"}
EIGHT = ",".join(map(str, range(8)))


@pytest.mark.parametrize(
    ("environment", "own"),
    [
        ({}, None),  # no launcher: JAX takes all
        ({**TASK, "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({**TASK, "CUDA_VISIBLE_DEVICES": "7", "SLURM_GPUS_ON_NODE": "4"}, [0]),  # --gpus-per-task=1
        ({**TASK, "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "SLURM_GPUS_ON_NODE": "8"}, [0, 1]),
        ({**TASK, "CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_GPUS_ON_NODE": "8"}, [6, 7]),  # four tasks see all eight
        ({**TASK, "SLURM_NODEID": "1", "CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_GPUS_ON_NODE": "8"}, [3]),
        ({"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_NODEID": "3"}, list(range(4))),  # /dev
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, [2, 3]),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "CUDA_VISIBLE_DEVICES": "5"}, [0]),
    ],
)
def test_each_gpu_belongs_to_one_task(tmp_path: Path, environment: dict[str, str], own: list[int] | None):
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert local_devices(environment, tmp_path) == own


def test_gpus_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="4 tasks on this node cannot share out its 1 GPU"):
        local_devices({**TASK, "CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "1"})


STEP = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, None),
        ({**STEP, "SLURM_NTASKS": "2"}, "Slurm step"),
        ({**STEP, "SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # the batch script itself
        ({"OMPI_COMM_WORLD_SIZE": "8"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU pod"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"MEGASCALE_NUM_SLICES": "2"}, "TPU pod"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # any container that happens to run there
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes job"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_jax_is_asked_only_where_there_is_a_sign_of_several_hosts(
    environment: dict[str, str], kind: str | None, tmp_path: Path
):
    assert cluster(environment, devices=tmp_path) == kind


def test_hosts_that_do_not_find_each_other_say_whom_they_looked_for():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from fae_jax.parallel.startup import join_hosts; join_hosts(limit=2)"
    by_hand = {"FAE_COORDINATOR": f"127.0.0.1:{port}", "FAE_HOSTS": "2", "FAE_HOST": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(**by_hand), capture_output=True, text=True, timeout=60
    )
    where = f"by the environment's FAE_COORDINATOR (127.0.0.1:{port}) in 2 s"
    assert done.returncode == 1
    assert f"fae: failed: the hosts of this run did not find each other {where}; check that every host" in done.stderr


def test_the_program_refuses_half_a_request_and_touches_nothing(tmp_path: Path):
    _, err = fae("run", "--workdir", tmp_path / "w", code=2, env=environment(FAE_HOSTS="2"))
    assert err.splitlines()[-1].startswith("fae: error: FAE_HOSTS set without FAE_COORDINATOR, FAE_HOST")
    assert not (tmp_path / "w").exists()


def test_auto_is_the_users_folder_on_accelerators_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("auto", "tpu") == cache_folder("auto", "gpu") == "/somewhere/fae_jax/compiled"
    assert cache_folder("auto", "cpu") is None and cache_folder("off", "tpu") is None
    assert cache_folder("gs://bucket/compiled", "cpu") == "gs://bucket/compiled"


def test_a_cache_that_was_chosen_already_stays(tmp_path: Path):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
        assert keep_compiled(str(tmp_path / "other")) == str(tmp_path / "own")
        jax.config.update("jax_compilation_cache_dir", None)
        assert keep_compiled("off") is None and jax.config.values["jax_compilation_cache_dir"] is None
        assert keep_compiled(str(tmp_path)) == jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
