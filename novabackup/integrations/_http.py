"""Sends one HTTP request with limits on everything: time, bytes, and where it may go."""

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
"""Largest response that is read, in bytes."""

_PIECE = 64 << 10
_EXCERPT = 300
_PRINTABLE = re.compile("[!-~]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~\xa0-\xff]*")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@attrs.frozen(kw_only=True)
class Response:
    """The response of a server: its body up to `MOST` bytes, and whether that is all of it."""

    status: int
    body: bytes
    complete: bool = True

    def __str__(self) -> str:
        text = " ".join(self.body[:_EXCERPT].decode(errors="replace").split())
        return f"HTTP {self.status}" + (f": {text}" if text else "")


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects of GET requests within one server; any other redirect is returned as the response."""

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
    """Require an HTTP URL without a user name or password."""
    if not _is_of_a_web_server(url):
        raise ConfigurationError(f"expected a URL such as http://localhost:5000/health, found {shown(url)!r}")
    if urllib.parse.urlsplit(url).username is not None:
        raise ConfigurationError(
            f"{shown(url)}: expected no user name or password in the URL, since URLs are logged. Pass headers="
        )
    return url


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Require headers that can be sent: an error of the HTTP client would show the value, which may be a secret."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"expected the name of a header such as Authorization, found {name!r}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(
                f"the header {name}: expected one line of Latin characters, found others (not shown). Check "
                "where it comes from"
            )
    return dict(headers)


def _is_of_a_web_server(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:  # an invalid port, host or bracket
        return False
    return valid and _PRINTABLE.fullmatch(url) is not None


def shown(url: str) -> str:
    """Return a URL for messages: without user, password and query."""
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
    """Send one request and return the response, whatever its status.

    Raises:
        OSError: The connection failed, or the whole response did not arrive within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    # Not `build_opener`, which also opens file:// and ftp://. A proxy from the environment is not used for this host.
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
        if time.monotonic() > deadline:  # a server that sends a byte now and then never hits a socket's timeout
            raise TimeoutError(f"{shown(url)}: expected the whole answer in time, found {size} bytes of it")
    return Response(status=status, body=b"".join(pieces), complete=False)
