"""Rebuild: write a lost BM25 index anew from the texts in the metadata."""
