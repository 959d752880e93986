"""Making archives by hand, the honest kind and the other kind."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path


def file(name: str, content: bytes = b"content", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member with content, or with whatever else is said of it."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_769_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return file(name, b"", type=kind, linkname=to)


def write(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz", **options: object) -> Path:
    """Write an archive just as it is said, sensible or not."""
    with tarfile.open(path, mode, **options) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def vouch(path: Path, name: str | None = None) -> Path:
    """Write a ``.sha256`` beside an archive, as the reference does it: with the absolute path."""
    sums = path.with_name(path.name + ".sha256")
    sums.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name or path}\n")
    return sums
