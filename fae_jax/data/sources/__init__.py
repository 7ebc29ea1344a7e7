"""Where images come from, each kind of storage in a file."""
