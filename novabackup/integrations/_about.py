"""How errors and snapshots are told to others: to hooks, logs and files, without secrets."""

from __future__ import annotations

import re

from novabackup.errors import ConfigurationError
from novabackup.repository.snapshot import Snapshot

_USER_IN_URL = re.compile(r"(?<=://)[^\s/@]*@")
_QUERY_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]*", re.IGNORECASE)
_MOST = 4000


def told(error: BaseException) -> str:
    """Put an error into one text for logs, hooks and files, without what a URL in it may hold of secrets.

    Args:
        error: Any error, also of libraries that know nothing of secrets.

    Returns:
        Its class and message, 4,000 characters at most; user names and passwords before ``@`` and everything behind
        ``?`` are left out of URLs.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = without_secrets(text).replace("\0", "")
    # A name of a file may hold what no UTF-8 can; neither a record nor the environment of a hook would take it.
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def without_secrets(text: str) -> str:
    """Leave out what URLs in a text may hold of secrets: user names and passwords, and everything behind ``?``."""
    return _QUERY_IN_URL.sub(r"\1?…", _USER_IN_URL.sub("…@", text))


def id_of(snapshot: Snapshot | str | None) -> str:
    """Give the id of a snapshot; nothing if there is none, or it was not taken."""
    if isinstance(snapshot, Snapshot):
        try:
            return snapshot.id
        except ConfigurationError:  # its block was not entered
            return ""
    return snapshot or ""
