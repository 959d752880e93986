"""Keys that open an encrypted repository: a passphrase, a file, or a service such as a KMS.

None of them encrypts data. Each wraps the data keys, which are random, in its own slot in the repository: so there can
be several, and changing a passphrase rewrites only its slot.
"""

from __future__ import annotations

import abc
import logging
import os
import re
import secrets
import stat
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import attrs

from novabackup.errors import ConfigurationError, DecryptionError, IntegrityError
from novabackup.format.records import KeySlot

__all__ = ["ExternalKey", "Key", "KeyFile", "Passphrase", "unwrap", "wrap"]

_LOG = logging.getLogger("novabackup")

_KEY = 32
_SALT = 32
_N, _R, _P = 1 << 17, 8, 1
"""Costs of scrypt: 128 MiB and about 0.3 s, as OWASP's Password Storage Cheat Sheet recommends."""
_MOST_MEMORY = 1 << 30
_MOST_WORK = 4 << 30
"""Bytes that a slot may make scrypt process: 32 times as many as the slots that are made here."""
_LONGEST_SECRET = 1 << 16
_COMMAND_TIMEOUT = 60.0


@attrs.frozen(kw_only=True)
class _Made:
    """A wrapping key, and the parameters in its slot from which it is derived again."""

    wrapping: bytes = attrs.field(repr=False)
    n: int = 0
    r: int = 0
    p: int = 0
    token: bytes = b""


