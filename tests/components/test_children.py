"""Child processes: however they end, the parent goes on and says in words what happened."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from looking import NotingReader

from novabackup.components import _child
from novabackup.errors import ConfigurationError

LIMITS = _child.Limits(memory=512 << 20, seconds=30)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a script's text in place of one of the package's."""

    def run(body: str, limits: _child.Limits = LIMITS, data: bytes = b"content") -> _child.Result:
        script = tmp_path / "script.py"
        script.write_text("import os, signal, sys\ndef look(arguments):\n    " + body.replace("\n", "\n    "))
        with NotingReader(data, "x") as reader:
            return _child.run(str(script), reader.file(), {"word": "hello"}, limits)

    return run


def test_the_answer_comes_back(run):
    outcome = run("return {'said': arguments['word'], 'read': os.read(0, 100).decode()}")
    assert (outcome.failure, outcome.answer) == (None, {"said": "hello", "read": "content"})
    assert outcome.peak > 0


def test_a_crash_is_told_by_its_signal(run):
    assert run("os.kill(os.getpid(), signal.SIGSEGV)").failure == "the process that read it crashed (SIGSEGV)"
    assert "SIGABRT" in str(run("os.abort()").failure)
    assert "SIGKILL" in str(run("os.kill(os.getpid(), signal.SIGKILL)").failure)


def test_a_child_that_never_ends_is_killed(run):
    assert "took longer than 0.5 seconds" in str(
        run("signal.pause()", _child.Limits(memory=1 << 30, seconds=0.5)).failure
    )


def test_a_child_that_closes_its_outputs_and_goes_on_is_killed(run):
    body = "os.close(1)\nos.close(2)\nsignal.pause()"
    assert "took longer" in str(run(body, _child.Limits(memory=1 << 30, seconds=1)).failure)


def test_a_child_that_computes_for_ever_is_killed(run):
    assert "took longer" in str(run("while True: pass", _child.Limits(memory=1 << 30, seconds=0.5)).failure)


def test_a_child_that_writes_for_ever_fills_no_memory(run):
    outcome = run("while True: os.write(1, bytes(1 << 20))", _child.Limits(memory=1 << 30, seconds=1))
    assert "took longer" in str(outcome.failure)


def test_more_output_than_an_answer_has_is_no_answer(run):
    outcome = run("os.write(1, bytes(1 << 20))\nos.write(2, bytes(1 << 20))\nreturn {}")
    assert "no answer" in str(outcome.failure)


def test_memory_beyond_the_limit_is_a_finding(run):
    assert "more memory" in str(run("return {'much': len(bytearray(1 << 33))}").failure)


def test_deep_recursion_is_a_finding(run):
    assert "nested more deeply" in str(run("return look(arguments)").failure)


def test_an_exception_is_told_with_its_text(run):
    assert run("raise ValueError('what it says')").failure == "ValueError: what it says"


def test_an_early_end_is_told_with_its_last_words(run):
    outcome = run("os.write(2, b'first\\nlast words\\n')\nos._exit(3)")
    assert outcome.failure == "the process that read it ended with status 3 and no answer: last words"


def test_the_child_can_write_no_file(run, tmp_path):
    outcome = run(f"os.write(os.open({str(tmp_path / 'out')!r}, os.O_CREAT | os.O_WRONLY), b'x')")
    assert "OSError" in str(outcome.failure)
    assert (tmp_path / "out").read_bytes() == b""


def test_the_child_is_in_a_session_of_its_own_and_knows_no_secret(run, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    outcome = run("return {'leads': os.getsid(0) == os.getpid(), 'names': sorted(os.environ)}")
    assert outcome.answer["leads"] is True
    assert not [name for name in outcome.answer["names"] if "AWS" in name]


def test_a_missing_package_is_an_error_and_no_damage(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import a_package_that_is_not_there\n")
    with NotingReader(b"", "x") as reader, pytest.raises(ConfigurationError, match="a_package_that_is_not_there"):
        _child.run(str(script), reader.file(), {}, LIMITS)


def test_an_interpreter_that_is_not_known_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with NotingReader(b"", "x") as reader, pytest.raises(ConfigurationError, match=r"sys\.executable"):
        _child.run("_pickle_child.py", reader.file(), {}, LIMITS)


def test_a_frozen_program_is_not_started_a_second_time(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with NotingReader(b"", "x") as reader, pytest.raises(ConfigurationError, match="interpreter"):
        _child.run("_pickle_child.py", reader.file(), {}, LIMITS)


def test_no_child_is_left_behind_when_the_parent_is_interrupted(run, monkeypatch):
    started = []
    real = subprocess.Popen

    def note(*arguments, **named):
        started.append(real(*arguments, **named))
        return started[-1]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_child, "subprocess", types.SimpleNamespace(Popen=note, PIPE=subprocess.PIPE))
    monkeypatch.setattr(_child, "_collect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("signal.pause()")
    assert started[0].returncode == -9


def test_importing_components_imports_none_of_the_packages_that_read_indexes():
    code = (
        "import sys, types\n"
        "package = types.ModuleType('novabackup')\n"
        f"package.__path__ = [{str(Path(_child.__file__).parents[1])!r}]\n"
        "sys.modules['novabackup'] = package\n"
        "import novabackup.components, novabackup.checks, novabackup.layouts\n"
        "print(*sorted({'faiss', 'numpy', 'rank_bm25', 's3fs', 'fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_library_imports_neither_faiss_nor_rank_bm25():
    code = "import sys, novabackup; print(*sorted({'faiss', 'rank_bm25', 's3fs'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
