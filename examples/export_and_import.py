"""Write a snapshot as a plain archive for people who have nothing but tar; take old archives and copies in."""

import subprocess
from datetime import UTC
from pathlib import Path

import manuals

from novabackup import IndexStore, Repository
from novabackup.archives import Archive, PreIngest

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
before = manuals.hashes(folder)

# Out: an archive with its checksum.
written = Repository(folder / "backups").backup(store).export(folder.parent / "archives")
archive = Path(written.url)
subprocess.run(["sha256sum", "-c", f"{archive.name}.sha256"], cwd=archive.parent, check=True)
subprocess.run(["tar", "-xzf", archive.name], cwd=archive.parent, check=True)
(unpacked,) = [path for path in archive.parent.iterdir() if path.is_dir()]
print("The same files:", manuals.hashes(unpacked) == before)

# In: the archives that a script has made until now. First look, then do.
repo = Repository(folder.parent / "repository")
old = archive.rename(archive.with_name("nova-backup-20260125_143000.tar.gz"))
Path(f"{archive}.sha256").rename(f"{old}.sha256")
plan = repo.plan_import_archive(Archive(old), store)
print("Would take in:", *(file.path for file in plan.files), "- checksum was right:", plan.vouched)
snap = repo.import_archive(old, store, tags=["daily"])
print(snap.tags, snap.message)
print("Again it is the same snapshot:", repo.import_archive(old, store) == snap)

# In: the copies that a script has made before each ingestion.
(folder / "metadata.json").rename(folder / "backups" / "metadata.json.pre_ingest_20260124_080000")
(copied,) = repo.import_pre_ingest(PreIngest(folder / "backups", tz=UTC), store)
print(copied.time, copied.tags, *copied.files)
print("Not copied at that time:", *(path for problem in copied.problems for path in problem.paths))
