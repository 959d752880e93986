"""A report for somebody who must decide whether all is well with the backups: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from novabackup.integrations.report.evidence import Copy, Limits, Live, Point, Seen, facts, survey
from novabackup.integrations.report.findings import Finding, Light, judge, summary
from novabackup.integrations.report.page import page
from novabackup.integrations.runs import Run
from novabackup.repository.repository import Repository
from novabackup.retention import DEFAULT, Policy
from novabackup.store.store import IndexStore

__all__ = [
    "Copy",
    "Finding",
    "Light",
    "Limits",
    "Live",
    "Point",
    "Seen",
    "facts",
    "judge",
    "page",
    "report",
    "summary",
    "survey",
]


def report(
    repository: Repository,
    *,
    store: IndexStore | None = None,
    policy: Policy | str | Mapping[str, Any] = DEFAULT,
    runs: Iterable[Run] | None = None,
    copies: Mapping[str, Repository] | None = None,
    limits: Limits | None = None,
    now: datetime | None = None,
) -> str:
    """Report on a repository, and on a store where one is given: it is opened and compared for it.

    A repository or a store that cannot be read is what the report is about then, and no error.

    Args:
        repository: What to report on. Its packs are listed, its snapshots read; no content is.
        store: Only snapshots of this store, and its live files; by default all snapshots and no live files.
        policy: What `forget` would keep.
        runs: How work went, such as `RunLog.runs`; verifications are known from nowhere else. None if nothing
            remembers that.
        copies: Other repositories that are to have the snapshots, too, by their names.
        limits: How old things may be.
        now: The time; by default that of the clock.

    Returns:
        An HTML document with no scripts and no links to anything. Everything in it is escaped.

    Raises:
        ConfigurationError: The policy cannot be understood.
    """
    return page(survey(repository, store=store, policy=policy, runs=runs, copies=copies, limits=limits, now=now))
