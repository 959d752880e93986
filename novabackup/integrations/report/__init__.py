"""A report on the state of the backups: one self-contained HTML file."""

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
    """Report on a repository, and on the live files of a store if one is given.

    A repository or a store that cannot be read is reported as a finding, not raised as an error.

    Args:
        repository: The repository. Its packs are listed and its snapshots read, but no content.
        store: Only snapshots of this store, and its live files; by default all snapshots and no live files.
        policy: What `forget` would keep.
        runs: Recorded runs, such as `RunLog.runs`, the only source of verifications. None if runs are not recorded.
        copies: Other repositories that should have the snapshots, too, by their names.
        limits: Age limits.
        now: The current time; by default by the clock.

    Returns:
        An HTML document without scripts and links. Everything in it is escaped.

    Raises:
        ConfigurationError: The policy cannot be understood.
    """
    return page(survey(repository, store=store, policy=policy, runs=runs, copies=copies, limits=limits, now=now))
