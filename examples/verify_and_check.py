"""Make sure that snapshots can be restored: verify one, check a repository, see what damage looks like."""

import manuals

from novabackup import IndexStore, IntegrityError, Repository

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
repo = Repository(folder / "backups")
snap = repo.backup(store)

snap.verify()
print("Every byte of the snapshot is right.")
print("Problems of the repository:", len(repo.check(read_data_subset="100%")))

pack = next((folder / "backups" / "packs").glob("*/*"))
content = bytearray(pack.read_bytes())
content[len(content) // 3] ^= 1
pack.write_bytes(content)
print("One bit of a pack has been turned.")

repo = Repository(folder / "backups")  # what an object has read stays true for it, so look anew
for problem in repo.check(read_data_subset="100%"):
    print("check:", problem)
try:
    repo["latest"].verify()
except IntegrityError as error:
    print("verify:", *(path for problem in error.problems for path in problem.paths))
