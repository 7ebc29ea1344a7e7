"""What lies in launch/: scripts that shellcheck accepts, and a container file that names what there is."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


def test_scripts_pass_shellcheck():
    if shutil.which("shellcheck") is None:
        reason = "shellcheck is not installed (apt-get install shellcheck)"
        pytest.fail(reason) if os.environ.get("FAE_SLURM") else pytest.skip(reason)
    assert SCRIPTS
    done = subprocess.run(["shellcheck", *SCRIPTS, LAUNCH.parent / ".ci" / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_scripts_are_safe_and_can_be_run():
    for script in SCRIPTS:
        text = script.read_text()
        assert text.startswith("#!/bin/bash\n") and "set -euo pipefail" in text and os.access(script, os.X_OK), script


def test_the_container_file_copies_what_exists_and_starts_fae():
    text = (LAUNCH / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.M) for word in line.split()[:-1] if word[0] != "-"]
    assert copied and all((LAUNCH.parent / name).exists() for name in copied)
    assert 'ENTRYPOINT ["fae"]' in text


def test_a_tpu_worker_is_set_up_twice_and_after_half_a_first_time(tmp_path: Path):
    """By programs that stand for uv and gcloud, and write down how they were called."""
    home, log = tmp_path / "home", tmp_path / "log"
    (home / "fae").mkdir(parents=True)  # `uv venv` was cut off
    python = home / "fae" / "bin" / "python"
    makes = f'[ "$1" = venv ] && mkdir -p {python.parent} && ln -s /bin/true {python}'
    for name, does in (("uv", makes), ("gcloud", "")):
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >>{log}\n{does}\nexit 0\n')
        (tmp_path / name).chmod(0o755)
    words = ["bash", LAUNCH / "tpu_setup.sh", "gs://bucket/fae_jax-0.1.0-py3-none-any.whl"]
    for _ in range(2):
        subprocess.run(words, check=True, env={"HOME": str(home), "PATH": f"{tmp_path}:/usr/bin:/bin"})
    brought = "gcloud storage cp gs://bucket/fae_jax-0.1.0-py3-none-any.whl /tmp/"
    made = f"uv venv --quiet --allow-existing --python 3.12 {home}/fae"
    installed = f"uv pip install --quiet --python {python} fae_jax[tpu] @ file:///tmp/fae_jax-0.1.0-py3-none-any.whl"
    assert log.read_text().splitlines() == [brought, made, installed, brought, installed]
