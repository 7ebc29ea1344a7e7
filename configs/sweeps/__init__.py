"""One file per sweep; `get_sweep()` returns what differs between its experiments."""
