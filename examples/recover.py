"""Recover a store from an ingestion that was killed in the middle."""

import os
import signal
import sys

import manuals

from novabackup import IndexStore, NovaBackupError, Repository, recover, snapshot

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
before = manuals.hashes(folder)
print("Nothing to do yet:", recover(store))

sys.stdout.flush()
child = os.fork()
if child == 0:
    with snapshot(store):
        manuals.write_faiss(folder, manuals.read_chunks("wheels"))
        os.kill(os.getpid(), signal.SIGKILL)
_, status = os.waitpid(child, 0)
print("The child died of signal", os.WTERMSIG(status), "- as before:", manuals.hashes(folder) == before)

try:
    Repository(folder / "backups").backup(store)
except NovaBackupError as error:
    print(f"{type(error).__name__}: no backup of half an ingestion")

print("Recovered:", recover(store))
print("As before:", manuals.hashes(folder) == before, "- nothing left to do:", recover(store))
