"""Shapes in signatures are checked while tests run; accelerator tests say when they do not run."""

import fcntl
import os
import signal
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from jaxtyping import install_import_hook

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a shell's background jobs, and all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
install_import_hook("fae_jax", "beartype.beartype")
from running import QUICK  # noqa: E402

from fae_jax.parallel.xla_flags import set_flags  # noqa: E402

os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))
set_flags()  # as the command line does, so that its numbers are those of programs run here


def pytest_configure(config: pytest.Config) -> None:
    """What one process of `fae` compiled serves all others, whichever worker of the tests started them; and those of
    later calls that are given the same folder (`.ci/run`)."""
    if "FAE_COMPILED" not in os.environ:  # workers have it from the process that started them
        folder = tempfile.TemporaryDirectory(prefix="fae_compiled_", ignore_cleanup_errors=True)
        os.environ["FAE_COMPILED"] = folder.name
        config.add_cleanup(folder.cleanup)


def seconds(item: pytest.Item) -> float:
    """About how long a test takes, on one of two cores."""
    marks = [mark for name in ("slow", "slurm", "tpu_compiler") if (mark := item.get_closest_marker(name))]
    return marks[0].kwargs.get("seconds", 20) if marks else 0.5


@pytest.hookimpl(trylast=True)  # when `-m` has chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of what they take, the longest first, so that the workers end together."""
    import jax

    if jax.default_backend() == "cpu":
        for item in items:
            if item.get_closest_marker("accelerator"):
                item.add_marker(pytest.mark.skip(reason="needs an accelerator; this machine has none"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        total: Counter[Path] = Counter()
        for item in items:
            total[item.path] += seconds(item)
        items.sort(key=lambda item: -total[item.path])


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[Any]:
    """A server of buckets on this machine, that gcsfs and TensorStore of this process ask too."""
    from bucket_server import BucketServer

    server = BucketServer()
    os.environ.update(server.variables)  # before their first use, and for good: they look once
    yield server
    server.stop()


@pytest.fixture
def bucket(bucket_server: Any) -> Any:
    """A folder of its own in a bucket."""
    from bucket_server import BUCKET

    from fae_jax.files.paths import as_path

    return as_path(f"gs://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture(params=["here", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty folder, on this machine and in a bucket."""
    return tmp_path if request.param == "here" else request.getfixturevalue("bucket")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a tiny experiment that ran without interruption; not to be changed."""
    from running import TINY, fae

    together = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        together = together.parent  # one for all workers
    workdir = together / "finished"
    with open(together / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not workdir.exists():
            fae("run", "--config", TINY, "--workdir", together / "unfinished")
            (together / "unfinished").rename(workdir)
    return workdir


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """As outside the tests: shapes are not checked by the signature, so the function itself has to refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
