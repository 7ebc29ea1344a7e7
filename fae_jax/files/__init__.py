"""Files here and in buckets: paths, writing that is never half done, trying again, Python files as configuration."""
