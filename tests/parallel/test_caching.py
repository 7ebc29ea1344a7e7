"""Two real processes write the cache that one writes, bit for bit, and a lost one is named."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from running import QUICK, ROOT, environment

from fae_jax.data.stores.latent_check import check_cache
from fae_jax.data.stores.latents import LatentSource, read_header

HERE = Path(__file__).parent


def cached(workdir: Path, latents: Path, hosts: int, devices: int) -> Path:
    """The cache of a copy of a trained directory, by that many processes of so many devices each."""
    copy = latents.with_name(f"{latents.name}-run")
    shutil.copytree(workdir, copy)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = " ".join((f"--xla_force_host_platform_device_count={devices}", *QUICK))
    started = [
        subprocess.Popen(
            [sys.executable, HERE / "caching_host.py", copy, latents, f"127.0.0.1:{port}", str(hosts), str(host)],
            env=environment(XLA_FLAGS=flags),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(hosts)
    ]
    outputs = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0] * hosts, outputs
    assert all(f"{hosts * devices} devices" in out for out, _ in outputs), outputs
    (cache,) = latents.iterdir()
    return cache


@pytest.fixture(scope="module")
def alone(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one process with two devices."""
    return cached(finished, tmp_path_factory.mktemp("alone"), 1, 2)


def test_two_processes_write_what_one_writes(finished: Path, alone: Path, tmp_path: Path) -> None:
    both = cached(finished, tmp_path, 2, 1)
    header = read_header(both)
    assert both.name == alone.name and header.to_json() == read_header(alone).to_json()
    assert len(header.shards) > 2
    for shard in header.shards:
        assert (both / shard.file).read_bytes() == (alone / shard.file).read_bytes()
    assert sorted(path.name for path in both.glob("writer-*")) == ["writer-0.lock", "writer-1.lock"]
    check_cache(LatentSource(both, header))


def test_devices_change_no_more_than_the_last_bit(finished: Path, alone: Path) -> None:
    (one,) = (finished / "latents").glob("*/")
    ours, theirs = (json.loads((folder / "header.json").read_text()) for folder in (one, alone))
    assert ours["identity"] == theirs["identity"] and ours["images"] == theirs["images"]
    assert ours["statistics"]["mean"] == pytest.approx(theirs["statistics"]["mean"], abs=1e-4)
