"""GKE: a JobSet per task, by its manifest and `kubectl`, or by `xpk`, which writes the JobSet itself.

A JobSet whose pods are lost to a preemption is made again by its failure policy and the run continues; exit code 2
(the request is wrong) ends it, since trying again would not help. JAX finds coordinator and ranks by itself.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import time
from pathlib import Path
from typing import Any

import yaml

from fae_jax.errors import RunFailed
from fae_jax.files.progress import say
from fae_jax.files.writing import write_atomically
from fae_jax.launchers.plan import REQUIRED, Phase, Task, cloud_name, run_phases, run_quietly
from fae_jax.section import at_least, one_of, option

WAITS = True
NAME_LIMIT = 36  # so that the names of the pods stay within 63 letters
PORTS = (8471, 8080)  # TPU runtime, and JAX's coordinator
NEEDED = {"kubectl": ("accelerator", "topology"), "xpk": ("cluster", "type")}  # settings without a default


def _looks_like_a_topology(value: str) -> str | None:
    return None if re.fullmatch(r"([1-9]\d*(x[1-9]\d*)+)?", value) else "must look like 4x4 or 4x4x4"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the GKE launcher."""

    image: str = option(REQUIRED, "container image, built from launch/Dockerfile")
    via: str = option("kubectl", "program that starts JobSets, kubectl or xpk", one_of(*NEEDED))
    accelerator: str = option("", "kubectl: a slice's kind, as GKE labels its nodes: tpu-v6e-slice")
    topology: str = option("", "kubectl: its chips along each side: 4x4", _looks_like_a_topology)
    chips_per_host: int = option(4, "kubectl: chips on one host of that accelerator", at_least(1))
    cluster: str = option("", "xpk: the cluster's name")
    type: str = option("", "xpk: the slice as it names it: v6e-16")
    zone: str = option("", "xpk: Google Cloud zone; default: gcloud's own")
    project: str = option("", "xpk: Google Cloud project; default: gcloud's own")
    slices: int = option(1, "slices per point", at_least(1))
    namespace: str = option("default", "Kubernetes namespace")
    queue: str = option("", "Kueue's local queue")
    service_account: str = option("", "Kubernetes service account, which may write to the bucket of --workdir")
    restarts: int = option(20, "restarts of a JobSet before it fails", at_least(0))
    grace: int = option(120, "seconds a pod has to save after SIGTERM", at_least(0))
    poll: int = option(30, "seconds between checks of a JobSet's state", at_least(0))

    def check(self) -> None:
        for name in NEEDED[self.via]:
            if not getattr(self, name):
                raise ValueError(f"{name} is needed by {self.via}: --launch {name}=…")

    @property
    def chips(self) -> int:
        """Chips per slice."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def hosts(self) -> int:
        """Hosts per slice."""
        return max(self.chips // self.chips_per_host, 1)


def manifest(task: Task, settings: Settings, name: str) -> dict[str, Any]:
    """The JobSet (jobset.x-k8s.io/v1alpha2) of a task."""
    chips = min(settings.chips_per_host, settings.chips)
    container: dict[str, Any] = {
        "name": "fae",
        "image": settings.image,
        "command": ["fae", *task.words],
        "ports": [{"containerPort": port} for port in PORTS],
        "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": settings.accelerator,
            "cloud.google.com/gke-tpu-topology": settings.topology,
        },
        "containers": [container],
        # loader workers hand on batches by it; unless it is mounted it has 64 MB
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    job = {
        "parallelism": settings.hosts,
        "completions": settings.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onExitCodes": {"containerName": "fae", "operator": "In", "values": [2]}}]
        },
        "template": {"spec": pod},
    }
    labels = {"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {}
    refused = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": _workload(task, name),
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


def _workload(task: Task, name: str) -> str:
    return cloud_name(name, task.name, limit=NAME_LIMIT)


def _xpk(verb: str, settings: Settings, *words: str) -> list[str]:
    place = {"zone": settings.zone, "project": settings.project}
    chosen = [f"--{name}={value}" for name, value in place.items() if value]
    return ["xpk", "workload", verb, f"--cluster={settings.cluster}", *chosen, *words]


def _kubectl(settings: Settings, *words: str) -> list[str]:
    return ["kubectl", f"--namespace={settings.namespace}", *words]


def _begin(task: Task, settings: Settings, name: str, file: Path) -> list[list[str]]:
    """Command lines that start a task; `file` holds its manifest, which kubectl applies."""
    workload = _workload(task, name)
    if settings.via == "kubectl":
        return [  # a JobSet that has ended does not run again when it is applied again
            _kubectl(settings, "delete", "jobset", workload, "--ignore-not-found", "--cascade=foreground"),
            _kubectl(settings, "apply", f"--filename={file}"),
        ]
    options = {
        "workload": workload,
        "tpu-type": settings.type,
        "num-slices": settings.slices,
        "docker-image": settings.image,
        "max-restarts": settings.restarts,
        "command": task.command("fae"),
    }
    return [_xpk("create", settings, *(f"--{option}={value}" for option, value in options.items()))]


def _state(task: Task, settings: Settings, name: str) -> list[str]:
    """The command line that asks kubectl for a task's state, or waits for its end by xpk."""
    workload = _workload(task, name)
    if settings.via == "xpk":
        return _xpk("list", settings, f"--wait-for-job-completion={workload}")
    return _kubectl(settings, "get", "jobset", workload, "--output=jsonpath={.status.terminalState}")


def describe(phases: list[Phase], settings: Settings, name: str, folder: Path) -> str:
    """By xpk every command line; by kubectl every manifest and what applies it."""
    parts = []
    for phase in phases:
        parts.append(f"# {phase.name}\n")
        for task in phase.tasks:
            file = folder / f"{task.name}.yaml"
            if settings.via == "kubectl":
                parts.append(
                    f"cat >{shlex.quote(str(file))} <<'MANIFEST'\n{as_yaml(manifest(task, settings, name))}MANIFEST\n"
                )
            parts += [shlex.join(words) + "\n" for words in _begin(task, settings, name, file)]
        parts += [f"{shlex.join(_state(task, settings, name))} # until it has ended\n" for task in phase.tasks]
    return "".join(parts)


def _wait(task: Task, settings: Settings, name: str) -> str | None:
    """Returns when a task has ended: the failure, or None."""
    words = _state(task, settings, name)
    if settings.via == "xpk":
        try:
            run_quietly(words, task.name)
        except RunFailed as error:
            return str(error)
        return None
    while not (state := run_quietly(words, f"asking for {task.name}")):
        time.sleep(settings.poll)
    return None if state == "Completed" else f"{task.name}: its JobSet is {state}"


def launch(phases: list[Phase], settings: Settings, name: str, folder: Path) -> None:
    """Starts every task of a phase, and waits for all of them before the next.

    Raises:
      RunFailed: a task cannot be started, or failed.
    """

    def run(phase: Phase) -> list[str]:
        for task in phase.tasks:
            file = folder / f"{task.name}.yaml"
            if settings.via == "kubectl":
                write_atomically(file, as_yaml(manifest(task, settings, name)))
            for words in _begin(task, settings, name, file):
                run_quietly(words, f"starting {task.name}")
            say(f"sweep: {task.name} started")
        return [failure for task in phase.tasks if (failure := _wait(task, settings, name))]

    run_phases(phases, run, "the same command tries again")
