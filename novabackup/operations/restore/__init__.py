"""Restore: what has to be done to bring a store to a snapshot, and doing it."""
