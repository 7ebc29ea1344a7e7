"""A real Slurm of one node, of Debian's packages, in a scratch folder, without systemd or cgroups.

munged runs as the user `munge`, which refuses keys and sockets in folders that others may write; slurmctld and slurmd
run as this user, which has to be root.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CONFIGURATION = """\
ClusterName=fae
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=60
MinJobAge=600
SchedulerParameters=sched_interval=2,bf_interval=2
MpiDefault=none
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What of Slurm and munge is not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class SlurmCluster:
    """Started on entering, ended on leaving, with processors and GPUs that need not be there."""

    def __init__(self, root: Path, cpus: int, gpus: int = 0):
        self.root, self._cpus, self._gpus = root, cpus, gpus
        self._daemons: list[subprocess.Popen] = []
        self.environment = {"SLURM_CONF": str(root / "slurm.conf")}

    def __enter__(self) -> "SlurmCluster":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        munge = self.root / "munge"
        for folder in (munge, self.root / "state", self.root / "spool"):
            folder.mkdir(parents=True)
        key = munge / "key"
        subprocess.run(["/usr/sbin/mungekey", "--create", f"--keyfile={key}"], check=True)
        for path in (munge, key):
            shutil.chown(path, "munge", "munge")
        munge.chmod(0o711)
        key.chmod(0o600)
        files = [f"--{name}={munge / name}" for name in ("pid-file", "log-file", "seed-file")]
        munged = ["/usr/sbin/munged", "--foreground", f"--socket={munge / 'socket'}", f"--key-file={key}", *files]
        self._daemon(munged, user="munge", group="munge", extra_groups=[])
        self._until(lambda: (munge / "socket").exists(), "munged")
        host = socket.gethostname().split(".")[0]
        ports = {"controller": _free_port(), "node": _free_port()}
        text = CONFIGURATION.format(root=self.root, host=host, cpus=self._cpus, gpus=self._gpus, **ports)
        (self.root / "slurm.conf").write_text(text)
        files = [self.root / f"gpu{number}" for number in range(self._gpus)]
        for file in files:
            file.symlink_to("/dev/null")  # any device stands for a GPU
        (self.root / "gres.conf").write_text("".join(f"Name=gpu File={file}\n" for file in files))
        self._daemon(["/usr/sbin/slurmctld", "-D", "-i"])
        self._daemon(["/usr/sbin/slurmd", "-D", "-N", host])
        self._until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T", check=False), "slurmd")

    def _daemon(self, words: list[str], **options: object) -> None:
        environment = {**os.environ, **self.environment}
        with open(self.root / f"{Path(words[0]).name}.out", "w") as log:
            self._daemons.append(subprocess.Popen(words, stdout=log, stderr=log, env=environment, **options))

    def _until(self, ready: object, what: str, limit: float = 30.0) -> None:
        deadline = time.monotonic() + limit
        while not ready():
            logs = "".join(file.read_text()[-1500:] for file in self.root.glob("*.out"))
            assert time.monotonic() < deadline, f"{what} did not come up in {limit} s: {logs}"
            time.sleep(0.1)

    def run(self, *words: str, check: bool = True) -> str:
        """A program's standard output."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{words} → {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """State of a job, as RUNNING or COMPLETED."""
        record = self.run("scontrol", "--oneliner", "show", "job", job, check=False)
        return next((word.partition("=")[2] for word in record.split() if word.startswith("JobState=")), "")

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
