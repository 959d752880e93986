"""Bring a store back to a snapshot; look at what that would do first."""

import manuals

from novabackup import IndexStore, Repository

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
repo = Repository(folder / "backups")
good = repo.backup(store)
before = manuals.hashes(folder)

manuals.write_faiss(folder, manuals.read_chunks("wheels"))  # somebody ran the wrong script ...
(folder / "corpus_manifest.json").write_text("{}")
print("Wrong:", *store.check(), sep="\n  ")

for action in good.plan_restore().actions:
    print(f"{action.step:>9}  {action.path}")
good.restore()
print("Healthy:", not store.check(), "- as before:", manuals.hashes(folder) == before)

replaced = repo.snapshots(tags=["before-restore"])[-1]
print("What was there is not lost:", replaced.id, sorted(replaced.files))

elsewhere = folder.parent / "copy"
good.restore(to=elsewhere)
print("The same elsewhere:", manuals.hashes(elsewhere) == before)
