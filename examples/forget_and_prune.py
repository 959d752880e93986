"""Keep some snapshots, forget the others, and free what only they needed."""

from datetime import timedelta

import manuals

from novabackup import IndexStore, Policy, Repository

folder = manuals.new_folder()
store = IndexStore(folder)
repo = Repository(folder / "backups")
for name in manuals.NAMES:
    (folder / "metadata.json").unlink(missing_ok=True)  # so that each index is built anew and shares nothing
    manuals.ingest(folder, name)
    repo.backup(store, message=name)

plan = repo.plan_forget(Policy(last=2, daily=30, weekly=12, monthly=12))
for verdict in plan.verdicts:
    print("keep  " if verdict.kept else "forget", verdict.id, "-", ", ".join(verdict.reasons))
print("Forgotten:", len(repo.forget(plan)), "- left:", len(repo))

# Two steps, a grace period apart, so that a backup that is being taken loses nothing. Here nobody else writes.
condemned = repo.prune(grace=timedelta(0))
print("Condemned:", len(condemned.condemn), "packs; deleted:", len(condemned.delete))
deleted = repo.prune(grace=timedelta(0))
print("Condemned:", len(deleted.condemn), "packs; deleted:", len(deleted.delete), "packs,", deleted.size, "bytes")
print("Problems afterwards:", len(repo.check(read_data_subset="100%")))
