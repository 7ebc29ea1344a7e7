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
