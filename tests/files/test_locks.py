"""One writer at a time, here and in a bucket: the second is refused, a dead one's lock is taken over."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fae_jax.files import locks, objects
from fae_jax.files.locks import last_sign, lock

HOLD = """
import sys, time
from fae_jax.files import locks
from fae_jax.files.paths import as_path
locks.BEAT = 0.1
with locks.lock(as_path(sys.argv[1]), "the folder"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.1)
    monkeypatch.setattr(locks, "STALE", 0.8)


@pytest.fixture
def holder(folder: Any) -> Any:
    """A process that holds `folder/.lock`."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    words = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_and_told_whose_it_is(folder: Any, holder: Any):
    words = f"the folder is in use by process {holder.pid} on .+; wait for it or stop it"
    with pytest.raises(ValueError, match=words), lock(folder / ".lock", "the folder"):
        pass


def test_a_killed_one_is_taken_over_and_what_is_let_go_of_is_free(folder: Any, holder: Any):
    holder.kill()
    holder.wait()
    begun = time.monotonic()
    for _ in range(2):
        with lock(folder / ".lock", "the folder"):
            pass
    assert time.monotonic() - begun < locks.STALE  # it is known to be dead: nobody waits


def test_a_holder_elsewhere_is_given_time_for_a_sign_of_life(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    objects.upload(bucket / ".lock", b'{"owner": "process 1 on a", "process": 1, "place": "another"}', "0")
    begun = time.monotonic()
    with lock(bucket / ".lock", "the folder"):
        assert time.monotonic() - begun > locks.STALE
        assert f"process {os.getpid()} on" in (bucket / ".lock").read_text()
    assert "the folder is held by process 1 on a: waiting" in capsys.readouterr().err
    assert not (bucket / ".lock").exists()


def test_of_many_that_take_over_one_gets_it(bucket: Any):
    objects.upload(bucket / ".lock", b"{}", "0")
    results: list[str] = []
    done = threading.Barrier(4)

    def take() -> None:
        try:
            with lock(bucket / ".lock", "the folder"):
                results.append("held")
                done.wait(20)
        except ValueError as error:
            results.append(str(error))
            done.wait(20)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("held") == 1 and sum("is in use by" in each for each in results) == 3, results


def wait_for(messages: list[str]) -> str:
    for _ in range(200):
        if messages:
            break
        time.sleep(0.02)
    return messages[0] if messages else "nothing"


def test_who_was_taken_over_hears_of_it_and_leaves_the_other_alone(bucket: Any):
    messages: list[str] = []
    with lock(bucket / ".lock", "the folder", messages.append):
        _, generation = objects.read(bucket / ".lock")
        for _ in range(50):  # it is renewed all the time
            try:
                objects.upload(bucket / ".lock", b'{"owner": "process 7 on b"}', generation)
                break
            except FileExistsError:
                _, generation = objects.read(bucket / ".lock")
        assert wait_for(messages).startswith("the folder was taken over by process 7 on b; what was finished is kept")
    assert "process 7" in (bucket / ".lock").read_text()


def test_who_cannot_renew_ends_within_the_time_after_which_others_take_over(bucket: Any, bucket_server: Any):
    messages: list[str] = []
    with lock(bucket / ".lock", "the folder", messages.append):
        bucket_server.answer_all_with(403)
        begun = time.monotonic()
        try:
            assert "the folder cannot be reached for 1 s: Forbidden" in wait_for(messages)
            assert time.monotonic() - begun < 3 * locks.STALE
        finally:
            bucket_server.answer_all_with(200)


def test_signs_of_life(folder: Any):
    assert last_sign(folder / ".lock") == ""
    with lock(folder / ".lock", "the folder") as touch:
        first = last_sign(folder / ".lock")
        time.sleep(0.4)
        if "://" in str(folder):  # renewed by its thread, which is no sign of work
            assert last_sign(folder / ".lock") == first
        touch()
        time.sleep(0.4)
        assert last_sign(folder / ".lock") not in ("", first)


def test_a_lock_is_not_followed_elsewhere(tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="lock is a link, .* remove it"), lock(tmp_path / ".lock", "the folder"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
