"""What callers mix up: an argument of another kind is named where it was passed, not where it is first used."""

from __future__ import annotations

from novabackup.errors import ConfigurationError

__all__ = ["expect"]


def expect(value: object, kind: type, instead: str) -> None:
    """Refuse an argument that is of another kind.

    Args:
        value: What was passed; not shown, as a URL can hold secrets.
        kind: What it must be.
        instead: What to write.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ConfigurationError(f"expected {article} {kind.__name__}, found a {type(value).__name__}: write {instead}")
