"""Stores in awkward places give one clear error each, and lose nothing."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

import nova
import trees
from nobody import as_nobody, let_pass
from novabackup import ConfigurationError, IndexStore, IntegrityError, Repository, RollbackError, recover, snapshot
from novabackup.components import Files
from novabackup.errors import causes
from novabackup.format.records import Journal, encode
from novabackup.storage import open_storage
from novabackup.testing import FaultyStorage, Then
from novabackup.transaction.journal import JOURNAL_KEY
from novabackup.transaction.owner import myself


@pytest.fixture
def reachable(folder: Path) -> Path:
    """The store, in folders that everybody may pass."""
    let_pass(folder)
    return folder


def test_a_read_only_store_cannot_be_guarded_and_stays_as_it_is(reachable):
    before = nova.contents(reachable)
    reachable.chmod(0o555)

    def work() -> None:
        with pytest.raises(PermissionError, match="vector_db"), snapshot(IndexStore(reachable)):
            raise AssertionError("the block ran")

    assert as_nobody(work) == 0
    reachable.chmod(0o755)
    assert nova.contents(reachable) == before


def test_a_read_only_store_can_be_backed_up_elsewhere(reachable, tmp_path):
    (tmp_path / "backups").mkdir(mode=0o777)
    (tmp_path / "backups").chmod(0o777)
    reachable.chmod(0o555)
    Repository(tmp_path / "first").backup(IndexStore(reachable))  # imports what a child without rights cannot

    def work() -> None:
        store = IndexStore(reachable, components=[Files(name) for name in nova.FILES])
        Repository(tmp_path / "backups").backup(store).verify()

    assert as_nobody(work) == 0
    point = Repository(tmp_path / "backups")["latest"]
    assert trees.held(point) == nova.contents(reachable)


def test_a_store_behind_a_link_is_guarded(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    before = nova.contents(folder)
    with pytest.raises(RuntimeError), snapshot(IndexStore(tmp_path / "link")):
        nova.ingest(folder, nova.texts(1, 20))
        raise RuntimeError
    assert nova.contents(folder) == before


def test_a_file_behind_a_link_within_the_store_keeps_its_link(folder, store):
    (folder / "versions").mkdir()
    (folder / "metadata.json").rename(folder / "versions" / "7.json")
    (folder / "metadata.json").symlink_to("versions/7.json")
    before = nova.contents(folder)
    with pytest.raises(RuntimeError), snapshot(store):
        nova.ingest(folder, nova.texts(1, 20))
        raise RuntimeError
    assert nova.contents(folder) == before
    assert (folder / "metadata.json").is_symlink()


def test_a_file_behind_a_link_out_of_the_store_is_refused(folder, store, tmp_path):
    (folder / "metadata.json").rename(tmp_path / "metadata.json")
    (folder / "metadata.json").symlink_to(tmp_path / "metadata.json")
    with pytest.raises(ConfigurationError, match="link"), snapshot(store):
        raise AssertionError("the block ran")
    assert (tmp_path / "metadata.json").exists()
    assert recover(store) is None


def test_a_garbage_journal_is_not_guessed_at(folder, store):
    before = nova.contents(folder)
    (folder / ".novabackup").mkdir(exist_ok=True)
    (folder / ".novabackup" / "journal.json").write_text("garbage")
    for use in (lambda: snapshot(store).__enter__(), lambda: recover(store)):
        with pytest.raises(IntegrityError, match="The journal says which snapshot"):
            use()
    assert nova.contents(folder) == before


def test_a_journal_that_names_a_lost_repository_says_what_to_do(folder, store, tmp_path):
    owner = myself("then")
    journal = Journal(
        owner=owner, repository=str(tmp_path / "lost"), phase="block", snapshot="20260101T000000Z-" + "0" * 20
    )
    open_storage(folder).write(JOURNAL_KEY, [encode(journal)])
    before = nova.contents(folder)
    with pytest.raises(RollbackError, match="recover"):
        recover(store)
    with pytest.raises(RollbackError, match="lost"), snapshot(store):
        raise AssertionError("the block ran")
    assert nova.contents(folder) == before


@pytest.mark.parametrize("of_the_block", ["the same", "raised from it", "its cause"])
def test_an_error_that_the_rollback_meets_again_does_not_stop_it_from_ending(folder, of_the_block):
    full = OSError(errno.ENOSPC, "no space left")
    wrapped = ValueError("the ingest failed")

    disk_full = threading.Event()

    def fault() -> None:
        if disk_full.is_set():
            raise full  # the same instance each time

    storage = FaultyStorage(open_storage(folder), 1, fault, then=Then.BROKEN)
    with pytest.raises(RollbackError, match="no space left") as caught, snapshot(IndexStore(storage)):
        nova.ingest(folder, nova.texts(1, 20))
        disk_full.set()
        if of_the_block == "the same":
            full.__cause__ = wrapped
            wrapped.__cause__ = full
            raise full
        if of_the_block == "raised from it":
            raise wrapped from full
        full.__cause__ = wrapped
        raise full
    assert full in causes(caught.value)
    assert recover(IndexStore(folder)) is not None


def test_a_rollback_that_cannot_finish_leaves_the_journal_for_recover(folder, store):
    before = nova.contents(folder)
    packs = folder / "backups" / "packs"
    with pytest.raises(RollbackError, match="recover") as caught, snapshot(store):
        nova.ingest(folder, nova.texts(1, 20))
        packs.rename(folder / "backups" / "hidden")
        raise ValueError("the ingest failed")
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__
    assert ValueError in causes
    hidden = folder / "backups" / "hidden"
    for path in [path for path in packs.rglob("*") if path.is_file()]:
        path.rename(hidden / path.parent.name / path.name) if (hidden / path.parent.name).exists() else None
    for path in hidden.rglob("*"):
        if path.is_file():
            (packs / path.parent.name).mkdir(parents=True, exist_ok=True)
            path.replace(packs / path.parent.name / path.name)
    assert recover(store).phase == "rollback"
    assert nova.contents(folder) == before


def test_owners_come_back_where_permitted(folder, store):
    if os.geteuid() == 0:
        os.chown(folder / "metadata.json", 1234, 5678)
    status = (folder / "metadata.json").stat()
    with pytest.raises(RuntimeError), snapshot(store):
        (folder / "metadata.json").unlink()
        nova.write_metadata(folder, nova.texts(3))
        raise RuntimeError
    again = (folder / "metadata.json").stat()
    assert (again.st_uid, again.st_gid) == (status.st_uid, status.st_gid)
