"""Take a plain backup, without a block: what a cron job does every night."""

import manuals

from novabackup import IndexStore, Repository

folder = manuals.new_folder("brakes", "cooling", "electrics")
store = IndexStore(folder)
repo = Repository(folder.parent / "backups")  # better: another disk, or s3://bucket/backups

first = repo.backup(store, tags=["daily"], message="before the season")
print(f"{first.id}: {first.size} bytes in {len(first.files)} files; the repository grew by {first.added}")

again = repo.backup(store, tags=["daily"])
print(f"{again.id}: nothing has changed; the repository grew by {again.added}")

manuals.ingest(folder, "wheels")
grown = repo.backup(store, tags=["daily"])
print(f"{grown.id}: {grown.size} bytes; the repository grew by {grown.added}")
