"""What S3 servers refuse or fail to do: what may pass is tried again, the rest says what to do, secrets stay secret."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json

import pytest
import scripted
from scripted import Answer

import servers
from novabackup.errors import ConfigurationError
from novabackup.storage import open_storage
from novabackup.storage.s3 import client as client_module

SECRET = "a-very-secret-secret"
CONTENT = Answer(200, headers={"ETag": '"1"', "Last-Modified": "Mon, 26 Jan 2026 10:00:00 GMT"}, body=b"content")


@pytest.fixture
def script(clean_aws):
    with scripted.server() as script:
        yield script


@pytest.fixture
def pauses(monkeypatch):
    """Do not wait, but note for how long it would have been."""
    noted = []
    monkeypatch.setattr(client_module, "sleep", noted.append)
    return noted


def place(script, **options):
    return open_storage("s3://bucket/x", {**servers.options(script.url), "secret": SECRET, **options})


FAILURES = [
    Answer(500, "InternalError"),
    Answer(502),
    Answer(503, "SlowDown"),
    Answer(503, "ServiceUnavailable"),
    Answer(504),
    Answer(429, "TooManyRequestsException"),
    Answer(400, "RequestTimeout"),
    Answer(200, headers={"Content-Length": "99", "Connection": "close"}),
    Answer(0),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda answer: f"{answer.status} {answer.code}")
def test_what_passes_by_itself_is_tried_again(script, pauses, failure):
    script.answers = [failure, failure, CONTENT]
    assert place(script).read("one") == b"content"
    assert len(script.asked) == 3
    assert 0.125 <= pauses[0] <= 0.25


def test_throttled_writes_are_sent_again(script, pauses):
    done = Answer(200, headers={"ETag": '"1"', "Date": "Mon, 26 Jan 2026 10:00:00 GMT"})
    script.answers = [Answer(503, "SlowDown"), Answer(503, "SlowDown"), done]
    assert place(script).write("one", (b"con", memoryview(b"tent"))).size == 7
    assert [asked.split()[0] for asked in script.asked] == ["PUT"] * 3
    assert script.bodies == [b"content"] * 3


def test_content_is_sealed_by_one_sum_which_is_signed(script):
    script.answers = [Answer(200, headers={"ETag": '"1"', "Date": "Mon, 26 Jan 2026 10:00:00 GMT"})]
    place(script).write("one", [b"content"])
    (headers,) = script.headers
    assert headers["Content-MD5"] == base64.b64encode(hashlib.md5(b"content").digest()).decode()
    assert "content-md5" in headers["Authorization"]
    assert headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"


def test_it_gives_up_and_says_after_how_many_attempts(script, pauses):
    script.answers = [Answer(503, "SlowDown", "Please reduce your request rate.")]
    with pytest.raises(OSError, match=r"SlowDown.*gave up after 8 attempts in \d+ s.*s3://bucket/x/one"):
        place(script).read("one")
    assert len(script.asked) == 8
    assert 10 < sum(pauses) < 30
    assert all(pause <= 10 for pause in pauses)


def test_no_attempt_is_begun_after_a_minute_but_for_the_second_one(script, pauses, monkeypatch):
    clock = [0.0]

    def monotonic():
        clock[0] += 70.0
        return clock[0]

    monkeypatch.setattr(client_module, "monotonic", monotonic)
    script.answers = [Answer(503, "SlowDown")]
    with pytest.raises(OSError, match="gave up after 2 attempts in 140 s"):
        place(script).read("one")


def test_a_server_is_left_alone_for_as_long_as_it_asks(script, pauses):
    script.answers = [Answer(503, "SlowDown", headers={"Retry-After": "7"}), CONTENT]
    place(script).read("one")
    assert pauses == [7.0]


def test_the_caller_can_say_how_many_attempts(script, pauses):
    script.answers = [Answer(503, "SlowDown")]
    options = servers.options(script.url)
    for retries, wanted in (({"max_attempts": 1}, 2), ({"total_max_attempts": 3}, 3)):
        script.asked.clear()
        with pytest.raises(OSError, match="SlowDown"):
            place(script, config_kwargs={**options["config_kwargs"], "retries": retries}).read("one")
        assert len(script.asked) == wanted


REFUSALS = {
    "ExpiredToken": (400, "session has expired. Log in again"),
    "InvalidToken": (400, "session token is not valid"),
    "InvalidAccessKeyId": (403, "does not know this access key"),
    "SignatureDoesNotMatch": (403, "secret does not belong to the access key"),
    "RequestTimeTooSkewed": (403, "clock of this host"),
    "AuthorizationHeaderMalformed": (400, "region is not the bucket's"),
    "AccessDenied": (403, "the server refuses; this needs s3:GetObject"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_says_what_to_do(script, pauses, code):
    status, advice = REFUSALS[code]
    script.answers = [Answer(status, code, "in the words of the server")]
    with pytest.raises(
        PermissionError, match=rf"{advice}.*{code}: in the words of the server.*s3://bucket/x/one"
    ) as caught:
        place(script).read("one")
    assert len(script.asked) == 1
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_refused_look_says_what_it_needs(script):
    script.answers = [Answer(403)]  # without a body, as all answers to such requests
    with pytest.raises(PermissionError, match="s3:GetObject and, for objects that may be missing, s3:ListBucket"):
        place(script).entry("one")


def test_the_usual_chain_of_credentials_is_used(moto_place, monkeypatch, tmp_path):
    url, options = moto_place
    options = {name: value for name, value in options.items() if name not in ("key", "secret")}
    with pytest.raises(ConfigurationError, match=r"no usable credentials.*AWS_\* environment variables"):
        open_storage(url, options).read("a")
    (tmp_path / "no-credentials").write_text(f"[ours]\naws_access_key_id = key\naws_secret_access_key = {SECRET}\n")
    open_storage(url, {**options, "profile": "ours"}).write("a", [b"by profile"])
    monkeypatch.setenv("AWS_PROFILE", "ours")
    assert open_storage(url, options).read("a") == b"by profile"
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert open_storage(url, options).read("a") == b"by profile"
    with pytest.raises(ConfigurationError, match=r"profile \(theirs\).*~/.aws/config.*AWS_PROFILE"):
        open_storage(url, {**options, "profile": "theirs"}).read("a")


def test_a_login_that_has_expired_says_how_to_log_in(script, monkeypatch, tmp_path):
    (tmp_path / "no-config").write_text(
        "[profile people]\nsso_session = us\nsso_account_id = 1\nsso_role_name = r\nregion = eu-central-1\n"
        "[sso-session us]\nsso_start_url = https://sso.invalid/start\nsso_region = eu-central-1\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"profile": "people", "endpoint_url": script.url}
    with pytest.raises(ConfigurationError, match=r"login has expired or was never made.*aws sso login"):
        open_storage("s3://bucket/x", options).read("a")
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    token = {"accessToken": SECRET, "expiresAt": f"{past:%Y-%m-%dT%H:%M:%SZ}", "startUrl": "https://sso.invalid/start"}
    (cache / f"{hashlib.sha1(b'us').hexdigest()}.json").write_text(json.dumps(token))
    with pytest.raises(ConfigurationError, match=r"login has expired or was never made.*aws sso login") as caught:
        open_storage("s3://bucket/x", options).read("a")
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert not script.asked
