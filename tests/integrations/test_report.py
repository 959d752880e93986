"""A report tells a person whether all is well, and if not, what to do; nothing in it is trusted."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nova
from novabackup import IndexStore, Repository, snapshot
from novabackup.format.records import Drill, Problem
from novabackup.integrations.monitoring import Monitor
from novabackup.integrations.report import Copy, Light, Live, Point, Seen, facts, judge, page, report, summary, survey
from novabackup.integrations.report.plot import plot
from novabackup.integrations.runs import Run, RunLog

NOW = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)
STORE = "/srv/nova/vector_db"
DAMAGE = Problem(code="damaged", paths=("bm25_index.pkl",), message="expected a pickle, found none")


def point(age: float, **known) -> Point:
    """Describe a snapshot of some age in hours."""
    time = NOW - timedelta(hours=age)
    said = {"id": f"{time:%Y%m%dT%H%M%SZ}-{int(age * 100):020x}", "vectors": 200_000, "size": 5 << 20, "added": 4096}
    return Point(time=time, store=STORE, **{**said, **known})


def run(age: float, error: str = "") -> Run:
    return Run(kind="verify", repository="r", ended=NOW - timedelta(days=age), duration=1.0, error=error)


def drill(age: float, **known) -> Drill:
    said = {"milliseconds": {"restore": 4000, "open": 500}, "rto_milliseconds": 300_000}
    return Drill(time=NOW - timedelta(days=age), snapshot=point(30).id, store=STORE, **{**said, **known})


HEALTHY = Seen(
    time=NOW,
    repository="s3://backups/nova",
    store=STORE,
    points=(point(50), point(26), point(2)),
    drills=(drill(9),),
    verified=run(3),
    remembers=True,
    policy="daily 30",
    live=Live(),
    copies=(Copy(name="offsite", url="sftp://nas/nova", snapshots=3, newest=NOW - timedelta(hours=2)),),
)


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {*attributes}

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        self.text += "" if tag in ("code", "b") else " "


# -- what it says ------------------------------------------------------------------------------------------------------


def test_when_all_is_well_the_first_sentence_says_so():
    assert judge(HEALTHY) == ()
    assert summary(HEALTHY) == (
        Light.GOOD,
        "All is well: the newest healthy snapshot was taken 2 hours ago, and nothing is known to be wrong.",
    )
    shown = Page(page(HEALTHY)).text
    for told in ("✓ Healthy", "3 days ago", "9 days ago, passed; back after 4.5 s (objective: 5 minutes)", "in step"):
        assert told in shown


WRONG = {
    "no backup": ({"points": ()}, Light.NOW, "There is no backup at all", "novabackup snapshot"),
    "only what a rollback replaced": (
        {"points": (point(1, tags=("failed-ingest",)),)},
        Light.NOW,
        "There is no backup at all",
        "novabackup snapshot",
    ),
    "an old backup": ({"points": (point(60),)}, Light.NOW, "taken 2 days ago", "novabackup snapshot"),
    "an unhealthy newest": (
        {"points": (point(9), point(1, problems=(DAMAGE,)))},
        Light.NOW,
        "damaged (bm25_index.pkl)",
        "Repair the live files",
    ),
    "none healthy": ({"points": (point(1, problems=(DAMAGE,)),)}, Light.NOW, "No snapshot is healthy", "snapshot"),
    "a clock ahead": ({"points": (point(-3),)}, Light.SOON, "from the future", "clocks"),
    "a damaged repository": ({"problems": (DAMAGE,)}, Light.NOW, "is damaged", "novabackup repair --dry-run"),
    "an unreadable repository": ({"error": "no answer."}, Light.NOW, "cannot be read: no answer.", "server"),
    "damaged live files": ({"live": Live(problems=(DAMAGE,))}, Light.NOW, "not healthy", "novabackup repair --bm25"),
    "missing live files": ({"live": Live(missing=("metadata.json",))}, Light.NOW, "gone: metadata.json", "restore"),
    "an interrupted ingest": (
        {"live": Live(interrupted="interrupted")},
        Light.NOW,
        "half-written",
        "novabackup recover",
    ),
    "an unreadable store": ({"live": Live(error="no answer")}, Light.NOW, "cannot be checked", "server"),
    "no drill": ({"drills": ()}, Light.SOON, "ever been tested", "novabackup drill."),
    "an old drill": ({"drills": (drill(50),)}, Light.SOON, "50 days ago", "novabackup drill"),
    "a failed drill": ({"drills": (drill(1, problems=(DAMAGE,)),)}, Light.NOW, "drill failed", "novabackup check"),
    "a slow drill": ({"drills": (drill(1, rto_milliseconds=1000),)}, Light.NOW, "1.0 s is the objective", "faster"),
    "no verification": ({"verified": None}, Light.SOON, "No verification", "novabackup verify"),
    "an old verification": ({"verified": run(20)}, Light.SOON, "20 days ago", "novabackup verify"),
    "a failed verification": ({"verified": run(1, "a pack is gone")}, Light.NOW, "a pack is gone.", "novabackup check"),
    "an unreachable copy": ({"copies": (Copy(name="usb", url="/u", error="away"),)}, Light.SOON, "usb", "disk"),
    "an empty copy": ({"copies": (Copy(name="usb", url="/u"),)}, Light.SOON, "no healthy", "novabackup mirror usb"),
    "a copy behind": (
        {"copies": (Copy(name="usb", url="/u", newest=NOW - timedelta(days=9)),)},
        Light.SOON,
        "9 days ago",
        "novabackup mirror usb",
    ),
    "an odd policy": ({"warnings": ("it keeps nothing",)}, Light.SOON, "it keeps nothing.", "forget --dry-run"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_with_what_to_do(wrong):
    changed, light, what, advice = WRONG[wrong]
    seen = attrs.evolve(HEALTHY, **changed)
    (finding,) = judge(seen)
    assert finding.light is light
    assert what in finding.what
    assert advice in finding.advice
    assert summary(seen) == (light, f"{finding.what} {finding.advice}")
    assert f"{finding.what} {finding.advice}" in Page(page(seen)).text


def test_the_most_urgent_comes_first_and_the_others_are_counted():
    seen = attrs.evolve(HEALTHY, drills=(), copies=(Copy(name="usb", url="/u"),), live=Live(problems=(DAMAGE,)))
    assert [finding.light for finding in judge(seen)] == [Light.NOW, Light.SOON, Light.SOON]
    light, sentence = summary(seen)
    assert light is Light.NOW
    assert sentence.endswith("2 more things below.")
    assert "What to do" in Page(page(seen)).text


def test_a_writer_at_work_is_no_failure():
    seen = attrs.evolve(HEALTHY, live=Live(busy="pid 4 on nova-1"))
    assert judge(seen) == ()
    assert "another process is writing" in Page(page(seen)).text


# -- the page --------------------------------------------------------------------------------------------------------

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "strong", "span", "b", "ol", "li"),
    *("dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "code"),
    *("svg", "text", "line", "polyline", "circle", "path", "rect"),
}
hostile = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "</title></style></svg><iframe src='https://evil.example'>",
            "\ud800 \x00 \x1b[31m \u202e &amp; &lt;",
        ]
    ),
)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(hostile, min_size=8, max_size=8), value=st.integers(0, 2**60))
def test_whatever_names_and_messages_say_they_stay_texts(texts, value):
    one, two, three, four, five, six, seven, eight = texts
    problem = Problem(code=one, paths=(two, three), message=four)
    bad = point(1, id=five, tags=(six,), message=seven, pin=eight, reasons=(one, two), size=value, problems=(problem,))
    seen = attrs.evolve(
        HEALTHY,
        repository=one,
        points=(attrs.evolve(point(2), store=six), attrs.evolve(bad, store=two, kept=False)),
        problems=(problem,),
        drills=(attrs.evolve(drill(1), snapshot=three, problems=(problem,)),),
        verified=run(1, four),
        policy=five,
        warnings=(six,),
        live=Live(problems=(problem,), error=eight, interrupted=one, missing=(two,)),
        copies=(Copy(name=seven, url=eight, error=one), Copy(name=one, url=two, snapshots=value)),
    )
    for about in (seen, attrs.evolve(seen, store=""), attrs.evolve(seen, error=three)):
        text = page(about)
        text.encode()
        found = Page(text)
        assert found.tags <= TAGS
        assert not [name for name, _value in found.attributes if name.startswith("on") or name in ("src", "href")]
        for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            ElementTree.fromstring(drawn)
        json.dumps(facts(about), default=str)


def test_it_needs_nothing_from_elsewhere():
    text = page(HEALTHY)
    found = Page(text)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    assert "://" not in text.replace(HEALTHY.repository, "").replace(HEALTHY.copies[0].url, "")
    assert "url(" not in text
    assert "@import" not in text
    for rule in ("prefers-color-scheme: dark", "@media print"):
        assert rule in text


def drawn(points) -> ElementTree.Element:
    return ElementTree.fromstring(plot(points))


def test_the_plot_shows_each_snapshot_where_it_belongs():
    points = [point(24 * (40 - day), vectors=1000 * day, added=day, size=10) for day in range(40)]
    points[7] = attrs.evolve(points[7], problems=(DAMAGE,))
    figure = drawn(points)
    dots = [mark for mark in figure.iter("circle") if "MiB" not in mark[0].text and " B" not in mark[0].text]
    assert len(dots) == 39
    assert len(list(figure.iter("path"))) == 2
    assert len(list(figure.iter("rect"))) == 40
    places = [(float(dot.get("cx")), -float(dot.get("cy"))) for dot in dots]
    assert places == sorted(places)
    assert dots[-1][0].text == "2026-03-19 09:30 UTC: 39,000"
    named = [text.text for text in figure.iter("text")]
    assert {"Vectors", "40,000", "20,000", "0", "Size of the files", "New bytes in the repository"} <= set(named)
    _left, _top, width, height = map(float, figure.get("viewBox").split())
    for mark in figure.iter():
        for side, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(mark.get(side, 0)) <= most


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.none() | st.integers(0, 2**62), st.integers(0, 2**62)), max_size=12)
)
def test_any_snapshots_can_be_drawn(several):
    points = [
        Point(
            id=f"-{number}", time=NOW - timedelta(seconds=age), store="s", vectors=vectors, size=size, added=size // 3
        )
        for number, (age, vectors, size) in enumerate(sorted(several, key=lambda one: -one[0]))
    ]
    text = plot(points)
    assert bool(text) == bool(points)
    if points:
        figure = ElementTree.fromstring(text)
        assert len(list(figure.iter("rect"))) == len(points)
        assert 0 < len([mark for mark in figure.iter("text") if ":" in mark.text or "-" in mark.text]) < 20
        assert "nan" not in text
        assert "inf" not in text


# -- what is looked at -------------------------------------------------------------------------------------------------


def test_a_real_repository_with_its_store_copies_and_runs(store, folder, repository, tmp_path):
    monitor = Monitor(repository, tmp_path / "runs")
    first = repository.backup(store, tags=["weekly"])
    repository.pin(first, "before the move")
    nova.ingest(folder, nova.texts(4, 20))
    repository.backup(store)
    with monitor.observed("verify", store):
        repository["latest"].verify()
    repository.drill(first, store=store, rto=300)
    copy = Repository(tmp_path / "copy")
    repository.copy(to=copy)
    repository.backup(IndexStore(nova_elsewhere(tmp_path)))
    seen = survey(
        repository,
        store=store,
        policy="last 1",
        runs=RunLog(tmp_path / "runs").runs(),
        copies={"offsite": copy, "usb": Repository(tmp_path / "usb")},
    )
    assert [one.vectors for one in seen.points] == [20, 24]
    assert [one.pin for one in seen.points] == ["before the move", None]
    assert all(one.kept and one.reasons for one in seen.points)
    assert (seen.elsewhere, seen.drill.problems, seen.verified.error, seen.live) == (1, (), "", Live())
    assert [(one.name, one.snapshots, one.error) for one in seen.copies] == [("offsite", 2, ""), ("usb", 0, "")]
    assert [finding.advice for finding in judge(seen)] == ["Run novabackup mirror usb."]
    told = Page(report(repository, store=store)).text
    assert "Pinned" in told
    assert ": before the move" in told
    assert "1 snapshot of other stores" in told
    assert facts(seen)["points"][0]["pin"] == "before the move"


def nova_elsewhere(tmp_path):
    nova.build(tmp_path / "other", nova.texts(3))
    return tmp_path / "other"


def test_live_files_that_are_gone_interrupted_or_being_written(store, folder, repository):
    with snapshot(store, repository) as taken:
        live = survey(repository, store=store).live
        assert str(os.getpid()) in live.busy
    (folder / "metadata.json").unlink()
    assert "metadata.json" in str(survey(repository, store=store).live.problems)
    for name in nova.FILES:
        (folder / name).unlink(missing_ok=True)
    assert survey(repository, store=store).live.missing == tuple(sorted(nova.FILES))
    taken.restore()
    assert survey(repository, store=store).live == Live()


def test_a_repository_that_cannot_be_read_is_what_the_report_is_about(store, tmp_path):
    seen = survey(Repository(tmp_path / "nowhere"), store=store)
    assert "there is no repository" in seen.error
    assert [finding.light for finding in judge(seen)] == [Light.NOW]
    assert "cannot be read" in Page(page(seen)).text
