"""Indexing and checking raw data."""
