"""The page: everything a working directory holds, as one self-contained HTML file."""

from fae_jax.report.page import write_report

__all__ = ["write_report"]
