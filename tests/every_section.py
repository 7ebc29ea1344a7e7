"""Read before processes are forked (`running.forked`): all that a configuration is made of."""

from importlib import metadata

from fae_jax import kinds
from fae_jax.config import composing, default_config


def packages() -> set[metadata.EntryPoint]:
    """What installed packages bring."""
    every = (point for package in metadata.distributions() for point in package.entry_points)
    return {point for point in every if point.group.startswith("fae_jax.")}


def forget() -> None:
    """What installed packages bring is read again when it is next asked for."""
    for cache in (kinds.entry_points, composing.root, composing.describe_all):
        cache.cache_clear()


def read_again() -> None:
    """Forgets what was read where other packages have come since."""
    if packages() != KNOWN:
        forget()


KNOWN = packages()
default_config()
