"""The networks of generators."""
