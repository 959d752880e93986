"""Type checks of arguments that callers mix up, so that the error is raised where they are passed."""

from __future__ import annotations

from novabackup.errors import ConfigurationError

__all__ = ["expect"]


def expect(value: object, kind: type, instead: str) -> None:
    """Refuse an argument of another type.

    Args:
        value: The argument; not shown, as a URL can contain secrets.
        kind: The required type.
        instead: What to write.

    Raises:
        ConfigurationError: It has another type.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ConfigurationError(f"expected {article} {kind.__name__}, found a {type(value).__name__}: write {instead}")
