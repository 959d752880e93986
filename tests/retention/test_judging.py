"""What a policy keeps, and why; and what no clock, no failed backup and no typing error can take away."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta, timezone

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from novabackup.retention import DEFAULT, Candidate, Policy, State, apply, still_forgotten

NOON = datetime(2026, 1, 25, 12, tzinfo=UTC)  # a Sunday
HEALTHY, UNHEALTHY, REPLACED, DAMAGED = State


def at(hours: float, state: State = HEALTHY, *, store: str = "s", tags: tuple[str, ...] = (), **more) -> Candidate:
    name = more.pop("id", f"{store}{hours}")
    return Candidate(id=name, time=NOON + timedelta(hours=hours), store=store, tags=tags, state=state, **more)


def kept(policy: Policy | str, *candidates: Candidate, now: datetime | None = None) -> set[str]:
    return set(apply(Policy.of(policy), candidates, now=now).kept)


def reasons(policy: str, *candidates: Candidate, now: datetime | None = None) -> dict[str, tuple[str, ...]]:
    return {verdict.id: verdict.reasons for verdict in apply(Policy.parse(policy), candidates, now=now).verdicts}


# -- rules -------------------------------------------------------------------------------------------------------------


def test_every_verdict_says_why():
    assert reasons("last 1, daily 2", at(0), at(1), at(-24), at(-25), at(-48)) == {
        "s1": ("last healthy snapshot of the store", "last 1", "daily 2: 2026-01-25"),
        "s0": ("a newer one is kept for 2026-01-25", "too old for last 1"),
        "s-24": ("daily 2: 2026-01-24",),
        "s-25": ("a newer one is kept for 2026-01-24", "too old for last 1"),
        "s-48": ("too old for last 1, daily 2",),
    }
    plan = apply(Policy.parse("daily 2"), [at(0), at(-72), at(-48), at(-24)])
    assert [verdict.id for verdict in plan.verdicts] == ["s-72", "s-48", "s-24", "s0"]
    assert plan.forgotten == ("s-72", "s-48")


def test_the_default_policy_is_that_of_the_operations_manual():
    hours = range(0, -400 * 24, -1)  # more than a year, hour by hour
    stays = [-int(name[1:]) for name in kept(DEFAULT, *(at(hour) for hour in hours))]
    assert {age for age in stays if age < 24} == set(range(24))
    days = {(NOON - timedelta(hours=age)).date() for age in stays}
    assert {(NOON - timedelta(days=day)).date() for day in range(30)} <= days
    weeks = {day.isocalendar()[:2] for day in days}
    assert {(NOON - timedelta(weeks=week)).isocalendar()[:2] for week in range(12)} <= weeks
    assert len({(day.year, day.month) for day in days}) == 12
    assert len(stays) < 24 + 30 + 12 + 12


def test_a_count_is_of_periods_that_have_a_snapshot_and_a_length_of_time_is_not():
    sparse = [at(0), at(-24 * 30), at(-24 * 60)]
    assert kept("daily 2", *sparse) == {"s0", "s-720"}
    assert kept("daily 2d", *sparse) == {"s0"}
    assert kept("daily 31d", *sparse) == {"s0", "s-720"}
    assert kept("daily forever", *sparse) == {"s0", "s-720", "s-1440"}


def test_a_length_of_time_counts_from_the_newest_healthy_snapshot_and_not_from_now():
    old = [at(-24 * 8), at(-24 * 7), at(-24), at(0)]
    assert kept("7d", *old, now=NOON + timedelta(days=3000)) == {"s-168", "s-24", "s0"}
    assert kept("7d", *old, at(24 * 7, UNHEALTHY), at(24 * 7, REPLACED, id="r")) >= {"s-168", "s-24", "s0"}


def test_periods_are_those_of_utc():
    east = timezone(timedelta(hours=14))
    early = attrs.evolve(at(-24), time=(NOON - timedelta(hours=24)).astimezone(east))
    assert kept("daily 5", at(-23), early) == {"s-23"}


def test_no_time_is_too_odd():
    ends = [datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), datetime.min.replace(tzinfo=UTC)]
    odd = [Candidate(id=str(time.year), time=time, store="s", stored=ends[1]) for time in ends]
    every = "hourly 9d, daily 9, weekly 9, monthly 9, yearly 100000y, within 100000y, tag x 7d"
    plan = apply(Policy.parse(every), [*odd, at(0)], now=NOON)
    assert len(plan.kept) == 3
    assert "9999-12-31 23:59:59" in str(plan)


def test_weeks_begin_on_monday_and_years_end_with_december():
    assert kept("weekly 2", at(0), at(13), at(-24 * 6)) == {"s13", "s0"}
    assert kept("yearly 5", at(0), at(-24 * 24), at(-24 * 25)) == {"s0", "s-600"}


def test_a_rule_for_a_tag_keeps_more_and_counts_only_the_tagged():
    nightly = {"tags": ("nightly",)}
    snapshots = [at(0), at(-1, **nightly), at(-24, **nightly), at(-25), at(-48, **nightly), at(-72, tags=("keep",))]
    assert kept("last 1, tag nightly daily 2, tag keep forever", *snapshots) == {"s0", "s-1", "s-24", "s-72"}
    assert reasons("last 1, tag nightly daily 2", *snapshots)["s-48"] == ("too old for last 1, tag nightly daily 2",)


def test_stores_are_judged_each_on_its_own():
    assert kept("last 1", at(0), at(1), at(-5000, store="t")) == {"s1", "t-5000"}


def test_what_no_rule_looks_at_says_so():
    assert reasons("tag x 7d", at(0), at(1))["s0"] == ("no rule is for it",)


# -- what is not healthy -----------------------------------------------------------------------------------------------


def test_unhealthy_snapshots_push_out_no_healthy_one():
    assert kept("last 1", at(0), at(1, UNHEALTHY), at(2, UNHEALTHY)) == {"s0", "s2"}
    assert kept("last 1, tag t last 1", at(0, tags=("t",)), at(1, UNHEALTHY, tags=("t",)), at(2)) == {"s0", "s1", "s2"}


def test_unhealthy_ones_stay_by_the_rules_until_a_healthy_one_is_newer():
    ill = [at(hour, UNHEALTHY) for hour in (-48, -47, -24, 0)]
    assert kept("daily 2", at(-49), *ill) == {"s-49", "s0", "s-24"}
    said = reasons("daily 2", at(-49), *ill, at(1))
    assert said["s0"] == said["s-48"] == ("unhealthy, and a healthy one is newer",)
    assert kept("daily 2", at(-49), *ill, at(1)) == {"s-49", "s1"}


def test_a_store_without_a_healthy_snapshot_is_not_emptied():
    ill = [at(hour, UNHEALTHY) for hour in (-48, -47, -24, 0)]
    plan = apply(Policy.parse("tag typo 7d"), ill)
    assert plan.kept == ("s0",)
    assert any("no healthy snapshot" in warning for warning in plan.warnings)
    assert kept("daily 2", *ill) == {"s0", "s-24"}
    assert kept("tag typo 7d", at(0, REPLACED), at(-1, REPLACED), at(-24 * 9, REPLACED)) == {"s0", "s-1"}


def test_what_was_replaced_stays_for_a_week_unless_its_tag_has_a_rule():
    failed = [at(hour, REPLACED, tags=("failed-ingest",)) for hour in (-24 * 8, -24 * 6, -24)]
    assert kept("last 1", *failed, at(0)) == {"s-144", "s-24", "s0"}
    assert kept("last 1, tag failed-ingest last 1", *failed, at(0)) == {"s-24", "s0"}


def test_the_newest_snapshot_stays_since_a_guard_may_be_about_to_go_back_to_it():
    assert kept("tag x 7d", at(-1), at(0, UNHEALTHY)) == {"s-1", "s0"}


def test_damaged_snapshots_stay_until_somebody_decides_and_count_for_nothing():
    assert kept("last 1", at(-1), at(0, DAMAGED)) == {"s-1", "s0"}
    assert "damaged" in reasons("last 1", at(-1), at(0, DAMAGED))["s0"][0]


def test_pinned_snapshots_stay():
    assert kept("last 1", at(-1, pinned=True), at(-2, UNHEALTHY, pinned=True), at(0), at(-3)) == {"s0", "s-1", "s-2"}


# -- mistakes and clocks -----------------------------------------------------------------------------------------------


def test_a_rule_for_a_tag_that_no_snapshot_has_is_warned_of():
    plan = apply(Policy.parse("last 1, tag nigthly 7d, tag pre-ingest 7d, tag other 7d"), [at(0, tags=("nightly",))])
    assert [warning for warning in plan.warnings if "'nigthly'" in warning and "did you mean 'nightly'?" in warning]
    assert [warning for warning in plan.warnings if "'other'" in warning]
    assert len(plan.warnings) == 2


def test_snapshots_from_the_future_push_nothing_out():
    genuine = [at(-hour) for hour in range(5)]
    forged = [at(24 * 365 + hour, id=f"f{hour}") for hour in range(100)]
    plan = apply(Policy.parse("last 3"), [*genuine, *forged], now=NOON)
    assert set(plan.kept) == {"s0", "s-1", "s-2", "f99", "f98", "f97"}
    assert "f0, f1" in plan.warnings[0]
    assert "clock was wrong" in plan.warnings[0]
    stored = [attrs.evolve(snapshot, stored=NOON) for snapshot in forged]
    assert kept("last 3", *genuine, *stored) == set(plan.kept)
    assert plan.verdicts[-1].reasons[0] == "its time is not believed, so it is judged apart"


def test_a_storage_that_lies_about_all_times_changes_nothing():
    snapshots = [at(-hour) for hour in range(100)]
    lied = [attrs.evolve(snapshot, stored=datetime(1980, 1, 1, tzinfo=UTC)) for snapshot in snapshots]
    assert kept("last 3, daily 3", *lied) == kept("last 3, daily 3", *snapshots)


def test_a_host_whose_clock_went_back_keeps_what_it_stored_last():
    stored = [at(-hour, stored=NOON - timedelta(hours=hour)) for hour in range(1, 5)]
    lost = at(-24 * 365 * 50, stored=NOON, id="new")
    assert kept("last 1", *stored, lost) == {"s-1", "new"}
    assert "by the storage's clock" in reasons("last 1", *stored, lost)["new"][0]


def test_thousands_are_judged_in_no_time():
    tags = itertools.cycle([(), ("pre-ingest",)])
    many = [at(-hour / 3, tags=next(tags), stored=NOON) for hour in range(5000)]
    begun = time.process_time()
    plan = apply(DEFAULT, many, now=NOON)
    assert str(plan).count("\n") > 5000
    assert still_forgotten(plan.forgotten, many) == plan.forgotten
    assert time.process_time() - begun < 10  # half a second here; this is to notice what grows with the square


# -- showing -----------------------------------------------------------------------------------------------------------


def test_a_plan_is_a_table_for_each_store():
    plan = apply(
        Policy.parse("last 1"), [at(0, tags=("a", "b")), at(-1, UNHEALTHY), at(0, store="\x1b[31mt\n", id="t0")]
    )
    assert str(plan).splitlines() == [
        "s",
        "  what    time (UTC)           snapshot  state      tags  why",
        "  forget  2026-01-25 11:00:00  s-1       unhealthy  -     unhealthy, and a healthy one is newer",
        "  keep    2026-01-25 12:00:00  s0        healthy    a, b  last healthy snapshot of the store; last 1",
        "",
        "\\x1b[31mt\\n",
        "  what  time (UTC)           snapshot  state    tags  why",
        "  keep  2026-01-25 12:00:00  t0        healthy  -     last healthy snapshot of the store; last 1",
        "",
        "2 kept, 1 to be forgotten under last 1",
    ]
    shown = attrs.evolve(plan, warnings=("<b>",))._repr_html_()
    assert "unhealthy, and a healthy one is newer" in shown
    assert "warning: &lt;b&gt;" in shown
    assert str(attrs.evolve(plan, warnings=("odd",))).splitlines()[-2] == "warning: odd"
    assert str(apply(DEFAULT, [])).startswith("0 kept, 0 to be forgotten")


# -- promises, for any snapshots ---------------------------------------------------------------------------------------

hours = st.integers(-2000, 2000) | st.sampled_from([-400_000, 400_000, 700_000])
times = st.none() | hours.map(lambda hour: NOON + timedelta(hours=hour))
tags = st.sampled_from([(), ("x",), ("x", "y")])
candidates = st.lists(
    st.builds(
        at,
        hours,
        st.sampled_from([HEALTHY, HEALTHY, UNHEALTHY, REPLACED, DAMAGED]),
        store=st.sampled_from("ab"),
        tags=tags,
        stored=times,
        pinned=st.sampled_from([False, False, False, True]),
    ),
    max_size=25,
).map(lambda found: [attrs.evolve(one, id=f"{number:02}") for number, one in enumerate(found)])
numbers = st.integers(0, 3)
reaches = numbers | st.sampled_from(["36h", "9d", "3w", "2m", "1y", "forever"])
period_rules = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), reaches)
rules = st.fixed_dictionaries({}, optional={"last": numbers, "within": st.just("5d"), **period_rules})
policies = st.builds(
    lambda general, tagged: {**general, "tags": {tag: table for tag, table in tagged.items() if any(table.values())}},
    rules,
    st.dictionaries(st.sampled_from(["x", "y", "typo"]), rules, max_size=2),
).filter(lambda table: any(table.values()))


def newest(snapshots: list[Candidate]) -> Candidate:
    return max(snapshots, key=lambda candidate: (candidate.time, candidate.id))


@settings(deadline=None)
@given(policies, candidates, times)
def test_no_store_is_emptied_and_its_last_healthy_snapshot_stays(policy, snapshots, now):
    stays = kept(policy, *snapshots, now=now)
    for store in {candidate.store for candidate in snapshots}:
        members = [candidate for candidate in snapshots if candidate.store == store]
        assert any(candidate.id in stays for candidate in members)
        healthy = [candidate for candidate in members if candidate.state is HEALTHY]
        if healthy:
            assert newest(healthy).id in stays
        timed = [candidate for candidate in healthy if candidate.stored]
        if timed:
            last = max(candidate.stored for candidate in timed)
            assert any(candidate.stored == last and candidate.id in stays for candidate in timed)


@settings(deadline=None)
@given(policies, candidates, times)
def test_what_is_not_healthy_changes_nothing_for_what_is(policy, snapshots, now):
    healthy = [candidate for candidate in snapshots if candidate.state is HEALTHY]
    assert kept(policy, *healthy, now=now) == kept(policy, *snapshots, now=now) & {one.id for one in healthy}


@settings(deadline=None)
@given(policies, candidates, times)
def test_doubting_clocks_only_ever_keeps_more(policy, snapshots, now):
    trusting = kept(policy, *(attrs.evolve(candidate, stored=None) for candidate in snapshots))
    assert trusting <= kept(policy, *snapshots, now=now)


@settings(deadline=None)
@given(policies, candidates, candidates)
def test_snapshots_whose_time_is_not_believed_push_nothing_out(policy, snapshots, others):
    forged = [attrs.evolve(one, id=f"f{one.id}", stored=one.time - timedelta(days=2), pinned=False) for one in others]
    without_storage = [attrs.evolve(candidate, stored=None) for candidate in snapshots]
    assert kept(policy, *without_storage) <= kept(policy, *without_storage, *forged)


@settings(deadline=None)
@given(policies, candidates, candidates)
def test_snapshots_from_the_distant_past_push_nothing_out(policy, snapshots, others):
    ancient = [
        attrs.evolve(one, id=f"a{one.id}", time=one.time - timedelta(days=300_000), stored=None) for one in others
    ]
    snapshots = [attrs.evolve(candidate, stored=None) for candidate in snapshots]
    old = {candidate.id for candidate in snapshots}
    assert kept(policy, *snapshots) <= kept(policy, *snapshots, *ancient)
    # Those that are no worse than what is there change no verdict at all.
    present = {candidate.store for candidate in snapshots if candidate.state is HEALTHY}
    same = [one for one in ancient if one.store in present]
    assert kept(policy, *snapshots) == kept(policy, *snapshots, *same) & old


@settings(deadline=None)
@given(
    st.fixed_dictionaries({"last": numbers}, optional=dict.fromkeys(period_rules, numbers)).filter(
        lambda table: any(table.values())
    ),
    st.lists(hours, max_size=30, unique=True),
    st.lists(hours, max_size=4, unique=True),
)
def test_a_clock_that_jumps_unnoticed_costs_at_most_one_snapshot_for_each_rule(policy, genuine, wrong):
    snapshots = [at(hour) for hour in genuine]
    lost = kept(policy, *snapshots) - kept(policy, *snapshots, *(at(hour, id=f"w{hour}") for hour in wrong))
    assert len(lost) <= len(wrong) * len(Policy.of(policy).rules) + 1


@settings(deadline=None)
@given(policies, candidates, times)
def test_applying_a_policy_twice_forgets_nothing_more(policy, snapshots, now):
    stays = kept(policy, *snapshots, now=now)
    assert kept(policy, *(candidate for candidate in snapshots if candidate.id in stays), now=now) == stays


@settings(deadline=None)
@given(policies, candidates, times, st.randoms(use_true_random=False))
def test_the_order_in_which_snapshots_are_listed_means_nothing(policy, snapshots, now, random):
    mixed = random.sample(snapshots, len(snapshots))
    assert apply(Policy.of(policy), mixed, now=now) == apply(Policy.of(policy), snapshots, now=now)


@settings(deadline=None)
@given(policies, candidates, times)
def test_pinned_and_damaged_ones_stay_and_every_verdict_has_a_reason(policy, snapshots, now):
    plan = apply(Policy.of(policy), snapshots, now=now)
    assert {one.id for one in snapshots if one.pinned or one.state is DAMAGED} <= set(plan.kept)
    assert all(verdict.reasons and all(verdict.reasons) for verdict in plan.verdicts)
    assert still_forgotten(plan.forgotten, snapshots) == plan.forgotten


@settings(deadline=None)
@given(candidates, st.data())
def test_a_plan_that_has_aged_leaves_each_store_the_best_it_has(snapshots, data):
    if not snapshots:
        return
    some = st.sets(st.sampled_from([candidate.id for candidate in snapshots]))
    there = [candidate for candidate in snapshots if candidate.id not in data.draw(some, "gone since")]
    going = set(still_forgotten(sorted(data.draw(some, "to be forgotten")), there))
    for store in {candidate.store for candidate in there}:
        members = [candidate for candidate in there if candidate.store == store]
        left = [candidate for candidate in members if candidate.id not in going]
        assert left
        if any(candidate.state is HEALTHY for candidate in members):
            assert any(candidate.state is HEALTHY for candidate in left)
    assert not going & {candidate.id for candidate in there if candidate.pinned or candidate.state is DAMAGED}
