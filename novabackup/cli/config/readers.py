"""How values of the configuration file are read: by small functions that know what to expect, and say where."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

import attrs

from novabackup.cli.config.durations import seconds_of
from novabackup.cli.config.lines import Path, line_of
from novabackup.cli.config.secrets import Secret
from novabackup.errors import ConfigurationError

__all__ = [
    "Found",
    "Place",
    "choice",
    "flag",
    "keys",
    "location",
    "options",
    "seconds",
    "secret",
    "section",
    "setting",
    "tables",
    "text",
    "texts",
]

_Section = TypeVar("_Section")
_LONGEST_SHOWN = 60
_SECRET_NAME = re.compile(r"secret|password|passphrase|token|credential|account_key|connection_string", re.IGNORECASE)
_SECRET_FORMS = ("env", "file", "command")


@attrs.frozen
class Place:
    """Where a value stands.

    Attributes:
        file: The configuration file.
        lines: Line of each path in it.
        path: The value's own path.
    """

    file: FilePath
    lines: Mapping[Path, int] = attrs.field(repr=False)
    path: Path = ()

    def __truediv__(self, key: str | int) -> Place:
        return attrs.evolve(self, path=(*self.path, key))

    def __str__(self) -> str:
        dotted = ""
        for key in self.path:
            dotted += f"[{key + 1}]" if isinstance(key, int) else f".{key}"
        return f"{self.file}:{line_of(self.lines, self.path)}: {dotted.removeprefix('.')}"

    def wrong(self, expected: str, found: object) -> ConfigurationError:
        """Make the error that says what was expected and what was found here."""
        return ConfigurationError(f"{self}: expected {expected}, found {_shown(found)}")


class Found(str):
    """What was found, in words."""

    __slots__ = ()


def _shown(value: object) -> str:
    if isinstance(value, Found):
        return str(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    written = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return written if len(written) <= _LONGEST_SHOWN else f"{written[:_LONGEST_SHOWN]}… ({len(written)} characters)"


Read = Callable[[Place, Any], Any]
"""Turns what TOML gives into what the program uses, or raises a `ConfigurationError` that says where."""


def setting(read: Read, default: object = attrs.NOTHING) -> Any:
    """Declare a setting as a field of an attrs class.

    Args:
        read: Reads its value.
        default: Its value where the file has none; without it, the file must have one.
    """
    return attrs.field(default=default, metadata={"read": read})


def section(kind: type[_Section]) -> Callable[[Place, object], _Section]:
    """Read a table into an attrs class whose fields are settings."""

    def read(place: Place, value: object) -> _Section:
        if not isinstance(value, dict):
            raise place.wrong("a table", value)
        fields = {field.name: field for field in attrs.fields(kind)}  # type: ignore[arg-type]
        keys(place, value, fields)
        for name, field in fields.items():
            if field.default is attrs.NOTHING and name not in value:
                raise place.wrong(f"the key {name}", Found("none"))
        return kind(**{name: fields[name].metadata["read"](place / name, said) for name, said in value.items()})

    return read


def tables(read: Read) -> Read:
    """Read a table of values that are all alike, by names of one's own.

    Args:
        read: Reads each value.
    """

    def read_all(place: Place, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise place.wrong("a table", value)
        return {name: read(place / name, said) for name, said in value.items()}

    return read_all


def keys(place: Place, table: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse keys that nothing would read: most are misspelt.

    Raises:
        ConfigurationError: There is one.
    """
    known = list(known)
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise ConfigurationError(f"{place / key}: unknown key; {hint}")


def text(place: Place, value: object) -> str:
    """Read a text that is not empty, and that a path or an argument of a command can be."""
    if not isinstance(value, str) or not value:
        raise place.wrong("a text", value)
    if "\0" in value:
        raise place.wrong("a text without NUL characters", value)
    return value


def texts(place: Place, value: object) -> tuple[str, ...]:
    """Read a list of texts."""
    if not isinstance(value, list):
        raise place.wrong('a list of texts, such as ["**/*.log"]', value)
    return tuple(text(place / number, item) for number, item in enumerate(value))


def flag(place: Place, value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise place.wrong("true or false", value)
    return value


def seconds(place: Place, value: object) -> float:
    """Read a time span: seconds as a number, or a text such as ``"5m"``."""
    try:
        return seconds_of(value if isinstance(value, str) else str(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise place.wrong('seconds, or a text such as "90s", "5m", "2h" or "1d"', value) from None


def choice(*known: str) -> Callable[[Place, object], str]:
    """Read one of several words."""

    def read(place: Place, value: object) -> str:
        if value not in known:
            raise place.wrong(f"one of {', '.join(known)}", value)
        return str(value)

    return read


def location(place: Place, value: object) -> str:
    """Read a URL or a path; a relative path begins in the folder of the configuration file."""
    said = text(place, value)
    return said if "://" in said else str(place.file.parent / FilePath(said).expanduser())


def options(place: Place, value: object) -> dict[str, Any]:
    """Read options of a file system; whatever is secret must be said to be elsewhere.

    Raises:
        ConfigurationError: It is no table, or a secret stands in it in plain.
    """
    if not isinstance(value, dict):
        raise place.wrong("a table", value)
    return {key: _option(place / key, key, said) for key, said in value.items()}


def _option(place: Place, key: str, value: object) -> object:
    if isinstance(value, dict):
        return secret(place, value) if value.keys() & set(_SECRET_FORMS) else options(place, value)
    if isinstance(value, str | list) and _SECRET_NAME.search(key):
        raise ConfigurationError(
            f'{place}: expected {{ env = "NAME" }}, {{ file = "/path" }} or {{ command = "program argument" }}, '
            "found the secret itself (not shown). Move it out of this file"
        )
    return value


def secret(place: Place, value: object) -> Secret:
    """Read where a secret is kept: ``{ env = "NAME" }``, ``{ file = "/path" }`` or ``{ command = "…" }``."""
    if not isinstance(value, dict):
        raise ConfigurationError(f'{place}: expected a table such as {{ env = "NAME" }}, found something else')
    keys(place, value, _SECRET_FORMS)
    if len(value) != 1:
        raise place.wrong("one of env, file and command", Found(" and ".join(value) or "none"))
    ((form, said),) = value.items()
    where = text(place / form, said)
    if form == "file":
        where = location(place / form, where)
    return Secret(form=form, where=where, asked_by=str(place))
