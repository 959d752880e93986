"""What makes a folder a repository, and opens it: its config.json, its key slots, its README and script."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator, Sequence

import attrs

from novabackup.errors import ConfigurationError, DecryptionError, FormatError, IntegrityError
from novabackup.format.layout import CONFIG_KEY, EXTRACT_KEY, KEYS, README_KEY, SLOT_NAME, slot_key
from novabackup.format.readme import sealed_readme, sealed_script
from novabackup.format.records import ENCRYPTION, Config, KeySlot, decode, encode
from novabackup.format.sealing import PLAIN, Protection
from novabackup.keys import Key, unwrap, wrap
from novabackup.storage import Storage

_LOG = logging.getLogger("novabackup")

_MOST_SLOTS = 100
"""A passphrase is tried on each, which takes a third of a second."""


@attrs.frozen(kw_only=True)
class Opened:
    """A repository that can be read.

    Attributes:
        protection: How it is sealed.
        slot: Id of the key that opened it; empty if it is not encrypted.
        wrapped: The slot of that key; None if it is not encrypted.
        data_keys: The data keys, the newest first; empty if it is not encrypted.
    """

    protection: Protection
    slot: str = ""
    wrapped: KeySlot | None = attrs.field(default=None, repr=False)
    data_keys: tuple[bytes, ...] = attrs.field(default=(), repr=False)

    @property
    def repository(self) -> str:
        """Id of the repository according to the key that opened it; empty if it is not encrypted."""
        return self.wrapped.repository if self.wrapped else ""


def read_config(storage: Storage) -> Config:
    """Read ``config.json``.

    Raises:
        FileNotFoundError: There is none.
        IntegrityError: It is damaged.
        FormatError: It is of a newer format.
    """
    where = f"{storage.url}/{CONFIG_KEY}"
    config = decode(storage.read(CONFIG_KEY), Config, where)
    if config.encryption not in ("", ENCRYPTION):
        raise FormatError(
            f"{where}: expected encryption {ENCRYPTION!r} or none, found {config.encryption[:40]!r}: upgrade novabackup"
        )
    return config


def slots(storage: Storage, repository: str | None = None) -> Iterator[tuple[str, KeySlot]]:
    """Read the key slots of a repository; damaged ones are skipped with a warning.

    Args:
        storage: Where it is.
        repository: Its id, since slots of another repository may have been put there; None if it is not known.
    """
    found = [(match[1], key) for key in storage.keys(KEYS) if (match := SLOT_NAME.fullmatch(key))]
    for name, key in found[:_MOST_SLOTS]:
        try:
            slot = read_slot(storage, key)
        except (IntegrityError, FormatError) as error:
            _LOG.warning("%s is skipped: %s", key, error)
        except FileNotFoundError:
            continue
        else:
            if repository in (None, slot.repository):
                yield name, slot


def read_slot(storage: Storage, key: str) -> KeySlot:
    """Read one key slot; raise FileNotFoundError, or IntegrityError if it is damaged."""
    return decode(storage.read(key), KeySlot, f"{storage.url}/{key}")


def add_slot(
    storage: Storage, key: Key, data_keys: Sequence[bytes], repository: str, label: str
) -> tuple[str, KeySlot]:
    """Let a key open a repository; return the id of its slot, and the slot."""
    name, slot = secrets.token_hex(8), wrap(key, data_keys, repository, label)
    storage.create(slot_key(name), encode(slot))
    return name, slot


def write_slot(storage: Storage, key: Key, opened: Opened, data_keys: Sequence[bytes]) -> Opened:
    """Replace the data keys in the slot that opened a repository; return the repository as it is open then."""
    assert opened.wrapped is not None
    slot = wrap(key, data_keys, opened.repository, opened.wrapped.label)
    storage.write(slot_key(opened.slot), [encode(slot)])
    return attrs.evolve(opened, protection=_protection_of(data_keys), wrapped=slot, data_keys=tuple(data_keys))


def remove_slot(storage: Storage, name: str) -> None:
    """Remove a key slot."""
    storage.delete(slot_key(name))


def open_with(storage: Storage, key: Key | None, config: Config | None) -> Opened:
    """Find out how a repository is sealed, and open it.

    Args:
        storage: Where it is.
        key: The user's key.
        config: Its ``config.json``; None if that is lost.

    Raises:
        DecryptionError: It is encrypted, and the key does not open it.
        ConfigurationError: It is not encrypted, and a key was given.
    """
    if key is None and config is not None and not config.encryption:
        return Opened(protection=PLAIN)
    found = list(slots(storage, config.id if config else None))
    if not found and (config is None or not config.encryption):
        if key is None:
            return Opened(protection=PLAIN)
        # A caller who gives a key relies on it: an attacker may have put a repository there that they can read.
        raise ConfigurationError(
            f"{storage.url} is not encrypted, although a key was given. Leave the key out, or check the URL; to "
            "encrypt its content, copy it into a new repository that has a key"
        )
    if config is not None and not config.encryption:
        raise IntegrityError(
            f"{storage.url}/{CONFIG_KEY} says that the repository is not encrypted, but there are keys. It was "
            "replaced: restore it from another copy"
        )
    if key is None:
        kinds = ", ".join(sorted({slot.kind for _name, slot in found})) or "unknown"
        raise DecryptionError(
            f"{storage.url} is encrypted. Pass a key that opens it, such as "
            f"Repository(url, key=Passphrase.from_env()); it has keys of these kinds: {kinds}"
        )
    failed: DecryptionError | None = None
    for name, slot in found:
        try:
            secrets_ = unwrap(key, slot)
        except DecryptionError as error:
            failed = failed or error  # a key service also fails for the tokens of another one
            continue
        if secrets_:
            return Opened(protection=_protection_of(secrets_), slot=name, wrapped=slot, data_keys=secrets_)
    if failed:
        raise failed
    tried = sum(slot.kind == key.kind for _name, slot in found)
    raise DecryptionError(
        f"{storage.url}: expected a key that opens it, but this {key.kind} opens none of its {len(found)} keys "
        f"({tried} of that kind). Check it, and that the URL names the repository that it belongs to"
    )


def still_opens(storage: Storage, opened: Opened) -> bool:
    """Return whether the slot that opened a repository still exists unchanged.

    If not, the key was removed or the data key replaced since, and nobody could later read what would be sealed with
    the current data keys.
    """
    if not opened.slot:
        return True
    try:
        return read_slot(storage, slot_key(opened.slot)) == opened.wrapped
    except FileNotFoundError:
        return False
    except (IntegrityError, FormatError) as error:
        _LOG.warning("the key that opened this repository no longer opens it, so add another one: %s", error)
        return True


def _protection_of(data_keys: Sequence[bytes]) -> Protection:
    # Imported here, as it takes a while and few repositories need it.
    from novabackup.format.sealing.aead import DataKey, Sealing  # noqa: PLC0415

    return Sealing([DataKey(secret) for secret in data_keys])


def rewrite_config(storage: Storage, repository: str, *, encrypted: bool) -> None:
    """Write a missing ``config.json``."""
    with contextlib.suppress(FileExistsError):
        storage.create(CONFIG_KEY, encode(Config(id=repository, encryption=ENCRYPTION if encrypted else "")))
        storage.add(README_KEY, [sealed_readme(encrypted=encrypted)])
        storage.add(EXTRACT_KEY, [sealed_script()])


def create(storage: Storage, key: Key | None, repository: str) -> Opened | None:
    """Make a folder a repository.

    Returns:
        The repository, open; None if another process created one at the same moment, which is the one that counts.
    """
    # The key comes first: an encrypted repository without one could never be opened.
    data_keys = (secrets.token_bytes(32),) if key else ()
    slot, wrapped = add_slot(storage, key, data_keys, repository, "first") if key else ("", None)
    rewrite_config(storage, repository, encrypted=key is not None)
    # Read back rather than trusted: where creation is not exclusive, the last of several writers wins.
    if read_config(storage).id == repository:
        protection = _protection_of(data_keys) if key else PLAIN
        return Opened(protection=protection, slot=slot, wrapped=wrapped, data_keys=data_keys)
    if slot:
        remove_slot(storage, slot)
    return None
