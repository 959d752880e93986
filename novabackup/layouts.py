"""Ready-made lists of the files that indexes of well-known systems consist of; any other is a tuple of components."""

from __future__ import annotations

from novabackup.components import Bm25, Component, Faiss, Files, JsonLines, Metadata, PickledList

__all__ = ["LEFT_OUT", "NOVA", "NOVA_MULTI_DOMAIN", "NOVA_VEHICLE"]

LEFT_OUT = ("**/.venv", "**/__pycache__", "**/*.log")
"""Patterns of what a backup of whole folders leaves out: what can be made anew, and logs that are being written."""

NOVA: tuple[Component, ...] = (
    Faiss("faiss_index.bin"),
    Bm25("bm25_index.pkl"),
    Metadata("metadata.json"),
    Files("corpus_manifest.json", optional=True),
    Files("domain_metadata.json", optional=True),
    Files("bm25_corpus_hash.txt", optional=True),
)
"""Nova NIC: vectors, words and metadata of the same chunks, and the companions that ingestion rewrites with them."""

NOVA_VEHICLE: tuple[Component, ...] = (
    Faiss("vehicle_index.faiss"),
    JsonLines("vehicle_docs.jsonl"),
)
"""Nova NIC's index of vehicle manuals: one line of text for each vector."""

NOVA_MULTI_DOMAIN: tuple[Component, ...] = (
    Faiss("faiss_index_multi_domain.bin"),
    PickledList("chunks_with_metadata.pkl"),
    Metadata("domain_metadata.json", count_key="total_chunks"),
)
"""Nova NIC's index over several domains: pickled chunks, and a summary that states how many there are."""
