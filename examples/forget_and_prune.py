"""Keep some snapshots, forget the others, and free what only they needed."""

from datetime import timedelta

import manuals

from novabackup import ConfigurationError, IndexStore, Policy, Repository

folder = manuals.new_folder()
store = IndexStore(folder)
repo = Repository(folder / "backups")
for name in manuals.NAMES:
    (folder / "metadata.json").unlink(missing_ok=True)  # so that each index is built anew and shares nothing
    manuals.ingest(folder, name)
    repo.backup(store, message=name, tags=["first"] if name == manuals.NAMES[0] else [])

# In a configuration file: "last 2, daily 30, weekly 12, monthly 12, tag pre-ingest 7d", for Policy.parse.
policy = Policy(last=2, daily=30, weekly=12, monthly=12, tags={"pre-ingest": "7d"})
repo.pin(repo.snapshots(tags=["first"])[0], "as delivered")
plan = repo.plan_forget(policy)
print(plan)
print("Forgotten:", len(repo.forget(plan)), "- left:", len(repo))
try:
    repo.forget(repo.snapshots(tags=["first"]))
except ConfigurationError as error:
    print(error)

# Two steps, a grace period apart, so that a backup that is being taken loses nothing. Here nobody else writes.
condemned = repo.prune(grace=timedelta(0))
print("Condemned:", len(condemned.condemn), "packs; deleted:", len(condemned.delete))
deleted = repo.prune(grace=timedelta(0))
print("Condemned:", len(deleted.condemn), "packs; deleted:", len(deleted.delete), "packs,", deleted.size, "bytes")
print("Problems afterwards:", len(repo.check(read_data_subset="100%")))
