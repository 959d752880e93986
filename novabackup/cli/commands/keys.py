"""Commands for the keys of an encrypted repository: key list, add, remove, change, reencrypt."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.new_keys import NewKey
from novabackup.cli.output import Answer, Column, Table, local
from novabackup.cli.work import BY_DEFAULT, Options

__all__ = ["add", "change", "list_", "reencrypt", "remove"]

_ASKED = NewKey()


def list_(*, options: Options = BY_DEFAULT) -> Answer:
    """List the keys that open the repository; none of them is shown."""
    with options.open() as work:
        found = list(work.repository.keys)
        columns = [
            Column("ID", whole=True),
            Column("Kind", whole=True),
            Column("Added", whole=True),
            Column("Label"),
            Column("Opened it"),
        ]
        rows = [(key.id, key.kind, local(key.time), key.label, "yes" if key.current else "") for key in found]
        fields = [
            {"id": key.id, "kind": key.kind, "label": key.label, "time": key.time, "current": key.current}
            for key in found
        ]
        return Answer(
            fields={"repository": work.repository.url, "keys": fields}, shown=[Table(columns=columns, rows=rows)]
        )


def add(*, label: str = "", new: NewKey = _ASKED, options: Options = BY_DEFAULT) -> Answer:
    """Let another key open the repository, too.

    A passphrase is asked for twice, unless an option says where the new key comes from.

    Args:
        label: Whose it is.
    """
    with options.open() as work:
        new.require_one(work.terminal)
        keys = work.repository.keys
        len(keys)  # that it is not encrypted, or does not open, is told before anybody types anything
        name = keys.add(new.fetch(), label)
        return Answer(fields={"repository": work.repository.url, "id": name}, done=[f"Key {name} opens it now, too"])


def remove(name: Annotated[str, Parameter(metavar="ID")], /, *, options: Options = BY_DEFAULT) -> Answer:
    """Take a key away; the last one stays.

    Whoever had it may have kept the data key that it opened: if it has become known, use key reencrypt.

    Args:
        name: Its id, as key list shows it.
    """
    with options.open() as work:
        work.repository.keys.remove(name)
        return Answer(fields={"repository": work.repository.url, "id": name}, done=[f"Key {name} opens it no more"])


def change(*, label: str | None = None, new: NewKey = _ASKED, options: Options = BY_DEFAULT) -> Answer:
    """Replace the key that the configuration names; nothing else is rewritten.

    A passphrase is asked for twice, unless an option says where the new key comes from. Then change what the
    configuration refers to.

    Args:
        label: Whose it is; by default as before.
    """
    with options.open() as work:
        new.require_one(work.terminal)
        keys = work.repository.keys
        len(keys)
        name = keys.change(new.fetch(), label)
        done = [f"Key {name} opens it now instead. Let the key in [repository] be the new one"]
        return Answer(fields={"repository": work.repository.url, "id": name}, done=done)


def reencrypt(*, yes: Annotated[bool, Parameter(alias="-y")] = False, options: Options = BY_DEFAULT) -> Answer:
    """Encrypt everything anew with a new data key, for when a key may have become known.

    All other keys open the repository no more afterwards: add them again. Interrupted, it goes on when it is run again.
    Nobody else may write to the repository meanwhile. On a terminal it is asked for first.

    Args:
        yes: Do not ask.
    """
    with options.open() as work:
        others = [key for key in work.repository.keys if not key.current]
        shown = [f"{len(others)} other keys will open it no more" if others else "There is no other key"]
        if not work.terminal.agrees(f"Encrypt all of {work.repository.url} anew?", shown, yes=yes):
            return Answer.refused({"repository": work.repository.url, "gone": None})
        with work.progress("Encrypting") as bar:
            gone = work.repository.reencrypt(callback=bar)
        done = [f"{work.repository.url} is encrypted anew"]
        done += [f"The key {label or '(no label)'} opens it no more: novabackup key add" for label in gone]
        return Answer(fields={"repository": work.repository.url, "gone": list(gone)}, done=done)
