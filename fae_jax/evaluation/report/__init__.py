"""The page: everything a working directory holds, as one self-contained HTML file."""

from fae_jax.evaluation.report.page import write_report

__all__ = ["write_report"]
