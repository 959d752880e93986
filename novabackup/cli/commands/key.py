"""The commands key list, add, remove, change and reencrypt."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Group, Parameter

from novabackup.cli.context import BY_DEFAULT, Context, Options
from novabackup.cli.output import Result, Terminal, local, table
from novabackup.errors import ConfigurationError
from novabackup.keys import Key, KeyFile, Passphrase

_NEW = Group("The new key", sort_key=1)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class NewKey:
    """Options for the source of a new key, which is never on the command line; without them, a passphrase is asked for.

    Attributes:
        new_passphrase_env: Take the passphrase from this environment variable.
        new_passphrase_file: Take the passphrase from the first line of this file.
        new_keyfile: Use this file with a random key, which is created if it does not exist; keep a copy of it
            elsewhere.
    """

    new_passphrase_env: Annotated[str | None, Parameter(group=_NEW, metavar="NAME")] = None
    new_passphrase_file: Annotated[Path | None, Parameter(group=_NEW, metavar="FILE")] = None
    new_keyfile: Annotated[Path | None, Parameter(group=_NEW, metavar="FILE")] = None

    def require_one(self, terminal: Terminal) -> None:
        """Require exactly one source of the key: an option, or a terminal to ask on."""
        given = [
            one for one in (self.new_passphrase_env, self.new_passphrase_file, self.new_keyfile) if one is not None
        ]
        if len(given) > 1:
            raise ConfigurationError("expected one of the options for the new key, found several. Keep one of them")
        if not given and not terminal.can_ask:
            raise ConfigurationError(
                "expected a new passphrase, found no terminal to ask for it. Pass where it is: --new-passphrase-env, "
                "--new-passphrase-file or --new-keyfile"
            )

    def fetch(self) -> Key:
        """Read the key, create it, or ask for it twice."""
        if self.new_passphrase_env is not None:
            return Passphrase.from_env(self.new_passphrase_env)
        if self.new_passphrase_file is not None:
            return Passphrase.from_file(self.new_passphrase_file)
        if self.new_keyfile is not None:
            try:
                return KeyFile.generate(self.new_keyfile)
            except FileExistsError:
                return KeyFile(self.new_keyfile)
        first = getpass.getpass("New passphrase: ")
        if getpass.getpass("The same again: ") != first:
            raise ConfigurationError("expected the same passphrase twice, found two that differ; nothing was changed")
        return Passphrase(first)


_ASK = NewKey()


def list_(*, options: Options = BY_DEFAULT) -> Result:
    """List the keys that open the repository, without their secrets."""
    with options.open() as context:
        found = list(context.repository.keys)
        rows = [(key.id, key.kind, local(key.time), key.label, "yes" if key.current else "") for key in found]
        fields = [
            {"id": key.id, "kind": key.kind, "label": key.label, "time": key.time, "current": key.current}
            for key in found
        ]
        return Result(
            fields={"repository": context.repository.url, "keys": fields},
            shown=[table("!ID", "!Kind", "!Added", "Label", "Opened it", rows=rows)],
        )


def add(*, label: str = "", new: NewKey = _ASK, options: Options = BY_DEFAULT) -> Result:
    """Add another key that opens the repository.

    Asks for a passphrase twice, unless an option says where the new key comes from.

    Args:
        label: Whose it is.
    """
    with options.open() as context:
        new.require_one(context.terminal)
        keys = context.repository.keys
        len(keys)  # raises before anything is typed if the repository is not encrypted or does not open
        return _changed(context, keys.add(new.fetch(), label), "also opens the repository now")


def remove(name: Annotated[str, Parameter(metavar="ID")], /, *, options: Options = BY_DEFAULT) -> Result:
    """Remove a key; the last one cannot be removed.

    Its owner may have kept the data key that it opened: if it may have become known, use key reencrypt.

    Args:
        name: Its id, as key list shows it.
    """
    with options.open() as context:
        context.repository.keys.remove(name)
        return _changed(context, name, "no longer opens the repository")


def change(*, label: str | None = None, new: NewKey = _ASK, options: Options = BY_DEFAULT) -> Result:
    """Replace the key that the configuration names.

    Nothing else is rewritten. Asks for a passphrase twice, unless an option says where the new key comes from. Then
    update the configuration.

    Args:
        label: Whose it is; by default as before.
    """
    with options.open() as context:
        new.require_one(context.terminal)
        keys = context.repository.keys
        len(keys)
        name = keys.change(new.fetch(), label)
        return _changed(context, name, "opens the repository now instead. Set the key in [repository] to the new one")


def _changed(context: Context, name: str, what: str) -> Result:
    return Result(fields={"repository": context.repository.url, "id": name}, done=[f"Key {name} {what}"])


def reencrypt(*, yes: Annotated[bool, Parameter(alias="-y")] = False, options: Options = BY_DEFAULT) -> Result:
    """Encrypt everything again with a new data key.

    For when a key may have become known. Afterwards all other keys no longer open the repository: add them again. If it
    is interrupted, it continues when it is run again. No other process may write to the repository meanwhile. Asks for
    confirmation on a terminal.

    Args:
        yes: Do not ask.
    """
    with options.open() as context:
        url = context.repository.url
        others = [key for key in context.repository.keys if not key.current]
        shown = [f"{len(others)} other keys will no longer open it" if others else "There is no other key"]
        if not context.terminal.agrees(f"Encrypt all of {url} again?", shown, yes=yes):
            return Result.refused({"repository": url, "gone": None})
        with context.progress("Encrypting") as bar:
            gone = context.repository.reencrypt(callback=bar)
        done = [f"{url} is encrypted with a new data key"]
        done += [f"The key {label or '(no label)'} no longer opens it: novabackup key add" for label in gone]
        return Result(fields={"repository": url, "gone": gone}, done=done)
