"""One file per verb; thin."""
