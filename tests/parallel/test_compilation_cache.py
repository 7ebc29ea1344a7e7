"""Where compiled programs are kept."""

from pathlib import Path

import jax
import pytest

from fae_jax.parallel.compilation_cache import cache_folder, keep_compiled


def test_auto_is_the_users_folder_on_accelerators_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("auto", "tpu") == cache_folder("auto", "gpu") == "/somewhere/fae_jax/compiled"
    assert cache_folder("auto", "cpu") is None and cache_folder("off", "tpu") is None
    assert cache_folder("gs://bucket/compiled", "cpu") == "gs://bucket/compiled"


def test_a_cache_that_was_chosen_already_stays(tmp_path: Path):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
        assert keep_compiled(str(tmp_path / "other")) == str(tmp_path / "own")
        jax.config.update("jax_compilation_cache_dir", None)
        assert keep_compiled("off") is None and jax.config.values["jax_compilation_cache_dir"] is None
        assert keep_compiled(str(tmp_path)) == jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
