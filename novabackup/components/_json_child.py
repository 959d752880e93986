"""Decides in a child process whether Python's own json module reads a file that a stricter parser refuses.

``json.dump`` writes ``NaN``, ``Infinity`` and lone surrogates, which are no JSON, and ``json.load`` reads them back.
"""

import json
import os


def look(arguments: dict[str, str | None]) -> dict[str, object]:
    """Read standard input as JSON and count what is asked for.

    Args:
        arguments: ``count_key``: name of the value that states the count, or None.

    Returns:
        ``shape`` (``list`` or ``dict``) and ``count``; None where there is no count.
    """
    with os.fdopen(os.dup(0), "rb") as file:
        value = json.loads(file.read().decode("utf-8-sig"))
    if not isinstance(value, (list, dict)):
        return {"shape": type(value).__name__, "count": None}
    key = arguments["count_key"]
    if key is None:
        return {"shape": type(value).__name__, "count": len(value)}
    stated = value.get(key) if isinstance(value, dict) else None
    if isinstance(stated, (list, dict)):
        return {"shape": type(value).__name__, "count": len(stated)}
    good = isinstance(stated, int) and not isinstance(stated, bool) and 0 <= stated < 1 << 63
    return {"shape": type(value).__name__, "count": stated if good else None}
