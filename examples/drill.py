"""A recovery drill: restore an old snapshot elsewhere, open it, ask it what it was asked before, look at the clock."""

import sys

import manuals

from novabackup import CheckFailedError, IndexStore, Level, Repository

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder, embedding_model="a hash of each word")
repo = Repository(folder / "backups")
old = repo.backup(store)
manuals.ingest(folder, "cooling")
repo.backup(store)

for level in Level:
    done = old.verify(level)
    print(f"{level}: {done.files} files are right, {done.queries} queries repeated")
print("Will it load here?", old.compatibility(store))

test = "import json, pathlib; print(len(json.loads(pathlib.Path('metadata.json').read_text())), 'chunks are there')"
drill = repo.drill(command=[sys.executable, "-c", test], rto=300)
print("Restored, and not the newest:", drill.snapshot == old.id)
print("Within the RTO:", drill.recovery_milliseconds < drill.rto_milliseconds)
print("Own test:", drill.output)

try:
    repo.drill(command=[sys.executable, "-c", "exit('chunk-7 is not found any more')"])
except CheckFailedError as error:
    print("Failed:", *(problem.code for problem in error.problems))
print("Noted in the repository:", [drill.good for drill in repo.drills()])
