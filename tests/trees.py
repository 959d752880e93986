"""The files of folders and of snapshots, as mappings from paths to content that can be compared and put back."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from novabackup import Repository, Snapshot

OWN = (".novabackup",)
"""What novabackup keeps in the folder of a store, beside the default repository."""


def files(folder: Path | str, without: Collection[str] = ()) -> dict[str, bytes]:
    """Read every file below a folder apart from those in folders ``without``."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not set(path.relative_to(folder).parts) & set(without)
    }


def contents(folder: Path | str) -> dict[str, bytes]:
    """Read every file below a folder, repositories included, apart from what novabackup keeps beside them."""
    return files(folder, without=OWN)


def put_back(folder: Path | str, whole: dict[str, bytes]) -> None:
    """Make a folder hold just these files."""
    shutil.rmtree(folder)
    for key, content in whole.items():
        path = Path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def held(snap: Snapshot) -> dict[str, bytes]:
    """Read every file of a snapshot."""
    return {path: snap.open(path).read() for path in snap.files}


def snapshots(repository: Repository) -> dict[str, dict[str, bytes]]:
    """Read every file of every snapshot, by the id of the snapshot."""
    return {snap.id: held(snap) for snap in repository}
