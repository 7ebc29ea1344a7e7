"""GKE: a JobSet per task, by its manifest and `kubectl`, or by `xpk`, which writes the JobSet itself.

A JobSet whose pods are lost to a preemption is made again by its failure policy and the run continues; exit code 2
(the request is wrong) ends it, since trying again would not help. JAX finds coordinator and ranks by itself.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from fae_jax.errors import RunFailed
from fae_jax.files.writing import write_atomically
from fae_jax.launchers.plan import Phase, Task, at_least_one, cloud_name, find_program, run_quietly

WAITS = True
NAME_LIMIT = 36  # so that the names of the pods stay within 63 letters
PORTS = (8471, 8080)  # TPU runtime, and JAX's coordinator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Of the GKE launcher.

    Attributes:
      image: container, built from launch/Dockerfile.
      via: kubectl or xpk.
      accelerator, topology: of a slice, as GKE labels nodes: tpu-v6e-slice, 4x4 (kubectl).
      chips_per_host: of that accelerator (kubectl).
      cluster, type: the cluster's name, and the slice as xpk names it: v6e-16 (xpk).
      zone, project: default: gcloud's own (xpk).
      slices: of each point.
      namespace, queue, service_account: Kubernetes namespace, Kueue's local queue, Kubernetes service account.
      bucket, mount: Cloud Storage bucket, and where pods see it.
      restarts: of a JobSet.
      grace: seconds a pod has to save when it is told to end.
      poll: seconds between looks at a JobSet's state.
    """

    image: str
    via: str = "kubectl"
    accelerator: str = ""
    topology: str = ""
    chips_per_host: int = 4
    cluster: str = ""
    type: str = ""
    zone: str = ""
    project: str = ""
    slices: int = 1
    namespace: str = "default"
    queue: str = ""
    service_account: str = ""
    bucket: str = ""
    mount: str = "/mnt/fae"
    restarts: int = 20
    grace: int = 120
    poll: int = 30

    def __post_init__(self) -> None:
        at_least_one("gke", slices=self.slices, chips_per_host=self.chips_per_host)
        needed = {"kubectl": ("accelerator", "topology"), "xpk": ("cluster", "type")}
        if self.via not in needed:
            raise ValueError(f"launcher gke: via must be kubectl or xpk, got {self.via!r}")
        missing = [name for name in needed[self.via] if not getattr(self, name)]
        if missing:
            raise ValueError(f"launcher gke by {self.via} needs --launch {missing[0]}=…")
        if self.topology and not re.fullmatch(r"\d+(x\d+)+", self.topology):
            raise ValueError(f"launcher gke: topology is written as 4x4 or 4x4x4, got {self.topology!r}")

    @property
    def hosts(self) -> int:
        """Of one slice."""
        chips = math.prod(map(int, self.topology.split("x")))
        return max(chips // self.chips_per_host, 1)


def manifest(task: Task, settings: Settings, name: str) -> dict[str, Any]:
    """The JobSet (jobset.x-k8s.io/v1alpha2) of a task."""
    chips = min(settings.chips_per_host, math.prod(map(int, settings.topology.split("x"))))
    container: dict[str, Any] = {
        "name": "fae",
        "image": settings.image,
        "command": ["fae", *task.words],
        "ports": [{"containerPort": port} for port in PORTS],
        "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": settings.accelerator,
            "cloud.google.com/gke-tpu-topology": settings.topology,
        },
        "containers": [container],
    }
    annotations = {}
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    if settings.bucket:
        annotations["gke-gcsfuse/volumes"] = "true"
        container["volumeMounts"] = [{"name": "bucket", "mountPath": settings.mount}]
        attributes = {"bucketName": settings.bucket, "mountOptions": "implicit-dirs"}
        pod["volumes"] = [
            {"name": "bucket", "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}
        ]
    job = {
        "parallelism": settings.hosts,
        "completions": settings.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onExitCodes": {"containerName": "fae", "operator": "In", "values": [2]}}]
        },
        "template": {**({"metadata": {"annotations": annotations}} if annotations else {}), "spec": pod},
    }
    labels = {"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {}
    refused = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": cloud_name(name, task.name, limit=NAME_LIMIT),
            "namespace": settings.namespace,
            **({"labels": labels} if labels else {}),
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": settings.restarts, "rules": [refused]},
            "replicatedJobs": [{"name": "slice", "replicas": settings.slices, "template": {"spec": job}}],
        },
    }


