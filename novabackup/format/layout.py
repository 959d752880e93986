"""Keys and folders of all objects of a repository."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

CONFIG_KEY = "config.json"
README_KEY = "README.txt"
EXTRACT_KEY = "extract.py"

KEYS = "keys"
SNAPSHOTS = "snapshots"
PACKS = "packs"
PINS = "pins"
DRILLS = "drills"
CONDEMNED = "condemned"
FORGOTTEN = "forgotten"
DAMAGED = "damaged"
"""The folder for objects that were damaged and have been replaced; only people and `repair` read it."""
FOREIGN = frozenset({"config", "data", "index", KEYS, "locks", PACKS, SNAPSHOTS, CONDEMNED})
"""Top-level names that, without our config.json, show another program's repository (restic's, borg's) or what is left
of one of ours."""

SLOT_NAME = re.compile(rf"{KEYS}/([0-9a-f]{{16}})\.json")
SNAPSHOT_NAME = re.compile(rf"{SNAPSHOTS}/(\d{{8}}T\d{{6}}Z-[0-9a-f]{{20}})\.json")
PACK_NAME = re.compile(rf"{PACKS}/[0-9a-f]{{2}}/([0-9a-f]{{64}})")
PIN_NAME = re.compile(rf"{PINS}/(\d{{8}}T\d{{6}}Z-[0-9a-f]{{20}})\.json")
DRILL_NAME = re.compile(rf"{DRILLS}/\d{{8}}T\d{{6}}Z-[0-9a-f]{{16}}\.json")


def slot_key(name: str) -> str:
    """Return the key under which a slot is stored."""
    return f"{KEYS}/{name}.json"


def snapshot_key(name: str) -> str:
    """Return the key of a snapshot."""
    return f"{SNAPSHOTS}/{name}.json"


def pack_key(pack_id: str) -> str:
    """Return the key of a pack."""
    return f"{PACKS}/{pack_id[:2]}/{pack_id}"


def pin_key(name: str) -> str:
    """Return the key of the pin of a snapshot."""
    return f"{PINS}/{name}.json"


def dated_key(folder: str) -> str:
    """Return a new key for a record that is named by the time when it is written."""
    return f"{folder}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}.json"


def clock_key() -> str:
    """Return a new key for an empty object whose time of writing shows the storage's clock."""
    return f"{CONDEMNED}/clock-{secrets.token_hex(8)}"
