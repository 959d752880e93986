"""Guarded ingestion for search indexes: snapshot, check and roll back files that only make sense together.

>>> from novabackup import IndexStore, snapshot
>>> store = IndexStore("vector_db")
>>> with snapshot(store):
...     ingest()
"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from novabackup import (
        archives as archives,
        checks as checks,
        components as components,
        errors as errors,
        keys as keys,
        layouts as layouts,
        retention as retention,
    )
    from novabackup.errors import (
        ArchivedError as ArchivedError,
        ChangedError as ChangedError,
        CheckFailedError as CheckFailedError,
        ConfigurationError as ConfigurationError,
        DecryptionError as DecryptionError,
        FormatError as FormatError,
        IntegrityError as IntegrityError,
        NotFoundError as NotFoundError,
        NovaBackupError as NovaBackupError,
        RollbackError as RollbackError,
        StoreBusyError as StoreBusyError,
    )
    from novabackup.guard import plan_recover as plan_recover, recover as recover, snapshot as snapshot
    from novabackup.format.records import Drill as Drill, Pin as Pin, Problem as Problem, Report as Report
    from novabackup.store.questions import Probing as Probing
    from novabackup.repository.repository import Repository as Repository
    from novabackup.retention import Policy as Policy
    from novabackup.transaction.session import Recovery as Recovery
    from novabackup.repository.snapshot import Snapshot as Snapshot
    from novabackup.store.store import IndexStore as IndexStore
    from novabackup.operations.verify import Level as Level, Verification as Verification
    from novabackup.operations.usage import Usage as Usage
else:
    # Each name is imported when it is first asked for: all of them together load numpy and more, which a command that
    # only shows its help, or a child process that reads one index, need not wait for.
    from importlib import import_module as _import_module

    _MODULES = {
        "novabackup": ("archives", "checks", "components", "errors", "keys", "layouts", "retention"),
        "novabackup.errors": (
            "ArchivedError",
            "ChangedError",
            "CheckFailedError",
            "ConfigurationError",
            "DecryptionError",
            "FormatError",
            "IntegrityError",
            "NotFoundError",
            "NovaBackupError",
            "RollbackError",
            "StoreBusyError",
        ),
        "novabackup.guard": ("plan_recover", "recover", "snapshot"),
        "novabackup.format.records": ("Drill", "Pin", "Problem", "Report"),
        "novabackup.store.questions": ("Probing",),
        "novabackup.repository.repository": ("Repository",),
        "novabackup.retention": ("Policy",),
        "novabackup.transaction.session": ("Recovery",),
        "novabackup.repository.snapshot": ("Snapshot",),
        "novabackup.store.store": ("IndexStore",),
        "novabackup.operations.verify": ("Level", "Verification"),
        "novabackup.operations.usage": ("Usage",),
    }
    _HOMES = {name: module for module, names in _MODULES.items() for name in names}
    __all__ = list(_HOMES)

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = _import_module(f"{home}.{name}") if home == __name__ else getattr(_import_module(home), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        # Modules that have been imported are in here, too: they are not what somebody who completes a name looks for.
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


# A library does not print: without this, Python itself would show warnings of a program that set up no logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())
