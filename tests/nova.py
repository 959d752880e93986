"""A small Nova: real index files, and an ingestion that rewrites them in place as Nova's own does."""

from __future__ import annotations

import contextlib
import json
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import faiss
import numpy as np
from rank_bm25 import BM25Okapi

import trees

DIMENSION = 16
FILES = ("faiss_index.bin", "bm25_index.pkl", "metadata.json")

MANUALS = [
    "Check the brake pads every ten thousand kilometres and replace them below three millimetres.",
    "Drain the coolant only when the engine is cold, then fill up with a mixture of equal parts.",
    "The parking brake is adjusted at the lever under the seat, two clicks at a time.",
    "Tighten the wheel nuts crosswise with one hundred and ten newton metres.",
    "A red oil lamp means stop at once: the bearings have no pressure.",
    "Replace the timing belt together with the tensioner and the water pump.",
    "The battery is charged with one tenth of its capacity for ten hours.",
    "Bleed the clutch from the bottom up until no bubbles rise.",
]


def texts(count: int, first: int = 0) -> list[str]:
    """Give so many chunks of manuals, all different."""
    return [f"{MANUALS[number % len(MANUALS)]} Section {number}." for number in range(first, first + count)]


def embed(chunks: Iterable[str]) -> np.ndarray:
    """Turn texts into vectors, always the same for the same text."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=DIMENSION) for text in chunks]
    return np.array(rows, dtype=np.float32).reshape(-1, DIMENSION)


def write_faiss(folder: Path, chunks: list[str]) -> None:
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(embed(chunks))
    faiss.write_index(index, str(folder / "faiss_index.bin"))


def write_bm25(folder: Path, chunks: list[str]) -> None:
    with (folder / "bm25_index.pkl").open("wb") as file:
        pickle.dump(BM25Okapi([chunk.lower().split() for chunk in chunks]), file)


def write_metadata(folder: Path, chunks: list[str]) -> None:
    entries = [{"id": f"chunk-{number}", "text": text} for number, text in enumerate(chunks)]
    (folder / "metadata.json").write_text(json.dumps(entries, indent=1))


def build(folder: Path, chunks: list[str]) -> None:
    """Write all three files anew."""
    folder.mkdir(parents=True, exist_ok=True)
    write_faiss(folder, chunks)
    write_bm25(folder, chunks)
    write_metadata(folder, chunks)


def ingest(folder: Path, new: list[str]) -> None:
    """Add chunks to the store, rewriting every file in place."""
    old = [entry["text"] for entry in json.loads((folder / "metadata.json").read_text())]
    build(folder, old + new)


def install(folder: Path, chunks: list[str]) -> None:
    """Write a small installation: indexes, configuration, documents, a database, and the programs."""
    build(folder / "vector_db", chunks)
    files = {
        ".env": "NOVA_PORT=5000\nNOVA_SECRET_KEY=8d0c2a5e\n",
        "app.py": "# starts Nova\n",
        "config/nova.toml": 'model = "all-MiniLM-L6-v2"\n',
        "data/manuals/brakes.txt": MANUALS[0],
        "data/manuals/engine.txt": MANUALS[1],
        "cache/sessions/1.json": "{}",
        "logs/nova.log": "left out",
        ".venv/pyvenv.cfg": "left out",
        "ingest.py": f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport nova; nova.main()\n",
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    (folder / ".env").chmod(0o600)
    with contextlib.closing(sqlite3.connect(folder / "query_log.db")) as connection:
        connection.execute("CREATE TABLE queries (text)")
        connection.execute("INSERT INTO queries VALUES ('How do I check brake pads?')")
        connection.commit()


def main() -> None:
    """Ingest texts that are told as arguments into the store of the working folder; ``--broken`` stops half-way."""
    folder, new = Path("vector_db"), [text for text in sys.argv[1:] if text != "--broken"]
    if "--broken" in sys.argv:
        write_faiss(folder, [entry["text"] for entry in json.loads((folder / "metadata.json").read_text())] + new)
        (folder / "metadata.json").write_text("[")
    else:
        ingest(folder, new)


INGEST_AND_DIE = """
    import os, pathlib, signal, sys
    import nova
    from novabackup import IndexStore, snapshot
    folder = pathlib.Path(sys.argv[1])
    with snapshot(IndexStore(folder)):
        nova.build(folder, nova.texts(2))
        (folder / "metadata.json").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def ingest_and_die(folder: Path) -> None:
    """Run a guarded ingestion in another process, which is killed half-way."""
    dead = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INGEST_AND_DIE), folder],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert dead.returncode == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, apart from novabackup's own and the backups."""
    return trees.files(folder, without=(*trees.OWN, "backups"))
