"""A small search index over short manuals, as an ingestion would build it: what the other examples guard and break.

Real index files (FAISS, rank_bm25, JSON); only the embeddings are made up, so that no model must be downloaded.
"""

import hashlib
import json
import pickle
import re
import tempfile
from pathlib import Path

import faiss
import numpy as np
from rank_bm25 import BM25Okapi

DIMENSION = 64
FILES = ("faiss_index.bin", "bm25_index.pkl", "metadata.json")
NAMES = ("brakes", "cooling", "electrics", "engine", "wheels")


def read_chunks(*names: str) -> list[dict[str, str]]:
    """Read manuals and cut them into paragraphs."""
    chunks = []
    for name in names:
        title, *paragraphs = Path(__file__, "../manuals", f"{name}.md").resolve().read_text().strip().split("\n\n")
        chunks += [
            {"id": f"{name}-{number}", "manual": title.removeprefix("# "), "text": " ".join(text.split())}
            for number, text in enumerate(paragraphs)
        ]
    return chunks


def words(text: str) -> list[str]:
    """Cut a text into words."""
    return re.findall(r"[a-z0-9]+", text.lower())


def embed(texts: list[str]) -> np.ndarray:
    """Give one unit vector for each text: each word counts in one of 64 places, which its hash chooses."""
    vectors = np.zeros((len(texts), DIMENSION), np.float32)
    for row, text in enumerate(texts):
        for word in words(text):
            vectors[row, hashlib.sha256(word.encode()).digest()[0] % DIMENSION] += 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)


def write_faiss(folder: Path, chunks: list[dict[str, str]]) -> None:
    """Write the vectors."""
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(embed([chunk["text"] for chunk in chunks]))
    faiss.write_index(index, str(folder / "faiss_index.bin"))


def write_bm25(folder: Path, chunks: list[dict[str, str]]) -> None:
    """Write the words."""
    with (folder / "bm25_index.pkl").open("wb") as file:
        pickle.dump(BM25Okapi([words(chunk["text"]) for chunk in chunks]), file)


def write_metadata(folder: Path, chunks: list[dict[str, str]]) -> None:
    """Write the texts."""
    (folder / "metadata.json").write_text(json.dumps(chunks, indent=1))


def ingest(folder: Path, *names: str) -> int:
    """Add manuals to the indexes in a folder: read what is there, write all three files anew, in place."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = folder / "metadata.json"
    chunks = (json.loads(metadata.read_text()) if metadata.exists() else []) + read_chunks(*names)
    write_faiss(folder, chunks)
    write_bm25(folder, chunks)
    write_metadata(folder, chunks)
    return len(chunks)


def new_folder(*names: str) -> Path:
    """Make a temporary folder with the indexes of some manuals; it stays there to be looked at."""
    folder = Path(tempfile.mkdtemp(prefix="novabackup-"), "vector_db")
    if names:
        ingest(folder, *names)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """Give the first digits of the SHA-256 of each index file, to show that a file is what it was."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12]
        for name in FILES
        if (folder / name).exists()
    }
