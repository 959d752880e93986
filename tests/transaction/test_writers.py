"""Of several writers only one is in the store at a time: threads, tasks, processes, hosts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading

import attrs
import pytest

import nova
from novabackup import IndexStore, Repository, RollbackError, StoreBusyError, recover, snapshot
from novabackup.format.records import Journal, Owner, decode, encode
from novabackup.storage import open_storage
from novabackup.transaction import journal
from novabackup.transaction.journal import JOURNAL_KEY, acquire
from novabackup.transaction.owner import myself


def run(code: str, *arguments: object) -> subprocess.Popen:
    """Start another Python process that can use the small Nova."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


GUARD_UNTIL_TOLD = """
    import sys
    from novabackup import IndexStore, snapshot
    with snapshot(IndexStore(sys.argv[1])):
        print("in", flush=True)
        sys.stdin.readline()
"""


def test_another_process_is_told_who_is_at_work(folder, store):
    other = run(GUARD_UNTIL_TOLD, folder)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(StoreBusyError, match=f"process {other.pid} .*phase block"), snapshot(store):
        pass
    other.communicate("go\n")
    assert other.returncode == 0


def test_a_plain_backup_refuses_while_another_process_ingests(folder, store):
    other = run(GUARD_UNTIL_TOLD, folder)
    other.stdout.readline()
    with pytest.raises(StoreBusyError):
        Repository(folder / "backups").backup(store)
    other.communicate("go\n")
    assert Repository(folder / "backups").backup(store)


def test_a_writer_can_wait_for_another(folder, store):
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with snapshot(IndexStore(folder)):
            entered.set()
            leave.wait()
            nova.ingest(folder, nova.texts(1, 20))

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    with pytest.raises(StoreBusyError), snapshot(store):
        pass
    leave.set()
    with snapshot(store, timeout=60):
        nova.ingest(folder, nova.texts(1, 21))
    thread.join()
    assert store.inspect()["metadata.json"].count == 22


INGEST_OFTEN = """
    import sys, pathlib
    sys.path.insert(0, sys.argv[2])
    import nova
    from novabackup import IndexStore, snapshot
    folder = pathlib.Path(sys.argv[1])
    for _ in range(3):
        with snapshot(IndexStore(folder), timeout=300):
            nova.ingest(folder, [f"from {sys.argv[3]}"])
"""


def test_ingests_of_several_processes_are_all_there_once(folder, store, request):
    writers = [run(INGEST_OFTEN, folder, request.config.rootpath / "tests", number) for number in range(3)]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert not store.check()
    assert store.inspect()["metadata.json"].count == 20 + 9


def test_async_with_rolls_back_and_leaves_the_event_loop_free(folder, store):
    before = nova.contents(folder)

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        with pytest.raises(RuntimeError):
            async with snapshot(store):
                during_enter = ticks
                nova.ingest(folder, nova.texts(1, 20))
                raise RuntimeError
        ticking.cancel()
        assert during_enter > 1
        assert ticks > during_enter

    asyncio.run(main())
    assert nova.contents(folder) == before


def test_a_cancelled_task_rolls_back(folder, store):
    before = nova.contents(folder)

    async def main() -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with snapshot(store):
                nova.ingest(folder, nova.texts(1, 20))
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert nova.contents(folder) == before
    assert recover(store) is None


def test_a_task_that_is_cancelled_while_it_enters_leaves_nothing_behind(folder, store):
    async def main() -> None:
        async def work() -> None:
            async with snapshot(store):
                pytest.fail("the block ran although the task was cancelled")

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    with snapshot(store):
        pass


def test_two_tasks_take_turns(folder, store):
    async def add(number: int) -> None:
        async with snapshot(IndexStore(folder), timeout=60):
            nova.ingest(folder, nova.texts(1, number))

    async def main() -> None:
        await asyncio.gather(add(20), add(21))

    asyncio.run(main())
    assert store.inspect()["metadata.json"].count == 22


def test_coroutine_functions_can_be_decorated(folder, store):
    @snapshot(store)
    async def add(count: int) -> int:
        nova.ingest(folder, nova.texts(count, 20))
        if count > 1:
            raise ValueError("too many")
        return count

    assert asyncio.run(add(1)) == 1
    with pytest.raises(ValueError, match="too many"):
        asyncio.run(add(2))
    assert store.inspect()["metadata.json"].count == 21


