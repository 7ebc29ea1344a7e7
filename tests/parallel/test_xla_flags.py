"""Flags by machine: beneath the user's own, and never one that the library does not hold."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.parallel import xla_flags
from fae_jax.parallel.xla_flags import FLAGS, known, machine, set_flags, training_options


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library that knows two of the flags."""
    file = tmp_path / "libtpu.so"
    file.write_bytes(b"\0xla_enable_async_all_gather\0xla_tpu_overlap_compute_collective_tc\0")
    monkeypatch.setattr(xla_flags, "_library", lambda row: file)
    return file


@pytest.mark.parametrize(
    ("kind", "row"),
    [("v4-16", "v4"), ("v5litepod-256", "v5e"), ("v5p-16", "v5p"), ("v6e-8", "v6e"), ("v99-8", None)],
)
def test_a_machine_says_what_it_is(kind: str, row: str | None, tmp_path: Path):
    assert machine({"TPU_ACCELERATOR_TYPE": kind}, tmp_path) == row


def test_a_machine_without_accelerator_is_a_cpu(tmp_path: Path):
    assert machine({}, tmp_path) == "cpu"


@pytest.mark.parametrize("device", ["accel0", "vfio/0"])
def test_a_tpu_that_does_not_say_which_gets_no_flags_of_a_cpu(device: str, tmp_path: Path):
    (tmp_path / device).parent.mkdir(exist_ok=True)
    (tmp_path / device).touch()
    assert machine({}, tmp_path) is None


def test_a_gpu_is_seen_by_its_device(tmp_path: Path):
    (tmp_path / "nvidia0").touch()
    assert machine({}, tmp_path) == "gpu" and machine({"TPU_ACCELERATOR_TYPE": "v4-8"}, tmp_path) == "v4"


def test_only_flags_that_the_library_holds_are_set(library: Path):
    environment: dict[str, str] = {}
    added = set_flags(environment, "v5e")
    assert added == ("--xla_enable_async_all_gather=true", "--xla_tpu_overlap_compute_collective_tc=true")
    assert environment == {"LIBTPU_INIT_ARGS": " ".join(added)}
    assert known(FLAGS["v6e"], library) == added


def test_products_of_a_training_step_stay_with_ynnpack_where_the_processor_has_amx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "with").write_text("model name\t: Xeon\nflags\t\t: fpu amx_bf16 amx_tile amx_int8\n")
    (tmp_path / "without").write_text("model name\t: EPYC\nflags\t\t: fpu avx512f\n")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x {FLAGS['cpu'][0]}")
    options = training_options(tmp_path / "with")
    name = "xla_cpu_experimental_ynn_fusion_type"
    assert options == {name: "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT"}
    x = jnp.ones((64, 64))
    np.testing.assert_array_equal(jax.jit(lambda x: x @ x, compiler_options=options)(x), 64.0)
    assert training_options(tmp_path / "without") is None and training_options(tmp_path / "nowhere") is None
    monkeypatch.setenv("XLA_FLAGS", f"--{name}=LIBRARY_FUSION_TYPE_DOT")  # the user's own
    assert training_options(tmp_path / "with") is None


def test_a_value_that_the_library_does_not_know_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flag = FLAGS["cpu"][0]
    name, value = flag.lstrip("-").split("=")
    (tmp_path / "old").write_bytes(f"\0{name}\0".encode())
    (tmp_path / "new").write_bytes(f"\0{name}\0{value}\0".encode())
    assert known(FLAGS["cpu"], tmp_path / "old") == () and known(FLAGS["cpu"], tmp_path / "new") == (flag,)
    monkeypatch.setattr(xla_flags, "_library", lambda row: tmp_path / "new")
    environment = {"XLA_FLAGS": "--own"}
    assert set_flags(environment, "cpu") == (flag,)
    assert environment == {"XLA_FLAGS": f"{flag} --own"}


def test_a_name_that_only_a_schema_reserves_is_no_flag(tmp_path: Path):
    """As XLA's schema of options lists fields that are gone; jax 0.12 ends the process at the flag itself."""
    (tmp_path / "library").write_bytes(b"\x1bxla_cpu_use_fusion_emittersR\x17xla_cpu_use_xla_runtime\0")
    assert known(("--xla_cpu_use_fusion_emitters=false",), tmp_path / "library") == ()


def test_the_installed_library_takes_the_flags_of_a_cpu():
    """An unknown one would end the process when JAX meets its devices."""
    environment = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"}
    assert FLAGS["cpu"][0] in set_flags(environment, "cpu")
    subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environment, check=True, timeout=100)


def test_what_the_user_set_stays_and_counts(library: Path):
    environment = {"LIBTPU_INIT_ARGS": "--xla_enable_async_all_gather=false --mine=1"}
    assert set_flags(environment, "v4") == ("--xla_tpu_overlap_compute_collective_tc=true",)
    assert environment["LIBTPU_INIT_ARGS"].endswith("--xla_enable_async_all_gather=false --mine=1")


def test_a_machine_without_accelerator_or_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    environment = {"XLA_FLAGS": "--own"}
    monkeypatch.setattr(xla_flags, "machine", lambda environment: None)
    assert set_flags(environment) == ()
    monkeypatch.setattr(xla_flags, "_library", lambda row: None)
    assert set_flags(environment, "gpu") == () and environment == {"XLA_FLAGS": "--own"}
