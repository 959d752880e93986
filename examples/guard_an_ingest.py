"""Guard an ingestion: the block that fails leaves no trace, the block that ends well stays."""

import manuals

from novabackup import CheckFailedError, IndexStore, snapshot

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
before = manuals.hashes(folder)

try:
    with snapshot(store):
        manuals.ingest(folder, "cooling")
        raise RuntimeError("the embedding service does not answer")
except RuntimeError as error:
    print(f"The ingestion failed: {error}")
print("Every file is as it was:", manuals.hashes(folder) == before)

try:
    with snapshot(store):
        manuals.write_metadata(folder, manuals.read_chunks("cooling"))  # ... and the other two files are forgotten
except CheckFailedError as error:
    print("The ingestion ended well, but", error.problems[0])
print("Every file is as it was:", manuals.hashes(folder) == before)

with snapshot(store, message="cooling and wheels") as point:
    manuals.ingest(folder, "cooling", "wheels")
print("This one stays:", {report.path: report.count for report in store.inspect()})
print("It can still be taken back:", point)
