"""The texts in a repository for people: README.txt, and extract.py, which extracts data without novabackup."""

from __future__ import annotations

from importlib import resources

from blake3 import blake3

from novabackup.format.layout import EXTRACT_KEY

_SEAL = b"blake3 of the text above: "
_README_SEAL = b"\n" + _SEAL
_SCRIPT_SEAL = b"\n# " + _SEAL

_README = """\
This folder is a novabackup repository: snapshots of search indexes, and the content of their files.

  config.json           format version and identity of the repository
  snapshots/*.json      one file for each snapshot: JSON that lists its files and where their content is
  packs/??/*            the content, in compressed frames of chunks; a pack is named by a hash and never changes
  condemned/*.json      packs that no snapshot needs any more and that will be deleted later
  pins/*.json           names of snapshots that are kept until they are unpinned
  extract.py            a script that extracts the data without novabackup
  drills/*.json         results of trial restores
  damaged/              what a repair has replaced; nothing reads it any more

To get data out:  pip install novabackup, then in Python:

  from novabackup import Repository
  repository = Repository("path or URL of this folder")
  repository["latest"].restore(to="a folder")

Without novabackup, with Python 3.9 or newer and the program zstd (or the package zstandard), on a copy of this folder:

  python3 extract.py                      lists the snapshots
  python3 extract.py latest some-folder   writes the files of the latest one into a new folder

Without even that: docs/format.md of the project describes every byte. In short: a pack ends with 32 bytes that begin
with NOVATAIL and give, at offset 12 and 16, the stored and the raw size of the table before them. The table lists
frames (codec 0 as is, codec 1 zstandard, codec 2 bytes of words sorted into planes) and chunks. A file in a snapshot is
the runs [pack, first chunk, count] put together (with depth 1, these give the list of runs), and its "blake3" is what
b3sum must print for the result.

Do not change, rename or delete single files here.
"""

_README_ENCRYPTED = """\
This folder is an encrypted novabackup repository: snapshots of search indexes, and the content of their files.

  config.json           format version and identity of the repository
  keys/*.json           the data key, wrapped by passphrases, key files or a key service: without one of them, nothing
                        in here can ever be read again
  snapshots/*.json      one file for each snapshot, encrypted
  packs/??/*            the content, encrypted; a pack is named by a hash and never changes
  condemned/*.json      packs that no snapshot needs any more and that will be deleted later
  forgotten/*.json      snapshots that were removed on purpose
  pins/*.json           names of snapshots that are kept until they are unpinned
  drills/*.json         results of trial restores
  extract.py            a script that extracts the data without novabackup
  damaged/              what a repair has replaced; nothing reads it any more

To get data out:  pip install novabackup, then in Python:

  from novabackup import Repository
  from novabackup.keys import Passphrase
  repository = Repository("path or URL of this folder", key=Passphrase.from_env("NOVABACKUP_PASSPHRASE"))
  repository["latest"].restore(to="a folder")

Without novabackup, with Python 3.9 or newer and the packages cryptography, zstandard and blake3, on a copy of this
folder:

  python3 extract.py                      asks for a passphrase, and lists the snapshots
  python3 extract.py latest some-folder   writes the files of the latest one into a new folder

Anyone who can write to this folder can alter that script. Unless you trust all of them, enter a passphrase only into
the one in the package novabackup: novabackup/extract.py.

Without even that: docs/format.md of the project describes every byte.

Do not change, rename or delete single files here.
"""


def sealed_readme(*, encrypted: bool) -> bytes:
    """Return the README with a last line that shows whether the text above it was altered."""
    return _sealed((_README_ENCRYPTED if encrypted else _README).encode(), _README_SEAL)


def readme_intact(data: bytes) -> bool:
    """Return whether a README is as some version of novabackup wrote it."""
    return _intact(data, _README_SEAL)


def sealed_script() -> bytes:
    """Return the script with a last line that shows whether the text above it was altered."""
    return _sealed((resources.files("novabackup") / EXTRACT_KEY).read_bytes(), _SCRIPT_SEAL)


def script_intact(data: bytes) -> bool:
    """Return whether a script is as some version of novabackup wrote it."""
    return _intact(data, _SCRIPT_SEAL)


def _sealed(text: bytes, seal: bytes) -> bytes:
    return text + seal + blake3(text).hexdigest().encode() + b"\n"


def _intact(data: bytes, seal: bytes) -> bool:
    text, _, said = data.rpartition(seal)
    return said == blake3(text).hexdigest().encode() + b"\n"
