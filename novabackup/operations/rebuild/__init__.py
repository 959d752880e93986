"""Rebuild a damaged BM25 index from the texts in the metadata."""
