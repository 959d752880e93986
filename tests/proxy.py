"""A way to a server that goes wrong: errors, resets, lost answers, slow, cut and altered bodies, as a plan says.

It speaks just enough HTTP/1.1 to stand between S3 clients and a server: one request after the other on a connection,
bodies in memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

import attrs


class Fault(enum.Enum):
    """What can go wrong with one request."""

    ERROR = "500 InternalError; the server never saw it"
    SLOW_DOWN = "503 SlowDown; the server never saw it"
    RESET = "connection reset; the server never saw it"
    LOST = "connection reset after the server did it"
    SLOW = "the body of the answer comes slowly"
    CUT = "the connection ends in the body of the answer"
    ALTERED_ANSWER = "one byte of an object is another when it arrives here"
    ALTERED_REQUEST = "one byte of an object is another when it arrives there"


_REFUSALS = {
    Fault.ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
}
_HEAD_END = b"\r\n\r\n"


@attrs.frozen
class Request:
    """A request on its way.

    Attributes:
        number: Counted from 1 over all connections.
        method: Such as ``PUT``.
        target: Path and query.
        length: Bytes of the body.
    """

    number: int
    method: str
    target: str
    length: int

    @property
    def is_object(self) -> bool:
        """Whether it reads or writes the content of an object, or a part of it."""
        parts = urlsplit(self.target)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        return bool(bucket and key) and (not parts.query or "partNumber=" in parts.query)

    def suffers(self, fault: Fault) -> bool:
        """Tell whether that fault can befall it, as far as can be seen before it is answered."""
        if fault is Fault.ALTERED_REQUEST:
            return self.method == "PUT" and self.is_object and self.length > 0
        if fault is Fault.ALTERED_ANSWER:
            return self.method == "GET" and self.is_object
        if fault in (Fault.SLOW, Fault.CUT):
            return self.method == "GET"
        return True


Plan = Callable[[Request], Fault | None]


def no_faults(_request: Request) -> Fault | None:
    """Let everything pass."""
    return None


def at_random(seed: int, rates: Mapping[Fault, float]) -> Plan:
    """Let some of the requests that can suffer a fault suffer it, each kind with its own probability."""
    chance = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        hit = [fault for fault, rate in rates.items() if chance.random() < rate and request.suffers(fault)]
        return hit[0] if hit else None

    return plan


def in_turn(method: str, *faults: Fault | None) -> Plan:
    """Say what happens to the first requests of a method that are about the content of objects; the others pass."""
    left = iter(faults)

    def plan(request: Request) -> Fault | None:
        return next(left, None) if request.is_object and request.method == method else None

    return plan


class Proxy:
    """Stands before a server while it is open; a context manager.

    Attributes:
        plan: Says what happens to each request; may be set at any time.
        compares: Refuse bodies that do not have the MD5 sum that their request names, as S3 does and moto does not.
        happened: What did happen, and how often.
        seen: All requests so far.
    """

    def __init__(self, server: str, plan: Plan = no_faults) -> None:
        """Prepare.

        Args:
            server: URL of the server.
            plan: What happens to each request.
        """
        self.plan = plan
        self.compares = True
        self.happened: Counter[Fault] = Counter()
        self.seen: list[Request] = []
        self._server = urlsplit(server)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._connections: set[asyncio.Task[None]] = set()
        self._chance = random.Random(0)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._listener = self._run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def planned(self, plan: Plan) -> Iterator[None]:
        """Follow another plan for a while."""
        before, self.plan = self.plan, plan
        try:
            yield
        finally:
            self.plan = before

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _stop(self) -> None:
        self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            while await self._serve(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # whoever was there has gone, or has to
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request; say whether another may follow on this connection."""
        try:
            head = await reader.readuntil(_HEAD_END)
        except asyncio.IncompleteReadError:
            return False  # the client has no more to say
        first, headers = _parsed(head)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        assert "transfer-encoding" not in headers, "this proxy knows no chunked requests"
        method, target, _version = first.split(" ")
        request = Request(len(self.seen) + 1, method, target, len(body))
        self.seen.append(request)
        fault = self.plan(request)
        assert fault is None or request.suffers(fault), f"{request} cannot suffer {fault}"
        if fault in _REFUSALS:
            self.happened[fault] += 1
            writer.write(_refusal(*_REFUSALS[fault], with_body=method != "HEAD"))
            return True
        if fault is Fault.RESET:
            self.happened[fault] += 1
            writer.transport.abort()
            return False
        if fault is Fault.ALTERED_REQUEST:
            self.happened[fault] += 1
            body = self._altered(body)
            if self.compares and headers.get("content-md5", _md5(body)) != _md5(body):
                writer.write(_refusal(400, "BadDigest", "The Content-MD5 is not that of what was received."))
                return True
        status, answer_head, answer = await self._forward(head, body, with_body=method != "HEAD")
        if fault is Fault.LOST:
            self.happened[fault] += 1
            writer.transport.abort()
            return False
        if fault is Fault.ALTERED_ANSWER and answer and status in (200, 206):
            self.happened[fault] += 1
            answer = self._altered(answer)
        writer.write(answer_head)
        middle = len(answer) // 2
        if fault is Fault.CUT and answer:
            self.happened[fault] += 1
            writer.write(answer[:middle])
            await writer.drain()
            return False
        if fault is Fault.SLOW and answer:
            self.happened[fault] += 1
            writer.write(answer[:middle])
            await writer.drain()
            await asyncio.sleep(0.02)
            answer = answer[middle:]
        writer.write(answer)
        return True

    def _altered(self, body: bytes) -> bytes:
        changed = bytearray(body)
        changed[self._chance.randrange(len(changed))] ^= 1 << self._chance.randrange(8)
        return bytes(changed)

    async def _forward(self, head: bytes, body: bytes, *, with_body: bool) -> tuple[int, bytes, bytes]:
        """Let the server do it; give status, head and body of its answer."""
        lines = [
            line
            for line in head.removesuffix(_HEAD_END).split(b"\r\n")
            if not line.lower().startswith((b"expect:", b"connection:"))
        ]
        reader, writer = await asyncio.open_connection(self._server.hostname, self._server.port, limit=1 << 20)
        try:
            writer.write(b"\r\n".join([*lines, b"Connection: close"]) + _HEAD_END + body)
            await writer.drain()
            answer_head = await reader.readuntil(_HEAD_END)
            first, headers = _parsed(answer_head)
            if "transfer-encoding" in headers:
                answer = await _chunks(reader) if with_body else b""
            elif with_body and not first.startswith(("HTTP/1.1 204", "HTTP/1.0 204", "HTTP/1.1 304", "HTTP/1.0 304")):
                answer = await (
                    reader.readexactly(int(headers["content-length"])) if "content-length" in headers else reader.read()
                )
            else:
                answer = b""
        finally:
            writer.close()
        status = first.split(" ")[1]
        kept = [
            line
            for line in answer_head.removesuffix(_HEAD_END).split(b"\r\n")[1:]
            if not line.lower().startswith((b"connection:", b"transfer-encoding:"))
        ]
        if "content-length" not in headers and with_body:
            kept.append(f"Content-Length: {len(answer)}".encode())
        return int(status), b"\r\n".join([b"HTTP/1.1 " + first.split(" ", 1)[1].encode(), *kept]) + _HEAD_END, answer


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.removesuffix(_HEAD_END).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _colon, value in fields}


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body."""
    whole = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        whole += await reader.readexactly(size)
        await reader.readline()
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return bytes(whole)


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def _refusal(status: int, code: str, message: str, *, with_body: bool = True) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (body if with_body else b"")
