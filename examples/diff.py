"""See what an ingestion changed."""

import manuals

from novabackup import IndexStore, Repository

folder = manuals.new_folder("brakes")
store = IndexStore(folder)
repo = Repository(folder / "backups")
before = repo.backup(store)

manuals.ingest(folder, "cooling")
(folder / "corpus_manifest.json").write_text('["brakes.md", "cooling.md"]')
after = repo.backup(store)

diff = before.diff(after)
print("added:    ", *diff.added)
print("changed:  ", *diff.changed)
print("unchanged:", *diff.unchanged)
for path in diff.changed:
    old, new = before.files[path], after.files[path]
    print(f"{path}: {old.size} -> {new.size} bytes, {old.report.count} -> {new.report.count} entries")
print("no difference to itself:", not after.diff(after))