# -- owners on other hosts: their journal is all that can be seen of them
# ------------------------------------------------


def elsewhere(**changes: object) -> Owner:
    """Describe a writer on a host that cannot be looked into."""
    return attrs.evolve(myself("there"), host="other-host", boot="another-boot", token="0" * 32, **changes)


def leave_journal(folder, owner: Owner, repository: Repository, phase: str, snapshot_id: str) -> None:
    journal = Journal(owner=owner, repository=repository.url, phase=phase, snapshot=snapshot_id)
    open_storage(folder).write(JOURNAL_KEY, [encode(journal)])


def test_a_silent_owner_on_another_host_is_taken_over_after_a_lease(folder, store):
    repository = Repository(folder / "backups")
    point = repository.backup(store)
    before = nova.contents(folder)
    nova.write_metadata(folder, nova.texts(7))
    leave_journal(folder, elsewhere(), repository, "block", point.id)

    held = acquire(store.storage, repository.url, context="here", timeout=None, single_writer=False, lease=0.5)
    assert held.inherited.phase == "block"
    assert held.inherited.snapshot == point.id
    held.abandon()

    done = recover(store)
    assert done.snapshot == point.id
    assert nova.contents(folder) == before


def test_an_owner_that_came_while_one_waited_is_taken_over_too_when_it_falls_silent(folder, store, monkeypatch):
    repository = Repository(folder / "backups")
    leave_journal(folder, elsewhere(), repository, "backup", "")
    later = attrs.evolve(elsewhere(), token="1" * 32)

    def another_takes_its_turn(_waited: float) -> float:
        monkeypatch.setattr(journal, "pause", lambda _waited: 0.05)
        leave_journal(folder, later, repository, "backup", "")
        return 0.0

    monkeypatch.setattr(journal, "pause", another_takes_its_turn)
    held = acquire(store.storage, repository.url, context="here", timeout=600, single_writer=False, lease=0.5)
    assert held.inherited.owner == later
    held.release()


def test_an_owner_on_another_host_that_beats_is_alive(folder, store):
    repository = Repository(folder / "backups")
    leave_journal(folder, elsewhere(), repository, "block", "")
    stop = threading.Event()

    def beat() -> None:
        storage, number = open_storage(folder), 0
        while not stop.is_set():
            number += 1
            journal = Journal(owner=elsewhere(), repository=repository.url, phase="block", beat=number)
            storage.write(JOURNAL_KEY, [encode(journal)])

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StoreBusyError, match="other-host"):
            acquire(store.storage, repository.url, context="here", timeout=None, single_writer=False, lease=3600)
    finally:
        stop.set()
        thread.join()


def test_an_owner_before_a_reboot_of_this_host_is_dead(folder, store):
    repository = Repository(folder / "backups")
    point = repository.backup(store)
    before = nova.contents(folder)
    (folder / "metadata.json").unlink()
    leave_journal(folder, attrs.evolve(myself("then"), boot="the-boot-before"), repository, "block", point.id)
    assert recover(store).snapshot == point.id
    assert nova.contents(folder) == before


def test_a_process_that_was_taken_for_dead_is_told_and_touches_nothing(folder, store):
    guard = snapshot(store)
    with pytest.raises(StoreBusyError, match="took this process for dead"), guard:
        storage = open_storage(folder)
        held = decode(storage.read(JOURNAL_KEY), Journal, "")
        storage.write(JOURNAL_KEY, [encode(attrs.evolve(held, owner=elsewhere()))])
        nova.ingest(folder, nova.texts(1, 20))
        written = nova.contents(folder)
    assert nova.contents(folder) == written
    assert decode(open_storage(folder).read(JOURNAL_KEY), Journal, "").owner.host == "other-host"


def test_a_journal_that_beats_can_still_be_released(folder, store):
    held = acquire(store.storage, "repository", context="here", timeout=None, single_writer=False, lease=0.02)
    seen = held.journal.beat
    while held.journal.beat < seen + 5:
        held.update(phase="block")
    held.release()
    assert recover(store) is None


def test_a_plain_backup_of_an_interrupted_ingest_is_refused(folder, store):
    repository = Repository(folder / "backups")
    point = repository.backup(store)
    leave_journal(folder, attrs.evolve(myself("then"), pid=0), repository, "block", point.id)
    with pytest.raises(RollbackError, match="recover"):
        repository.backup(store)
