"""The public API as a type checker sees it. mypy reads this file; nobody runs it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

from fsspec.callbacks import Callback

from novabackup import (
    CheckFailedError,
    Drill,
    IndexStore,
    IntegrityError,
    Level,
    NovaBackupError,
    Pin,
    Policy,
    Probing,
    Problem,
    Recovery,
    Report,
    Repository,
    Snapshot,
    StoreBusyError,
    Verification,
    archives,
    checks,
    layouts,
    plan_recover,
    recover,
    retention,
    snapshot,
)
from novabackup.components import Bm25, Component, Faiss, Files, Metadata, Sqlite, Tree
from novabackup.keys import ExternalKey, Key, KeyFile, Passphrase
from novabackup.storage import Reader


def no_empty_index(reports: Sequence[Report]) -> Iterator[Problem]:
    for report in reports:
        assert_type(report.count, int | None)
        assert_type(report.problems, tuple[Problem, ...])
        if report.count == 0:
            yield Problem(code="empty", paths=(report.path,), message="expected entries, found none")


class Words(Component):
    def inspect(self, reader: Reader) -> Report:
        assert_type(reader.read(0, 1), bytes)
        return Report(component="Words", path=self.path, exists=True, size=reader.entry.size)


store = IndexStore("vector_db")
store = IndexStore(Path("vector_db"))
store = IndexStore("s3://bucket/nova/vector_db", storage_options={"anon": False}, single_writer=True)
store = IndexStore("vector_db", components=[Faiss("a"), Bm25("b"), Metadata("c"), Files("d/*", optional=True)])
store = IndexStore("vector_db", components=[*layouts.NOVA, Words("e")], checks=[*checks.DEFAULT, no_empty_index])

store = IndexStore("nova-nic", components=layouts.NOVA_INSTALLATION, exclude=[*layouts.LEFT_OUT, "**/*.tmp"])
store = IndexStore("nova-nic", components=[Tree("config"), Sqlite("query_log.db", timeout=9.0)])
assert_type(layouts.nova_installation(["logs"], frequencies=["daily"]), tuple[Component, ...])
assert_type(layouts.NOVA_PARTS[0].priority, layouts.Priority)

assert_type(store.url, str)
assert_type(store.inspect()["faiss_index.bin"], Report)
for report in store.inspect():
    assert_type(report, Report)
for problem in store.check(callback=Callback()):
    assert_type(problem, Problem)

with snapshot(store) as before:
    assert_type(before, Snapshot)
with snapshot(store, "s3://bucket/backups", tags=["nightly"], message="manuals of May", timeout=60) as before:
    assert_type(before, Snapshot)


async def ingest_later() -> None:
    async with snapshot(store) as point:
        assert_type(point, Snapshot)


@snapshot(store)
def ingest(folder: Path, *, limit: int = 0) -> int:
    return limit


@snapshot(store, tags=["async"])
async def ingest_async(folder: Path) -> str:
    return str(folder)


assert_type(ingest(Path(), limit=3), int)
ingest("a text")  # type: ignore[arg-type]
ingest(Path(), limits=3)  # type: ignore[call-arg]


async def call() -> None:
    assert_type(await ingest_async(Path()), str)


repo = Repository("vector_db/backups")
snap = repo.backup(store, tags=["daily"], message="of today", callback=Callback())
assert_type(snap, Snapshot)
assert_type(repo["latest"], Snapshot)
assert_type(repo.at(datetime.now().astimezone(), store=store), Snapshot)
assert_type(repo.usage().sharing, float)
assert_type(repo.create(), str)
assert_type("latest" in repo, bool)
assert_type(len(repo), int)
for found in repo.snapshots(tags=["daily"], store=store):
    assert_type(found, Snapshot)
with repo["20260125"] as found:
    assert_type(found, Snapshot)

assert_type(snap.id, str)
assert_type(snap.time, datetime)
assert_type(snap.tags, tuple[str, ...])
assert_type(snap.problems, tuple[Problem, ...])
assert_type(snap.versions, Mapping[str, str])
assert_type(snap.open("metadata.json"), io.BufferedReader)
assert_type(snap.verify(), Verification)
assert_type(snap.verify(Level.QUERIES, folder="/var/tmp").queries, int)
snap.verify("open").reports["faiss_index.bin"]
assert_type(snap.compatibility(store).loads, bool)
assert_type(repo.plan_drill(seed=1).snapshot, str)
assert_type(repo.drill(snap, command=["pytest", "tests"], rto=300), Drill)
assert_type(repo.drills(), tuple[Drill, ...])
IndexStore("vector_db", probing=Probing(queries=["brakes"], ask=lambda place, text: [(text, 1.0)]))
IndexStore("vector_db", probing=3)  # type: ignore[arg-type]
assert_type(snap.files["metadata.json"].size, int)
assert_type(snap.diff(found).changed, tuple[str, ...])
assert_type(snap.plan_restore().replaces, bool)
assert_type(snap.restore(to="/elsewhere", paths=["metadata.json"]).paths("write"), tuple[str, ...])
snap.restore(to=store)
snap.restore(to=3)  # type: ignore[arg-type]
Repository("s3://bucket/backups", storage_options={"anon": True}, storage_class="STANDARD_IA")
Repository("backups", compression="small")
Repository("backups", compression=9)  # type: ignore[arg-type]

keys: list[Key] = [
    Passphrase("a text"),
    Passphrase.from_env(),
    Passphrase.from_file(Path("passphrase")),
    Passphrase.from_command(["pass", "show", "nova"]),
    KeyFile("key"),
    ExternalKey(lambda secret: secret[::-1], decrypt=lambda token: token[::-1]),
]
assert_type(KeyFile.generate("key"), KeyFile)
sealed = Repository("sealed", key=keys[0])
Repository("sealed", key="a text")  # type: ignore[arg-type]
ExternalKey(str.encode, bytes.decode)  # type: ignore[arg-type]
for info in sealed.keys:
    assert_type((info.id, info.kind, info.label, info.time, info.current), tuple[str, str, str, datetime, bool])
assert_type(sealed.keys.add(keys[1], "in the safe"), str)
assert_type(sealed.keys.change(keys[2]), str)
sealed.keys.remove("0123456789abcdef")
assert_type(len(sealed.keys), int)
assert_type(sealed.reencrypt(callback=Callback()), tuple[str, ...])

copying = repo.plan_copy([snap, "20260125"], to=sealed)
assert_type((copying.copy, copying.there, copying.damaged), tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]])
assert_type(copying.size, int)
assert_type(repo.copy(copying, to=sealed, limit=1e6, callback=Callback()).copy, tuple[str, ...])
repo.copy(to=sealed)
repo.copy(sealed)  # type: ignore[call-arg]
mirroring = repo.plan_mirror(to=sealed, policy="daily 30")
assert_type(mirroring.copy.copy, tuple[str, ...])
assert_type(mirroring.forget.forgotten, tuple[str, ...])
assert_type(repo.mirror(mirroring, to=sealed).copy.there, tuple[str, ...])
repo.mirror(to=sealed, policy=Policy(monthly=12), limit=1e6, callback=Callback())

assert_type(snap.plan_thaw().size, int)
assert_type(snap.thaw(["metadata.json"], days=3, tier="Bulk", timeout=3600).readable, int)

assert_type(snap.export("archives").sha256, str)
assert_type(snap.export("s3://bucket/x.tar.gz", storage_options={}, callback=Callback()), archives.Exported)
old = archives.Archive("old.tar.gz", root="nova-nic", tz=UTC, bounds=archives.Bounds(members=10))
assert_type(repo.plan_import_archive(old, store).files, tuple[archives.Intake, ...])
assert_type(repo.import_archive(Path("old.tar.gz"), store, tags="old"), Snapshot)
assert_type(repo.plan_import_pre_ingest("vector_db/backups", store), tuple[archives.ImportPlan, ...])
assert_type(repo.import_pre_ingest(archives.PreIngest("vector_db/backups"), store)[0], Snapshot)
repo.import_archive(archives.PreIngest("x"), store)  # type: ignore[arg-type]

assert_type(recover(store), Recovery | None)
assert_type(plan_recover(store, repo), Recovery | None)
policy = Policy(last=3, daily=7, yearly="forever", tags={"pre-ingest": "7d", "nightly": {"daily": 30}})
assert_type(Policy.parse("last 3, tag pre-ingest 7d"), Policy)
assert_type(Policy.of({"last": 3, "tags": {"pre-ingest": "7d"}}), Policy)
assert_type(str(retention.LOCAL), str)
Policy(daily=1.5)  # type: ignore[arg-type]
Policy(keep=3)  # type: ignore[call-arg]
repo.pin(snap, "as delivered")
assert_type(repo.pins(), dict[str, Pin | None])
assert_type(snap.pinned, bool)
repo.unpin(snap.id)
plan = repo.plan_forget(policy)
for verdict in plan.verdicts:
    assert_type(verdict.kept, bool)
    assert_type(verdict.reasons, tuple[str, ...])
assert_type(plan.warnings, tuple[str, ...])
assert_type(repo.forget(plan), tuple[str, ...])
assert_type(repo.forget(repo.plan_forget("daily 30")), tuple[str, ...])
repo.plan_forget()
assert_type(repo.prune(grace=timedelta(days=2)).size, int)
for problem in repo.check(read_data_subset="10%"):
    assert_type(problem, Problem)

try:
    recover(store)
except (CheckFailedError, IntegrityError) as error:
    assert_type(error.problems, tuple[Problem, ...])
except StoreBusyError as busy:
    assert_type(isinstance(busy, NovaBackupError), bool)
