"""Keep a store and its backups on S3.

python s3.py s3://BUCKET/PREFIX [ENDPOINT]        credentials come from the environment, as for every AWS program
"""

import sys
from pathlib import Path

import fsspec
import manuals

from novabackup import IndexStore, Repository, snapshot

if len(sys.argv) < 2:
    sys.exit(__doc__)
url = sys.argv[1].rstrip("/")
options = {"endpoint_url": sys.argv[2]} if len(sys.argv) > 2 else {}
remote = fsspec.filesystem("s3", **options)


def upload(folder: Path) -> None:
    """Put index files into the store, as an ingestion would."""
    for name in manuals.FILES:
        remote.put_file(str(folder / name), f"{url}/vector_db/{name}")


# A local store with its backups on S3.
folder = manuals.new_folder("brakes", "engine")
local = IndexStore(folder)
repo = Repository(f"{url}/backups", storage_options=options)
with snapshot(local, repo, tags=["nightly"]):
    manuals.ingest(folder, "cooling")
print("Backup of the local store:", repo["latest"].tags, len(repo["latest"].files), "files")
repo.backup(local).verify()
print("Every byte on S3 is right.")

# A store that is on S3 itself.
store = IndexStore(f"{url}/vector_db", storage_options=options)
with snapshot(store, repo):
    upload(folder)
print("On S3:", {report.path: report.count for report in store.inspect()})
try:
    with snapshot(store, repo):
        remote.pipe_file(f"{url}/vector_db/metadata.json", b"[]")
        raise RuntimeError("the upload failed")
except RuntimeError as error:
    print(f"{error}; back on S3:", {report.path: report.count for report in store.inspect()})
