"""Renders the evidence and its findings as one HTML page; everything in it is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from novabackup._support import html
from novabackup._support.text import count
from novabackup.errors import printable
from novabackup.format.records import Problem
from novabackup.integrations.report.evidence import Copy, Point, Seen
from novabackup.integrations.report.findings import Light, ago, judge, seconds, summary
from novabackup.integrations.report.plot import plot

_MARKS = {Light.GOOD: "✓", Light.SOON: "!", Light.NOW: "✗"}
_CLASSES = {Light.GOOD: "good", Light.SOON: "soon", Light.NOW: "now"}

_KINDS = {">": ' class="right"', "~": ' class="said"'}

_COMMAND = re.compile(r"\bnovabackup [a-z]+(?: (?:--[a-z0-9-]+|latest|\d+%))*")

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2126; --faint: #5b6670; --line: #d9dee3; --good: #19713b;
  --soon: #8a5a00; --now: #b3261e; --draw: #1f5fa8; --good-back: #e8f4ec; --soon-back: #fdf3dd; --now-back: #fdeceb }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --text: #e4e8ec; --faint: #9aa5af; --line: #343c44;
  --good: #6fcf97; --soon: #f0c265; --now: #ff8a80; --draw: #7fb5f0; --good-back: #16291e; --soon-back: #2d2412;
  --now-back: #331b1a } }
@media print { :root { color-scheme: light; --page: #fff; --text: #000; --faint: #444; --line: #bbb; --good: #19713b;
  --soon: #8a5a00; --now: #b3261e; --draw: #1f5fa8; --good-back: #fff; --soon-back: #fff; --now-back: #fff } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 62rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { font-size: 1.25rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; break-after: avoid }
p { margin: .4rem 0 } .faint, caption { color: var(--faint) } .whole { white-space: nowrap }
.light { border: 2px solid; border-radius: 8px; padding: .9rem 1.1rem; margin: 1rem 0; break-inside: avoid }
.light strong { display: block; font-size: 1.35rem; line-height: 1.3 } .light span { color: var(--text) }
.good { color: var(--good) } .soon { color: var(--soon) } .now { color: var(--now) }
.light.good { background: var(--good-back) } .light.soon { background: var(--soon-back) }
.light.now { background: var(--now-back) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .75rem 1.5rem; margin: 1rem 0 }
dl div { border-top: 1px solid var(--line); padding-top: .4rem; break-inside: avoid }
dt { color: var(--faint); font-size: .85rem } dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .87rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word }
td.said { min-width: 13rem; overflow-wrap: anywhere } td code, b code, span code { white-space: nowrap }
th { color: var(--faint); font-weight: 600 } .right { text-align: right; white-space: nowrap }
thead { display: table-header-group } tr { break-inside: avoid } code { font-size: .95em; overflow-wrap: anywhere }
li { margin: .35rem 0; overflow-wrap: anywhere }
svg { width: 100%; height: auto; break-inside: avoid; display: block }
svg text { font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--faint) }
svg .name { font-weight: 600; fill: var(--text) } svg .grid { stroke: var(--line) }
svg .line { fill: none; stroke: var(--draw); stroke-width: 1.5 } svg .dot, svg .bar { fill: var(--draw) }
svg .cross { stroke: var(--now); stroke-width: 2; fill: none }
@media print { body { padding: 0; max-width: none; font-size: 10pt } .wide { overflow: visible }
  svg { max-width: 14cm } td.said { min-width: 11rem } }
@page { margin: 15mm }
"""


def page(seen: Seen) -> str:
    """Return a whole HTML document."""
    light, _sentence = summary(seen)
    about = seen.store or seen.repository
    parts = [_top(seen), _numbers(seen)]
    if seen.points:
        parts += [*_growth(seen), _snapshots(seen)]
    if seen.copies:
        parts.append(_copies(seen))
    if seen.drills:
        parts.append(_drills(seen))
    problems = (("the repository", seen.problems), ("the live files", seen.live.problems if seen.live else ()))
    parts += [_problems(where, found) for where, found in problems if found]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(f'{_MARKS[light]} Backups of {about}')}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{''.join(f'{part}{chr(10)}' for part in parts)}</body></html>\n"
    )


