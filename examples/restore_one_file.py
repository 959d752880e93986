"""Get one file out of a snapshot: back into the store, into another folder, or just open it."""

import json

import manuals

from novabackup import IndexStore, Repository

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
snap = Repository(folder / "backups").backup(store)
before = manuals.hashes(folder)

(folder / "bm25_index.pkl").unlink()
done = snap.restore(paths=["bm25_index.pkl"])
print("Written:", *done.paths("write"), "- as before:", manuals.hashes(folder) == before)

elsewhere = folder.parent / "just-metadata"
snap.restore(to=elsewhere, paths=["metadata.json"])
print("In the other folder:", *sorted(path.name for path in elsewhere.iterdir() if path.is_file()))

with snap.open("metadata.json") as file:
    print("Read in place:", json.load(file)[0]["text"][:40])
