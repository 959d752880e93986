"""Whether bytes came over the line as they were sent, by the MD5 sums that most servers give as ETags.

An ETag is the MD5 sum of an object that was written by one request, and for one that was written in parts the MD5 sum
of the sums of the parts. Not always: some ways of encryption and some servers name versions otherwise, and nothing in
an answer tells. So what disagrees is asked for again, and what arrives twice alike is believed: no line alters bytes
twice in the same way. A server of which no ETag ever agreed is not asked twice any more.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from novabackup.errors import ChangedError
from novabackup.storage.base import Proof

_LOG = logging.getLogger("novabackup")

_SUM = re.compile(r"[0-9a-f]{32}(-[1-9][0-9]{0,4})?")
_PLAIN = "AES256"
"""The one way of encryption by the server that leaves ETags what they are."""


def md5(data: bytes | memoryview = b"") -> Any:
    """Begin an MD5 sum, which is no matter of security here."""
    return hashlib.md5(data, usedforsecurity=False)


def sum_in(answer: Mapping[str, Any]) -> str:
    """Find the MD5 sum of a whole object, or of the sums of its parts, in an answer.

    Returns:
        Hexadecimal digits, with ``-`` and the number of parts behind them if it has parts; empty if there is none.
    """
    if answer.get("ServerSideEncryption", _PLAIN) != _PLAIN or answer.get("SSECustomerAlgorithm"):
        return ""
    etag = str(answer.get("ETag", "")).strip('"')
    return etag if _SUM.fullmatch(etag) else ""


class Sums:
    """Compares what arrived with what was sent, on the way from one server and to it.

    Attributes:
        useless: The ETags of this server are no sums.
    """

    def __init__(self) -> None:
        """Know nothing of the server yet."""
        self.useless = False
        self._agreed = False
        self._odd: dict[str, str] = {}
        self._lock = threading.Lock()

    def whole(self, name: str, answer: Mapping[str, Any], data: bytes) -> bool:
        """Return whether a whole object can be trusted.

        Args:
            name: What was read, for people.
            answer: What came with it.
            data: What arrived.
        """
        expected = sum_in(answer)
        parts = expected.partition("-")[2]
        if self.useless or not expected or parts not in ("", "1"):
            return True
        found = md5(data)
        if parts:
            found = md5(found.digest())
        return self.received(f"{name} {expected}", expected, found.hexdigest() + expected[32:])

    def received(self, name: str, expected: str, found: str) -> bool:
        """Return whether content that was read can be trusted.

        Args:
            name: The version that was read: for people, and to know it again.
            expected: The sum that the server gives of it; empty if it gives none.
            found: The sum of what arrived.
        """
        if not expected or self.useless:
            return True
        with self._lock:
            if expected == found:
                self._agreed = True
                return True
            if self._odd.pop(name, "") != found:
                self._odd[name] = found
                _LOG.warning("%s: expected the MD5 sum %s, found %s: it is read again", name, expected, found)
                return False
            self.useless = not self._agreed
        _LOG.warning(
            "%s: twice the same bytes arrived, and their MD5 sum %s is not the one that the server names, %s. %s",
            name,
            found,
            expected,
            "So its ETags are taken for mere names"
            if self.useless
            else "They are what it has, but perhaps not what was once written there",
        )
        return True

    def sent(self, name: str, expected: str, answer: Mapping[str, Any]) -> bool:
        """Return whether the server got what was written.

        Args:
            name: What was written, for people.
            expected: The sum of what was sent.
            answer: What the server says of what it has now.
        """
        found = sum_in(answer)
        if not found or self.useless:
            return True
        if expected == found:
            self._agreed = True
            return True
        _LOG.warning("%s: sent the MD5 sum %s, the server has %s: it is written again", name, expected, found)
        return False

    def give_up(self, name: str) -> bool:
        """Decide what to make of a server that never has what was sent, however often it is sent.

        Returns:
            Whether its ETags are no sums; otherwise every write was altered.
        """
        if not self._agreed:
            _LOG.warning("%s: no ETag of this server is the MD5 sum of what was sent: they are taken for names", name)
            self.useless = True
        return self.useless


class SumProof(Proof):
    """Compares the content of a large object, which is read in pieces, with the sum that the server gives of it."""

    def __init__(self, sums: Sums, name: str, expected: str, part: int) -> None:
        """Begin at the first byte.

        Args:
            sums: What is known of the server.
            name: The version that is read.
            expected: Its sum.
            part: Bytes of each part but the last one; 0 if it has no parts.
        """
        self._sums = sums
        self._name = name
        self._expected = expected
        self._part = part
        self._room = part
        self._parts = b""
        self._now = md5()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while self._part and len(view) >= self._room:
            self._now.update(view[: self._room])
            view = view[self._room :]
            self._parts += self._now.digest()
            self._now, self._room = md5(), self._part
        self._now.update(view)
        self._room -= len(view)

    def confirm(self) -> None:
        """Compare.

        Raises:
            ChangedError: Other bytes arrived than the server has.
        """
        found = self._now.hexdigest()
        if self._part:
            parts = self._parts + (self._now.digest() if self._room < self._part else b"")
            found = f"{md5(parts).hexdigest()}-{len(parts) // 16}"
        if not self._sums.received(self._name, self._expected, found):
            raise ChangedError(
                f"{self._name}: expected content with the MD5 sum {self._expected}, found {found}: it was altered on "
                "the way. Read it again; over https such a thing cannot happen"
            )
