"""List snapshots and find one: by tag, by store, by the beginning of its id, or the latest."""

import manuals

from novabackup import IndexStore, NotFoundError, Repository

folder = manuals.new_folder("brakes")
store = IndexStore(folder)
repo = Repository(folder / "backups")
repo.backup(store, tags=["daily"])
manuals.ingest(folder, "engine")
repo.backup(store, tags=["daily", "weekly"], message="with the engine manual")

for snap in repo.snapshots():
    counts = {entry.report.count for entry in snap.files.values() if entry.report}
    print(f"{snap.id}  {snap.size} bytes  {counts} entries  {', '.join(snap.tags)}  {snap.message}")

weekly = repo.snapshots(tags=["weekly"])[0]
print("weekly and latest are the same:", weekly == repo["latest"])
print("found by the beginning of its id:", repo[weekly.id[:22]].id == weekly.id)
print(len(repo), "snapshots;", "20010101" in repo)
try:
    repo["20010101"]
except NotFoundError as error:
    print("NotFoundError:", error)
