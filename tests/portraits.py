"""What a folder looks like in every detail that has to come back, and a folder that has them all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

NOT_UTF8 = os.fsdecode(b"caf\xe9 \xff")
OURS = (".novabackup", "backups")


def portrait(folder: Path) -> dict[str, tuple[object, ...]]:
    """Describe everything below a folder but novabackup's own: kind, bits, owner, time, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/", maxsplit=1)[0] in OURS:
            continue
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[name] = (stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def furnish(folder: Path) -> None:
    """Fill a folder with what installations hold."""
    (folder / "config/empty/deep").mkdir(parents=True)
    (folder / "config/nova.toml").write_text("port = 5000\n")
    (folder / "config/tool").write_bytes(b"#!/bin/sh\n")
    (folder / "config/tool").chmod(0o4755)
    (folder / "config/secret").write_bytes(b"")
    (folder / "config/secret").chmod(0o400)
    (folder / "config/shared").mkdir()
    (folder / "config/shared").chmod(0o2770)
    (folder / "config/tmp").mkdir()
    (folder / "config/tmp").chmod(0o1777)
    (folder / "config/current").symlink_to("nova.toml")
    (folder / "config/folder").symlink_to("empty")
    (folder / "config/broken").symlink_to("no such thing")
    (folder / "config/passwd").symlink_to("/etc/passwd")
    (folder / "config/up").symlink_to("../../..")
    (folder / "config/loop").symlink_to("loop")
    for number, name in enumerate(["new\nline", "back\\slash", "C:", " spaces ", "*[x]?", "\x1b[31mred", NOT_UTF8]):
        (folder / "config" / name).mkdir()
        (folder / "config" / name / f"{name}.txt").write_text(name.encode(errors="surrogateescape").hex())
        (folder / "config" / f"link to {name}").symlink_to(name)
        os.utime(folder / "config" / name / f"{name}.txt", ns=(0, 1_600_000_000_123_456_789 + number))
    os.link(folder / "config/nova.toml", folder / "config/hard")
    if os.geteuid() == 0:
        os.chown(folder / "config/tool", 1234, 5678)
        (folder / "config/tool").chmod(0o4755)
        os.chown(folder / "config/shared", 1234, 5678)
        (folder / "config/shared").chmod(0o2770)
        os.chown(folder / "config/broken", 1234, 5678, follow_symlinks=False)
    for number, path in enumerate(sorted((folder / "config").rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_500_000_000_000_000_001 + number), follow_symlinks=False)
