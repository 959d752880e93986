"""The numbers say what is so, also when nothing can be read, clocks are wrong, or names are odd."""

from __future__ import annotations

import os
import stat
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import nova
from novabackup import CheckFailedError, IndexStore, Repository, snapshot
from novabackup.errors import ConfigurationError
from novabackup.format.records import Point, Problem, SnapshotRecord
from novabackup.integrations.errors import MetricsError
from novabackup.integrations.metrics import (
    HELP,
    Look,
    Metric,
    Pushgateway,
    Sample,
    Textfile,
    derive,
    exposition,
    measure,
)
from novabackup.integrations.runs import Run
from novabackup.repository.snapshot import Origin, Snapshot

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
STORE = "/opt/nova/vector_db"
URL = "/mnt/backups"


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def taken(hours: float, *tags: str, store: str = STORE, problems: int = 0) -> Snapshot:
    record = SnapshotRecord(
        repository="0" * 32,
        time=ago(hours),
        store=store,
        declared=("a",),
        files=(),
        tags=tags,
        problems=(Problem(code="damaged"),) * problems,
    )
    return Snapshot(Origin(objects=None, open_store=None, open_repository=None), Point(f"{hours}", record))


def ran(hours: float, kind="backup", error="", store=STORE, repository=URL) -> Run:
    return Run(kind=kind, store=store, repository=repository, ended=ago(hours), duration=2.5, error=error)


