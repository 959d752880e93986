"""Compare-and-swap over SFTP, which has no locks: who may replace a version is decided once, by who links first.

A swap of an object from a version to new content goes like this:

1. The new content is written to a file of its own with a random name, ``.novabackup-<token>.swap``, and flushed.
2. A file that holds only that token is linked to the name of the *succession*, which belongs to this object and this
   version: ``.novabackup-<hash of key and identity>.lock``. Of several writers one succeeds; that is the decision.
3. The content is renamed over the object. Any writer may do this for the winner, and one that comes too late finds no
   such file any more: each content is put in place at most once, so no late rename can undo a later version.

The object is there all the time. Whatever dies at whatever point, nothing has to be unlocked: before step 2 nothing has
happened; after it, the next writer finds the decision, carries it out, and learns that the version is gone. Where its
content is gone and the version is still there (the winner took it back, or the same bytes were written once more within
the same second), the decision is spent, and the next *generation* of the succession is decided in the same way.

The succession stays for a while, so that a writer who looked at the object before step 3 and stood still is refused by
it. A writer that was suspended for longer checks the object again before it assumes that it won.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import posixpath
import re
import secrets
import time
from collections import deque

import attrs
from blake3 import blake3

from novabackup.errors import ChangedError
from novabackup.storage.base import Entry
from novabackup.storage.local.posix import OURS
from novabackup.storage.sftp.client import SftpClient
from novabackup.storage.sftp.connection import READ, WRITE, Connection, Status, together
from novabackup.storage.sftp.paths import Folders
from novabackup.storage.sftp.versions import Clock, describe, describe_content, place, temporary

GRACE = 900.0
"""Seconds for which a succession stays; no writer stands still for so long between two requests and goes on then."""

_TOKEN = re.compile("[0-9a-f]{16}")


@attrs.frozen(kw_only=True)
class _Succession:
    """What decides who replaces one version of an object.

    Attributes:
        key: Of the object.
        path: Where it is.
        identity: Of the version.
        status: The server's attributes of the version.
        begun: When it was looked at, by this process's monotonic clock.
        generation: How often such a version has been succeeded already: the same content within the same second.
    """

    key: str
    path: str
    identity: str
    status: Status
    begun: float
    generation: int = 0

    @property
    def slot(self) -> str:
        """The file by which it is decided."""
        name = blake3(f"{self.key}\0{self.identity}\0{self.generation}".encode()).hexdigest()[:16]
        return posixpath.join(posixpath.dirname(self.path), f".novabackup-{name}.lock")

    @property
    def age(self) -> float:
        """Seconds since the version was looked at."""
        return time.monotonic() - self.begun

    @property
    def is_stale(self) -> bool:
        """Whether it may have been tidied away and decided again."""
        return self.age > GRACE / 2

    def content(self, token: str) -> str:
        """Return the path of the new content that belongs to this token."""
        return posixpath.join(posixpath.dirname(self.path), f".novabackup-{token}.swap")

    async def claim(self, connection: Connection, token: str, draft: str) -> bool:
        """Try to decide it for a token, which a file holds; tell whether it is. May be done again."""
        try:
            await connection.link(draft, self.slot)
        except ConnectionError:
            raise
        except OSError as error:
            winner = await self._winner(connection)
            if winner is None and error.errno != errno.ENOENT:
                raise
            return winner == token  # as it is when the answer to an earlier attempt got lost
        return True

    async def carry_out(self, connection: Connection) -> bool:
        """Put the content of the winner in place; return whether that had still to be done."""
        winner = await self._winner(connection)
        if winner is None or self.is_stale:
            return True
        try:
            # Written once more, which makes it young: from now on it has to stay for the whole time of grace.
            async with await connection.open(self.slot, WRITE) as file:
                await file.write(0, winner.encode())
            await connection.replace(self.content(winner), self.path)
        except FileNotFoundError:
            return False
        return True

    async def _winner(self, connection: Connection) -> str | None:
        try:
            async with await connection.open(self.slot, READ) as file:
                token = (await file.read(0, 17)).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        return token if _TOKEN.fullmatch(token) else None


class Successions:
    """Swaps objects of one storage, and tidies up after earlier swaps."""

    def __init__(self, client: SftpClient, folders: Folders, clock: Clock) -> None:
        """Have done nothing yet.

        Args:
            client: Does the work.
            folders: Finds files.
            clock: Of the server.
        """
        self._client = client
        self._folders = folders
        self._clock = clock
        self._done: deque[_Succession] = deque()
        self._tidied: set[str] = set()

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object if it is the version named.

        Raises:
            ChangedError: It is not; with no more than what was found.
        """
        succession = self._client.run(lambda connection: self._look(connection, key))
        if succession is None or not identity or succession.identity != identity:
            raise ChangedError("nothing" if succession is None else succession.identity)
        draft = temporary(posixpath.dirname(succession.path))
        left = [draft]

        async def prepare(connection: Connection) -> tuple[str, Status]:
            # Another name for each attempt: what a broken connection still does must not bring content back.
            token = secrets.token_hex(8)
            left.append(succession.content(token))
            status, _ = await asyncio.gather(
                place(connection, left[-1], data, succession.status), place(connection, draft, token.encode())
            )
            return token, status

        try:
            token, status = self._client.run(prepare)
            self._clock.note(status)
            decided = self._client.run(lambda connection: self._decide(connection, succession, token, draft))
            if decided is None:
                raise ChangedError("another")
            left.pop()  # from now on it belongs to the object
            self._client.run(lambda connection: self._succeed(connection, succession, token))
        finally:
            # Should this take content away whose decision has just been made, the next writer passes that over.
            self._client.remove(*left)
        self._done.append(decided)
        self._tidy(posixpath.dirname(succession.path))
        return describe_content(key, status, data)

    async def _look(self, connection: Connection, key: str) -> _Succession | None:
        """Look at the version that is there; give what decides who replaces it."""
        begun = time.monotonic()
        path, status = await self._folders.find_file(connection, key)
        if status is None:
            return None
        try:
            identity = (await describe(connection, key, path, status)).identity
        except FileNotFoundError:
            return None
        return _Succession(key=key, path=path, identity=identity, status=status, begun=begun)

    async def _decide(
        self, connection: Connection, succession: _Succession, token: str, draft: str
    ) -> _Succession | None:
        """Try to become the one who replaces a version; give what was decided if it is this one."""
        while True:
            won = await succession.claim(connection, token, draft)
            if won and not succession.is_stale:
                return succession
            if not won and await succession.carry_out(connection):
                return None
            # It was carried out before, or long ago and tidied away: the version is gone, or has come back since.
            found = await self._look(connection, succession.key)
            still = found is not None and found.identity == succession.identity
            if won:
                if still:
                    return succession
                await connection.remove(succession.slot)
            if not still:
                return None
            succession = attrs.evolve(succession, generation=succession.generation + 1)

    async def _succeed(self, connection: Connection, succession: _Succession, token: str) -> None:
        # Where it is gone, another process has put it in place already.
        with contextlib.suppress(FileNotFoundError):
            await connection.replace(succession.content(token), succession.path)
        await connection.sync_folder(posixpath.dirname(succession.path))

    def _tidy(self, folder: str) -> None:
        """Remove what decided about versions that are long gone: one's own, and once also what others left."""
        old: list[str] = []
        while self._done and self._done[0].age > GRACE:
            old.append(self._done.popleft().slot)
        self._client.remove(*old)
        if folder in self._tidied:
            return
        self._tidied.add(folder)

        async def others(connection: Connection) -> None:
            now = await self._clock.now(connection, folder)
            if now is not None:
                names = [item for item in await connection.list(folder) if OURS.fullmatch(item[0])]
                await remove_remains(
                    connection, [(posixpath.join(folder, name), status) for name, status in names], now, GRACE
                )

        with contextlib.suppress(OSError):
            self._client.run(others)


async def remove_remains(connection: Connection, found: list[tuple[str, Status]], now: float, older_than: float) -> int:
    """Remove what writers left behind.

    What is left of swaps stays for a longer time, and contents go before what decided about them.

    Args:
        connection: To the server.
        found: Paths and what the server says of them.
        now: Time by the server's clock.
        older_than: Seconds.

    Returns:
        How many were removed.
    """
    removed = 0
    for suffix, age in ((".tmp", older_than), (".swap", max(older_than, GRACE)), (".lock", max(older_than, GRACE))):
        paths = [path for path, status in found if path.endswith(suffix) and now - status.mtime >= age]
        removed += sum(await together(connection.remove(path) for path in paths))
    return removed
