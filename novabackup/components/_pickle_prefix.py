"""Reads ``corpus_size`` from the first bytes of a pickled rank_bm25 object, without unpickling anything."""

from __future__ import annotations

import pickletools
from itertools import islice

__all__ = ["corpus_size"]

_OPCODES = 200
_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "UNICODE"})
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"})
_OTHERS = frozenset(
    {"BINFLOAT", "FLOAT", "NONE", "NEWTRUE", "NEWFALSE", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "MARK", "FRAME"}
)
_BEFORE = frozenset({"PROTO", "STACK_GLOBAL", "GLOBAL", "EMPTY_TUPLE", "NEWOBJ", "EMPTY_DICT"})


def corpus_size(head: bytes) -> tuple[str, int] | None:
    """Find the class and the number of documents of a pickled rank_bm25 object.

    The object's attributes are a dict whose first entries are plain numbers, ``corpus_size`` among them. Anything else
    before it, such as a list or a call, ends the search: this is a short cut for the common case, and any other pickle
    has to be read in full.

    Args:
        head: The first bytes of the pickle, protocol 2 or later.

    Returns:
        Name of the class and the number, or None if they are not found there.
    """
    texts: list[str] = []
    kind: str | None = None
    made = False
    key = ""
    for name, argument in _opcodes(head):
        if name == "GLOBAL" and kind is None:
            kind = str(argument).rpartition(" ")[2]
        elif name == "STACK_GLOBAL" and kind is None and len(texts) >= 2:
            kind = texts[-1]
        elif name == "NEWOBJ" and kind is not None:
            made = True
        elif name in _TEXTS:
            key = str(argument)
            texts.append(key)
        elif name in _NUMBERS:
            if made and key == "corpus_size" and kind is not None and isinstance(argument, int) and argument >= 0:
                return kind, argument
            key = ""
        elif name not in _OTHERS and (made or name not in _BEFORE) and not (made and name == "EMPTY_DICT"):
            return None
    return None


def _opcodes(head: bytes) -> list[tuple[str, object]]:
    """Decode the first opcodes, as far as they are complete."""
    found: list[tuple[str, object]] = []
    try:
        for opcode, argument, _ in islice(pickletools.genops(head), _OPCODES):
            found.append((opcode.name, argument))
    except Exception:  # noqa: BLE001, S110 - pickletools raises anything if an opcode is incomplete
        pass
    return found