def numbers(metrics) -> dict[str, float | dict[tuple[str, ...], float]]:
    """Give each metric without its prefix: a number, or numbers by the labels other than store and repository."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for metric in metrics:
        for sample in metric.samples:
            key = tuple(value for name, value in sample.labels.items() if name not in ("store", "repository"))
            found.setdefault(metric.name.removeprefix("nova_backup_"), {})[key] = sample.value
    return {name: values[()] if values.keys() == {()} else values for name, values in found.items()}


def derived(*snapshots: Snapshot, runs=(), readable=True, now=NOW):
    return numbers(derive(Look(url=URL, readable=readable, snapshots=snapshots), runs, now))


class TestMeasuring:
    def test_a_real_repository(self, folder, store, repository):
        repository.backup(store, tags=["daily"])
        nova.ingest(folder, nova.texts(5, first=20))
        with snapshot(store, repository):
            pass
        with pytest.raises(CheckFailedError), snapshot(store, repository):
            nova.write_faiss(folder, nova.texts(3))
        newest, failed = repository.snapshots()[-2:]
        now = newest.time + timedelta(seconds=90)
        metrics = measure(repository, now=now)
        found = numbers(metrics)
        assert found.pop("repository_bytes") == sum(
            path.stat().st_size for path in Path(repository.url).rglob("packs/*/*")
        )
        assert found.pop("added_bytes") == newest.added
        assert found == {
            "success": 1,
            "timestamp": newest.time.timestamp(),
            "age_seconds": 90,
            "size_bytes": sum(len(content) for content in nova.contents(folder).values()),
            "files": 3,
            "entries": {(file,): 25 for file in nova.FILES},
            "problems": 0,
            "healthy_timestamp": newest.time.timestamp(),
            "rollback_timestamp": failed.time.timestamp(),
            "snapshots": 4,
            "tag_snapshots": {("daily",): 1, ("failed-ingest",): 1, ("pre-ingest",): 2},
            "tag_timestamp": {
                ("daily",): repository.snapshots()[0].time.timestamp(),
                ("failed-ingest",): failed.time.timestamp(),
                ("pre-ingest",): newest.time.timestamp(),
            },
            "repository_up": 1,
            "damaged_snapshots": 0,
        }
        assert {sample.labels["repository"] for metric in metrics for sample in metric.samples} == {repository.url}

    def test_a_damaged_snapshot_is_counted(self, store, repository):
        repository.backup(store)
        repository.backup(store)
        next(Path(repository.url).glob("snapshots/*")).write_text("{}")
        found = numbers(measure(Repository(repository.url)))
        assert (found["damaged_snapshots"], found["snapshots"]) == (1, 1)

    def test_a_repository_that_is_not_there_is_a_number_and_no_error(self, repository):
        assert numbers(measure(repository)) == {"repository_up": 0}

    def test_one_store_of_several(self, folder, store, repository, tmp_path):
        other = IndexStore(tmp_path / "other")
        nova.build(tmp_path / "other", nova.texts(3))
        for each in (store, other):
            repository.backup(each)
        runs = [
            ran(0, "verify", store="", repository=repository.url),
            ran(0, "drill", store=store.url, repository=repository.url),
            ran(0, "backup", store=other.url, repository=repository.url),
            ran(0, "copy", store=store.url, repository="another"),
        ]
        metrics = measure(repository, runs, store=store)
        found = {sample.labels.get("store", "") for metric in metrics for sample in metric.samples}
        assert found == {"", store.url}
        assert numbers(metrics)["run_success"] == {("verify",): 1, ("drill",): 1}


class TestSuccess:
    def test_a_snapshot_is_a_success(self):
        assert derived(taken(1))["success"] == 1

    def test_a_failure_after_it_leaves_no_snapshot_and_is_seen_all_the_same(self):
        found = derived(taken(5), runs=[ran(5), ran(1, error="OSError: disk full")])
        assert found["success"] == 0
        assert found["timestamp"] == ago(5).timestamp()
        assert found["age_seconds"] == 5 * 3600
        assert found["run_timestamp"] == {("backup",): ago(5).timestamp()}
        assert found["run_attempt_timestamp"] == {("backup",): ago(1).timestamp()}
        assert found["run_duration_seconds"] == {("backup",): 2.5}

    def test_a_backup_that_failed_after_its_snapshot_was_written_is_a_failure(self):
        assert derived(taken(1.001), runs=[ran(1, error="HookError")])["success"] == 0

    def test_a_snapshot_after_a_failure_is_a_success(self):
        assert derived(taken(1, "pre-ingest"), runs=[ran(2, error="OSError")])["success"] == 1

    @pytest.mark.parametrize("tag", ["failed-ingest", "before-restore"])
    def test_what_was_kept_of_a_broken_store_is_no_backup(self, tag):
        found = derived(taken(1, tag))
        assert found["success"] == 0
        assert not found.keys() & {"timestamp", "age_seconds", "size_bytes", "healthy_timestamp"}
        assert derived(taken(1, tag), taken(3))["timestamp"] == ago(3).timestamp()

    def test_only_failures_and_no_backup(self):
        assert "timestamp" not in derived(runs=[ran(1, error="OSError")])
        assert derived(runs=[ran(1, error="OSError")])["success"] == 0

    def test_what_is_known_of_a_repository_that_cannot_be_read(self):
        found = derived(runs=[ran(4), ran(1, error="OSError")], readable=False)
        assert found["repository_up"] == 0
        assert found["success"] == 0
        assert found["timestamp"] == ago(4).timestamp()
        assert "snapshots" not in found

    def test_backups_that_were_recorded_and_are_gone_count_no_more(self):
        assert "timestamp" not in derived(runs=[ran(1)])

    def test_a_clock_that_was_ahead_hides_no_failure(self):
        found = derived(taken(-9000), runs=[ran(-9000), ran(1, error="OSError")])
        assert found["success"] == 0
        assert found["age_seconds"] == 0
        assert found["timestamp"] == ago(-9000).timestamp()  # so that BackupClockAhead fires
        assert found["run_success"] == {("backup",): 0}
        assert "run_timestamp" not in found

    def test_clocks_that_differ_by_little_do_no_harm(self):
        assert derived(taken(-0.05))["success"] == 1

    def test_an_unhealthy_backup_is_a_backup_with_problems(self):
        found = derived(taken(2), taken(1, problems=2))
        assert (found["success"], found["problems"]) == (1, 2)
        assert found["healthy_timestamp"] == ago(2).timestamp()

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8))
    def test_success_is_what_the_newest_evidence_says(self, story):
        """Each step is a run that leaves a snapshot or not, and is recorded or not."""
        steps = [(len(story) - number, good, noted) for number, (good, noted) in enumerate(story) if good or noted]
        snapshots = [taken(hours + 0.1) for hours, good, _noted in steps if good]
        runs = [ran(hours, error="" if good else "OSError") for hours, good, noted in steps if noted]
        assert derived(*snapshots, runs=reversed(runs)).get("success") == (steps[-1][1] if steps else None)


class TestExposition:
    def test_what_it_looks_like(self):
        metrics = derive(Look(url='C:\\back"ups\n', stored=12), [], NOW)
        assert exposition(metrics).splitlines()[:5] == [
            "# HELP nova_backup_repository_up Whether the repository could be read (1) or not (0).",
            "# TYPE nova_backup_repository_up gauge",
            'nova_backup_repository_up{repository="C:\\\\back\\"ups\\n"} 1',
            "# HELP nova_backup_repository_bytes Bytes of all packs in the repository.",
            "# TYPE nova_backup_repository_bytes gauge",
        ]

    @given(
        st.dictionaries(st.sampled_from(["store", "tag", "file"]), st.text()),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    def test_what_others_read_is_what_was_written(self, labels, value):
        metric = Metric(name="nova_backup_entries", samples=(Sample(labels=labels, value=value),))
        (family,) = text_string_to_metric_families(exposition([metric]))
        (sample,) = family.samples
        assert (sample.name, sample.value) == ("nova_backup_entries", value)
        assert sample.labels == {name: text.encode(errors="replace").decode() for name, text in labels.items()}


class TestTextfile:
    def test_it_is_replaced_in_one_step_and_others_may_read_it(self, tmp_path):
        path = tmp_path / "textfile" / "nova.prom"
        before = os.umask(0o077)
        try:
            for stored in (1, 2):
                Textfile(path)(derive(Look(url=URL, stored=stored), [], NOW))
        finally:
            os.umask(before)
        assert f'nova_backup_repository_bytes{{repository="{URL}"}} 2\n' in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert list(path.parent.iterdir()) == [path]

    def test_a_name_that_is_not_collected_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"ends with \.prom"):
            Textfile("nova.txt")


def pushed(url: str) -> dict[tuple[str, str, str], float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, sample.labels["job"], sample.labels.get("repository", "")): sample.value
        for family in families
        if family.name in HELP
        for sample in family.samples
    }


class TestPushgateway:
    def test_a_push_replaces_what_was_pushed_of_the_same_repository(self, pushgateway_url):
        push = Pushgateway(pushgateway_url, job="replaces")
        push(derive(Look(url="/a/b", stored=1), [], NOW))
        push(derive(Look(url="s3://c", stored=2), [], NOW))
        push(derive(Look(url="/a/b", readable=False), [], NOW))
        found = {key[0::2]: value for key, value in pushed(pushgateway_url).items() if key[1] == "replaces"}
        assert found == {
            ("nova_backup_repository_up", "/a/b"): 0,
            ("nova_backup_repository_up", "s3://c"): 1,
            ("nova_backup_repository_bytes", "s3://c"): 2,
            ("nova_backup_damaged_snapshots", "s3://c"): 0,
        }

    def test_odd_names_of_groups(self, pushgateway_url):
        for job in ("a/b", "c d?&#%", "ü"):
            Pushgateway(pushgateway_url, job=job, grouping={"instance": "", "place": "/x/"})(
                derive(Look(url='"\\\n'), [], NOW)
            )
        assert {job for _name, job, _repository in pushed(pushgateway_url)} >= {"a/b", "c d?&#%", "ü"}

    def test_everything_that_is_measured_is_taken(self, pushgateway_url, folder, store, repository):
        nova.write_faiss(folder, nova.texts(3))
        repository.backup(store, tags=["daily"])
        with pytest.raises(CheckFailedError):
            repository.drill(repository["latest"], rto=1e-3)
        runs = [ran(1, "verify", repository=repository.url), ran(2, "check", "failed", repository=repository.url)]
        metrics = measure(repository, runs)
        Pushgateway(pushgateway_url, job="everything")(metrics)
        names = {name for name, job, _repository in pushed(pushgateway_url) if job == "everything"}
        assert (
            names
            == {metric.name for metric in metrics}
            == HELP.keys()
            - {
                "nova_backup_healthy_timestamp",
                "nova_backup_rollback_timestamp",
            }
        )

    def test_what_it_does_not_take_is_an_error(self, pushgateway_url):
        bad = Metric(name="nova_backup_files", samples=(Sample(labels={"no label": ""}, value=1),))
        with pytest.raises(MetricsError, match="HTTP 400"):
            Pushgateway(pushgateway_url, job="bad")([bad])

    def test_headers_are_sent_and_no_answer_is_an_error(self, answering):
        def answer(handler) -> None:
            handler.rfile.read(int(handler.headers["Content-Length"]))
            good = (handler.headers["Authorization"], handler.path) == ("Basic c2VjcmV0", "/push/metrics/job/x/a/b")
            handler.send_response(202 if good else 401)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        url = answering(answer) + "/push/"
        push = Pushgateway(url, job="x", grouping={"a": "b"}, headers={"Authorization": "Basic c2VjcmV0"})
        push([])
        assert "c2VjcmV0" not in repr(push)
        with pytest.raises(MetricsError, match="HTTP 401"):
            Pushgateway(url)([])
        with pytest.raises(MetricsError, match="found none: URLError"):
            Pushgateway("http://127.0.0.1:9")([])

    @pytest.mark.parametrize("grouping", [{"job": "a"}, {"a b": "c"}, {"a/b": "c"}])
    def test_groups_have_labels(self, grouping):
        with pytest.raises(ConfigurationError):
            Pushgateway("http://localhost:9091", grouping=grouping)
