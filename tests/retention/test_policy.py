"""A policy is said in few words, as text, as a table or in Python, and a wrong word is named."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novabackup import ConfigurationError, Policy, guard, retention
from novabackup.format.records import FAILED_TAG, REPLACED_TAG
from novabackup.retention import judging

TEXT = 'last 3, within 36h, hourly 24, daily 30d, yearly forever, tag keep forever, tag "two words" daily 3 weekly 4'
TOML = """
last = 3
within = "36h"
hourly = 24
daily = "30d"
yearly = "forever"
monthly = 0
[tags]
keep = "forever"
"two words" = { daily = 3, weekly = "4" }
"""


def test_text_table_and_python_say_the_same():
    in_python = Policy(
        last=3,
        within="36h",
        hourly=24,
        daily="30d",
        yearly="forever",
        tags={"keep": Policy(within="forever"), "two words": "daily 3, weekly 4"},
    )
    assert Policy.parse(TEXT) == in_python == Policy.of(tomllib.loads(TOML)) == Policy.of(in_python)
    assert str(in_python) == TEXT
    assert repr(in_python) == f"Policy.parse({TEXT!r})"
    assert len({in_python, Policy.parse(TEXT)}) == 1


def test_commas_line_ends_and_spaces_part_rules():
    assert Policy.parse("\n hourly 24 daily 30 ,7d,\n tag x 1w,\n") == Policy.parse("hourly 24, daily 30, 7d, tag x 1w")
    assert str(Policy.parse("7d")) == "within 7d"


def test_ready_made_policies_have_names():
    assert Policy.parse("default") is retention.DEFAULT
    assert str(Policy.parse(" local ")) == "hourly 24, daily 30, tag pre-ingest 7d"
    assert str(retention.REMOTE) == "daily 30, weekly 12"
    assert str(retention.COLD) == "monthly 12"
    assert str(retention.DEFAULT) == "hourly 24, daily 30, weekly 12, monthly 12, tag pre-ingest 7d"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("  ,", "found none"),
        ("hourly 0, daily 0", "found none"),
        ("dayly 30", r"found 'dayly'. Did you mean 'daily'\?"),
        ("tag x dayly 30", "tag 'x'.*found 'dayly'. Did you mean 'daily'"),
        ("daily", "behind 'daily', found nothing"),
        ("daily many", "'daily': expected how many.*found 'many'"),
        ("daily -1", "found '-1'"),
        ("daily 30 days", "found 'days'"),
        ("daily 100001", "found '100001'"),
        ("daily 9999999999999999999999", "found '9999"),
        ("daily ²", "found '²'"),
        ("30", "'daily 30'.*'30d'.*found '30' alone"),
        ("last 7d", "'last'.*found '7d'.*'within 7d'"),
        ("within 7", "'within'.*found '7'.*'last 7'"),
        ("daily 3, daily 4", "'daily' is there twice"),
        ("tag", "the name of a tag behind 'tag'"),
        ("tag x", "of tag 'x', such as 7d, found nothing"),
        ("tag x last 0", "tag 'x': .*found none"),
        ("tag x 7d, tag x 8d", "tag 'x' is there twice"),
        ("tag x tag y 7d", "tag 'x'.*found 'tag'"),
        ('tag "x 7d', "second quote"),
        (r'tag "\q" 7d', "quoted as in JSON"),
        ("locale", "found 'locale'"),
    ],
)
def test_a_wrong_word_is_named(text, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        Policy.parse(text)
    assert str(caught.value).startswith(f"policy {text!r}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "found none"),
        ({"dialy": 30}, "found 'dialy'. Did you mean 'daily'"),
        ({"daily": True}, "'daily': .*found True"),
        ({"daily": -1}, "'daily': .*found -1"),
        ({"daily": 1.5}, "'daily': .*found 1.5"),
        ({"daily": [30]}, r"'daily': .*found \[30\]"),
        ({"tags": ["x"]}, r"'tags' says.*found \['x'\]"),
        ({"tags": ("x",)}, r"'tags' says.*found \('x',\)"),
        ({"tags": {"x": 7}}, "tag 'x': .*found 7"),
        ({"tags": {"x": {"dialy": 7}}}, "tag 'x': .*found 'dialy'"),
        ({"tags": {"x": {"tags": {"y": "7d"}}}}, "tag 'x': .*other tags"),
        (7, "found 7"),
        (None, "found None"),
    ],
)
def test_a_wrong_table_is_refused(table, message):
    with pytest.raises(ConfigurationError, match=message):
        Policy.of(table)


def test_a_policy_that_keeps_nothing_cannot_be_made():
    with pytest.raises(ConfigurationError, match="expected at least one rule"):
        Policy(last=0, daily=0)


def test_the_tags_that_novabackup_gives_are_known():
    own = guard.snapshot.__kwdefaults__["tags"]
    assert set(judging._OWN_TAGS) == {*own, FAILED_TAG, REPLACED_TAG}


counts = st.integers(0, 100_000)
lengths = st.builds("{}{}".format, st.integers(1, 100_000), st.sampled_from("hdwmy")) | st.just("forever")
tables = st.fixed_dictionaries(
    {},
    optional={
        "last": counts,
        "within": lengths,
        **dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), counts | lengths),
    },
).filter(lambda table: any(table.values()))


@settings(deadline=None)
@given(tables, st.dictionaries(st.text(), tables, max_size=3))
def test_what_a_policy_says_of_itself_can_be_read_back(table, tags):
    policy = Policy.of({**table, "tags": tags})
    assert Policy.parse(str(policy)) == policy


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(["tag", "daily", "7d", "3", ",", '"', "x"])).map(" ".join))
def test_no_text_is_an_accident(text):
    try:
        policy = Policy.parse(text)
    except ConfigurationError:
        return
    assert policy.rules or policy.tags
