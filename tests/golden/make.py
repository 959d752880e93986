"""Wrote the golden repositories of format 1; kept so that it is known what is in them.

Usage: make.py FOLDER [PASSPHRASE]
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import faiss
import numpy as np

from novabackup import IndexStore, Repository, keys
from novabackup.components import Files, JsonLines

TEXT = "Tighten the wheel nuts crosswise with one hundred and ten newton metres.\n"


def main() -> None:
    to = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vector_db"
        folder.mkdir()
        store = IndexStore(folder, components=[JsonLines("entries.jsonl"), Files("*.bin"), Files("notes/**")])
        keys._N = 1 << 10  # so that tests need not wait
        repository = Repository(to, key=keys.Passphrase(sys.argv[2]) if len(sys.argv) > 2 else None)
        expected = {}
        vectors = np.random.default_rng(1).normal(size=(900, 16)).astype(np.float32)
        inverted = faiss.index_factory(16, "IVF300,Flat")
        inverted.train(vectors)
        blocks = [hashlib.sha256(bytes([number])).digest() * 8 for number in range(120)]
        for extra in (b"", b"inserted in the middle"):
            (folder / "entries.jsonl").write_text(
                json.dumps({"text": TEXT}) + "\n" + '{"text": "Ölstand"}\n' * len(extra)
            )
            (folder / "vectors.bin").write_bytes(b"".join(blocks[:60]) + extra + b"".join(blocks[60:]))
            # Cut between vectors, stored as planes, and of so many lists that the second snapshot has a list of runs.
            inverted.add(vectors[:450] if not extra else vectors[450:])
            faiss.write_index(inverted, str(folder / "inverted.bin"))
            (folder / "empty.bin").write_bytes(b"")
            (folder / "notes").mkdir(exist_ok=True)
            (folder / "notes" / "ä b.txt").write_text(TEXT * 100)
            point = repository.backup(store, tags=["golden"], message=f"with {len(extra)} bytes more")
            expected[point.id] = {path: hashlib.sha256(point.open(path).read()).hexdigest() for path in point.files}
    (to.parent / f"{to.name}.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
