"""Whether all works: what the command probe looks at, and how it ends."""

from __future__ import annotations

import nova


def test_what_works_is_shown_with_its_answer(cli, live):
    said = cli("probe")
    assert (said.code, said.err) == (0, "")
    assert said.out.count("good  ") == 4
    for found in ("no problems", "it runs", "status healthy, vectors 10", nova.MANUALS[0]):
        assert found in " ".join(said.out.split()), found
    answers = cli("probe", "--json").json
    assert answers["store_problems"] == []
    assert [probe["error"] for probe in answers["probes"]] == [None, None, None]


def test_files_that_are_wrong_are_named_and_end_with_1(cli, live):
    (live.folder / "vector_db/metadata.json").write_text("[")
    said = cli("probe")
    assert said.code == 1
    assert "damaged (vector_db/metadata.json)" in said.out
    assert said.out.count("good  ") == 3, "the service has loaded them before"


def test_a_service_that_does_not_run_ends_with_7(cli, live, place):
    configuration = live.configuration.replace("/health", "/no-health")
    (place / "novabackup.toml").write_text(configuration)
    said = cli("probe", "--timeout", "1s", "--json")
    assert said.code == 7
    assert ["expected a healthy service" in (probe["error"] or "") for probe in said.json["probes"]] == [
        False,
        True,
        False,
    ]


def test_without_a_service_only_the_files_are_looked_at(cli, store):
    assert cli("probe").code == 0
    assert cli("probe", "--json").json["probes"] == []


def test_in_a_terminal_all_of_it_is_to_be_seen(terminal, live, place):
    screen = terminal("probe", columns=80)
    assert screen.end() == 0
    shown = " ".join(screen.text.split())
    for part in ("State What", "no problems", "it runs", "status healthy", "replace them below three"):
        assert part in shown
    assert max(len(line) for line in screen.text.splitlines()) <= 80
