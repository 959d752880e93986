"""The errors of what stands around a backup, and how an error of any kind is told to others without secrets."""

from __future__ import annotations

import re

from novabackup.errors import NovaBackupError

__all__ = ["HookError", "ServiceError", "UnhealthyError", "told"]

_USER_IN_URL = re.compile(r"(?<=://)[^\s/@]*@")
_QUERY_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]*", re.IGNORECASE)
_MOST = 1000


class ServiceError(NovaBackupError):
    """A service could not be stopped, started or asked whether it runs: look at it by hand."""


class UnhealthyError(NovaBackupError):
    """A service runs but does not answer as it should: look at its log and its indexes, or restore them."""


class HookError(NovaBackupError):
    """A hook that has to run before the work failed, so the work was not begun: mend the hook."""


def told(error: BaseException) -> str:
    """Put an error into one text for logs, hooks and files, without what a URL in it may hold of secrets.

    Args:
        error: Any error, also of libraries that know nothing of secrets.

    Returns:
        Its class and message, 1,000 characters at most; user names and passwords before ``@`` and everything behind
        ``?`` are left out of URLs.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = _QUERY_IN_URL.sub(r"\1?…", _USER_IN_URL.sub("…@", text)).replace("\0", "")
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
