"""What pin, drill, verify with a level, and metrics do."""

from __future__ import annotations

import pytest

import nova
from novabackup import Repository
from novabackup.integrations import prometheus


@pytest.fixture
def snapshots(cli, store):
    """Ids of two snapshots of healthy states that differ."""
    first = cli("snapshot", "--json").json["snapshot"]["id"]
    nova.build(store, nova.texts(6))
    return first, cli("snapshot", "--json").json["snapshot"]["id"]


def test_what_is_pinned_stays_until_it_is_unpinned(cli, snapshots, place):
    old, _new = snapshots
    assert cli("pin", old, "--message", "before the move").code == 0
    assert Repository(place / "backups").pins()[old].message == "before the move"
    assert cli("forget", "--policy", "last 1", "--json").json["forgotten"] == []
    assert cli("unpin", old).code == 0
    assert cli("unpin", old).code == 2
    assert cli("forget", "--policy", "last 1", "--json").json["forgotten"] == [old]


def test_a_drill_chooses_an_old_snapshot_and_is_remembered(cli, snapshots):
    assert cli("drill", "--list").out.startswith("No drills in ")
    done = cli("drill", "--rto", "5m", "--command", "test -f metadata.json", "--json").json
    assert done["drill"]["snapshot"] == snapshots[0]
    assert (done["drill"]["status"], done["drill"]["rto_milliseconds"]) == (0, 300_000)
    assert cli("drill", snapshots[1], "--command", "false").code == 1
    assert [one["snapshot"] for one in cli("drill", "--list", "--json").json["drills"]] == list(snapshots)
    assert cli("drill", "--list").code == 1


def test_a_snapshot_is_opened_when_the_level_says_so(cli, store, snapshots):
    assert cli("verify", "--level", "structure").code == 0
    assert cli("verify", "--level", "open").code == 0
    nova.write_metadata(store, nova.texts(3))
    cli("snapshot")
    assert cli("verify", "--level", "hashes").code == 0
    assert "Note: count-mismatch was already found when the snapshot was taken" in cli("verify", "--level", "open").out
    assert cli("verify", "--level", "deep").code == 2


def test_metrics_are_printed_or_handed_over(cli, store, snapshots, place):
    said = cli("metrics")
    assert f'nova_backup_success{{repository="{place}/backups",store="{store}"}} 1\n' in said.out
    assert cli("metrics", "--textfile", "novabackup.prom").out.endswith("metrics are handed over\n")
    assert "nova_backup_success" in (place / "novabackup.prom").read_text()
    assert cli("metrics", "--textfile", "novabackup.txt").code == 2
    assert cli("metrics", "--push", "http://127.0.0.1:1").code == 7


def test_rules_and_dashboard_are_printed_as_they_come_with_the_package(cli, place):
    assert cli("monitoring", "rules").out == prometheus.alert_rules()
    assert cli("monitoring", "dashboard", "--json").json == {"dashboard": prometheus.dashboard()}
    assert cli("monitoring", "alarms").code == 2
