"""Checks a running service: polls its health endpoint, and sends a query whose answer is checked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from novabackup.integrations import _http
from novabackup.integrations._http import Response
from novabackup.integrations.errors import UnhealthyError

__all__ = ["HealthCheck", "Query", "healthy"]

_seconds = attrs.validators.gt(0.0)
_HEALTHY = ("healthy", "ok")
_ANYTHING = r"\S"


def healthy(answer: Any) -> bool:
    """Return whether an answer is a JSON object whose ``status`` is ``healthy`` or ``ok``."""
    return isinstance(answer, dict) and answer.get("status") in _HEALTHY


@attrs.frozen
class HealthCheck:
    """An endpoint that is polled until it reports a healthy service.

    Attributes:
        url: Of the endpoint, such as ``http://localhost:5000/health``.
        timeout: Seconds to keep polling; loading large indexes takes time.
        interval: Seconds between two polls.
        expect: Called with the JSON of a response with HTTP 200 (its text, if it is not JSON); returns whether the
            service is healthy.
        headers: Additional headers, such as an authorisation.
        clock: Monotonic clock, in seconds.
        sleep: Waits for a number of seconds.
    """

    url: str = attrs.field(converter=_http.checked_url)
    timeout: float = attrs.field(default=60.0, kw_only=True, validator=_seconds)
    interval: float = attrs.field(default=1.0, kw_only=True, validator=_seconds)
    expect: Callable[[Any], bool] = attrs.field(default=healthy, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True, repr=False, converter=_http.checked_headers)
    clock: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True, repr=False)
    sleep: Callable[[float], object] = attrs.field(default=time.sleep, kw_only=True, repr=False)

    def __str__(self) -> str:
        return f"{_http.shown(self.url)} says that all is well"

    def __call__(self) -> Any:
        """Poll until the service is healthy.

        Returns:
            Its last answer, as JSON, or as text if it is not JSON.

        Raises:
            UnhealthyError: It was not healthy in time; the message holds its last answer.
        """
        deadline = self.clock() + self.timeout
        polls = 0
        while True:
            polls += 1
            found = self._poll(max(0.1, deadline - self.clock()))
            if isinstance(found, _Well):
                return found.said
            rest = deadline - self.clock()
            if rest <= 0:
                raise UnhealthyError(
                    f"{_http.shown(self.url)}: expected a healthy service within {self.timeout:g} s, found at last, "
                    f"after {polls} polls: {found}. Check the log of the service"
                )
            self.sleep(min(self.interval, rest))

    def _poll(self, rest: float) -> _Well | str:
        try:
            answer = _http.request("GET", self.url, timeout=rest, headers=self.headers)
        except OSError as error:
            return _reason(error)
        if answer.status != 200 or not answer.complete:
            return str(answer)
        said = _parsed(answer)
        return _Well(said) if self.expect(said) else str(answer)


@attrs.frozen
class _Well:
    said: Any


@attrs.frozen
class Query:
    """A query that is sent to the service, and the answer that is expected.

    Attributes:
        url: Where it is posted, such as ``http://localhost:5000/api/ask``.
        payload: The query, sent as JSON, such as ``{"query": "How do I check brake pads?"}``.
        expect: A regular expression that is searched for in the ``answer`` of the returned JSON, ignoring case, or a
            function that gets all of that JSON and returns whether it is right. By default, any answer that is not
            empty.
        timeout: Timeout in seconds; a language model takes time.
        headers: Additional headers, such as an authorisation.
    """

    url: str = attrs.field(converter=_http.checked_url)
    payload: Mapping[str, Any]
    expect: str | Callable[[Any], bool] = _ANYTHING
    timeout: float = attrs.field(default=60.0, kw_only=True, validator=_seconds)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True, repr=False, converter=_http.checked_headers)

    def __str__(self) -> str:
        wanted = f"with {self.expect!r}" if isinstance(self.expect, str) and self.expect != _ANYTHING else "a question"
        return f"{_http.shown(self.url)} answers {wanted}"

    def __call__(self) -> Any:
        """Send the query.

        Returns:
            The returned JSON.

        Raises:
            UnhealthyError: There was no answer, or not the expected one.
        """
        where = _http.shown(self.url)
        body = json.dumps(dict(self.payload)).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self.headers}
        try:
            answer = _http.request("POST", self.url, timeout=self.timeout, body=body, headers=headers)
        except OSError as error:
            raise UnhealthyError(
                f"{where}: expected an answer within {self.timeout:g} s, found {_reason(error)}. "
                "Check the log of the service"
            ) from error
        said = _parsed(answer)
        if answer.status != 200 or not answer.complete or not self._right(said):
            wanted = f"an answer with {self.expect!r}" if isinstance(self.expect, str) else "an answer that is right"
            size = "" if answer.complete else f" (and more than {_http.MOST} bytes)"
            raise UnhealthyError(
                f"{where}: expected HTTP 200 with {wanted}, found {answer}{size}. "
                "Check the store, restore it if need be, and check the log of the service"
            )
        return said

    def _right(self, said: Any) -> bool:
        if not isinstance(self.expect, str):
            return bool(self.expect(said))
        text = said.get("answer") if isinstance(said, dict) else None
        return isinstance(text, str) and re.search(self.expect, text, re.IGNORECASE) is not None


def _parsed(answer: Response) -> Any:
    """Decode an answer as JSON, or as text if it is not JSON."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return answer.body.decode(errors="replace")


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", error)
    return "no answer in time" if isinstance(reason, TimeoutError) else f"no answer: {reason}"
