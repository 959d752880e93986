"""Retention policies: how many snapshots to keep, how long, and for which tag; also as text."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import attrs

from novabackup.errors import ConfigurationError

__all__ = ["COLD", "DEFAULT", "LOCAL", "REMOTE", "Policy", "Reach", "Rule"]

_FOREVER = "forever"
_LENGTHS = {
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "m": timedelta(days=31),
    "y": timedelta(days=366),
}
"""Months and years have their greatest length, so that a snapshot is forgotten too late rather than too early."""

_MOST = 100_000
"""Largest number: far beyond any use, and every length of time can still be computed."""

_REACH = re.compile(r"(\d+)([hdwmy]?)", re.ASCII)
_TOKEN = re.compile(r'\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<comma>,)|(?P<word>[^\s,"]+))', re.DOTALL)
_BARE_TAG = re.compile(r'[^\s,"]+')


@attrs.frozen
class Reach:
    """How far back a rule goes.

    Attributes:
        number: The number; 0 keeps nothing.
        unit: Its unit: empty for snapshots or periods, ``h``, ``d``, ``w``, ``m`` or ``y`` for a length of time,
            ``forever`` for no end.
    """

    number: int
    unit: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is a number of snapshots or periods, not a length of time."""
        return not self.unit

    @property
    def length(self) -> timedelta | None:
        """The length of time; None for a count and for ``forever``."""
        return _LENGTHS[self.unit] * self.number if self.unit in _LENGTHS else None

    def covers(self, newer: int, age: timedelta) -> bool:
        """Return whether a snapshot is within reach.

        Args:
            newer: How many newer ones, each in its own period, the rule keeps already.
            age: How much older it is than the snapshot that ages are measured from.
        """
        if self.counts:
            return newer < self.number
        return self.length is None or age <= self.length

    def __bool__(self) -> bool:
        return self.number > 0

    def __str__(self) -> str:
        return _FOREVER if self.unit == _FOREVER else f"{self.number}{self.unit}"


def _reach(value: int | str | Reach) -> Reach:
    if isinstance(value, Reach):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return Reach(value)
    if value == _FOREVER:
        return Reach(1, _FOREVER)
    found = _REACH.fullmatch(value) if isinstance(value, str) else None
    if found and len(found[1]) <= len(str(_MOST)) and int(found[1]) <= _MOST:
        return Reach(int(found[1]), found[2])
    raise ConfigurationError(
        f"expected how many to keep, such as 24, how long, such as 36h, 7d, 12w, 6m or 2y, or {_FOREVER!r} "
        f"(numbers up to {_MOST}), found {value!r}"
    )


def _is_a_count(_instance: object, field: attrs.Attribute[Reach], value: Reach) -> None:
    if not value.counts:
        raise ConfigurationError(
            f"{field.name!r} is how many of the newest to keep: expected a number, found '{value}'. "
            f"To keep all for some time: 'within {value}'"
        )


def _is_no_count(_instance: object, field: attrs.Attribute[Reach], value: Reach) -> None:
    if value.counts and value:
        raise ConfigurationError(
            f"{field.name!r} is how long to keep all: expected such as 7d, found '{value}'. "
            f"To keep so many: 'last {value}'"
        )


def _tags(value: Mapping[str, Any] | tuple[tuple[str, Policy], ...]) -> tuple[tuple[str, Policy], ...]:
    found: dict[str, Policy] = {}
    for tag, rules in _pairs(value):
        try:
            found[tag] = Policy.of(rules)
        except ConfigurationError as error:
            raise ConfigurationError(f"tag {tag!r}: {error}") from None
        if found[tag].tags:
            raise ConfigurationError(f"tag {tag!r}: a rule for a tag cannot hold rules for other tags")
    return tuple(sorted(found.items()))


def _pairs(value: object) -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value if isinstance(value, tuple) else [value]
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ConfigurationError(
                "'tags' says what to keep of each tag: expected such as {'pre-ingest': '7d', 'keep': 'forever'}, "
                f"found {value!r}"
            )
        yield pair


@attrs.frozen
class Rule:
    """One rule of a policy.

    Attributes:
        word: ``last`` and ``within`` apply to each snapshot, ``hourly`` to ``yearly`` at the newest of each period.
        reach: How far back.
    """

    word: str
    reach: Reach

    def __str__(self) -> str:
        return f"{self.word} {self.reach}"


