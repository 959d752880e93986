"""Encrypt a repository: passphrases and key files, changing them, replacing the data key, and what others can see."""

import os
from pathlib import Path

import manuals

from novabackup import DecryptionError, IndexStore, Repository
from novabackup.keys import KeyFile, Passphrase

folder = manuals.new_folder("brakes", "engine")
store = IndexStore(folder)
before = manuals.hashes(folder)
url = folder.parent / "sealed"

# A passphrase comes from where secrets are kept; here from the environment.
os.environ["NOVABACKUP_PASSPHRASE"] = "check the brake pads"
repo = Repository(url, key=Passphrase.from_env())
repo.backup(store, message="before winter")

everything = b"".join(path.read_bytes() for path in url.rglob("*") if path.is_file())
words = [b"before winter", b"metadata.json", str(folder).encode()]
print("Readable for others:", [word for word in words if word in everything])
for key in (None, Passphrase("check the tyres")):
    try:
        Repository(url, key=key).snapshots()
    except DecryptionError as error:
        print("Refused:", str(error).replace(str(url), "the repository"))

# A second key, for the day when nobody remembers the passphrase.
repo.keys.add(KeyFile.generate(folder.parent / "safe.key"), "in the safe")
by_file = Repository(url, key=KeyFile(folder.parent / "safe.key"))
by_file["latest"].restore(to=folder.parent / "by file")
print("Restored with the key file:", manuals.hashes(folder.parent / "by file") == before)

# To change the passphrase rewrites one small object, whatever the size of the repository.
packs = {path: path.stat().st_mtime_ns for path in Path(url, "packs").rglob("*")}
repo.keys.change(Passphrase("bleed the clutch"))
print("Packs that were rewritten:", sum(path.stat().st_mtime_ns != time for path, time in packs.items()))

# Somebody may have had a key: then the data key is replaced, and the key once more.
print("Keys to be added again:", repo.reencrypt())
repo.keys.change(Passphrase("drain the coolant"))
fresh = Repository(url, key=Passphrase("drain the coolant"))
fresh["latest"].verify()
print("Problems:", len(fresh.check(read_data_subset="100%")), "- keys:", [key.kind for key in fresh.keys])
