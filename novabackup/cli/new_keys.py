"""Where a new key comes from: a file, the environment, or somebody who types it twice; never the command line."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Group, Parameter

from novabackup.cli.output import Terminal
from novabackup.errors import ConfigurationError
from novabackup.keys import Key, KeyFile, Passphrase

__all__ = ["NewKey"]

_NEW = Group("The new key", sort_key=1)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class NewKey:
    """Options that say where a new key comes from; without any of them, a passphrase is asked for.

    Attributes:
        new_passphrase_env: Take the passphrase from this environment variable.
        new_passphrase_file: Take the passphrase from the first line of this file.
        new_keyfile: Use this file with a random key, which is created if it is not there; keep a copy of it elsewhere.
    """

    new_passphrase_env: Annotated[str | None, Parameter(group=_NEW, metavar="NAME")] = None
    new_passphrase_file: Annotated[Path | None, Parameter(group=_NEW, metavar="FILE")] = None
    new_keyfile: Annotated[Path | None, Parameter(group=_NEW, metavar="FILE")] = None

    def require_one(self, terminal: Terminal) -> None:
        """Make sure that there is one way to come by the key.

        Raises:
            ConfigurationError: Several options were given; or none, and nobody is there to be asked.
        """
        said = [one for one in (self.new_passphrase_env, self.new_passphrase_file, self.new_keyfile) if one is not None]
        if len(said) > 1:
            raise ConfigurationError("expected one of the options for the new key, found several. Keep one of them")
        if not said and not terminal.can_ask:
            raise ConfigurationError(
                "expected a new passphrase, found no terminal to ask for it. Say where it is: --new-passphrase-env, "
                "--new-passphrase-file or --new-keyfile"
            )

    def fetch(self) -> Key:
        """Fetch the key, or create it.

        Raises:
            ConfigurationError: There is none, or what was typed twice differs.
            OSError: A file cannot be read or written.
        """
        if self.new_passphrase_env is not None:
            return Passphrase.from_env(self.new_passphrase_env)
        if self.new_passphrase_file is not None:
            return Passphrase.from_file(self.new_passphrase_file)
        if self.new_keyfile is not None:
            try:
                return KeyFile.generate(self.new_keyfile)
            except FileExistsError:
                return KeyFile(self.new_keyfile)
        return _asked()


def _asked() -> Passphrase:
    first = getpass.getpass("New passphrase: ")
    if getpass.getpass("The same again: ") != first:
        raise ConfigurationError("expected the same passphrase twice, found two that differ; nothing was changed")
    return Passphrase(first)