@attrs.frozen(kw_only=True, repr=False)
class Policy:
    """What to keep of each store. A snapshot stays if any rule keeps it.

    ``hourly`` to ``yearly`` keep the newest of each period: a number counts periods *that have a snapshot*, so gaps
    cost nothing; a length of time such as ``"24h"`` goes back from the newest healthy snapshot of the store,
    never from now. Periods are those of UTC.

    ``Policy(last=3, daily=30, tags={"pre-ingest": "7d"})`` is the same as
    ``Policy.parse("last 3, daily 30, tag pre-ingest 7d")`` and as
    ``Policy.of({"last": 3, "daily": 30, "tags": {"pre-ingest": "7d"}})``, which is how TOML represents it.

    Attributes:
        last: Number of the newest snapshots to keep.
        within: Keep all up to this age, such as ``"7d"``, or ``"forever"``.
        hourly: The newest of each hour.
        daily: The newest of each day.
        weekly: The newest of each week (ISO 8601, beginning on Monday).
        monthly: The newest of each month.
        yearly: The newest of each year.
        tags: What else to keep of the snapshots with a tag: passed as a mapping to a policy, a text or a table, and
            stored as pairs sorted by tag.

    Raises:
        ConfigurationError: A value is invalid, or nothing would be kept at all.
    """

    last: Reach = attrs.field(default=Reach(0), converter=_reach, validator=_is_a_count)
    within: Reach = attrs.field(default=Reach(0), converter=_reach, validator=_is_no_count)
    hourly: Reach = attrs.field(default=Reach(0), converter=_reach)
    daily: Reach = attrs.field(default=Reach(0), converter=_reach)
    weekly: Reach = attrs.field(default=Reach(0), converter=_reach)
    monthly: Reach = attrs.field(default=Reach(0), converter=_reach)
    yearly: Reach = attrs.field(default=Reach(0), converter=_reach)
    tags: tuple[tuple[str, Policy], ...] = attrs.field(default=(), converter=_tags)

    def __attrs_post_init__(self) -> None:
        if not self.rules and not self.tags:
            raise ConfigurationError(
                "a policy says what to keep: expected at least one rule above 0, such as 'daily 30', found none. "
                "To forget single snapshots, name them"
            )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules for all snapshots, whatever their tags."""
        return tuple(Rule(word, reach) for word in _WORDS if (reach := getattr(self, word)))

    # -- reading and writing it as text ------------------------------------------------------------------------------

    @classmethod
    def of(cls, what: Policy | str | Mapping[str, Any]) -> Policy:
        """Read a policy in any of its forms.

        Args:
            what: A policy, a text for `parse`, or a table: the names of the attributes with numbers or texts such as
                ``"24h"``, and ``tags`` with a table, a text or a policy for each tag.

        Raises:
            ConfigurationError: It cannot be understood; the message names the word.
        """
        if isinstance(what, Policy):
            return what
        if isinstance(what, str):
            return cls.parse(what)
        if not isinstance(what, Mapping):
            raise ConfigurationError(f"expected a policy, such as 'daily 30, weekly 12', found {what!r}")
        read: dict[str, Any] = {}
        for word, value in what.items():
            if word == "tags":
                read[word] = value
                continue
            if word not in _WORDS:
                raise ConfigurationError(_expected(word, (*_WORDS, "tags")))
            try:
                read[word] = _reach(value)
            except ConfigurationError as error:
                raise ConfigurationError(f"{word!r}: {error}") from None
        return cls(**read)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy from text, as for a command line or a configuration file.

        Rules are separated by commas or spaces: ``last 3, within 7d, hourly 24, daily 30,
        weekly 12, monthly 12, yearly forever``. A length of time alone is ``within``. ``tag <name>`` begins the rules
        of a tag, up to the next comma: ``tag pre-ingest 7d, tag nightly daily 30 weekly 52, tag keep forever``.
        A name with spaces, commas or quotes is quoted as in JSON. The predefined policies can be given by name:
        ``default``, ``local``, ``remote``, ``cold``.

        Args:
            text: The rules; ``str(policy)`` returns this form.

        Raises:
            ConfigurationError: It cannot be understood; the message names the word.
        """
        if text.strip() in _NAMED:
            return _NAMED[text.strip()]
        table: dict[str, Any] = {}
        tags: dict[str, Any] = {}
        try:
            for clause in _clauses(text):
                if clause[0] != "tag":
                    _read_rules(clause, table, (*_WORDS, "tag"))
                    continue
                tag = _unquoted(*clause[1:2])
                if tag in tags:
                    raise ConfigurationError(f"tag {tag!r} is there twice: put its rules side by side, without a comma")
                tags[tag] = _rules_of_tag(tag, clause[2:])
            return cls.of({**table, "tags": tags} if tags else table)
        except ConfigurationError as error:
            raise ConfigurationError(f"policy {text!r}: {error}") from None

    def __str__(self) -> str:
        clauses = [str(rule) for rule in self.rules]
        for tag, policy in self.tags:
            name = tag if _BARE_TAG.fullmatch(tag) else json.dumps(tag, ensure_ascii=False)
            rules = policy.rules
            alone = len(rules) == 1 and rules[0].word == "within"
            clauses.append(f"tag {name} {rules[0].reach if alone else ' '.join(map(str, rules))}")
        return ", ".join(clauses)

    def __repr__(self) -> str:
        return f"Policy.parse({str(self)!r})"