def as_yaml(content: dict[str, Any]) -> str:
    """A manifest as a YAML document."""
    return yaml.safe_dump(content, sort_keys=False, width=118)


def _xpk(verb: str, settings: Settings, *words: str) -> list[str]:
    place = {"zone": settings.zone, "project": settings.project}
    chosen = [f"--{name}={value}" for name, value in place.items() if value]
    return ["xpk", "workload", verb, f"--cluster={settings.cluster}", *chosen, *words]


def xpk_create(task: Task, settings: Settings, name: str) -> list[str]:
    """The xpk command line that begins a task."""
    return _xpk(
        "create",
        settings,
        f"--workload={cloud_name(name, task.name, limit=NAME_LIMIT)}",
        f"--tpu-type={settings.type}",
        f"--num-slices={settings.slices}",
        f"--docker-image={settings.image}",
        f"--max-restarts={settings.restarts}",
        f"--command={task.command('fae')}",
    )


def xpk_wait(task: Task, settings: Settings, name: str) -> list[str]:
    """The xpk command line that returns when a task has ended."""
    workload = cloud_name(name, task.name, limit=NAME_LIMIT)
    return _xpk("list", settings, f"--wait-for-job-completion={workload}")


def _kubectl(settings: Settings, *words: str) -> list[str]:
    return ["kubectl", f"--namespace={settings.namespace}", *words]


def _kubectl_begin(task: Task, settings: Settings, name: str, file: Path) -> list[list[str]]:
    """What begins a task: a JobSet that has ended is not run again by being applied again, so it goes first."""
    found = cloud_name(name, task.name, limit=NAME_LIMIT)
    return [
        _kubectl(settings, "delete", "jobset", found, "--ignore-not-found", "--cascade=foreground"),
        _kubectl(settings, "apply", f"--filename={file}"),
    ]


def _kubectl_state(task: Task, settings: Settings, name: str) -> list[str]:
    found = cloud_name(name, task.name, limit=NAME_LIMIT)
    return _kubectl(settings, "get", "jobset", found, "--output=jsonpath={.status.terminalState}")


def describe(phases: list[Phase], settings: Settings, name: str, folder: Path) -> str:
    """By xpk every command line; by kubectl every manifest and what applies it."""
    parts = []
    for phase in phases:
        parts.append(f"# {phase.name}\n")
        for task in phase.tasks:
            if settings.via == "xpk":
                parts.append(shlex.join(xpk_create(task, settings, name)) + "\n")
            else:
                file = folder / f"{task.name}.yaml"
                parts.append(f"cat >{file} <<'MANIFEST'\n{as_yaml(manifest(task, settings, name))}MANIFEST\n")
                parts += [shlex.join(words) + "\n" for words in _kubectl_begin(task, settings, name, file)]
        for task in phase.tasks:
            wait = xpk_wait if settings.via == "xpk" else _kubectl_state
            parts.append(shlex.join(wait(task, settings, name)) + " # until it has ended\n")
    return "".join(parts)


def _wait(task: Task, settings: Settings, name: str) -> str | None:
    """Returns when a task has ended: what failed, or None."""
    if settings.via == "xpk":
        try:
            run_quietly(xpk_wait(task, settings, name), task.name)
        except RunFailed as error:
            return str(error)
        return None
    while True:
        state = run_quietly(_kubectl_state(task, settings, name), f"asking for {task.name}")
        if state:
            return None if state == "Completed" else f"{task.name}: its JobSet is {state}"
        time.sleep(settings.poll)


def launch(phases: list[Phase], settings: Settings, name: str, folder: Path) -> None:
    """Begins every task of a phase, and waits for all of them before the next.

    Raises:
      ValueError: kubectl or xpk is not here.
      RunFailed: a task cannot be begun, or failed.
    """
    find_program(settings.via, "gke")
    failures: list[str] = []
    for phase in phases:
        for task in phase.tasks:
            if settings.via == "xpk":
                begin = [xpk_create(task, settings, name)]
            else:
                file = folder / f"{task.name}.yaml"
                write_atomically(file, as_yaml(manifest(task, settings, name)))
                begin = _kubectl_begin(task, settings, name, file)
            for words in begin:
                run_quietly(words, f"beginning {task.name}")
            print(f"sweep: {task.name} is begun", file=sys.stderr, flush=True)
        failed = [said for task in phase.tasks if (said := _wait(task, settings, name))]
        failures += failed
        if failed and len(failed) == len(phase.tasks):
            break
    if failures:
        raise RunFailed(f"{'; '.join(failures[:3])}; the same command tries again")
