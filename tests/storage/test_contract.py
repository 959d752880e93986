"""Every storage keeps the one contract."""

from __future__ import annotations

import uuid

import pytest

from novabackup.storage import Guarantees, open_storage
from novabackup.testing import FaultyStorage, StorageContract


class TestLocal(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path):
        return open_storage(tmp_path / "root")

    @pytest.fixture
    def other(self, tmp_path, storage):
        return open_storage(f"file://{tmp_path}/root")


class TestMemory(StorageContract):
    @pytest.fixture
    def url(self):
        return f"memory://{uuid.uuid4().hex}/store"

    @pytest.fixture
    def storage(self, url):
        return open_storage(url)

    @pytest.fixture
    def other(self, url):
        return open_storage(url)


class TestMoto(StorageContract):
    @pytest.fixture
    def storage(self, moto_place):
        return open_storage(*moto_place)

    @pytest.fixture
    def other(self, moto_place):
        return open_storage(*moto_place)

    def test_probe(self, storage):
        assert storage.probe() == Guarantees(exclusive_create=True, compare_and_swap=True)


class TestRclone(StorageContract):
    @pytest.fixture
    def storage(self, rclone_place):
        return open_storage(*rclone_place)

    @pytest.fixture
    def other(self, rclone_place):
        return open_storage(*rclone_place)

    def test_probe(self, storage):
        assert storage.probe() == Guarantees(exclusive_create=False, compare_and_swap=False)


class TestRadosgw(StorageContract):
    @pytest.fixture
    def storage(self, radosgw_place):
        return open_storage(*radosgw_place)

    @pytest.fixture
    def other(self, radosgw_place):
        return open_storage(*radosgw_place)

    def test_probe(self, storage):
        assert storage.probe() == Guarantees(exclusive_create=True, compare_and_swap=False)


class TestSftp(StorageContract):
    @pytest.fixture
    def storage(self, sftp_place):
        return open_storage(*sftp_place)

    @pytest.fixture
    def other(self, sftp_place):
        return open_storage(*sftp_place)

    def test_probe(self, storage):
        assert storage.probe() == Guarantees(exclusive_create=True, compare_and_swap=True)
        assert list(storage.entries()) == []


class TestFaultyThatNeverFails(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path):
        return FaultyStorage(open_storage(tmp_path))

    @pytest.fixture
    def other(self, tmp_path):
        return FaultyStorage(open_storage(tmp_path))
