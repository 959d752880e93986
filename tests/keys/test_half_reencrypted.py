"""While the data key is being replaced, whoever has another key can do no harm, however far that has come."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from telling import SECRET

import trees
from novabackup import ConfigurationError, DecryptionError, Repository
from novabackup.keys import Passphrase
from novabackup.objects.condemned import condemn
from novabackup.storage import open_storage
from novabackup.testing import FaultyStorage, Moment, Then, fail_with


@pytest.fixture
def stages(repository, again):
    """Every state in which a reencryption can be interrupted, beside another key; gives each in turn."""
    repository.keys.add(Passphrase("bob"), "bob")
    repository.forget([repository.snapshots()[0]])
    repository.pin("latest", "as delivered")
    condemn(repository._objects.access, [])
    mine = next(key.id for key in again().keys if key.current)
    whole = trees.files(repository.url)
    counting = FaultyStorage(open_storage(repository.url))
    Repository(counting, key=Passphrase(SECRET)).reencrypt()
    ways = {line.partition(" ")[0] for line in counting.log}
    assert {"write", "delete"} <= ways
    changes = [number for number, line in enumerate(counting.log, 1) if line.startswith(("write", "add", "delete"))]

    def each():
        for at in changes:
            trees.put_back(repository.url, whole)
            fault = fail_with(OSError(errno.EIO, "gone"))
            broken = FaultyStorage(open_storage(repository.url), at, fault, Moment.AFTER, Then.BROKEN)
            with pytest.raises(OSError, match="gone"):
                Repository(broken, key=Passphrase(SECRET)).reencrypt()
            yield mine

    return each()


def test_the_key_that_alone_opens_everything_is_never_removed(again, stages):
    refused = 0
    for mine in stages:
        try:
            again().keys.remove(mine)
        except ConfigurationError:
            refused += 1
            continue
        found = again("bob")
        assert len(found.snapshots()) == 2
        for point in found:
            point.verify()
    assert refused


def test_a_repair_by_another_key_touches_nothing_that_it_cannot_open(repository, again, stages):
    named = 0
    for _mine in stages:
        try:
            done = again("bob").repair()
        except DecryptionError:
            continue  # it opens nothing any more
        named += any("sealed with one of the data keys" in loss.message for loss in done.lost)
        assert not list((Path(repository.url) / "damaged").rglob("*")), done
        again().reencrypt()
        assert len(again().snapshots()) == 2
        assert [pin and pin.message for pin in again().pins().values()] == ["as delivered"]
        assert not again().check(read_data_subset="100%")
    assert named
