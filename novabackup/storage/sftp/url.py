"""URLs of SFTP servers: who and where, without a password."""

from __future__ import annotations

import re

import attrs

from novabackup._support.paths import unsafe
from novabackup.errors import ConfigurationError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@]+)(?::([0-9]{1,5}))?")


@attrs.frozen(kw_only=True)
class Address:
    """Where a storage is.

    Attributes:
        url: In its usual form.
        host: Name or address, or an alias from the user's ssh configuration.
        port: None for the usual one, or what the configuration says.
        username: None for what the configuration says, or the name of the local user.
        folder: Absolute path on the server; one that begins with ``~`` is below the home of the user.
    """

    url: str
    host: str
    port: int | None
    username: str | None
    folder: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take a URL apart.

        Raises:
            ConfigurationError: It is malformed, or holds a password.
        """
        rest = url.partition("://")[2]
        authority, _, path = rest.partition("/")
        user, at, place = authority.rpartition("@")
        if ":" in user or "@" in user:
            # Not shown: this is what a name and a password look like.
            raise ConfigurationError(
                "sftp://…: expected sftp://user@host/path, found a ':' or a second '@' before the host. Passwords do "
                "not belong into URLs: pass them as storage_options={'password': …}, or use keys"
            )
        if re.search(r"[?#]", rest):
            raise ConfigurationError("sftp://…: expected sftp://user@host/path, found a '?' or '#' in it")
        match = _HOST.fullmatch(place)
        if not match or (at and not user):
            raise ConfigurationError("sftp://…: expected sftp://user@host:port/path, found no host or user in it")
        parts = [part for part in path.split("/") if part]
        within = "/".join(parts)
        reason = unsafe(within) if parts else None
        if reason:
            raise ConfigurationError(f"sftp://{authority}/{within}: the path cannot be used: {reason}")
        return cls(
            url=f"sftp://{authority}/{within}".rstrip("/"),
            host=match[1].strip("[]"),
            port=int(match[2]) if match[2] else None,
            username=user or None,
            folder=within if parts[:1] == ["~"] else f"/{within}",
        )
