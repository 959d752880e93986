"""Where secrets are kept; they are fetched only when they are needed."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from novabackup.errors import ConfigurationError

_LARGEST = 64 << 10
_SECONDS = 60.0


@attrs.frozen(kw_only=True)
class Secret:
    """Where a secret is kept.

    Attributes:
        form: ``env``, ``file`` or ``command``.
        where: Name of the variable, path of the file, or the command line, which is not run by a shell.
        asked_by: File, line and setting, for messages.
    """

    form: str
    where: str
    asked_by: str

    def reveal(self) -> str:
        """Fetch the secret; the message of an error does not contain it."""
        found = {"env": self._from_environment, "file": self._from_file, "command": self._from_command}[self.form]()
        if not found:
            raise self._missing("it is empty")
        return found

    def _from_environment(self) -> str:
        try:
            return os.environ[self.where]
        except KeyError:
            raise self._missing("it is not set") from None

    def _from_file(self) -> str:
        try:
            with Path(self.where).open() as file:
                return file.read(_LARGEST).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise self._missing(getattr(error, "strerror", None) or "it is not text") from None

    def _from_command(self) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - the command is from the user's own configuration
                shlex.split(self.where), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=True
            )
            return done.stdout[:_LARGEST].decode().rstrip("\r\n")
        except subprocess.CalledProcessError as error:
            raise self._missing(f"it ended with {error.returncode}") from None
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise self._missing(type(error).__name__) from None

    def _missing(self, why: str) -> ConfigurationError:
        what = {"env": "the environment variable", "file": "the file", "command": "the command"}[self.form]
        return ConfigurationError(f"{self.asked_by}: expected a secret from {what} {self.where}, found none: {why}")


def revealed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with every secret fetched; the result must not be shown."""
    return {key: _revealed(value) for key, value in options.items()}


def _revealed(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    return revealed(value) if isinstance(value, Mapping) else value
