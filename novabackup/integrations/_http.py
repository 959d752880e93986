"""One HTTP request with bounds on everything: time, bytes, and where it may go."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

import attrs

from novabackup.errors import ConfigurationError

MOST = 1 << 20
"""Bytes of the longest answer that is read."""

_PIECE = 64 << 10
_EXCERPT = 300
_PRINTABLE = re.compile("[!-~]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~\xa0-\xff]*")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@attrs.frozen(kw_only=True)
class Response:
    """What a server answered.

    Attributes:
        status: HTTP status.
        body: Its content, up to `MOST` bytes.
        complete: False when there was more.
    """

    status: int
    body: bytes
    complete: bool = True

    def __str__(self) -> str:
        text = " ".join(self.body[:_EXCERPT].decode(errors="replace").split())
        return f"HTTP {self.status}" + (f": {text}" if text else "")


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects of reading requests within one server; any other is the answer itself."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        same = urllib.parse.urlsplit(req.full_url)[:2] == urllib.parse.urlsplit(newurl)[:2]
        return super().redirect_request(req, fp, code, msg, headers, newurl) if same and req.method == "GET" else None


def checked_url(url: str) -> str:
    """Make sure that a URL is one of a web server, without a password in it.

    Raises:
        ConfigurationError: It is not.
    """
    if not _is_of_a_web_server(url):
        raise ConfigurationError(f"expected a URL such as http://localhost:5000/health, found {shown(url)!r}")
    if urllib.parse.urlsplit(url).username is not None:
        raise ConfigurationError(
            f"{shown(url)}: expected no user name or password in the URL, since URLs are logged. Pass headers="
        )
    return url


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Make sure that headers can be sent: whoever sends them would show what is wrong, and that may be a secret.

    Raises:
        ConfigurationError: One cannot be.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"expected the name of a header such as Authorization, found {name!r}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(
                f"the header {name}: expected one line of Latin characters, found others (not shown). Look at the "
                "place that it comes from"
            )
    return dict(headers)


def _is_of_a_web_server(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:  # a port, a host or brackets that cannot be
        return False
    return valid and _PRINTABLE.fullmatch(url) is not None


def shown(url: str) -> str:
    """Give a URL as messages show it: without user, password and query."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "something else"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def request(
    method: str,
    url: str,
    *,
    timeout: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send one request.

    Args:
        method: ``GET``, ``POST`` or ``PUT``.
        url: Where to.
        timeout: Seconds for all of it.
        body: What to send.
        headers: To send with it.

    Returns:
        The answer, whatever its status.

    Raises:
        OSError: There was none in time, or the connection failed.
    """
    deadline = time.monotonic() + timeout
    # Not `build_opener`, which also opens file:// and ftp://. A proxy of the environment is not asked for this host.
    local = urllib.parse.urlsplit(url).hostname in _LOOPBACK
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if local else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameHost(),
    ):
        opener.add_handler(handler)
    asked = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)  # noqa: S310 - checked_url
    try:
        try:
            response = opener.open(asked, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return _read(response, deadline, url)
    except http.client.HTTPException as error:
        raise OSError(f"{shown(url)}: expected an answer in HTTP, found {type(error).__name__}") from error


def _read(response: Any, deadline: float, url: str) -> Response:
    pieces: list[bytes] = []
    size = 0
    status = int(response.status)
    while size < MOST:
        piece = response.read1(min(_PIECE, MOST - size))
        if not piece:
            return Response(status=status, body=b"".join(pieces))
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:  # a server that sends a byte now and then never runs into a socket's timeout
            raise TimeoutError(f"{shown(url)}: expected the whole answer in time, found {size} bytes of it")
    return Response(status=status, body=b"".join(pieces), complete=False)
