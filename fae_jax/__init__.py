"""fae_jax: FAE (Feature Auto-Encoder, arXiv 2512.07829) in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fae_jax.model import FAE
    from fae_jax.stages.running import load

__version__ = "0.1.0"
__all__ = ["FAE", "load"]


def __getattr__(name: str) -> Any:
    """`fae_jax.load` and `fae_jax.FAE`, imported when first asked for so that `import fae_jax` stays light."""
    if name == "FAE":
        from fae_jax.model import FAE

        return FAE
    if name == "load":
        from fae_jax.stages.running import load

        return load
    raise AttributeError(f"module 'fae_jax' has no attribute {name!r}")
