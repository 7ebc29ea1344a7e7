"""Files here and in buckets: paths, writing that is never half done, locks, trying again, Python files as data."""