def _text(value: object) -> str:
    """Escape untrusted text."""
    return escape(printable(str(value)))


def _sentence(value: str) -> str:
    """Escape a sentence, and mark commands in it as code."""
    return _COMMAND.sub(r"<code>\g<0></code>", _text(value))


def _when(time: datetime) -> str:
    return f'<span class="whole">{time.astimezone(UTC):%Y-%m-%d %H:%M}</span>'


# -- the top -----------------------------------------------------------------------------------------------------------


def _top(seen: Seen) -> str:
    light, sentence = summary(seen)
    about = f"Backups of {seen.store}" if seen.store else f"Backups in {seen.repository}"
    head = f'<h1>{_text(about)}</h1><p class="faint">As of {seen.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC</p>'
    word = f"{_MARKS[light]} {light.value.capitalize()}"
    sign = f'<div class="light {_CLASSES[light]}"><strong>{word}</strong><span>{_sentence(sentence)}</span></div>'
    findings = judge(seen)
    if len(findings) < 2:
        return head + sign
    items = "".join(
        f'<li><b class="{_CLASSES[one.light]}">{one.light.value.capitalize()}.</b> '
        f"{_text(one.what)} <b>{_sentence(one.advice)}</b></li>"
        for one in findings
    )
    return f"{head}{sign}<h2>What to do</h2><ol>{items}</ol>"


def _numbers(seen: Seen) -> str:
    known: list[tuple[str, str]] = [("Repository", _text(seen.repository))]
    if not seen.error:
        known += list(_backup_numbers(seen))
    if seen.live:
        known.append(("Live files", _text(_live(seen))))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in known)
    return f"<dl>{cells}</dl>"


def _backup_numbers(seen: Seen) -> Iterator[tuple[str, str]]:
    healthy, drill, run = seen.healthy, seen.drill, seen.verified
    yield "Newest healthy snapshot", _text(f"{ago(healthy.time, seen.time)}, {healthy.id}" if healthy else "none")
    yield "Snapshots", f"{count(len(seen.points), 'snapshot')}, {html.size(seen.stored)} stored" + _others(seen)
    if run:
        how = f"failed: {run.error}" if run.error else "all was right"
        yield "Last verification", _text(f"{ago(run.ended, seen.time)}, {how}")
    else:
        yield (
            "Last verification",
            "none is known" if seen.remembers else "not recorded; a drill reads every byte, too",
        )
    if drill is None:
        yield "Last drill", "never"
    else:
        objective = seconds(drill.rto_milliseconds) if drill.rto_milliseconds is not None else "not set"
        how = "failed" if drill.problems else "passed"
        took = seconds(drill.recovery_milliseconds)
        yield "Last drill", _text(f"{ago(drill.time, seen.time)}, {how}; back after {took} (objective: {objective})")
    if seen.points and seen.points[-1].kept is not None:
        gone = sum(point.kept is False for point in seen.points)
        yield "Retention", _text(f"{seen.policy}: {len(seen.points) - gone} stay, {gone} would go now")


def _others(seen: Seen) -> str:
    return f"; {count(seen.elsewhere, 'snapshot')} of other stores" if seen.elsewhere else ""


def _live(seen: Seen) -> str:
    live = seen.live
    assert live is not None
    if live.busy:
        return "another process is writing to them now, so they were not checked"
    if live.interrupted:
        return f"half-written: {live.interrupted}"
    if live.error:
        return f"cannot be checked: {live.error}"
    if live.missing:
        return f"{count(len(live.missing), 'file')} gone"
    return count(len(live.problems), "problem") if live.problems else "healthy: they open and agree"


