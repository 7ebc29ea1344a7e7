"""The trainer: it knows players, not stages."""
