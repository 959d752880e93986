"""What a folder of this host holds beside files: links and folders, seen and made without following a link."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from novabackup.format.records import Attributes
from novabackup.storage.base import Entry, Folder, Item, Link, Other
from novabackup.storage.local.posix import OURS, UNOWNABLE, adopt, identity_of, make_folder, sync_folder, tolerate

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def entry_of(key: str, status: os.stat_result, *, trusted: bool = True) -> Entry:
    """Describe a regular file."""
    return Entry(
        key=key,
        size=status.st_size,
        identity=identity_of(status) if trusted else "",
        modified=status.st_mtime,
        attributes=_attributes(status),
    )


def kind_of(mode: int) -> str:
    """Name a kind of file that is not a regular one, for people."""
    tests = {
        "a folder": stat.S_ISDIR,
        "a named pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
        "a symbolic link that leads in a circle": stat.S_ISLNK,
    }
    return next((kind for kind, test in tests.items() if test(mode)), "something else")


def describe(path: Path, key: str) -> Item | None:
    """Describe what is at a path itself; None if nothing is there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            return entry_of(key, status)
        if stat.S_ISDIR(status.st_mode):
            return Folder(key=key, attributes=_attributes(status))
        if stat.S_ISLNK(status.st_mode):
            return Link(key=key, target=str(path.readlink()), attributes=_attributes(status))
        return Other(key=key, kind=kind_of(status.st_mode))
    return None


def walk(folder: Path, prefix: str, enter: Callable[[str], bool]) -> Iterator[Item]:
    """Yield all that is below a folder in the order of keys, following no link.

    Args:
        folder: Its real path.
        prefix: What the keys begin with.
        enter: Whether to look into a folder, by its key.
    """
    # Not recursive: folders may be nested more deeply than calls may be.
    pending = [_in(folder, prefix)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
            continue
        yield item
        if isinstance(item, Folder) and enter(item.key):
            below = item.key[len(prefix) :]
            pending.append(_in(folder / below, f"{item.key}/"))


def _in(folder: Path, prefix: str) -> Iterator[Item]:
    try:
        with os.scandir(folder) as listing:
            items = [(item.name, item.is_dir(follow_symlinks=False)) for item in listing]
    except (FileNotFoundError, NotADirectoryError):
        return  # there is none, or it went away meanwhile
    # A folder sorts as the keys of its files do: with the slash that follows its name.
    for name in sorted(f"{name}/" if is_folder else name for name, is_folder in items):
        name = name.removesuffix("/")  # noqa: PLW2901
        if not OURS.fullmatch(name):
            item = describe(folder / name, prefix + name)
            if item is not None:
                yield item


def put_link(path: Path, target: str, attributes: Attributes | None) -> None:
    """Create a link, or replace one by a rename."""
    make_folder(path.parent)
    draft = path.with_name(f".novabackup-{secrets.token_hex(8)}.tmp")
    draft.symlink_to(target)
    try:
        if attributes:
            for owner in ((attributes.uid, attributes.gid), (-1, attributes.gid)):
                with tolerate(*UNOWNABLE):
                    os.chown(draft, *owner, follow_symlinks=False)
                    break
            with tolerate(*UNOWNABLE):
                os.utime(draft, ns=(attributes.mtime_ns, attributes.mtime_ns), follow_symlinks=False)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_folder(path: Path, attributes: Attributes | None) -> None:
    """Create a folder, and give it attributes; without, its owner gets the right to change what is in it."""
    make_folder(path)
    status = os.lstat(path)
    if os.geteuid() == status.st_uid and status.st_mode & stat.S_IRWXU != stat.S_IRWXU and stat.S_ISDIR(status.st_mode):
        path.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
    if attributes is None:
        return
    descriptor = os.open(path, _FOLDER)
    try:
        adopt(descriptor, attributes.uid, attributes.gid, attributes.mode)
        with tolerate(*UNOWNABLE):
            os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_away(path: Path) -> bool:
    """Remove a link itself or an empty folder; say whether there is nothing now."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            path.unlink()
        elif stat.S_ISDIR(mode) and not any(path.iterdir()):
            path.rmdir()
        else:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return True
    sync_folder(path.parent)
    return True


def _attributes(status: os.stat_result) -> Attributes:
    return Attributes(
        mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid, mtime_ns=status.st_mtime_ns
    )
