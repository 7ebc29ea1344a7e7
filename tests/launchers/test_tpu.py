"""gcloud command lines letter by letter, and the way through preemptions, by a program that stands for gcloud."""

import dataclasses
import subprocess
import time
from pathlib import Path

import pytest

from fae_jax.errors import RunFailed
from fae_jax.launchers import Phase, Task, tpu

PHASES = [
    Phase(name="shared", tasks=(Task(name="shared", words=("sweep", "--point", "shared")),)),
    Phase(name="points", tasks=tuple(Task(name=f"p{n}", words=("sweep", "--point", str(n))) for n in range(3))),
]
SETTINGS = tpu.Settings(zone="us-east5-b", type="v6e-64", version="v2-alpha-tpuv6e", project="lab", spot=True, poll=0)
PLACE = "--zone=us-east5-b --project=lab"
FIRST, LAST = tpu.ALONE.split("; {}; ")
GOLDEN = f"""\
# slice betas-0
gcloud --quiet compute tpus queued-resources create betas-0 --node-id=betas-0 {PLACE} --accelerator-type=v6e-64 \
--runtime-version=v2-alpha-tpuv6e --spot
gcloud --quiet compute tpus queued-resources describe betas-0 {PLACE} \
'--format=value(state.state)' # until ACTIVE or READY
# slice betas-1
gcloud --quiet compute tpus queued-resources create betas-1 --node-id=betas-1 {PLACE} --accelerator-type=v6e-64 \
--runtime-version=v2-alpha-tpuv6e --spot
gcloud --quiet compute tpus queued-resources describe betas-1 {PLACE} \
'--format=value(state.state)' # until ACTIVE or READY
# shared, 2 at a time
gcloud --quiet compute tpus tpu-vm ssh betas-0 {PLACE} --worker=all --batch-size=all \
'--command={FIRST}; fae sweep --point shared; {LAST}'
# points, 2 at a time
gcloud --quiet compute tpus tpu-vm ssh betas-0 {PLACE} --worker=all --batch-size=all \
'--command={FIRST}; fae sweep --point 0; {LAST}'
gcloud --quiet compute tpus tpu-vm ssh betas-1 {PLACE} --worker=all --batch-size=all \
'--command={FIRST}; fae sweep --point 1; {LAST}'
gcloud --quiet compute tpus tpu-vm ssh betas-0 {PLACE} --worker=all --batch-size=all \
'--command={FIRST}; fae sweep --point 2; {LAST}'
# the end
gcloud --quiet compute tpus queued-resources delete betas-0 {PLACE} --force
gcloud --quiet compute tpus queued-resources delete betas-1 {PLACE} --force
"""
GOLDEN_AT_ONCE = f"""\
# slice s-0
gcloud --quiet compute tpus tpu-vm create s-0 --zone=z --accelerator-type=v5litepod-8 --version=v2-tpuv5-litepod
gcloud --quiet compute tpus tpu-vm describe s-0 --zone=z '--format=value(state)' # until ACTIVE or READY
gcloud --quiet compute tpus tpu-vm ssh s-0 --zone=z --worker=all --batch-size=all '--command=bash setup.sh'
# shared, 1 at a time
gcloud --quiet compute tpus tpu-vm ssh s-0 --zone=z --worker=all --batch-size=all \
'--command={FIRST}; .venv/bin/fae sweep --point shared; {LAST}'
# the end
gcloud --quiet compute tpus tpu-vm delete s-0 --zone=z
"""


def test_command_lines_by_queued_resource(tmp_path: Path):
    assert tpu.describe(PHASES, dataclasses.replace(SETTINGS, parallel=2), "betas", tmp_path) == GOLDEN


def test_command_lines_of_a_vm_made_at_once(tmp_path: Path):
    settings = tpu.Settings(
        zone="z",
        type="v5litepod-8",
        version="v2-tpuv5-litepod",
        queued=False,
        setup="bash setup.sh",
        program=".venv/bin/fae",
    )
    assert tpu.describe(PHASES[:1], settings, "s", tmp_path) == GOLDEN_AT_ONCE


