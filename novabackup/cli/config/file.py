"""The configuration file: which one is used, and reading it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from novabackup.cli.config.readers import Document, WrongValueError
from novabackup.cli.config.sections import Config
from novabackup.errors import ConfigurationError

NAME = "novabackup.toml"
_LARGEST = 1 << 20
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_TOO_LONG_A_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*{_PART}(?:[ \t]*\.[ \t]*{_PART}){{100}}", re.MULTILINE)


def find(named: Path | None) -> Path | None:
    """Find the configuration file to use; None if there is none.

    In this order: the one that ``--config`` or ``NOVABACKUP_CONFIG`` names; ``novabackup.toml`` in the working folder
    or the nearest folder above it; the user's own; the system's. A file that was not named and belongs to another user
    is refused: it could name commands to run.
    """
    if named is not None:
        if not named.is_file():
            raise ConfigurationError(f"{named}: expected a configuration file, found none. Check --config")
        return named
    for path in _places():
        if path.is_file():
            # The owner of a link counts, too: they can point it elsewhere before the file is read.
            owners = {path.lstat().st_uid, path.stat().st_uid} - {0, os.getuid()}
            if owners:
                raise ConfigurationError(
                    f"{path} belongs to another user (id {min(owners)}), so it is not read by default. "
                    f"If you trust it: --config {path}"
                )
            return path
    return None


def _places() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / NAME
    own = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    yield Path(own, "novabackup", "config.toml").expanduser()
    yield Path("/etc", NAME)


def load(path: Path | None) -> Config:
    """Read a configuration file, or return the defaults if there is none; no secret is fetched."""
    if path is None:
        return Config()
    path = Path(path).absolute()
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    if len(text) > _LARGEST:
        raise ConfigurationError(f"{path}: expected a configuration of 1 MiB at most, found more")
    if found := _TOO_LONG_A_KEY.search(text):  # for tomllib, the cost of a key is the square of the number of its parts
        line = text.count("\n", 0, found.end()) + 1
        raise ConfigurationError(f"{path}:{line}: expected keys of 100 parts at most, found one with more")
    try:
        document = Document(path, text, tomllib.loads(text))
        return document.read(Config, document.table)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(_not_toml(path, str(error))) from None
    except RecursionError:
        raise ConfigurationError(f"{path}: expected tables and arrays that nest a few levels, found too many") from None
    except WrongValueError as error:
        raise ConfigurationError(f"{document.place(error.path)}: {error}") from None


def _not_toml(path: Path, message: str) -> str:
    """Move the position to the place where people and editors look for it."""
    found = re.fullmatch(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", message)
    if not found:
        return f"{path}: expected TOML: {message}"
    if not found["line"]:
        return f"{path}: expected TOML: {found['what']} at the end of the file"
    return f"{path}:{found['line']}:{found['column']}: expected TOML: {found['what']}"
