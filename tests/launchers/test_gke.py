"""Manifests against the documented fields of a JobSet, xpk command lines letter by letter, and waiting for both."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from fae_jax.errors import RunFailed
from fae_jax.launchers import Phase, Task, gke

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())
TASK = Task(name="point-3", words=("sweep", "--workdir", "gs://lab-fae/betas", "--point", "3"))
PHASES = [Phase(name="points", tasks=(TASK, dataclasses.replace(TASK, name="point-4")))]
KUBECTL = gke.Settings(image="lab/fae:1", accelerator="tpu-v6e-slice", topology="4x4", poll=0)
FULL = dataclasses.replace(KUBECTL, slices=2, queue="tpus", service_account="trainer", namespace="research")
XPK = gke.Settings(
    image="lab/fae:1", via="xpk", cluster="pods", type="v6e-16", zone="us-east5-b", project="lab", slices=2
)
GOLDEN = """\
# points
xpk workload create --cluster=pods --zone=us-east5-b --project=lab --workload=betas-point-3 --tpu-type=v6e-16 \
--num-slices=2 --docker-image=lab/fae:1 --max-restarts=20 '--command=fae sweep --workdir gs://lab-fae/betas --point 3'
xpk workload create --cluster=pods --zone=us-east5-b --project=lab --workload=betas-point-4 --tpu-type=v6e-16 \
--num-slices=2 --docker-image=lab/fae:1 --max-restarts=20 '--command=fae sweep --workdir gs://lab-fae/betas --point 3'
xpk workload list --cluster=pods --zone=us-east5-b --project=lab --wait-for-job-completion=betas-point-3 \
# until it has ended
xpk workload list --cluster=pods --zone=us-east5-b --project=lab --wait-for-job-completion=betas-point-4 \
# until it has ended
"""


def check(manifest: object) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)


def test_the_schema_is_one_and_refuses_what_jobset_has_not():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    manifest = gke.manifest(TASK, KUBECTL, "betas")
    manifest["spec"]["maxRestarts"] = 3  # belongs into failurePolicy
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


@pytest.mark.parametrize("settings", [KUBECTL, FULL])
def test_manifests_have_documented_fields_and_survive_yaml(settings: gke.Settings):
    manifest = gke.manifest(TASK, settings, "Betas_2")
    check(yaml.safe_load(gke.as_yaml(manifest)))
    assert yaml.safe_load(gke.as_yaml(manifest)) == manifest
    assert manifest["metadata"]["name"] == "betas-2-point-3"


def test_shipped_manifest_has_documented_fields():
    for file in (ROOT / "launch").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            check(document)


def test_a_slice_has_a_pod_per_host_and_each_pod_its_chips():
    def shape(topology: str, chips_per_host: int = 4) -> tuple[int, int]:
        settings = dataclasses.replace(KUBECTL, topology=topology, chips_per_host=chips_per_host)
        job = gke.manifest(TASK, settings, "s")["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert job["parallelism"] == job["completions"]
        return job["completions"], job["template"]["spec"]["containers"][0]["resources"]["limits"]["google.com/tpu"]

    assert shape("4x4") == (4, 4) and shape("4x4x8") == (32, 4)
    assert shape("2x2") == (1, 4) and shape("1x1") == (1, 1) and shape("2x4", 8) == (1, 8)


def test_pods_have_the_service_account_that_writes_to_the_bucket():
    template = gke.manifest(TASK, FULL, "s")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    (shared,), (memory,) = template["spec"]["volumes"], template["spec"]["containers"][0]["volumeMounts"]
    assert memory == {"name": shared["name"], "mountPath": "/dev/shm"} and shared["emptyDir"] == {"medium": "Memory"}
    assert template["spec"]["serviceAccountName"] == "trainer"


def test_a_wrong_request_is_not_tried_again_and_a_lost_pod_is():
    spec = gke.manifest(TASK, KUBECTL, "s")["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2] and rule["action"] == "FailJob"
    assert spec["failurePolicy"]["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    assert spec["failurePolicy"]["maxRestarts"] == 20 and job["backoffLimit"] == 0


def test_xpk_command_lines(tmp_path: Path):
    assert gke.describe(PHASES, XPK, "betas", tmp_path) == GOLDEN


def test_what_kubectl_gets_is_described_in_full(tmp_path: Path):
    text = gke.describe(PHASES, KUBECTL, "betas", tmp_path)
    first = text.split("<<'MANIFEST'\n")[1].split("MANIFEST\n")[0]
    assert yaml.safe_load(first) == gke.manifest(TASK, KUBECTL, "betas")
    assert f"kubectl --namespace=default apply --filename={tmp_path}/point-3.yaml\n" in text
    assert "cat >'/a;$(touch X)/point-3.yaml' <<" in gke.describe(PHASES, KUBECTL, "betas", Path("/a;$(touch X)"))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """kubectl and xpk that note what they are told; states are in files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    text = f"""#!/bin/bash
cd {folder}
echo "$(basename "$0") $*" >>log
case "$*" in
  *get*jobset*) # nothing at the first look, then the state
    for name in point-3 point-4; do
      case "$*" in *$name*) [ -e "seen-$name" ] && cat "$name"; touch "seen-$name";; esac
    done;;
  *wait-for-job-completion*point-4*) [ -e broken ] && {{ echo "workload failed" >&2; exit 125; }};;
esac
exit 0
"""
    for name in ("kubectl", "xpk"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_jobsets_are_applied_waited_for_and_a_failed_one_is_named(programs: Path, tmp_path: Path):
    (programs / "point-3").write_text("Completed")
    (programs / "point-4").write_text("Failed")
    with pytest.raises(RunFailed, match="^point-4: its JobSet is Failed; the same command tries again"):
        gke.launch(PHASES, KUBECTL, "betas", tmp_path)
    log = (programs / "log").read_text().splitlines()
    assert [line.split()[2] for line in log] == ["delete", "apply"] * 2 + ["get"] * 4
    assert yaml.safe_load((tmp_path / "point-3.yaml").read_text()) == gke.manifest(TASK, KUBECTL, "betas")


def test_xpk_workloads_are_begun_and_waited_for(programs: Path, tmp_path: Path):
    gke.launch(PHASES, XPK, "betas", tmp_path)
    log = (programs / "log").read_text().splitlines()
    assert [line.split()[2] for line in log] == ["create", "create", "list", "list"]
    (programs / "broken").touch()
    with pytest.raises(RunFailed, match="point-4: workload failed"):
        gke.launch(PHASES, XPK, "betas", tmp_path)
