"""Shapes in signatures are checked while tests run; accelerator tests say when they do not run."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute: cheap compilation halves their time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
install_import_hook("fae_jax", "beartype.beartype")
from fae_jax.parallel.xla_flags import set_flags  # noqa: E402

set_flags()  # as the command line does, so that its numbers are those of programs run here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import jax

    if jax.default_backend() == "cpu":
        for item in items:
            if item.get_closest_marker("accelerator"):
                item.add_marker(pytest.mark.skip(reason="needs an accelerator; this machine has none"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a tiny experiment that ran without interruption; not to be changed."""
    from running import TINY, fae

    workdir = tmp_path_factory.mktemp("finished") / "tiny"
    fae("run", "--config", TINY, "--workdir", workdir)
    return workdir


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """As outside the tests: shapes are not checked by the signature, so the function itself has to refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
