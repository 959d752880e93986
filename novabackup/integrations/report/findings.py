"""Derives findings from the evidence: what is wrong, how urgent it is, and what to do, without any I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import attrs

from novabackup._support.text import count
from novabackup.format.records import Drill, Problem
from novabackup.integrations.report.evidence import Live, Point, Seen

_SKEW = timedelta(minutes=5)
"""How far the clocks of hosts may differ."""
_CHECK = "novabackup check --read-data-subset 100%"


class Light(enum.StrEnum):
    """Overall state, or urgency of a finding."""

    GOOD = "healthy"
    SOON = "look at it soon"
    NOW = "act now"


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        light: How urgent it is.
        what: What is wrong.
        advice: What to do about it.
    """

    light: Light
    what: str
    advice: str


def summary(seen: Seen) -> tuple[Light, str]:
    """Summarize the state in one sentence: that all is well, or what is wrong and what to do now."""
    findings = judge(seen)
    if not findings:
        assert seen.healthy is not None
        age = ago(seen.healthy.time, seen.time)
        return (
            Light.GOOD,
            f"All is well: the newest healthy snapshot was taken {age}, and nothing is known to be wrong.",
        )
    first, others = findings[0], len(findings) - 1
    more = f" {count(others, 'more thing')} below." if others else ""
    return first.light, f"{first.what} {first.advice}{more}"


def judge(seen: Seen) -> tuple[Finding, ...]:
    """Return what is wrong, the most urgent first."""
    found = [*_live(seen), *_repository(seen), *_drill(seen), *_verify(seen), *_copies(seen)]
    return tuple(sorted(found, key=lambda finding: finding.light is not Light.NOW))


def _now(what: str, advice: str) -> Finding:
    return Finding(light=Light.NOW, what=what, advice=advice)


def _soon(what: str, advice: str) -> Finding:
    return Finding(light=Light.SOON, what=what, advice=advice)


def _live(seen: Seen) -> Iterator[Finding]:
    live = seen.live or Live()
    if live.interrupted:
        yield _now(
            f"The live files of {seen.store} are half-written: an ingest or a restore was {live.interrupted}.",
            "Run novabackup recover.",
        )
    if live.error:
        yield _now(
            f"The live files of {seen.store} cannot be checked: {_end(live.error)}", "Check the disk or the server."
        )
    if live.problems:
        yield _now(
            f"The live files of {seen.store} are not healthy: {_first(live.problems)}.",
            _back(live.problems),
        )
    elif live.missing:
        yield _now(
            f"Live files of {seen.store} are gone: {', '.join(live.missing)}.",
            "Bring them back with novabackup restore latest.",
        )


def _back(problems: Sequence[Problem]) -> str:
    index = all(len(problem.paths) == 1 and "bm25" in problem.paths[0] for problem in problems)
    other = "rebuild the index with novabackup repair --bm25" if index else "ingest again"
    return f"Go back to the last good state with novabackup restore latest, or {other}."


def _repository(seen: Seen) -> Iterator[Finding]:
    if seen.error:
        yield _now(
            f"The repository {seen.repository} cannot be read: {_end(seen.error)}",
            "Check its disk or server, and the key.",
        )
        return
    if seen.problems:
        yield _now(
            f"The repository {seen.repository} is damaged: {_first(seen.problems)}.",
            "Run novabackup repair --dry-run to see what can be recovered, and from where.",
        )
    newest = seen.backups[-1] if seen.backups else None
    if newest is None:
        yield _now("There is no backup at all.", "Run novabackup snapshot.")
    elif seen.healthy is None:
        yield _now(
            f"No snapshot is healthy; the newest has {_first(newest.problems)}.",
            "Repair the live files, and run novabackup snapshot.",
        )
    else:
        yield from _ages(seen, newest, seen.healthy)
    for warning in seen.warnings:
        yield _soon(f"The retention policy looks odd: {_end(warning)}", "Run novabackup forget --dry-run.")


