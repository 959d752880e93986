"""Copy snapshots to another repository, and keep a mirror there under a retention of its own."""

from datetime import timedelta

import manuals

from novabackup import IndexStore, Repository
from novabackup.keys import Passphrase

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
local = Repository(folder / "backups")
for name in ("cooling", "electrics", "wheels"):
    local.backup(store, message=f"before {name}")
    manuals.ingest(folder, name)
local.backup(store, message="with everything")

# The other repository is encrypted, and compressed more; the snapshots are the same.
remote = Repository(folder.parent / "remote", key=Passphrase("check the brake pads"), compression="small")
plan = local.plan_copy(to=remote)
print(f"To copy: {len(plan.copy)}, there already: {len(plan.there)}")
done = local.copy(plan, to=remote, limit=50e6)
print("The same snapshots:", [point.id for point in remote] == [point.id for point in local])
print(f"{done.size} bytes of files became {remote.stored_bytes()}")

manuals.ingest(folder, "brakes")
local.backup(store, message="one more")
print("Next time:", len(local.copy(to=remote).copy), "copied")

# A mirror forgets by its own policy, and never because something is gone here.
mirrored = local.plan_mirror(to=remote, policy="last 2")
print("A mirror would copy", len(mirrored.copy.copy), "and forget", len(mirrored.forget.forgotten))
local.mirror(mirrored, to=remote)
remote.prune(grace=timedelta(0))  # nobody else writes there
print("Left there:", [point.message for point in remote])
local.forget([point.id for point in local][:4])
print("Forgotten here:", len(local.mirror(to=remote, policy="last 2").forget.forgotten), "forgotten there")

# And back again, when the local repository is lost.
again = Repository(folder.parent / "again")
remote.copy(to=again)
again["latest"].restore(to=folder.parent / "saved")
print("Everything came back:", manuals.hashes(folder.parent / "saved") == manuals.hashes(folder))
print("Problems:", len(again.check(read_data_subset="100%")))
