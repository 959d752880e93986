"""What a person sees: in a terminal, in a narrow one, without colours, without UTF-8, and in a pipe."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import nova
from novabackup import Repository
from novabackup.cli import main
from novabackup.cli.app import ENTRIES
from novabackup.cli.exits import Exit

SNAPSHOT = r"\d{8}T\d{6}Z-[0-9a-f]{20}"


def piped(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "novabackup", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


class TestHelp:
    def test_the_commands_are_listed_in_groups_with_the_exit_codes(self, cli, place):
        shown = cli("--help").out
        groups = re.findall(r"─ ([A-Z][a-z ]+) ─", shown)
        assert groups == [
            "Take",
            "Look",
            "Check",
            "Bring back",
            "Make room",
            "Elsewhere",
            "Keys",
            "Operate",
            "Shell",
            "Help",
        ]
        for command in ("init", "snapshot", "run", "list", "show", "diff", "stats", "verify", "check", "restore"):
            assert re.search(rf"^│ {command} +\S", shown, re.MULTILINE), command
        said = " ".join(shown.split())
        for code in sorted({int(code) for code in Exit} - {Exit.BUG, Exit.NOT_EXECUTABLE, Exit.NOT_FOUND}):
            assert re.search(rf"[ :]{code} \w", said), code

    def test_each_command_explains_itself_within_80_columns(self, cli, place):
        for command in ("restore", "run", "forget", "check", "list", "completion"):
            said = cli(command, "--help")
            assert said.code == 0
            assert f"Usage: novabackup {command}" in said.out
            assert max(map(len, said.out.splitlines())) <= 80
            assert "--json" in said.out
            assert "[default: ]" not in said.out

    @pytest.mark.parametrize(
        ("command", "also"),
        [
            (
                "--help",
                {
                    "numpy",
                    "fsspec",
                    "asyncio",
                    "msgspec",
                    "novabackup.repository.repository",
                    "novabackup.cli.commands",
                },
            ),
            (
                "--version",
                {
                    "numpy",
                    "fsspec",
                    "asyncio",
                    "msgspec",
                    "novabackup.repository.repository",
                    "novabackup.cli.commands",
                },
            ),
            (
                "list",
                {
                    "novabackup.archives",
                    "novabackup.operations.repair.execute",
                    "novabackup.operations.rebuild.rebuild",
                    "tarfile",
                    "rich.progress",
                },
            ),
            ("list", {"novabackup.integrations.metrics", "novabackup.integrations.schedule", "http.client"}),
        ],
    )
    def test_a_command_does_not_load_what_it_does_not_need(self, cli, store, command, also):
        heavy = {"faiss", "s3fs", "aiobotocore", "rank_bm25", "asyncssh", "cryptography", "IPython", "pytest", *also}
        code = (
            f"import sys; from novabackup.cli.main import run; run([{command!r}])\n"
            f"print(*sorted({heavy!r} & sys.modules.keys()), file=sys.stderr)"
        )
        assert cli("init").code == 0
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr.strip() == ""

    def test_the_summaries_are_what_the_commands_themselves_say(self):
        def each(entries):
            for entry in entries:
                yield from each(entry.commands) if entry.commands else [entry]

        for entry in each(entry for entries in ENTRIES.values() for entry in entries):
            module, _, name = entry.where.partition(":")
            said = getattr(import_module(f"novabackup.cli.commands.{module}"), name).__doc__
            assert entry.summary == " ".join(said.split("\n\n")[0].split()), entry.name

    def test_version(self, cli, place):
        assert re.match(r"\d+\.|unknown", cli("--version").out)


class TestProgress:
    def test_a_bar_shows_amount_rate_and_time_left_and_goes_away(self, terminal, store):
        (store / "corpus_manifest.json").write_bytes(os.urandom(30 << 20))
        screen = terminal("snapshot")
        assert screen.end() == 0
        drawn = screen.raw.decode()
        assert re.search(r"Snapshot.*[━╸╺].* \d+%.* of 30\.0 MiB.*\d left", drawn)
        assert "MiB/s" in drawn
        assert "━" not in screen.text
        assert re.match(rf"Snapshot {SNAPSHOT} of\s", screen.text)

    @pytest.mark.parametrize("option", ["--quiet", "--json"])
    def test_there_is_none_for_those_who_do_not_want_it(self, terminal, store, option):
        screen = terminal("snapshot", option)
        assert screen.end() == 0
        assert b"%" not in screen.raw
        assert b"\x1b" not in screen.raw

    def test_there_is_none_in_a_pipe(self, store):
        done = piped("snapshot")
        assert re.fullmatch(rf"Snapshot {SNAPSHOT} of .* new\n", done.stdout.decode())
        assert done.stderr == b""


class TestQuestions:
    @pytest.mark.parametrize(("answer", "code", "restored"), [("y", 0, True), ("n", 130, False), ("", 130, False)])
    def test_what_a_restore_replaces_is_asked_for_first(self, terminal, cli, store, answer, code, restored):
        cli("snapshot")
        before = nova.contents(store)
        nova.write_metadata(store, nova.texts(3))
        screen = terminal("restore", "latest")
        screen.child.expect(r"\[y/N\]")
        assert re.search(r"write +metadata.json +\d+ B +is kept as a snapshot", screen.text)
        screen.child.sendline(answer)
        assert screen.end() == code
        assert (nova.contents(store) == before) is restored
        assert ("Nothing was done" in screen.text) is not restored

    def test_yes_answers_beforehand(self, terminal, cli, store):
        cli("snapshot")
        nova.write_metadata(store, nova.texts(3))
        screen = terminal("restore", "latest", "--yes")
        assert screen.end() == 0
        assert "[y/N]" not in screen.text

    def test_a_restore_that_replaces_nothing_asks_nothing(self, terminal, cli, store):
        cli("snapshot")
        assert terminal("restore", "latest", "--to", "out").end() == 0


class TestTables:
    def test_ids_are_whole_in_80_columns_and_in_fewer(self, terminal, cli, store, place):
        for tag in ("a-rather-long-tag-indeed", "another-tag"):
            cli("snapshot", "--tag", tag, "--tag", "daily")
        repository = Repository(place / "backups")
        for columns in (80, 50):
            screen = terminal("list", columns=columns)
            assert screen.end() == 0
            shown = re.findall(r"^([0-9a-f]{8})  ", screen.text, re.MULTILINE)
            assert [repository[short].id for short in shown] == [snapshot.id for snapshot in repository]
            assert max(map(len, screen.text.splitlines())) <= columns
            assert "another-tag" in screen.text.replace("\n", "").replace(" ", "")

    def test_an_error_is_one_red_line_with_its_problems_as_a_list(self, terminal, cli, store):
        screen = terminal("run", "--", "sh", "-c", "echo '[' > vector_db/metadata.json")
        assert screen.end() == 4
        assert b"\x1b[1;31mError: \x1b[0m" in screen.raw
        assert re.search(r"^Error: .*\n       \S", screen.text)
        assert re.search(r"^  - damaged \(metadata.json\): .*\n    \S", screen.text, re.MULTILINE)
        assert "Traceback" not in screen.text

    def test_no_color_is_respected(self, terminal, store):
        screen = terminal("show", "nonesuch", NO_COLOR="1")
        assert screen.end() == 2
        assert b"31m" not in screen.raw

    def test_a_terminal_without_utf_8_gets_ascii(self, terminal, cli, store):
        cli("snapshot", "--message", "für München …")
        environment = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        for command in (["show"], ["--help"]):
            screen = terminal(*command, **environment)
            assert screen.end() == 0
            assert screen.raw.isascii(), screen.raw

    def test_a_dumb_terminal_gets_no_control_sequences(self, terminal, store):
        screen = terminal("snapshot", TERM="dumb")
        assert screen.end() == 0
        assert b"\x1b" not in screen.raw

    def test_whoever_has_read_enough_may_leave(self, cli, store):
        cli("snapshot")
        command = f"{sys.executable} -m novabackup completion bash | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "141\n"
        assert done.stderr == ""


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_each_shell_gets_a_script_that_it_can_read(self, cli, place, shell):
        said = cli("completion", shell)
        assert said.code == 0
        for word in ("snapshot", "recover", "dry-run"):
            assert word in said.out
        if shutil.which(shell):
            (place / "script").write_text(said.out)
            subprocess.run([shell, "-n", place / "script"], check=True, timeout=60)

    @pytest.mark.parametrize(
        ("typed", "offered"),
        [(["re"], {"restore", "recover", "repair", "report"}), (["restore", "--dr"], {"--dry-run"})],
    )
    def test_bash_completes_commands_and_options(self, cli, place, typed, offered):
        (place / "script").write_text(cli("completion", "bash").out)
        words = " ".join(["novabackup", *typed])
        code = (
            f"source ./script; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _novabackup novabackup; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert set(done.stdout.split()) == offered

    def test_installing_writes_where_the_shell_looks(self, cli, place, tmp_path):
        said = cli("completion", "bash", "--install")
        assert said.code == 0
        installed = tmp_path / ".local/share/bash-completion/completions/novabackup"
        assert said.out == f"{installed} is written; start a new bash\n"
        assert "_novabackup" in installed.read_text()


class TestStarting:
    def test_without_its_packages_it_says_what_to_install(self, place):
        code = "import sys; sys.modules['cyclopts'] = None; from novabackup.cli import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert done.stderr.endswith("Install it with: pip install 'novabackup[cli]'\n")

    def test_the_command_that_is_installed_is_this_one(self):
        said = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
        assert pkgutil.resolve_name(said["project"]["scripts"]["novabackup"]) is main
        assert set(said["project"]["optional-dependencies"]["cli"]) <= set(said["dependency-groups"]["test"])

    def test_no_warning_is_on_the_way(self, store):
        done = piped("snapshot", PYTHONWARNINGS="error")
        assert (done.returncode, done.stderr) == (0, b"")

    def test_ctrl_c_ends_with_130_and_without_a_traceback(self, terminal, store, place):
        command = "sh -c 'touch ready; exec sleep 600'"
        (place / "novabackup.toml").write_text(
            f'[store]\nurl = "vector_db"\n[store.options]\nsecret = {{ command = "{command}" }}\n'
        )
        screen = terminal("snapshot")
        deadline = time.monotonic() + 60
        while not (place / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        screen.child.sendintr()
        assert screen.end() == 130
        assert screen.text.endswith("Error: interrupted")
