"""Guarded ingestion for search indexes: snapshot, check and roll back files that only make sense together.

>>> from novabackup import IndexStore, snapshot
>>> store = IndexStore("vector_db")
>>> with snapshot(store):
...     ingest()
"""

import logging

from novabackup import archives, checks, components, errors, layouts, retention
from novabackup.errors import (
    ArchivedError,
    ChangedError,
    CheckFailedError,
    ConfigurationError,
    DecryptionError,
    FormatError,
    IntegrityError,
    NotFoundError,
    NovaBackupError,
    RollbackError,
    StoreBusyError,
)
from novabackup.guard import plan_recover, recover, snapshot
from novabackup.model import Drill, Pin, Problem, Report
from novabackup.probing import Probing
from novabackup.repository import Repository
from novabackup.retention import Policy
from novabackup.session import Recovery
from novabackup.snapshots import Snapshot
from novabackup.store import IndexStore
from novabackup.trial import Level, Verification
from novabackup.usage import Usage

__all__ = [
    "ArchivedError",
    "ChangedError",
    "CheckFailedError",
    "ConfigurationError",
    "DecryptionError",
    "Drill",
    "FormatError",
    "IndexStore",
    "IntegrityError",
    "Level",
    "NotFoundError",
    "NovaBackupError",
    "Pin",
    "Policy",
    "Probing",
    "Problem",
    "Recovery",
    "Report",
    "Repository",
    "RollbackError",
    "Snapshot",
    "StoreBusyError",
    "Usage",
    "Verification",
    "archives",
    "checks",
    "components",
    "errors",
    "layouts",
    "plan_recover",
    "recover",
    "retention",
    "snapshot",
]

# A library does not print: without this, Python itself would show warnings of a program that set up no logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())
