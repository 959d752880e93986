"""Kinds of files that a store consists of; importing them imports neither faiss nor numpy nor rank_bm25."""

from novabackup.components.base import Component
from novabackup.components.faiss import Faiss
from novabackup.components.files import Files, Tree
from novabackup.components.metadata import JsonLines, Metadata
from novabackup.components.pickles import Bm25, PickledList
from novabackup.components.sqlite import Sqlite

__all__ = ["Bm25", "Component", "Faiss", "Files", "JsonLines", "Metadata", "PickledList", "Sqlite", "Tree"]