_WORDS = tuple(field.name for field in attrs.fields(Policy) if field.name != "tags")


def _clauses(text: str) -> Iterator[list[str]]:
    """Split a text at its commas, and each part into words; quoted words keep their quotes."""
    clause: list[str] = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ConfigurationError(f"expected a second quote behind {text[at:].strip()!r}")
        at = found.end()
        if not found["comma"]:
            clause.append(found["quoted"] or found["word"])
        elif clause:
            yield clause
            clause = []
    if clause:
        yield clause


def _rules_of_tag(tag: str, words: Sequence[str]) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    try:
        _read_rules(words, rules, _WORDS)
    except ConfigurationError as error:
        raise ConfigurationError(f"tag {tag!r}, whose rules go to the next comma: {error}") from None
    if not rules:
        raise ConfigurationError(f"expected what to keep of tag {tag!r}, such as 7d, found nothing")
    return rules


def _read_rules(words: Iterable[str], table: dict[str, Any], known: Sequence[str]) -> None:
    left = iter(words)
    for word in left:
        if word in _WORDS:
            name, value = word, next(left, None)
        elif word == _FOREVER or (_REACH.fullmatch(word) and not word.isdigit()):
            name, value = "within", word
        elif word.isdigit():
            raise ConfigurationError(
                f"expected what to keep {word} of: 'last {word}', 'daily {word}' … or '{word}d' for days, "
                f"found {word!r} alone"
            )
        else:
            raise ConfigurationError(_expected(word, known))
        if value is None:
            raise ConfigurationError(f"expected how many or how long behind {word!r}, found nothing")
        if name in table:
            raise ConfigurationError(f"{name!r} is there twice")
        table[name] = value


def _unquoted(word: str = "") -> str:
    if not word:
        raise ConfigurationError("expected the name of a tag behind 'tag', found nothing")
    if not word.startswith('"'):
        return word
    try:
        return str(json.loads(word, strict=False))
    except ValueError:
        raise ConfigurationError(f"expected the name of a tag, quoted as in JSON, found {word}") from None


def _expected(word: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1) if isinstance(word, str) else []
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"expected {', '.join(known[:-1])} or {known[-1]}, found {word!r}{hint}"


_NAMED: dict[str, Policy] = {}

DEFAULT = Policy.parse("hourly 24, daily 30, weekly 12, monthly 12, tag pre-ingest 7d")
"""For the only repository."""

LOCAL = Policy.parse("hourly 24, daily 30, tag pre-ingest 7d")
"""For a repository near the store, with mirrors."""

REMOTE = Policy.parse("daily 30, weekly 12")
"""For a mirror elsewhere."""

COLD = Policy.parse("monthly 12")
"""For a mirror on storage that is cheap to keep and expensive to read."""

_NAMED.update(default=DEFAULT, local=LOCAL, remote=REMOTE, cold=COLD)