# Notes every command; the state of a slice is in a file; `ssh` does what the script named by its count says.
GCLOUD = """\
#!/bin/bash
cd {root}
case "$5" in
  describe)
    [ -e mute ] && {{ rm mute; echo "ERROR: internal error" >&2; exit 1; }}
    [ -e state ] || {{ echo "ERROR: NOT_FOUND: Resource was not found" >&2; exit 1; }}
    [ -e next ] && [ -e asked ] && mv next state
    touch asked
    cat state;;
  create)
    echo create >>log
    [ -e refuse ] && {{ echo "ERROR: no quota" >&2; exit 1; }}
    echo "${{COMES:-ACTIVE}}" >state;;
  delete)
    grep -q ING state && {{ echo "ERROR: in progress" >&2; exit 1; }}
    echo "delete" >>log; rm -f state;;
  ssh)
    words="${{@: -1}}"
    [[ "$words" =~ \\$f\\;\\ (.*)\\;\\ c= ]] && words="--command=${{BASH_REMATCH[1]}}"
    echo "ssh $words" >>log; n=$(grep -c ssh log); [ -e "ssh-$n" ] && . "./ssh-$n"; exit 0;;
esac
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cloud"
    root.mkdir()
    (root / "gcloud").write_text(GCLOUD.format(root=root))
    (root / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")
    return root


def noted(cloud: Path) -> list[str]:
    return (cloud / "log").read_text().splitlines()


def test_a_slice_is_made_used_in_turn_and_deleted(cloud: Path, tmp_path: Path):
    tpu.launch(PHASES, SETTINGS, "s", tmp_path)
    ran = [f"ssh --command=fae sweep --point {point}" for point in ("shared", 0, 1, 2)]
    assert noted(cloud) == ["create", *ran, "delete"]


def test_a_preempted_slice_is_made_again_and_the_same_point_goes_on(cloud: Path, tmp_path: Path):
    (cloud / "ssh-2").write_text("echo SUSPENDED >state; exit 1\n")
    (cloud / "ssh-3").write_text("rm state; exit 255\n")  # gone altogether
    tpu.launch(PHASES, SETTINGS, "s", tmp_path)
    point = "ssh --command=fae sweep --point 0"
    shared, *rest = ("ssh --command=fae sweep --point shared", "ssh --command=fae sweep --point 1")
    last = "ssh --command=fae sweep --point 2"
    assert noted(cloud) == [
        "create",
        shared,
        point,
        "delete",
        "create",
        point,
        "create",
        point,
        *rest,
        last,
        "delete",
    ]


def test_a_lost_connection_is_tried_again_and_a_failed_run_is_not(cloud: Path, tmp_path: Path):
    (cloud / "ssh-2").write_text("exit 255\n")
    (cloud / "ssh-4").write_text("exit 2\n")
    with pytest.raises(RunFailed, match="p1 ended with code 2; logs are in"):
        tpu.launch(PHASES, SETTINGS, "s", tmp_path)
    assert [line[-1] for line in noted(cloud) if line.startswith("ssh")] == ["d", "0", "0", "1", "2"]
    assert noted(cloud)[-1] == "delete"


def test_what_a_lost_connection_left_running_saves_and_ends_before_the_next_begins(tmp_path: Path):
    def begin(command: str) -> subprocess.Popen:
        words = tpu.ALONE.replace("/dev/shm", str(tmp_path)).replace("sleep 1", "sleep .05").format(command)
        return subprocess.Popen(["bash", "-c", words], start_new_session=True)  # as sshd starts it

    log = tmp_path / "log"
    saves = f"bash -c 'trap \"echo saved >>{log}; exit 1\" TERM; echo up >>{log}; while sleep .05; do :; done'"
    first = begin(saves)
    while not log.exists():
        time.sleep(0.01)
    second = begin(f"echo next >>{log}; (exit 3)")
    assert first.wait(timeout=20) != 0 and second.wait(timeout=20) == 3
    assert log.read_text().split() == ["up", "saved", "next"] and not (tmp_path / "fae-group").exists()


def test_a_slice_that_is_going_is_waited_for_and_one_that_is_there_is_set_up_again(cloud: Path, tmp_path: Path):
    (cloud / "state").write_text("SUSPENDING\n")
    (cloud / "next").write_text("SUSPENDED\n")
    (cloud / "mute").touch()  # gcloud fails once
    settings = dataclasses.replace(SETTINGS, setup="bash setup.sh", keep=True)
    tpu.launch(PHASES[:1], settings, "s", tmp_path)
    used = ["ssh --command=bash setup.sh", "ssh --command=fae sweep --point shared"]
    assert noted(cloud) == ["delete", "create", *used]
    tpu.launch(PHASES[:1], settings, "s", tmp_path)  # the setup may have failed the first time
    assert noted(cloud)[4:] == used


def test_a_state_that_gcloud_does_not_tell_is_no_slice_that_is_gone(cloud: Path, tmp_path: Path):
    (cloud / "gcloud").write_text("#!/bin/bash\necho 'ERROR: no credentials' >&2; exit 1\n")
    with pytest.raises(RunFailed, match="asking for s-0: ERROR: no credentials"):
        tpu.launch(PHASES, SETTINGS, "s", tmp_path)


def test_what_gcloud_refuses_is_repeated_and_nothing_is_left_up(cloud: Path, tmp_path: Path):
    (cloud / "refuse").touch()
    with pytest.raises(RunFailed, match="making s-0: ERROR: no quota"):
        tpu.launch(PHASES, SETTINGS, "s", tmp_path)
    assert noted(cloud)[-1] == "delete"


def test_a_request_that_failed_ends_the_wait(cloud: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMES", "FAILED")
    with pytest.raises(RunFailed, match="slice s-0 is FAILED"):
        tpu.launch(PHASES, SETTINGS, "s", tmp_path)
