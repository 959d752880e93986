"""What a policy keeps, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from novabackup.retention import Candidate, Policy, apply

NOON = datetime(2026, 1, 25, 12, tzinfo=UTC)


def at(hours: float, *, healthy: bool = True, store: str = "s", tags: tuple[str, ...] = ()) -> Candidate:
    return Candidate(id=f"{store}{hours}", time=NOON + timedelta(hours=hours), store=store, tags=tags, healthy=healthy)


def kept(policy: Policy, *candidates: Candidate) -> set[str]:
    return {verdict.id for verdict in apply(policy, candidates).verdicts if verdict.kept}


def test_the_newest_of_each_period_is_kept_and_says_why():
    plan = apply(Policy(daily=2), [at(0), at(1), at(-24), at(-25), at(-48)])
    assert {verdict.id: verdict.reasons for verdict in plan.verdicts if verdict.kept} == {
        "s1": ("last healthy snapshot of the store", "daily 2026-01-25"),
        "s-24": ("daily 2026-01-24",),
    }
    assert plan.forgotten == ("s-48", "s-25", "s0")


def test_periods_without_a_snapshot_do_not_count():
    assert kept(Policy(daily=2), at(0), at(-24 * 30)) == {"s0", "s-720"}


def test_unhealthy_snapshots_push_out_no_healthy_one():
    assert kept(Policy(last=1), at(0), at(1, healthy=False), at(2, healthy=False)) == {"s0"}


def test_the_last_healthy_snapshot_of_each_store_stays_even_under_an_empty_policy():
    assert kept(Policy(), at(0), at(1), at(0, store="t")) == {"s1", "t0"}


def test_tagged_snapshots_stay():
    assert kept(Policy(tags=("pinned",)), at(0, tags=("pinned",)), at(1), at(2, healthy=False, tags=("pinned",))) == {
        "s0",
        "s1",
        "s2",
    }


def test_weeks_begin_on_monday():
    assert kept(Policy(weekly=2), at(0), at(13), at(-24 * 6)) == {"s13", "s0"}  # the 25th of January 2026 is a Sunday


candidates = st.lists(
    st.builds(
        at,
        st.integers(-2000, 2000),
        healthy=st.booleans(),
        store=st.sampled_from("ab"),
        tags=st.sampled_from([(), ("pinned",)]),
    ),
    unique_by=lambda candidate: candidate.id,
)
policies = st.builds(
    Policy, last=st.integers(0, 3), hourly=st.integers(0, 3), daily=st.integers(0, 3), monthly=st.integers(0, 3)
)


@given(policies, candidates)
def test_a_store_with_a_healthy_snapshot_always_keeps_its_newest(policy, snapshots):
    stays = kept(policy, *snapshots)
    for store in "ab":
        healthy = [candidate for candidate in snapshots if candidate.healthy and candidate.store == store]
        if healthy:
            assert max(healthy, key=lambda candidate: candidate.time).id in stays


@given(policies, candidates)
def test_applying_a_policy_twice_forgets_nothing_more(policy, snapshots):
    stays = kept(policy, *snapshots)
    assert kept(policy, *(candidate for candidate in snapshots if candidate.id in stays)) == stays


@given(policies, candidates, st.timedeltas(timedelta(0), timedelta(days=3000)))
def test_a_clock_that_jumps_does_not_empty_a_store(policy, snapshots, jump):
    assert len(kept(policy, *snapshots)) >= len({candidate.store for candidate in snapshots if candidate.healthy})
    late = at(jump.total_seconds() / 3600 + 3000, healthy=False)
    assert kept(policy, *snapshots) <= kept(policy, *snapshots, late)
