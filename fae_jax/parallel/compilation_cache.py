"""Compiled programs kept from run to run: a restart on a pod then starts in seconds instead of minutes."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_folder(setting: str, platform: str) -> str | None:
    """Where compiled programs are kept: a path or URL, or None for nowhere.

    Args:
      setting: `compute.compilation_cache`: off, auto, or a path. auto is the user's cache folder on accelerators, and
        nowhere on a CPU, whose programs compile in seconds and are bound to the very processor.
      platform: JAX's.
    """
    if setting == "off" or (setting == "auto" and platform == "cpu"):
        return None
    if setting != "auto":
        return setting
    return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fae_jax" / "compiled")


def keep_compiled(setting: str) -> str | None:
    """Turns JAX's persistent cache on as `cache_folder` says; one that the user chose by JAX's own setting stays.
    Returns where it is."""
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:
        return chosen
    folder = cache_folder(setting, jax.default_backend())
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
    return folder