class Key(abc.ABC):
    """Base class of keys that open an encrypted repository.

    Attributes:
        kind: Its name in slots.
    """

    kind: str

    @abc.abstractmethod
    def _make(self, salt: bytes) -> _Made:
        """Make a new wrapping key."""

    @abc.abstractmethod
    def _make_again(self, slot: KeySlot) -> bytes | None:
        """Derive the wrapping key of a slot again; None if this cannot be its key."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Passphrase(Key):
    """A passphrase, from which scrypt (RFC 7914) derives a key."""

    kind = "passphrase"

    def __init__(self, text: str) -> None:
        """Use a passphrase.

        Args:
            text: Not empty. It is normalised (Unicode NFKC), so that it does not depend on the keyboard.

        Raises:
            ConfigurationError: It is empty, or not Unicode text.
        """
        if not text:
            raise ConfigurationError("expected a passphrase, found an empty text")
        try:
            self._secret = unicodedata.normalize("NFKC", text).encode()
        except UnicodeEncodeError:
            # Not chained: that error contains the whole text.
            raise ConfigurationError("expected a passphrase of Unicode characters, found other bytes") from None

    @classmethod
    def from_env(cls, name: str = "NOVABACKUP_PASSPHRASE") -> Passphrase:
        """Read it from an environment variable.

        Raises:
            ConfigurationError: The variable is not set.
        """
        text = os.environ.get(name)
        if not text:
            raise ConfigurationError(f"expected a passphrase in the environment variable {name}, found none")
        return cls(text)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Passphrase:
        """Read it from the first line of a file.

        Raises:
            ConfigurationError: The line is empty.
            OSError: It cannot be read.
        """
        return cls(_first_line(_read_secret(Path(path)), str(path)))

    @classmethod
    def from_command(cls, command: Sequence[str]) -> Passphrase:
        """Read it from the first line of output of a program, such as a password manager.

        Args:
            command: Program and arguments; no shell is involved.

        Raises:
            ConfigurationError: The program fails or prints nothing.
        """
        try:
            done = subprocess.run(  # noqa: S603 - the user's own program
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_COMMAND_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigurationError(f"{command[0]} gives no passphrase: {type(error).__name__}") from None
        if done.returncode:
            raise ConfigurationError(f"{command[0]} gives no passphrase: it ended with {done.returncode}")
        return cls(_first_line(done.stdout, command[0]))

    def _make(self, salt: bytes) -> _Made:
        return _Made(wrapping=self._derive(salt, _N, _R, _P), n=_N, r=_R, p=_P)

    def _make_again(self, slot: KeySlot) -> bytes | None:
        if slot.n & (slot.n - 1) or slot.n < 2 or slot.r < 1 or slot.p < 1:
            return None
        memory = 128 * slot.n * slot.r
        if memory > _MOST_MEMORY or memory * slot.p > _MOST_WORK:
            _LOG.warning("ignoring a key that needs %d times %d bytes of memory", slot.p, memory)
            return None
        try:
            return self._derive(slot.salt, slot.n, slot.r, slot.p)
        except (MemoryError, ValueError) as error:  # invalid costs, or not enough memory
            _LOG.warning("ignoring the key %r: %s", slot.label, type(error).__name__)
            return None

    def _derive(self, salt: bytes, n: int, r: int, p: int) -> bytes:
        return bytes(_aead().stretch(self._secret, salt, n, r, p))


class KeyFile(Key):
    """A file with a random key, made by `generate`."""

    kind = "file"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the file.

        Raises:
            ConfigurationError: It is no key file.
            OSError: It cannot be read.
        """
        text = _first_line(_read_secret(Path(path)), str(path))
        if not re.fullmatch(f"[0-9a-f]{{{2 * _KEY}}}", text):
            raise ConfigurationError(
                f"{path}: expected {2 * _KEY} hexadecimal digits in one line, as KeyFile.generate writes them, found "
                "something else"
            )
        self._secret = bytes.fromhex(text)

    @classmethod
    def generate(cls, path: str | os.PathLike[str]) -> KeyFile:
        """Create a file with a new random key, readable by its owner only; keep a copy of it elsewhere.

        Raises:
            FileExistsError: The file exists.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_KEY) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return cls(path)

    def _make(self, salt: bytes) -> _Made:
        return _Made(wrapping=self._derive(salt))

    def _make_again(self, slot: KeySlot) -> bytes | None:
        return self._derive(slot.salt)

    def _derive(self, salt: bytes) -> bytes:
        return bytes(_aead().derive(self._secret, b"novabackup key file", salt=salt))


class ExternalKey(Key):
    """A key in an external service, such as a KMS, which encrypts and decrypts 32 bytes."""

    kind = "external"

    def __init__(self, encrypt: Callable[[bytes], bytes], decrypt: Callable[[bytes], bytes]) -> None:
        """Use a service.

        Args:
            encrypt: Turns 32 bytes into a token of at most 64 KiB.
            decrypt: Turns a token back into the 32 bytes; raises for tokens of other keys.
        """
        self._encrypt = encrypt
        self._decrypt = decrypt

    def _make(self, salt: bytes) -> _Made:
        wrapping = secrets.token_bytes(_KEY)
        try:
            token = bytes(self._encrypt(wrapping))
        except Exception as error:
            # The service's message is left to the cause: it may be long, and could contain the plaintext.
            raise ConfigurationError(
                f"the external key could not encrypt a new key: {type(error).__name__}. Nothing was written"
            ) from error
        if not 0 < len(token) <= _LONGEST_SECRET or wrapping in token:
            raise ConfigurationError(f"the external key gave {len(token)} bytes that do not hide what they stand for")
        return _Made(wrapping=wrapping, token=token)

    def _make_again(self, slot: KeySlot) -> bytes | None:
        try:
            found = bytes(self._decrypt(slot.token))
        except Exception as error:
            # The service's message is left to the cause: it may be long.
            raise DecryptionError(
                f"the external key could not decrypt the token of the slot {slot.label!r}: {type(error).__name__}"
            ) from error
        return found if len(found) == _KEY else None


def wrap(key: Key, data_keys: Sequence[bytes], repository: str, label: str) -> KeySlot:
    """Wrap data keys in a new slot.

    Args:
        key: The key that will open the slot.
        data_keys: 32 bytes each, the newest first.
        repository: Id of the repository.
        label: Name of the key, for people.
    """
    salt = secrets.token_bytes(_SALT)
    made = key._make(salt)
    slot = KeySlot(
        repository=repository,
        kind=key.kind,
        label=label,
        time=datetime.now(UTC),
        salt=salt,
        n=made.n,
        r=made.r,
        p=made.p,
        token=made.token,
        data=b"",
    )
    return attrs.evolve(slot, data=_aead().encrypt(made.wrapping, b"".join(data_keys), _context(slot)))


def unwrap(key: Key, slot: KeySlot) -> tuple[bytes, ...] | None:
    """Unwrap data keys.

    Returns:
        The data keys, the newest first; None if the slot belongs to another key.

    Raises:
        DecryptionError: The service that keeps the key fails.
    """
    if slot.kind != key.kind:
        return None
    wrapping = key._make_again(slot)
    if wrapping is None:
        return None
    try:
        joined = _aead().decrypt(wrapping, slot.data, _context(slot))
    except IntegrityError:
        return None
    if not joined or len(joined) % _KEY:
        return None
    return tuple(joined[start : start + _KEY] for start in range(0, len(joined), _KEY))


def _aead() -> ModuleType:
    """Import the encryption late: that takes a while, and few programs need it."""
    from novabackup.format.sealing import aead  # noqa: PLC0415

    return aead


def _context(slot: KeySlot) -> bytes:
    """Return the fields of a slot that must not be altered, as associated data; the label may be."""
    return f"novabackup key\n{slot.repository}\n{slot.kind}\n{slot.n} {slot.r} {slot.p}".encode()


def _read_secret(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            _LOG.warning("%s can be read by others: chmod 600 it", path)
        return file.read(_LONGEST_SECRET)


def _first_line(data: bytes, where: str) -> str:
    try:
        text = data.decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where}: expected text, found something else") from None
    if not text:
        raise ConfigurationError(f"{where}: expected a secret in the first line, found nothing")
    return text
