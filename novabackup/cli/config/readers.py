"""Reads the values of a configuration file with msgspec; errors name the line, the setting and what was found."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import attrs
import msgspec

from novabackup.cli.config.lines import Path, line_of, lines_of
from novabackup.cli.config.secrets import Secret
from novabackup.cli.config.units import parse_duration

__all__ = ["Read"]  # for type checkers it is an import

_T = TypeVar("_T")
_LONGEST_SHOWN = 60
_ERROR_PATH = re.compile(r" - at `\$((?:\.\w+|\[\d+\])*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_SECRET_NAME = re.compile(r"secret|password|passphrase|token|credential|account_key|connection_string", re.IGNORECASE)


class WrongValueError(ValueError):
    """A value that cannot be used; `path` leads to it from the value that was read."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


def wrong(expected: str, found: object) -> WrongValueError:
    """Return the error for a value that is not what was expected."""
    return WrongValueError(f"expected {expected}, found {_shown(found)}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    written = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return written if len(written) <= _LONGEST_SHOWN else f"{written[:_LONGEST_SHOWN]}… ({len(written)} characters)"


def at(key: str, read: Callable[[Any], _T], value: object) -> _T:
    """Read the value of a key, so that an error has the key in its path."""
    try:
        return read(value)
    except ValueError as error:
        raise WrongValueError(str(error), (key, *getattr(error, "path", ()))) from None


def entries(value: object, read: Callable[[Any], _T], expected: str = "a table") -> dict[str, _T]:
    """Read a table whose keys are the user's own and whose values are alike."""
    if not isinstance(value, dict):
        raise wrong(expected, value)
    return {key: at(key, read, one) for key, one in value.items()}


def refuse_unknown(table: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keys that nothing would read: most are misspelt."""
    known = list(known)
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise WrongValueError(f"unknown key; {hint}", (key,))


def choice(known: Collection[str], value: object) -> str:
    """Read one of several words."""
    if value not in known:
        raise wrong(f"one of {', '.join(known)}", value)
    return str(value)


@attrs.frozen(slots=False)
class Document:
    """A configuration file: its path, its text, and the table that `tomllib` read from the text."""

    file: FilePath
    text: str = attrs.field(repr=False)
    table: dict[str, Any] = attrs.field(repr=False)

    @functools.cached_property
    def _lines(self) -> dict[Path, int]:
        return lines_of(self.text)

    def place(self, path: Path) -> str:
        """Return file, line and name of a setting, for messages."""
        dotted = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in path)
        return f"{self.file}:{line_of(self._lines, path)}: {dotted.removeprefix('.')}"

    def path_of(self, table: dict[str, Any]) -> Path:
        """Return the path of one of the tables in this document."""
        left: list[tuple[Path, object]] = [((), self.table)]
        while left:
            path, value = left.pop()
            if value is table:
                return path
            inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            left += [((*path, key), one) for key, one in inside]
        return ()

    def read(self, kind: type[_T], value: object) -> _T:
        """Convert a value to a type that msgspec knows, or to one made by `Read`."""
        try:
            return msgspec.convert(value, kind, dec_hook=lambda custom, one: custom.read(self, one))
        except msgspec.ValidationError as error:
            raise _explained(error, kind, value) from None


def _explained(error: msgspec.ValidationError, kind: type, value: Any) -> WrongValueError:
    """Return the error of msgspec in the words of this package, with the path that it has in its message."""
    found = _ERROR_PATH.search(str(error))
    path: Path = tuple(name or int(number) for name, number in _STEP.findall(found[1] if found else ""))
    cause = error.__cause__
    if isinstance(cause, ValueError):  # from a custom type or a check of a section
        return WrongValueError(str(cause), (*path, *getattr(cause, "path", ())))
    from msgspec import inspect  # noqa: PLC0415 - only errors need it

    expected, description = _bare(inspect.type_info(kind))
    for depth, step in enumerate((*path, None)):
        if isinstance(expected, inspect.StructType) and isinstance(value, dict):
            try:
                refuse_unknown(value, [field.encode_name for field in expected.fields])
            except WrongValueError as unknown:  # also if the key was made to look like a path
                return WrongValueError(str(unknown), (*path[:depth], *unknown.path))
        if step is None:
            break
        value = value[step]
        if isinstance(expected, inspect.StructType):
            expected = next(field.type for field in expected.fields if field.encode_name == step)
        else:
            expected = expected.item_type
        expected, description = _bare(expected)
    if isinstance(expected, inspect.StructType) and isinstance(value, dict):
        missing = next(field for field in expected.fields if field.required and field.encode_name not in value)
        return WrongValueError(f"expected the key {missing.encode_name}, found none", path)
    if isinstance(expected, inspect.LiteralType):
        description = f"one of {', '.join(map(str, expected.values))}"
    elif not description:
        description = "a table" if isinstance(expected, inspect.StructType) else "true or false"
    return WrongValueError(str(wrong(description, value)), path)


def _bare(kind: Any) -> tuple[Any, str]:
    """Return a type without None and annotations, and the description among its annotations."""
    description = ""
    while hasattr(kind, "types") or hasattr(kind, "extra_json_schema"):
        if hasattr(kind, "types"):
            kind = kind.types[0]
        else:
            kind, description = kind.type, kind.extra_json_schema["description"]
    return kind, description


# -- types -------------------------------------------------------------------------------------------------------------


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the tables of a configuration."""


class _Custom(type):
    """The type of types that msgspec leaves to `Document.read`; any value counts as an instance of them."""

    def __instancecheck__(cls, _instance: object) -> bool:
        return True


if TYPE_CHECKING:
    from typing import Annotated as Read
else:

    class Read:
        """``Read[type, function]`` is a setting that a function reads from the document and the value."""

        def __class_getitem__(cls, parameters: tuple[object, Callable[[Document, Any], object]]) -> type:
            """Return a type for msgspec; type checkers take the first parameter."""
            return _Custom(cls.__name__, (), {"read": staticmethod(parameters[1])})


def _text(_document: Document, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise wrong("a text", value)
    if "\0" in value:
        raise wrong("a text without NUL characters", value)
    return value


Text = Read[str, _text]
"""A text that is not empty, and that a path or an argument of a command can be."""
Texts = Annotated[tuple[Text, ...], msgspec.Meta(description='a list of texts, such as ["**/*.log"]')]


def _seconds(_document: Document, value: Any) -> float:
    try:
        return parse_duration(value if isinstance(value, str) else str(float(value)))
    except (TypeError, ValueError):
        raise wrong('seconds, or a text such as "90s", "5m", "2h" or "1d"', value) from None


def _patience(document: Document, value: object) -> float:
    found = _seconds(document, value)
    if not found:
        raise wrong("more than no time", value)
    return found


def _location(document: Document, value: object) -> str:
    text: str = document.read(Text, value)
    return text if "://" in text else str(document.file.parent / FilePath(text).expanduser())


Seconds = Read[float, _seconds]
"""A duration: seconds as a number, or a text such as ``"5m"``."""
Patience = Read[float, _patience]
"""A duration of more than 0 seconds."""
Location = Read[str, _location]
"""A URL, or a path; a relative path begins in the folder of the configuration file."""


class _SecretTable(Section, frozen=True):
    """Where a secret is kept: one of these."""

    env: Text | None = None
    file: Location | None = None
    command: Text | None = None


def secret(document: Document, value: object) -> Secret:
    """Read where a secret is kept: ``{ env = "NAME" }``, ``{ file = "/path" }`` or ``{ command = "…" }``."""
    if not isinstance(value, dict):
        raise WrongValueError('expected a table such as { env = "NAME" }, found something else (not shown)')
    table = document.read(_SecretTable, value)
    if len(value) != 1:
        raise WrongValueError(f"expected one of env, file and command, found {' and '.join(value) or 'none'}")
    ((form, where),) = ((form, getattr(table, form)) for form in value)
    return Secret(form=form, where=where, asked_by=document.place(document.path_of(value)))


def file_system_options(document: Document, value: object) -> Mapping[str, Any]:
    """Read options of a file system; a secret among them must be kept elsewhere."""
    if not isinstance(value, dict):
        raise wrong("a table", value)
    return {key: at(key, functools.partial(_option, document, key), one) for key, one in value.items()}


def _option(document: Document, key: str, value: object) -> object:
    if isinstance(value, dict):
        is_secret = value.keys() & set(_SecretTable.__struct_fields__)
        return secret(document, value) if is_secret else file_system_options(document, value)
    if isinstance(value, str | list) and _SECRET_NAME.search(key):
        raise WrongValueError(
            'expected { env = "NAME" }, { file = "/path" } or { command = "program argument" }, found the secret '
            "itself (not shown). Move it out of this file"
        )
    return value
