"""One file per protocol of evaluation; `get_protocol()` returns the fields that it fixes."""