def _ages(seen: Seen, newest: Point, healthy: Point) -> Iterator[Finding]:
    if newest.time > seen.time + _SKEW:
        yield _soon(
            f"Snapshot {newest.id} is from the future, {newest.time:%Y-%m-%d %H:%M} UTC.",
            "Check the clocks of the hosts.",
        )
    if newest.problems:
        yield _now(
            f"The newest snapshot was taken of files that were not healthy: {_first(newest.problems)}.",
            "Repair the live files, and run novabackup snapshot.",
        )
    if seen.time - healthy.time > seen.limits.backup:
        yield _now(
            f"The newest healthy snapshot was taken {ago(healthy.time, seen.time)}; "
            f"it should not be older than {span(seen.limits.backup)}.",
            "Find out why no backup was taken, and run novabackup snapshot.",
        )


def _drill(seen: Seen) -> Iterator[Finding]:
    if seen.error or not seen.backups:
        return
    drill = seen.drill
    if drill is None:
        yield _soon("No restore has ever been tested.", f"Run novabackup drill{_which(seen)}.")
    elif drill.problems:
        yield _now(
            f"The last drill failed, {ago(drill.time, seen.time)}: {_first(drill.problems)}.",
            f"Try another snapshot with novabackup drill, and run {_CHECK}.",
        )
    else:
        if _is_slow(drill):
            yield _now(
                f"The last drill took {seconds(drill.recovery_milliseconds)}; "
                f"{seconds(drill.rto_milliseconds or 0)} is the objective.",
                "Keep a copy on a faster disk, or change the objective.",
            )
        if seen.time - drill.time > seen.limits.drill:
            yield _soon(
                f"The last drill was {ago(drill.time, seen.time)}; one is due every {span(seen.limits.drill)}.",
                "Run novabackup drill.",
            )


def _which(seen: Seen) -> str:
    """Return the argument for a drill that would not choose a snapshot by itself, since it skips the newest."""
    return "" if sum(not point.problems for point in seen.backups[:-1]) else " latest"


def _is_slow(drill: Drill) -> bool:
    return drill.rto_milliseconds is not None and drill.recovery_milliseconds > drill.rto_milliseconds


def _verify(seen: Seen) -> Iterator[Finding]:
    if not seen.remembers or seen.error:
        return
    run = seen.verified
    if run is None:
        yield _soon("No verification is known.", "Run novabackup verify.")
    elif run.error:
        yield _now(f"The last verification failed, {ago(run.ended, seen.time)}: {_end(run.error)}", f"Run {_CHECK}.")
    elif seen.time - run.ended > seen.limits.verify:
        yield _soon(
            f"The last verification was {ago(run.ended, seen.time)}; one is due every {span(seen.limits.verify)}.",
            "Run novabackup verify.",
        )


def _copies(seen: Seen) -> Iterator[Finding]:
    for copy in seen.copies:
        where = f"The copy {copy.name} ({copy.url})"
        if copy.error:
            yield _soon(f"{where} cannot be read: {_end(copy.error)}", "Check its disk or server, and the key.")
        elif copy.newest is None:
            yield _soon(f"{where} has no healthy snapshot.", f"Run novabackup mirror {copy.name}.")
        elif seen.time - copy.newest > seen.limits.backup:
            yield _soon(
                f"The newest healthy snapshot in the copy {copy.name} was taken {ago(copy.newest, seen.time)}.",
                f"Run novabackup mirror {copy.name}.",
            )


# -- text --------------------------------------------------------------------------------------------------------------


def _first(problems: Sequence[Problem]) -> str:
    first = problems[0]
    where = f" ({', '.join(first.paths)})" if first.paths else ""
    more = f" and {count(len(problems) - 1, 'more problem')}" if len(problems) > 1 else ""
    return f"{first.code}{where}{more}"


def _end(text: str) -> str:
    return f"{text.rstrip('. ')}."


def seconds(milliseconds: int) -> str:
    """Format a duration."""
    return f"{milliseconds / 1000:,.1f} s" if milliseconds < 120_000 else span(timedelta(milliseconds=milliseconds))


def span(length: timedelta) -> str:
    """Format a time span in the largest unit of which there are at least two: 47 hours, 2 days."""
    total = max(0, int(length.total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if total >= 2 * size:
            return count(total // size, unit)
    return count(total, "second")


def ago(time: datetime, now: datetime) -> str:
    """Format how long ago a time was."""
    return "in the future" if time > now + _SKEW else f"{span(now - time)} ago"