# -- tables and plots --------------------------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of HTML; names of columns start with ``>`` for numbers, and with ``~`` for sentences."""
    kinds = [_KINDS.get(column[0], "") for column in columns]
    head = "".join(f"<th{kind}>{_text(name.lstrip('>~'))}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _growth(seen: Seen) -> Iterator[str]:
    backups = seen.backups
    for store in sorted({point.store for point in backups}):
        drawn = plot([point for point in backups if point.store == store])
        if drawn:
            yield f"<h2>Growth{'' if seen.store else _text(f' of {store}')}</h2>{drawn}"


def _snapshots(seen: Seen) -> str:
    several = len({point.store for point in seen.points}) > 1
    columns = ["Taken (UTC)", "ID", *(["Store"] if several else []), "Tags", ">Vectors", ">Size", ">New", "~Health"]
    rows = [
        [
            _when(point.time),
            f"<code>{_text(point.id.rpartition('-')[2][:8])}</code>",
            *([_text(point.store)] if several else []),
            _text(", ".join(point.tags))
            + (f'<div class="faint">{_text(point.message)}</div>' if point.message else ""),
            "" if point.vectors is None else f"{point.vectors:,}",
            html.size(point.size),
            html.size(point.added),
            _health(point),
            _fate(point),
        ]
        for point in reversed(seen.points)
    ]
    return f"<h2>Snapshots</h2>{_table([*columns, '~Retention'], rows)}"


def _health(point: Point) -> str:
    if not point.problems:
        return f'<span class="good">{_MARKS[Light.GOOD]} healthy</span>'
    said = "".join(f"<div>{_text(problem)}</div>" for problem in point.problems)
    return f'<span class="now">{_MARKS[Light.NOW]} unhealthy</span>{said}'


def _fate(point: Point) -> str:
    pin = f"<div><b>Pinned</b>{_text(f': {point.pin}' if point.pin else '')}</div>" if point.pin is not None else ""
    if point.kept is None:
        return pin
    word = "stays" if point.kept else '<b class="soon">would go</b>'
    return f"{pin}{word}: {_text('; '.join(point.reasons))}"


def _copies(seen: Seen) -> str:
    rows = [
        (_text(copy.name), _text(copy.url), "" if copy.error else f"{copy.snapshots:,}", _state(copy, seen))
        for copy in seen.copies
    ]
    return f"<h2>Copies</h2>{_table(['Name', '~Where', '>Snapshots', '~State'], rows)}"


def _state(copy: Copy, seen: Seen) -> str:
    if copy.error:
        return f'<span class="soon">! cannot be read</span><div>{_text(copy.error)}</div>'
    if copy.newest is None:
        return '<span class="soon">! no healthy snapshot</span>'
    late = seen.time - copy.newest > seen.limits.backup
    word, kind = ("! behind", "soon") if late else (f"{_MARKS[Light.GOOD]} in step", "good")
    return f'<span class="{kind}">{word}</span><div>newest healthy snapshot {ago(copy.newest, seen.time)}</div>'


def _drills(seen: Seen) -> str:
    rows = [
        (
            _when(drill.time),
            f"<code>{_text(drill.snapshot.rpartition('-')[2][:8])}</code>",
            html.size(drill.size),
            seconds(drill.recovery_milliseconds),
            seconds(drill.rto_milliseconds) if drill.rto_milliseconds is not None else "",
            f'<span class="good">{_MARKS[Light.GOOD]} passed</span>'
            if drill.good
            else f'<span class="now">{_MARKS[Light.NOW]} failed</span>'
            + "".join(f"<div>{_text(problem)}</div>" for problem in drill.problems),
        )
        for drill in reversed(seen.drills)
    ]
    columns = ["Time (UTC)", "Snapshot", ">Size", ">Back after", ">Objective", "~Result"]
    return f"<h2>Drills</h2>{_table(columns, rows)}"


def _problems(where: str, problems: Sequence[Problem]) -> str:
    rows = [(_text(one.code), _text(", ".join(one.paths)), _text(one.message)) for one in problems]
    return f"<h2>Problems of {where}</h2>{_table(['Problem', '~Files', '~What to know'], rows)}"
