"""Mend a damaged repository from a copy of it, and a damaged BM25 index from the texts of the metadata."""

import manuals

from novabackup import IndexStore, Repository

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
backups, copy = folder.parent / "backups", Repository(folder.parent / "copy")
Repository(backups).backup(store)
Repository(backups).copy(to=copy)

# A disk loses a bit here and a whole file there.
packs = sorted(path for path in (backups / "packs").rglob("*") if path.is_file())
content = bytearray(packs[0].read_bytes())
content[100] ^= 1
packs[0].write_bytes(content)
(backups / "config.json").unlink()

repository = Repository(backups)
found = repository.check(read_data_subset="100%")
print("Damaged:", ", ".join(problem.paths[0] for problem in found))
print("Lost without help:", ", ".join(loss.path for loss in repository.plan_repair(problems=found).lost))
plan = repository.plan_repair(problems=found, from_=copy)
print(plan)
repository.repair(plan, from_=copy)
print("Problems afterwards:", len(Repository(backups).check(read_data_subset="100%")))
print("Kept to be looked at:", *sorted(path.name for path in (backups / "damaged").iterdir()))

# An ingestion was killed while it wrote the BM25 index.
index = folder / "bm25_index.pkl"
before = index.read_bytes()
index.write_bytes(before[: len(before) // 2])
print(repository.plan_rebuild_bm25(store))
repository.rebuild_bm25(store)
print("As before:", index.read_bytes() == before, "- problems:", len(store.check()))
