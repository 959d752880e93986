"""The configuration file: which one counts, what it says, and what is said of mistakes in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from novabackup import ConfigurationError, Policy, layouts
from novabackup.cli.config.file import find, load
from novabackup.cli.config.secrets import Secret, revealed
from novabackup.cli.config.sections import Config
from novabackup.cli.config.units import format_duration, parse_duration
from novabackup.cli.config.values import LAYOUTS
from novabackup.components import Faiss, Metadata
from novabackup.integrations.metrics import Pushgateway
from novabackup.integrations.service import SystemdUnit

SECRET = "correct horse battery staple"


def loaded(place, text):
    (place / "novabackup.toml").write_text(text)
    return load(place / "novabackup.toml")


def complaint(place, text):
    with pytest.raises(ConfigurationError) as caught:
        loaded(place, text)
    return str(caught.value).removeprefix(str(place) + "/")


class TestWhatItSays:
    def test_all_settings_arrive(self, place):
        config = loaded(
            place,
            """
            [store]
            url = "nova/vector_db"
            components = [
              { kind = "faiss", path = "index.faiss", timeout = "2m" },
              { kind = "metadata", path = "meta.json", optional = true, count_key = "total" },
            ]
            include = ["plugins"]
            exclude = ["**/*.log"]
            single_writer = true
            timeout = 90

            [repository]
            url = "s3://bucket/backups"
            key = { passphrase = { env = "NOVA_PASSPHRASE" } }
            storage_class = "STANDARD_IA"
            compression = "small"
            options = { endpoint_url = "http://127.0.0.1:1", key = { env = "KEY" }, use_ssl = false }

            [retention]
            daily = 30
            within = 0
            tags = { release = "forever" }
            """,
        )
        assert config.store.url == str(place / "nova/vector_db")
        assert config.store.components == (
            Faiss("index.faiss", timeout=120.0),
            Metadata("meta.json", optional=True, count_key="total"),
        )
        assert (config.store.single_writer, config.store.timeout) == (True, 90.0)
        assert config.store.include == ("plugins",)
        assert config.store.exclude == ("**/*.log",)
        assert config.repository.url == "s3://bucket/backups"
        assert (config.repository.storage_class, config.repository.compression) == ("STANDARD_IA", "small")
        assert config.repository.key.passphrase.where == "NOVA_PASSPHRASE"
        assert config.retention == Policy.parse("daily 30, tag release forever")

    def test_what_stands_around_commands_arrives(self, place, monkeypatch):
        config = loaded(
            place,
            """
            [service]
            unit = "nova-nic"
            manager = "user"
            [health]
            url = "http://127.0.0.1:1/health"
            timeout = "5m"
            expect = "fine"
            headers = { X-From = "novabackup", Authorization = { env = "TOKEN" } }
            [query]
            url = "http://127.0.0.1:1/ask"
            body = { q = "why", n = 3 }
            [metrics]
            push = "http://127.0.0.1:1"
            grouping = { instance = "nova-1" }
            """,
        )
        monkeypatch.setenv("TOKEN", SECRET)
        assert config.service.made() == SystemdUnit("nova-nic", manager="user")
        health = config.health.made()
        assert (health.timeout, health.headers) == (300.0, {"X-From": "novabackup", "Authorization": SECRET})
        assert [health.expect(said) for said in ({"state": "Fine"}, "all fine", {"status": "ok"})] == [
            True,
            True,
            False,
        ]
        assert config.query.made().payload == {"q": "why", "n": 3}
        assert config.metrics.sinks() == (Pushgateway("http://127.0.0.1:1", grouping={"instance": "nova-1"}),)
        assert SECRET not in repr(config) + repr(health) + str(health)

    def test_every_ready_made_layout_has_a_name(self, place):
        assert set(LAYOUTS) == {"nova", "nova-vehicle", "nova-multi-domain", "nova-installation"}
        assert LAYOUTS["nova-installation"] is layouts.NOVA_INSTALLATION
        assert loaded(place, '[store]\nlayout = "nova-vehicle"').store.layout == "nova-vehicle"

    def test_no_file_says_nothing(self):
        assert load(None) == Config()

    @pytest.mark.parametrize(("said", "seconds"), [("90", 90), ("1.5h", 5400), ("5 m", 300), ("2w", 1209600), ("0", 0)])
    def test_time_spans_are_written_as_people_write_them(self, said, seconds):
        assert parse_duration(said) == seconds
        assert parse_duration(format_duration(seconds)) == seconds


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                '[retention]\ndaily = 3\nhourly = "many"\n',
                "novabackup.toml:3: retention.hourly: expected how many to keep, such as 24, how long, such as 36h,",
            ),
            (
                "[retention]\nlast = true\n",
                "novabackup.toml:2: retention.last: expected how many to keep, such as 24",
            ),
            ('[store]\n\nlayuot = "nova"\n', "novabackup.toml:3: store.layuot: unknown key; did you mean layout?"),
            ("[stroe]\n", "novabackup.toml:1: stroe: unknown key; did you mean store?"),
            ('"x` - at `$.store" = 1', "novabackup.toml:1: x` - at `$.store: unknown key; known here: store"),
            ('["copies"."a.b"]\nurl = "u"\nlimit = 3', "novabackup.toml:3: copies.a.b.limit: expected bytes a second"),
            (
                '[store]\nlayout = "lava"\n',
                f'novabackup.toml:2: store.layout: expected one of {", ".join(LAYOUTS)}, found "lava"',
            ),
            (
                '[store]\ncomponents = [\n  { kind = "faiss", path = "a" },\n  { kind = "bm52", path = "b" }]\n',
                "novabackup.toml:4: store.components[2].kind: expected one of bm25, faiss, files, json-lines,",
            ),
            (
                '[store]\ncomponents = [{ kind = "faiss", path = "../a" }]\n',
                "novabackup.toml:2: store.components[1]: component path '../a' cannot be used",
            ),
            (
                '[store]\ntimeout = "soon"',
                'novabackup.toml:2: store.timeout: expected seconds, or a text such as "90s"',
            ),
            (
                '[repository]\nkey = { passphrase = "hunter2" }\n',
                "novabackup.toml:2: repository.key.passphrase: expected a table such as { env =",
            ),
            (
                '[repository]\nkey = { keyfile = "k", passphrase = { env = "P" } }\n',
                "novabackup.toml:2: repository.key: expected one of passphrase and keyfile, found both",
            ),
            (
                '[repository]\ncompression = "tiny"',
                "novabackup.toml:2: repository.compression: expected one of fast, small",
            ),
            ("store = 3", "novabackup.toml:1: store: expected a table, found 3"),
            ("[store]\nurl = ", "novabackup.toml: expected TOML: Invalid value at the end of the file"),
            ("[store]\nurl = x\n", "novabackup.toml:2:7: expected TOML: Invalid value"),
            ("[retention]\ntags = 'one'", "novabackup.toml:2: retention.tags: 'tags' says what to keep of each tag"),
            ("[retention.tags]\none = '7d'\ntwo = '7x'", "novabackup.toml:3: retention.tags.two: tag 'two'"),
            ("[retention]\nlast = 0", "novabackup.toml:1: retention: a policy says what to keep"),
            ("retention = 'dayly 3'", "novabackup.toml:1: retention: policy 'dayly 3': "),
            ("retention = 3", "novabackup.toml:1: retention: expected a text such as"),
            (
                "[service]\ntimeout = 3",
                "novabackup.toml:1: service: expected a unit, or commands for stop and start, found",
            ),
            ('[service]\nunit = "a"\nstop = ["b"]', "novabackup.toml:1: service: expected a unit, or commands to stop"),
            ('[service]\nunit = "-x y"', "novabackup.toml:2: service.unit: expected the name of a systemd unit"),
            ('[service]\nunit = "a"\ntimeout = 0', "novabackup.toml:3: service.timeout: expected more than no time"),
            (
                '[service]\nunit = "a"\nduring = ["list"]',
                "novabackup.toml:3: service.during[1]: expected one of restore,",
            ),
            ('[service]\nstop = "systemctl stop a"', "novabackup.toml:2: service.stop: expected a command as a list"),
            (
                '[health]\nurl = "ftp://a"',
                "novabackup.toml:2: health.url: expected a URL such as http://localhost:5000",
            ),
            ('[health]\nurl = "http://u:p@a"', "novabackup.toml:2: health.url: http://a: expected no user name or"),
            ("[health]\ntimeout = 3", "novabackup.toml:1: health: expected the key url, found none"),
            (
                '[health]\nurl = "http://a"\nheaders = { Authorization = "Bearer hunter2" }',
                "novabackup.toml:3: health.headers.Authorization: expected a table such as { env =",
            ),
            ('[query]\nurl = "http://a"', "novabackup.toml:1: query: expected one of question and body, found none"),
            (
                '[query]\nurl = "http://a"\nquestion = "b"\nexpect = "("',
                "novabackup.toml:4: query.expect: expected a regular expression, found '('",
            ),
            ('[hooks]\nbefore = ["true"]', "novabackup.toml:2: hooks.before[1]: expected a command as a list such as"),
            ("[hooks]\nafter = [[]]", "novabackup.toml:2: hooks.after[1]: expected a command as a list"),
            ('[metrics]\ntextfile = "a.txt"', "novabackup.toml:2: metrics.textfile: "),
            ('[metrics]\ngrouping = { job = "a" }', "novabackup.toml:2: metrics.grouping: expected names of labels"),
            ('[recovery]\nto = "a\\u0000b"', "novabackup.toml:2: recovery.to: expected a text without NUL characters"),
            ('[store]\ntimeout = "9999999w"', "novabackup.toml:2: store.timeout: expected seconds, or a text such as"),
            ("[store]\ntimeout = inf", "novabackup.toml:2: store.timeout: expected seconds, or a text such as"),
            ('[recovery]\nowner = ""', "novabackup.toml:2: recovery.owner: expected a text"),
        ],
    )
    def test_the_file_the_line_and_the_setting_are_named(self, place, text, said):
        assert complaint(place, text).startswith(said)

    def test_what_would_take_forever_to_read_is_refused_at_once(self, place):
        said = complaint(place, f"a{'.a' * 50_000} = 1")
        assert said.startswith("novabackup.toml:1: expected keys of 100 parts at most")
        said = complaint(place, f"a = {'[' * 50_000}{']' * 50_000}")
        assert said.startswith("novabackup.toml: expected tables and arrays that nest a few levels")

    def test_a_layout_and_components_exclude_each_other(self, place):
        said = complaint(place, '[store]\nlayout = "nova"\ncomponents = [{ kind = "files", path = "a" }]\n')
        assert "expected layout or components, found both" in said

    def test_a_text_that_never_ends_is_shown_in_part(self, place):
        assert len(complaint(place, f'[store]\nlayout = "{"x" * 10_000}"\n')) < 300


class TestSecrets:
    @pytest.mark.parametrize("option", ["secret", "password", "session_token", "account_key", "connection_string"])
    def test_a_secret_in_plain_is_refused_without_showing_it(self, place, option):
        said = complaint(place, f'[repository]\n[repository.options.client_kwargs]\n{option} = "{SECRET}"\n')
        assert said.startswith(f"novabackup.toml:3: repository.options.client_kwargs.{option}: expected {{ env =")
        assert SECRET not in said
        assert SECRET not in complaint(place, f'[repository]\noptions = {{ {option} = ["{SECRET}"] }}\n')

    def test_a_key_in_plain_is_refused_without_showing_it(self, place):
        said = complaint(place, f'[repository]\nkey = "{SECRET}"\n')
        assert said.startswith("novabackup.toml:2: repository.key: expected a table such as { passphrase")
        assert SECRET not in said

    def test_secrets_are_fetched_when_they_are_needed_and_never_shown(self, place, monkeypatch):
        (place / "secret").write_text(f"{SECRET}\n")
        config = loaded(
            place,
            """
            [store.options]
            one = { env = "NOVA_SECRET" }
            two = { file = "secret" }
            three = { command = "cat secret" }
            client = { four = { env = "NOVA_SECRET" } }
            """,
        )
        monkeypatch.setenv("NOVA_SECRET", SECRET)
        assert SECRET not in repr(config)
        assert revealed(config.store.options) == {
            "one": SECRET,
            "two": SECRET,
            "three": SECRET,
            "client": {"four": SECRET},
        }

    @pytest.mark.parametrize(
        ("form", "where", "said"),
        [
            ("env", "NOVA_NOT_SET", "the environment variable NOVA_NOT_SET, found none: it is not set"),
            ("file", "/not/there", "the file /not/there, found none: No such file or directory"),
            ("command", "false", "the command false, found none: it ended with 1"),
            ("command", "not-a-program", "found none: FileNotFoundError"),
            ("command", "true", "found none: it is empty"),
        ],
    )
    def test_a_secret_that_is_not_there_is_missed_where_it_is_asked_for(self, form, where, said):
        with pytest.raises(ConfigurationError, match=r"novabackup\.toml:3: repository\.options\.secret") as caught:
            Secret(form=form, where=where, asked_by="novabackup.toml:3: repository.options.secret").reveal()
        assert said in str(caught.value)


class TestWhichOneCounts:
    def test_the_nearest_one_above_comes_before_that_of_the_user(self, place, tmp_path, monkeypatch):
        own = tmp_path / "settings/novabackup/config.toml"
        own.parent.mkdir(parents=True)
        own.write_text("")
        assert find(None) == own
        (place / "novabackup.toml").write_text("")
        (place / "deep/er").mkdir(parents=True)
        monkeypatch.chdir(place / "deep/er")
        assert find(None) == place / "novabackup.toml"
        assert find(own) == own

    def test_one_that_is_named_must_be_there(self, place):
        with pytest.raises(ConfigurationError, match="expected a configuration file, found none"):
            find(Path("elsewhere.toml"))

    @pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a file away")
    def test_one_of_another_user_is_not_read_by_chance(self, place):
        path = place / "novabackup.toml"
        path.write_text("")
        os.chown(path, 4321, 4321)
        with pytest.raises(ConfigurationError, match=r"belongs to another user \(id 4321\)"):
            find(None)
        assert find(path) == path

    @pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a link away")
    def test_nor_a_link_of_another_user_that_leads_to_an_own_one(self, place, tmp_path):
        (tmp_path / "own.toml").write_text("")
        (place / "novabackup.toml").symlink_to(tmp_path / "own.toml")
        assert find(None) == place / "novabackup.toml"
        os.lchown(place / "novabackup.toml", 4321, 4321)
        with pytest.raises(ConfigurationError, match=r"belongs to another user \(id 4321\)"):
            find(None)
