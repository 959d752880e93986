"""The keys of all objects in a repository.

No other module spells one.
"""

from __future__ import annotations

import re

CONFIG_KEY = "config.json"
README_KEY = "README.txt"
EXTRACT_KEY = "extract.py"

PACKS = "packs"
SNAPSHOTS = "snapshots"
KEYS = "keys"
PINS = "pins"
DRILLS = "drills"
CONDEMNED = "condemned"
FORGOTTEN = "forgotten"
DAMAGED = "damaged"
"""The folder for objects that a repair has replaced; only people and `repair` read what is in it."""

FOREIGN = frozenset({"config", "data", "index", "locks", KEYS, PACKS, SNAPSHOTS, CONDEMNED})
"""Top-level names that, without our ``config.json``, show another program's repository, or the rest of a lost one."""

_SNAPSHOT_ID = r"\d{8}T\d{6}Z-[0-9a-f]{20}"
_DATED = r"\d{8}T\d{6}Z-[0-9a-f]{16}"
SNAPSHOT_NAME = re.compile(rf"{SNAPSHOTS}/({_SNAPSHOT_ID})\.json")
PACK_NAME = re.compile(rf"{PACKS}/[0-9a-f]{{2}}/([0-9a-f]{{64}})")
PIN_NAME = re.compile(rf"{PINS}/({_SNAPSHOT_ID})\.json")
SLOT_NAME = re.compile(rf"{KEYS}/([0-9a-f]{{16}})\.json")
DRILL_NAME = re.compile(rf"{DRILLS}/{_DATED}\.json")

_SNAPSHOT_NAMES = re.compile(rf"(?<=\0){SNAPSHOT_NAME.pattern}(?=\0)")
_OURS = re.compile(rf"{PACK_NAME.pattern}|{SNAPSHOT_NAME.pattern}|{CONDEMNED}/.*|{SLOT_NAME.pattern}", re.DOTALL)


def snapshot_key(name: str) -> str:
    """Return the key of a snapshot."""
    return f"{SNAPSHOTS}/{name}.json"


def pack_key(pack_id: str) -> str:
    """Return the key of a pack."""
    return f"{PACKS}/{pack_id[:2]}/{pack_id}"


def pin_key(name: str) -> str:
    """Return the key of the pin of a snapshot."""
    return f"{PINS}/{name}.json"


def slot_key(name: str) -> str:
    """Return the key of a key slot."""
    return f"{KEYS}/{name}.json"


def dated_key(folder: str, time: str, token: str) -> str:
    """Return the key of a record whose name tells only when it was written: time as in snapshot ids, 16 hex digits."""
    return f"{folder}/{time}-{token}.json"


def clock_key(token: str) -> str:
    """Return the key of the empty object whose time tells the storage's clock; 16 hex digits."""
    return f"{CONDEMNED}/clock-{token}"


def snapshot_names(keys: list[str]) -> list[str]:
    """Return the ids of the snapshots among some keys, in their order."""
    # By one search, since there may be thousands, and each backup lists them.
    return _SNAPSHOT_NAMES.findall("\0".join(("", *keys, "")))


def is_foreign(key: str) -> bool:
    """Return whether a key belongs to another program's repository."""
    return key.partition("/")[0] in FOREIGN and not _OURS.fullmatch(key)
