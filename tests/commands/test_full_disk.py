"""A disk that is full, and one that may not be written: one line, what was finished is kept, and on it goes.

As root a small tmpfs is mounted; elsewhere a limit on the size of files (RLIMIT_FSIZE) stands in for it.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import assert_same_arrays, curve, fae, saved_state


def mount(folder: Path, options: str) -> bool:
    return (
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 4 MB, or None where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") and mount(folder, "size=4m")
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def begun(finished: Path, workdir: Path) -> None:
    workdir.mkdir()
    shutil.copy(finished / "config.json", workdir)
    shutil.copytree(finished / "encoder", workdir / "encoder", ignore=shutil.ignore_patterns("checkpoints"))


def limited() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes beyond the limit then fail with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def failed_line(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("fae: ")]
    assert "Traceback" not in err and err.splitlines()[-1] == line
    return line


def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    finished: Path, tmp_path: Path, small_disk: Path | None
):
    workdir = (small_disk or tmp_path) / "w"
    begun(finished, workdir)
    # The first checkpoint, of step 3, is written while there is room.
    stop = ["--config.features.steps=8"]
    if small_disk is None:
        _, err = fae("train", "features", "--workdir", workdir, code=1, preexec_fn=limited)
        assert "(File too large)" in failed_line(err)
    else:
        filler = workdir.parent / "filler"
        free = os.statvfs(workdir).f_bavail * os.statvfs(workdir).f_frsize
        filler.write_bytes(b"\0" * (free - 150_000))
        _, err = fae("train", "features", "--workdir", workdir, *stop, code=1)
        assert "No space left on device" in failed_line(err)
    line = failed_line(err)
    assert "checkpoint" in line and "make room" in line and "run the same command again" in line, line
    if small_disk is not None:
        filler.unlink()
    fae("train", "features", "--workdir", workdir)
    assert curve(workdir, "features") == curve(finished, "features")
    assert_same_arrays(saved_state(workdir, "features"), saved_state(finished, "features"))


def test_a_directory_that_may_not_be_written_ends_the_run_in_one_line(finished: Path, tmp_path: Path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if not (os.geteuid() == 0 and shutil.which("mount") and mount(folder, "size=8m")):
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere, and no file system may be mounted here")
        folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        workdir = folder / "w"
        begun(finished, workdir)
        if os.path.ismount(folder):
            stack.callback(subprocess.run, ["umount", "-l", folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        else:
            workdir.chmod(0o555)
            stack.callback(workdir.chmod, 0o755)
        _, err = fae("train", "features", "--workdir", workdir, code=2)
        assert err.count("\n") == 1 and "cannot be written to" in err
        assert any(words in err for words in ("Read-only file system", "Permission denied"))
