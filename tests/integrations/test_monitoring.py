"""Runs are remembered, also those that fail, and whoever collects metrics hears of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from novabackup import NotFoundError, Repository, snapshot
from novabackup.integrations.metrics import Textfile
from novabackup.integrations.monitoring import Collector, Monitor
from novabackup.integrations.runs import Run, RunLog


class Kept(list):
    """A sink that keeps what it was given, by the name of the metric and the kind of work."""

    def __call__(self, metrics) -> None:
        self.append(
            {(metric.name.removeprefix("nova_backup_"), sample.labels.get("kind")): sample.value
             for metric in metrics for sample in metric.samples}
        )  # fmt: skip


@pytest.fixture
def told() -> Kept:
    return Kept()


@pytest.fixture
def monitor(repository, told, tmp_path) -> Monitor:
    seconds = iter(range(0, 10_000, 5))
    return Monitor(repository, tmp_path / "runs", sinks=[told], timer=lambda: float(next(seconds)))


def test_a_good_run_and_a_failed_one_are_told(monitor, store, repository, told):
    with monitor.observed("backup", store) as run:
        run.snapshot = repository.backup(store)
    assert (told[0]["success", None], told[0]["run_duration_seconds", "backup"]) == (1, 5)
    with pytest.raises(OSError, match="full"), monitor.observed("backup", store):
        raise OSError("disk full")
    assert told[1]["success", None] == 0
    assert told[1]["timestamp", None] == told[0]["timestamp", None]
    assert told[1]["run_timestamp", "backup"] < told[1]["run_attempt_timestamp", "backup"]
    good, last = sorted(monitor.log.runs(), key=lambda run: run.ended)
    assert (good.snapshot, good.error) == (repository["latest"].id, "")
    assert (last.snapshot, last.error) == ("", "OSError: disk full")


def test_a_failure_over_a_name_that_is_no_utf_8_is_remembered(monitor, store, told):
    with pytest.raises(OSError, match="changed"), monitor.observed("backup", store):
        raise OSError("caf\udce9: changed")
    assert told[0]["run_success", "backup"] == 0
    assert [run.error for run in monitor.log.runs()] == [r"OSError: caf\udce9: changed"]


def test_another_process_remembers(monitor, store, repository, told, tmp_path):
    with pytest.raises(KeyboardInterrupt), monitor.observed("drill", store):
        raise KeyboardInterrupt
    other = Monitor(Repository(repository.url), tmp_path / "runs", sinks=[told])
    other.publish()
    assert told[-1]["run_success", "drill"] == 0


def test_the_last_success_is_not_forgotten_when_the_repository_is_gone(store, told, tmp_path):
    class Gone(Repository):
        def __len__(self) -> int:
            raise PermissionError(13, "Permission denied")

    url = tmp_path / "repository"
    log = RunLog(tmp_path / "runs")
    with Monitor(Repository(url), log, sinks=[told]).observed("backup", store):
        Repository(url).backup(store)
    with pytest.raises(PermissionError), Monitor(Gone(url), log, sinks=[told]).observed("backup", store):
        raise PermissionError
    assert told[1]["success", None] == told[1]["repository_up", None] == 0
    assert abs(told[1]["timestamp", None] - told[0]["timestamp", None]) < 60


def test_what_cannot_be_told_breaks_nothing(store, repository, told, tmp_path, caplog):
    (tmp_path / "file").touch()
    monitor = Monitor(repository, tmp_path / "runs", sinks=[Textfile(tmp_path / "file/nova.prom"), told])
    with monitor.observed("backup", store):
        repository.backup(store)
    assert told[0]["success", None] == 1
    assert "did not take the metrics" in caplog.text
    with pytest.raises(Exception, match="expected a folder"):
        monitor.publish()


def test_what_cannot_be_remembered_is_told_all_the_same(store, repository, told, tmp_path, caplog):
    log = RunLog(tmp_path / "runs")
    (tmp_path / "runs").touch()
    with pytest.raises(NotFoundError), Monitor(repository, log, sinks=[told]).observed("backup", store):
        repository["latest"]
    assert told[0]["success", None] == 0
    assert "could not be recorded" in caplog.text


def test_a_block_that_was_not_entered_has_no_snapshot(monitor, store):
    with pytest.raises(ValueError, match="no"), monitor.observed("ingest", store) as run:
        run.snapshot = snapshot(store, repository=monitor.repository)
        raise ValueError("no")
    assert monitor.log.runs()[0].snapshot == ""


def test_a_registry_asks_at_each_scrape_and_not_when_it_is_made(monitor, store, repository):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector(monitor))
    assert b'nova_backup_repository_up{repository="' + repository.url.encode() + b'"} 0.0' in generate_latest(registry)
    with monitor.observed("backup", store):
        repository.backup(store)
    assert registry.get_sample_value("nova_backup_success", {"store": store.url, "repository": repository.url}) == 1
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector(monitor))


class TestLog:
    def run(self, minutes: int = 0, **options) -> Run:
        return Run(**{
            "kind": "backup",
            "store": "a",
            "repository": "b",
            "ended": datetime(2026, 5, 1, tzinfo=UTC) + timedelta(minutes=minutes),
            "duration": 1.5,
            **options,
        })  # fmt: skip

    @pytest.mark.parametrize("place", ["{folder}", "memory://runs-of-a-test"])
    def test_the_last_and_the_last_good_one_are_kept_of_each_kind(self, tmp_path, place):
        log = RunLog(place.format(folder=tmp_path / "runs"))
        assert log.runs() == ()
        runs = [
            self.run(1),
            self.run(2),
            self.run(3, error="OSError: full\n\ud800"),
            self.run(4, error="OSError: full"),
            self.run(5, kind="drill", snapshot="20260501T000000Z-0"),
            self.run(6, store="c"),
        ]
        for run in [*runs[:2], *runs[3:]]:
            log.record(run)
        assert set(log.runs()) == {runs[1], *runs[3:]}

    def test_damage_is_passed_over(self, tmp_path, caplog):
        log = RunLog(tmp_path)
        log.record(self.run(error="OSError"))
        log.record(self.run(kind="drill", error="OSError"))
        (path,) = tmp_path.glob("backup-*")
        for damage in (b"", b"{}", b"[" * 60_000, b" " * (1 << 20), path.read_bytes().replace(b"backup", b"rm -rf")):
            path.write_bytes(damage)
            assert [run.kind for run in log.runs()] == ["drill"]
        assert caplog.text.count("is skipped") == 5
        (tmp_path / "other.json").write_text("{}")
        assert len(log.runs()) == 1

    def test_people_can_read_it(self, tmp_path):
        RunLog(tmp_path).record(self.run(error="OSError"))
        (path,) = tmp_path.iterdir()
        assert json.loads(path.read_text())["error"] == "OSError"

    @pytest.mark.parametrize("wrong", [{"kind": "bakup"}, {"ended": datetime(2026, 5, 1)}, {"duration": -1.0}])
    def test_runs_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(ValueError):  # noqa: PT011
            self.run(**wrong)
