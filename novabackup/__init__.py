"""Guarded ingestion for search indexes that only make sense together."""
