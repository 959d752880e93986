"""Get the data out without novabackup, with the script that lies in the repository."""

import subprocess
import sys

import manuals

from novabackup import IndexStore, Repository

folder = manuals.new_folder("brakes", "engine")
repo = Repository(folder / "backups")
repo.backup(IndexStore(folder), message="before the fire")
before = manuals.hashes(folder)

# From here on novabackup is not needed: -I keeps Python from finding anything but what is installed beside it.
script = folder / "backups" / "extract.py"
out = folder.parent / "saved"
subprocess.run([sys.executable, "-I", script], check=True)
subprocess.run([sys.executable, "-I", script, "latest", out], check=True)
print("The same files:", manuals.hashes(out) == before)
