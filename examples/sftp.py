"""Keep a store and its backups on a server that speaks SFTP.

python sftp.py sftp://USER@HOST[:PORT]/FOLDER     keys and known hosts come from ~/.ssh, as for the program ssh

pip install 'novabackup[sftp]' sshfs              sshfs is for the ingestion in this example, not for novabackup
"""

import sys
from pathlib import Path

import manuals
from fsspec.utils import infer_storage_options
from sshfs import SSHFileSystem

from novabackup import ConfigurationError, IndexStore, Repository, snapshot

if len(sys.argv) < 2:
    sys.exit(__doc__)
url = sys.argv[1].rstrip("/")
place = infer_storage_options(url)

# What an ingestion may write with. Without known_hosts, this one takes any server for the right one.
known_hosts = str(Path("~/.ssh/known_hosts").expanduser())
remote = SSHFileSystem(place["host"], port=place.get("port", 22), username=place["username"], known_hosts=known_hosts)


def upload(folder: Path) -> None:
    """Put index files into the store, as an ingestion would."""
    for name in manuals.FILES:
        remote.put_file(str(folder / name), f"{place['path']}/vector_db/{name}")


# A local store with its backups on the server.
folder = manuals.new_folder("brakes", "engine")
local = IndexStore(folder)
repo = Repository(f"{url}/backups")
with snapshot(local, repo, tags=["nightly"]):
    manuals.ingest(folder, "cooling")
print("Backup of the local store:", repo["latest"].tags, len(repo["latest"].files), "files")
repo.backup(local).verify()
print("Every byte on the server is right.")

# A store that is on the server itself.
store = IndexStore(f"{url}/vector_db")
with snapshot(store, repo):
    upload(folder)
print("On the server:", {report.path: report.count for report in store.inspect()})
try:
    with snapshot(store, repo):
        remote.pipe_file(f"{place['path']}/vector_db/metadata.json", b"[]")
        raise RuntimeError("the upload failed")
except RuntimeError as error:
    print(f"{error}; back on the server:", {report.path: report.count for report in store.inspect()})

# The key of the server is always verified.
try:
    Repository(f"{url}/backups", storage_options={"known_hosts": "/dev/null"}).snapshots()
except ConfigurationError as error:
    print("Refused:", str(error).partition(": ")[2].partition(" (")[0])
