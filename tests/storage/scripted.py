"""An HTTP server that answers as it is told, for what no server that tests can have would answer by itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs


@attrs.frozen
class Answer:
    """What the server says.

    Attributes:
        status: Of HTTP; 0 breaks the connection off.
        code: Of the error, as S3 names it; empty for none.
        message: Text of the error.
        headers: Beside the usual ones.
        body: Of an answer that is no error.
    """

    status: int = 200
    code: str = ""
    message: str = "as told"
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""


@attrs.define
class Script:
    """Answers to give, one after the other; the last one again and again.

    Attributes:
        url: Where the server is.
        answers: What is still to be said.
        asked: Method and path of each request so far.
        headers: Those of each request so far.
        bodies: What each of them sent.
    """

    url: str = ""
    answers: list[Answer] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)
    headers: list[Mapping[str, str]] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)

    def next(self, request: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.asked.append(request)
        self.headers.append(headers)
        self.bodies.append(body)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.contextmanager
def server():
    """Run a server for a while; give its script."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = script.next(f"{self.command} {self.path}", self.headers, sent)
            if not answer.status:
                self.close_connection = True
                return
            body = answer.body
            if answer.code:
                body = f"<Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>".encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = answer.headers.get("Connection") == "close"
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        script.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield script
        finally:
            http.shutdown()
            thread.join()
