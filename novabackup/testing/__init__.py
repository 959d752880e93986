"""Tools for tests of other storages and programs: a storage that fails on purpose, and the contract of all storages.

Nothing here imports pytest. For pytest to explain failing assertions of the contract, call
``pytest.register_assert_rewrite("novabackup.testing.contract")`` in a ``conftest.py``.
"""

from novabackup.testing.contract import StorageContract
from novabackup.testing.faults import Fault, FaultyStorage, Moment, Then, die, fail_with

__all__ = ["Fault", "FaultyStorage", "Moment", "StorageContract", "Then", "die", "fail_with"]
