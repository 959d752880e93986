"""Guard every call of a function; each call has a snapshot of its own."""

import manuals

from novabackup import IndexStore, Repository, snapshot

folder = manuals.new_folder("brakes")
store = IndexStore(folder)


@snapshot(store, tags=["nightly"])
def ingest(*names: str) -> int:
    """Add manuals and give the number of chunks."""
    return manuals.ingest(folder, *names)


print("cooling:", ingest("cooling"), "chunks")
print("engine:", ingest("engine"), "chunks")
try:
    ingest("no such manual")
except FileNotFoundError:
    print("no such manual:", store.inspect()["metadata.json"].count, "chunks, as before")
print(len(Repository(folder / "backups").snapshots(tags=["nightly"])), "snapshots")
