"""Read before processes are forked (`running.forked`): all that a configuration is made of."""

from fae_jax.config import default_config

default_config()
