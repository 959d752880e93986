"""Show a progress bar: every long call takes a callback of fsspec's form. pip install tqdm."""

import manuals
from fsspec.callbacks import TqdmCallback

from novabackup import IndexStore, Repository, snapshot

folder = manuals.new_folder("brakes", "engine", "wheels")
store = IndexStore(folder)
repo = Repository(folder / "backups")


def bar(what: str) -> TqdmCallback:
    """Give a bar that counts bytes."""
    return TqdmCallback(tqdm_kwargs={"desc": what, "unit": "B", "unit_scale": True})


with bar("snapshot") as callback, snapshot(store, callback=callback):
    manuals.ingest(folder, "cooling")
with bar("backup") as callback:
    snap = repo.backup(store, callback=callback)
with bar("verify") as callback:
    snap.verify(callback=callback)
manuals.write_metadata(folder, [])
with bar("restore") as callback:
    snap.restore(callback=callback)
print("Restored", snap.size, "bytes")
