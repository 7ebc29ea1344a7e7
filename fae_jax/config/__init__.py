"""One experiment = one configuration: the sections that the rooms declare, composed.

Files and the command line see an `ml_collections.ConfigDict` (`default_config`, `load_config`, `override`);
everything else reads what `check` makes of it: frozen dataclasses with the same attributes.
"""

from fae_jax.config.checking import check
from fae_jax.config.composing import default_config, describe, differences, flatten, is_operational
from fae_jax.config.overriding import from_root, load_config, override, settle, shipped_configs, with_values
from fae_jax.config.saved import from_json, to_json

__all__ = [
    "check",
    "default_config",
    "describe",
    "differences",
    "flatten",
    "from_json",
    "from_root",
    "is_operational",
    "load_config",
    "override",
    "settle",
    "shipped_configs",
    "to_json",
    "with_values",
]
