"""Health is polled until it is there, questions are answered, and no server can do more than answer."""

from __future__ import annotations

import itertools
import json
import re

import pytest

import servers
from novabackup.errors import ConfigurationError
from novabackup.integrations import _http
from novabackup.integrations.errors import UnhealthyError
from novabackup.integrations.metrics import Pushgateway
from novabackup.integrations.probes import HealthCheck, Query


def says(status: int, body: bytes, **headers: str):
    def answer(handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def check(self, url: str, **options) -> HealthCheck:
        return HealthCheck(url, clock=lambda: self.now, sleep=self.sleep, **options)


def in_turn(*answers):
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    def answer(handler) -> None:
        next(turns)(handler)

    return answer


class TestHealth:
    def test_it_polls_until_the_service_is_well(self, answering):
        loading = says(503, b'{"status": "loading"}')
        half = says(200, b'{"status": "unhealthy"}')
        url = answering(in_turn(loading, half, says(200, b'{"status": "healthy", "vectors": 7}')))
        time = Time()
        assert time.check(url, interval=2)() == {"status": "healthy", "vectors": 7}
        assert time.slept == [2, 2]

    def test_a_service_that_is_not_there_yet_is_waited_for(self):
        time = Time()
        url = f"http://127.0.0.1:{servers.free_port()}/health"
        with pytest.raises(UnhealthyError, match=r"within 5 s, found at last, after 4 polls: no answer: .*refused"):
            time.check(url, timeout=5, interval=2)()
        assert time.slept == [2, 2, 1]

    @pytest.mark.parametrize(
        ("status", "body"),
        [(200, b'{"status": "degraded"}'), (200, b"<html>login</html>"), (200, b'["ok"]'), (200, b""), (500, b"{}"),
         (201, b'{"status": "ok"}'), (200, b"[" * 100_000)],
    )  # fmt: skip
    def test_the_last_answer_is_told(self, answering, status, body):
        url = answering(says(status, body))
        with pytest.raises(
            UnhealthyError, match=re.escape(f"HTTP {status}" + (f": {body[:20].decode()}" if body else ""))
        ):
            Time().check(url, timeout=0.1)()

    def test_what_is_healthy_can_be_told_by_a_function(self, answering):
        url = answering(says(200, b'{"ready": true, "models": 2}'))
        assert HealthCheck(url, expect=lambda said: said["models"] > 1)()["ready"]
        with pytest.raises(UnhealthyError):
            Time().check(url, timeout=1, expect=lambda said: said["models"] > 2)()
        assert HealthCheck(answering(says(200, b"pong")), expect=lambda said: said == "pong")() == "pong"

    def test_headers_are_sent_and_never_shown(self, answering):
        def answer(handler) -> None:
            says(200 if handler.headers["Authorization"] == "Bearer secret" else 401, b'{"status": "ok"}')(handler)

        check = HealthCheck(answering(answer), headers={"Authorization": "Bearer secret"})
        assert check() == {"status": "ok"}
        assert "secret" not in repr(check)

    @pytest.mark.parametrize("value", ["Bearer s3cret\nX: y", "s3cret\r", "s3cret\0", "s3cret€", "s3cret\udce9"])
    def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(self, value):
        for made in (HealthCheck, lambda url, **rest: Query(url, {}, **rest), Pushgateway):
            with pytest.raises(ConfigurationError, match="the header Authorization") as caught:
                made("http://localhost:5000/health", headers={"Authorization": value})
            assert "s3cret" not in str(caught.value)


class TestQuery:
    def test_the_question_is_posted_as_json(self, answering):
        def answer(handler) -> None:
            assert handler.command == "POST"
            assert handler.headers["Content-Type"] == "application/json"
            asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
            says(200, json.dumps({"answer": f"You asked: {asked['query']}"}).encode())(handler)

        url = answering(answer)
        assert Query(url, {"query": "Brakes?"})() == {"answer": "You asked: Brakes?"}
        assert Query(url, {"query": "Brakes?"}, r"brakes\?$")()
        assert Query(url, {"query": "Brakes?"}, lambda said: len(said) == 1)()
        for wrong in ("clutch", lambda said: "sources" in said):
            with pytest.raises(UnhealthyError, match="You asked"):
                Query(url, {"query": "Brakes?"}, wrong)()

    @pytest.mark.parametrize(
        ("status", "body"),
        [(200, b'{"answer": " "}'), (200, b'{"answer": 3}'), (200, b"[]"), (200, b"text"), (500, b'{"answer": "a"}')],
    )
    def test_no_answer_is_not_an_answer(self, answering, status, body):
        with pytest.raises(UnhealthyError, match=f"found HTTP {status}"):
            Query(answering(says(status, body)), {"query": "Brakes?"})()

    def test_a_service_that_is_not_there(self):
        with pytest.raises(UnhealthyError, match=r"no answer: .*refused"):
            Query(f"http://127.0.0.1:{servers.free_port()}/api/ask", {"query": "Brakes?"})()


class TestBounds:
    def test_a_redirect_to_another_server_is_not_followed(self, answering):
        asked = []
        other = answering(lambda handler: (asked.append(handler.path), says(200, b'{"status": "ok"}')(handler)))
        url = answering(says(302, b"moved", Location=f"{other}/health"))
        with pytest.raises(UnhealthyError, match="HTTP 302: moved"):
            Time().check(url, timeout=1)()
        with pytest.raises(UnhealthyError, match="HTTP 302"):
            Query(url, {})()
        assert asked == []

    def test_a_redirect_within_the_server_is_followed(self, answering):
        def answer(handler) -> None:
            moved = says(301, b"", Location="/health/")
            (says(200, b'{"status": "ok"}') if handler.path == "/health/" else moved)(handler)

        assert HealthCheck(f"{answering(answer)}/health")() == {"status": "ok"}

    def test_a_redirect_to_a_file_is_not_followed(self, answering):
        with pytest.raises(UnhealthyError, match="HTTP 302"):
            Time().check(answering(says(302, b"", Location="file:///etc/passwd")), timeout=1)()

    def test_no_more_is_read_than_an_answer_can_have(self, answering):
        sent = []

        def flood(handler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while len(sent) < 10_000:
                handler.wfile.write(b" " * 65536)
                sent.append(65536)

        with pytest.raises(UnhealthyError, match=f"more than {_http.MOST} bytes"):
            Query(answering(lambda handler: _ignoring_resets(flood, handler)), {}, timeout=30)()
        assert sum(sent) < 64 << 20

    def test_a_server_that_never_ends_its_answer_is_given_up(self, answering):
        def drip(handler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b" ")

        answer = answering(lambda handler: _ignoring_resets(drip, handler))
        with pytest.raises(UnhealthyError, match=r"expected an answer within 0\.3 s"):
            Query(answer, {}, timeout=0.3)()

    def test_what_is_no_http_is_no_answer(self, answering):
        url = answering(lambda handler: handler.wfile.write(b"220 mail.example.com ESMTP\r\n"))
        with pytest.raises(UnhealthyError, match="expected an answer in HTTP"):
            Query(url, {})()

    @pytest.mark.parametrize(
        "url",
        ["file:///etc/passwd", "ftp://a/b", "localhost:5000", "http://", "//a/b", "http://a b", "http://a/ü",
         "http://a/\r\nX: y", "http://[::1", "http://a:99999", "http://a:b", f"http://{'a' * 64}/", ""],
    )  # fmt: skip
    def test_only_web_servers_are_asked(self, url):
        with pytest.raises(ConfigurationError, match="expected a URL such as"):
            HealthCheck(url)

    def test_a_password_does_not_belong_into_a_url(self):
        with pytest.raises(ConfigurationError, match="Pass headers=") as caught:
            Query("http://nova:secret@localhost/ask?token=secret", {})
        assert "secret" not in str(caught.value)

    def test_a_proxy_of_the_environment_is_not_asked_for_this_host(self, answering, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{servers.free_port()}")
        assert HealthCheck(answering(says(200, b'{"status": "ok"}')), timeout=5)()


def _ignoring_resets(answer, handler) -> None:
    try:
        answer(handler)
    except OSError:
        handler.close_connection = True
