"""Hooks run around the work, know what it was about, and learn no secrets."""

from __future__ import annotations

import json

import pytest

from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.integrations._about import told
from novabackup.integrations.errors import HookError
from novabackup.integrations.hooks import Event, Hooks


@pytest.fixture
def noted(tmp_path, script):
    """A command that notes its variables; give it and a function that reads what it noted."""
    log = tmp_path / "log"
    script(
        "note",
        "import json\nwith open(sys.argv[1], 'a') as log:\n"
        "    print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('NOVABACKUP_')}), file=log)",
    )
    return ["note", str(log)], lambda: [json.loads(line) for line in log.read_text().splitlines()]


def everywhere(*hooks, **options) -> Hooks:
    return Hooks(before=hooks, success=hooks, failure=hooks, after=hooks, **options)


def test_commands_learn_what_the_work_is_about(noted, store, repository):
    command, read = noted
    with everywhere(command).around(store, repository, work="snapshot") as work:
        work.snapshot = snap = repository.backup(store)
    about = {
        "NOVABACKUP_WORK": "snapshot",
        "NOVABACKUP_STORE": store.url,
        "NOVABACKUP_REPOSITORY": repository.url,
        "NOVABACKUP_ERROR": "",
    }
    assert read() == [
        {**about, "NOVABACKUP_EVENT": "before", "NOVABACKUP_SNAPSHOT": ""},
        {**about, "NOVABACKUP_EVENT": "success", "NOVABACKUP_SNAPSHOT": snap.id},
        {**about, "NOVABACKUP_EVENT": "after", "NOVABACKUP_SNAPSHOT": snap.id},
    ]


def test_commands_learn_why_it_failed(noted, store, repository):
    command, read = noted
    with pytest.raises(NotFoundError), everywhere(command).around(store, repository):
        repository["latest"]
    assert [noted["NOVABACKUP_EVENT"] for noted in read()] == ["before", "failure", "after"]
    assert read()[2]["NOVABACKUP_ERROR"].startswith("NotFoundError: there is no repository at")


def test_commands_learn_of_a_failure_over_a_name_that_is_no_utf_8(noted, store, repository):
    command, read = noted
    with pytest.raises(OSError, match="is full"), everywhere(command).around(store, repository):
        raise OSError("caf\udce9 \ud83d: the disk is full")
    assert read()[1]["NOVABACKUP_ERROR"] == r"OSError: caf\udce9 \ud83d: the disk is full"


def test_functions_get_the_event():
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt), everywhere(events.append).around("vector_db"):
        raise KeyboardInterrupt
    assert [(event.name, event.error) for event in events] == [
        ("before", ""),
        ("failure", "KeyboardInterrupt"),
        ("after", "KeyboardInterrupt"),
    ]


def test_secrets_do_not_get_to_hooks(noted, monkeypatch):
    monkeypatch.setenv("NOVABACKUP_PASSWORD", "secret")
    command, read = noted
    with pytest.raises(OSError, match="secret"), Hooks(failure=[command]).around("vector_db"):
        raise OSError("GET https://me:secret@host/a?X-Amz-Signature=secret: refused\0")
    assert "secret" not in json.dumps(read())
    assert read()[0]["NOVABACKUP_ERROR"] == "OSError: GET https://…@host/a?… refused"


def test_a_long_error_is_cut():
    assert len(told(ValueError("x" * 100_000))) == 4000
    assert told(ValueError()) == "ValueError"


def test_a_hook_before_that_fails_keeps_the_work_from_being_begun(noted):
    command, read = noted
    hooks = Hooks(before=[["false"], command], failure=[command], success=[command], after=[command])
    with pytest.raises(HookError, match=r"false: expected this hook \(before\) to succeed, found exit status 1"):  # noqa: SIM117
        with hooks.around():
            pytest.fail("the block ran")
    assert [noted["NOVABACKUP_EVENT"] for noted in read()] == ["failure", "after"]


def test_a_hook_behind_that_fails_is_told_and_does_no_harm(noted, caplog):
    command, read = noted
    with Hooks(success=[["sh", "-c", "echo the reason; exit 1"], command], after=[["/no/such"]]).around() as work:
        pass
    assert len(read()) == 1
    assert "the reason" in work.failures[0]
    assert "/no/such: expected this hook (after) to succeed, found it could not be started" in work.failures[1]
    assert caplog.text.count("a hook failed") == 2


def test_what_fails_in_hooks_after_a_failure_is_noted_in_its_exception():
    with pytest.raises(ValueError, match="no embedding") as caught, Hooks(after=[["false"]]).around():
        raise ValueError("no embedding")
    assert "Besides, a hook failed: HookError: false" in caught.value.__notes__[0]


def test_a_command_that_does_not_end_is_a_failure():
    with pytest.raises(HookError, match=r"no end within 0\.2 s"), Hooks(before=[["sleep", "60"]], timeout=0.2).around():
        pytest.fail("the block ran")


@pytest.mark.parametrize("wrong", ["mount /mnt", ["mount /mnt"], ["mount", "/mnt"], [[]], print])
def test_hooks_are_lists_of_commands(wrong):
    with pytest.raises(ConfigurationError):
        Hooks(before=wrong)
