"""Describes errors and snapshots for hooks, logs and files, without secrets."""

from __future__ import annotations

import re

from novabackup.errors import ConfigurationError
from novabackup.repository.snapshot import Snapshot

_USER_IN_URL = re.compile(r"(?<=://)[^\s/@]*@")
_QUERY_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]*", re.IGNORECASE)
_MOST = 4000


def told(error: BaseException) -> str:
    """Return class and message of an error for logs, hooks and files: at most 4,000 characters, no secrets of URLs."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = without_secrets(text).replace("\0", "")
    # A file name may not be valid UTF-8; neither a record nor the environment of a hook would accept it.
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def without_secrets(text: str) -> str:
    """Remove user names, passwords and everything after ``?`` from the URLs in a text."""
    return _QUERY_IN_URL.sub(r"\1?…", _USER_IN_URL.sub("…@", text))


def id_of(snapshot: Snapshot | str | None) -> str:
    """Return the id of a snapshot; empty if there is none, or if it was not taken."""
    if isinstance(snapshot, Snapshot):
        try:
            return snapshot.id
        except ConfigurationError:  # its block was not entered
            return ""
    return snapshot or ""
