"""Rules between the files of a store: functions from the reports of its components to problems."""

from novabackup.store.checks import (
    DEFAULT,
    Check,
    all_present,
    counts_agree,
    dimensions_agree,
    emptied,
    last_known,
    new_problems,
    nothing_damaged,
    run,
    vectors_cover_entries,
)

__all__ = [
    "DEFAULT",
    "Check",
    "all_present",
    "counts_agree",
    "dimensions_agree",
    "emptied",
    "last_known",
    "new_problems",
    "nothing_damaged",
    "run",
    "vectors_cover_entries",
]
