"""Sealing with AES-256-GCM: a key of its own for each pack and each kind of record, so that no nonce is used twice.

From each data key (32 random bytes) HKDF with SHA-256 (RFC 5869) derives, with different info::

    novabackup key id      8 bytes that name the key, in packs and records
    novabackup chunk ids   key of the BLAKE3 hashes of chunks and frames
    novabackup records     key of all records; their nonces are random
    novabackup pack        key of one pack; salted with 32 random bytes that stand before the pack's table

In a pack the nonce is the number of the frame, and the largest number there is for the table. Since neither pack nor
number repeats under one key, no frame can be put in the place of another.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from novabackup.errors import IntegrityError
from novabackup.format.records import Problem, Sealed, decode, encode
from novabackup.format.sealing.base import MARK, OtherKeyError, PackSeal, Protection, padded

__all__ = ["ENCRYPTION", "KEY", "DataKey", "Sealing", "decrypt", "derive", "encrypt", "stretch"]

ENCRYPTION = 1
"""The number of this way of sealing in the footer of a pack."""
KEY = 32
"""Bytes of every key."""

_NONCE = 12
_TAG = 16
_SMALLEST_RECORD = 1 << 10
"""So that the many small records are all alike."""
_SALT = 32
_KEY_ID = 8
_LENGTH = struct.Struct("<I")
_LARGEST_RECORD = 64 << 20
_TABLE = (1 << 8 * _NONCE) - 1


class DataKey:
    """A key that data are sealed with.

    Attributes:
        id: Names it without giving it away; 16 hexadecimal digits.
        secret: The key itself.
    """

    def __init__(self, secret: bytes) -> None:
        """Derive what is needed.

        Args:
            secret: `KEY` random bytes.
        """
        self.secret = secret
        self.id = derive(secret, b"novabackup key id", length=_KEY_ID).hex()
        self.chunk_ids = derive(secret, b"novabackup chunk ids")
        self._records = derive(secret, b"novabackup records")

    def __repr__(self) -> str:
        return f"DataKey({self.id})"

    def pack(self, salt: bytes) -> PackSeal:
        """Return the seal of the pack with that salt."""
        return _SealedPack(self, salt)

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Seal a record.

        Args:
            data: What to hide.
            context: Where it belongs; opening needs the same.
        """
        return encrypt(self._records, data, context)

    def open(self, data: bytes, context: bytes) -> bytes:
        """Undo `seal`.

        Raises:
            IntegrityError: It is not what was sealed for that place.
        """
        return decrypt(self._records, data, context)


class Sealing(Protection):
    """Data keys of one repository: the first seals new objects, all open existing ones."""

    def __init__(self, keys: Sequence[DataKey]) -> None:
        """Use keys.

        Args:
            keys: At least one.
        """
        self.keys = {key.id: key for key in keys}
        self.newest = keys[0]
        self.key = self.newest.id

    def new_pack(self) -> PackSeal:
        """Return the seal of a new pack."""
        return self.newest.pack(secrets.token_bytes(_SALT))

    def digest(self, raw: bytes | memoryview) -> bytes:
        """Return the hash by which content is found again in new packs."""
        return blake3(raw, key=self.newest.chunk_ids).digest()

    def pack_seal(self, pack_id: str, encryption: int, mark: bytes, table: bytes) -> PackSeal:
        """Return the seal of an existing pack."""
        if encryption != ENCRYPTION or any(mark[_KEY_ID:]) or len(table) < _SALT:
            raise IntegrityError(
                f"pack {pack_id}: expected one that is encrypted, as all in this repository, found another. "
                "It was put there by someone else"
            )
        return self.named(mark[:_KEY_ID].hex(), f"pack {pack_id}").pack(table[:_SALT])

    def close_record(self, data: bytes, place: str, previous: str) -> bytes:
        """Seal a record."""
        packed = zstandard.ZstdCompressor().compress(data)
        length = _LENGTH.size + len(packed)
        content = (_LENGTH.pack(len(packed)) + packed).ljust(padded(max(length, _SMALLEST_RECORD)), b"\0")
        sealed = self.newest.seal(content, _context(place, previous))
        return encode(Sealed(key=self.key, previous=previous, data=sealed))

    def open_record(self, data: bytes, place: str, where: str) -> tuple[bytes, str]:
        """Undo `close_record`."""
        sealed = decode(data, Sealed, where)
        key = self.named(sealed.key, where)
        try:
            content = key.open(sealed.data, _context(place, sealed.previous))
            (length,) = _LENGTH.unpack_from(content)
            packed = content[_LENGTH.size : _LENGTH.size + length]
            if zstandard.frame_content_size(packed) > _LARGEST_RECORD:
                raise IntegrityError(f"expected a record of at most {_LARGEST_RECORD} bytes")
            return zstandard.ZstdDecompressor().decompress(packed), sealed.previous
        except (IntegrityError, struct.error, zstandard.ZstdError) as error:
            raise IntegrityError(
                f"{where} is not what was sealed for that place: {error}. It was replaced, or comes from "
                "another repository. Restore this object from another copy of it",
                [Problem(code="damaged", paths=(where,), message="it is not what was sealed for that place")],
            ) from None

    def named(self, key: str, what: str) -> DataKey:
        """Return a key by its id.

        Args:
            key: The id.
            what: That needs it, for messages.

        Raises:
            OtherKeyError: There is none of that id.
        """
        try:
            return self.keys[key]
        except KeyError:
            raise OtherKeyError(
                f"{what}: expected something sealed with one of the data keys {', '.join(self.keys)}, found the key "
                f"{key[: 2 * _KEY_ID]!r}. It comes from another repository, or was sealed before the data key was "
                "replaced",
                [Problem(code="damaged", paths=(what,), message="it is sealed with another data key")],
            ) from None


class _SealedPack(PackSeal):
    """The seal of a pack with a key of its own."""

    encryption = ENCRYPTION
    table_overhead = _SALT + _TAG

    def __init__(self, key: DataKey, salt: bytes) -> None:
        self.key = key.id
        self.mark = bytes.fromhex(key.id).ljust(MARK, b"\0")
        self.head = salt
        self._chunk_ids = key.chunk_ids
        self._cipher = AESGCM(derive(key.secret, b"novabackup pack", salt=salt))

    def digest(self, raw: bytes | memoryview) -> bytes:
        return blake3(raw, key=self._chunk_ids).digest()

    def close(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        return self._cipher.encrypt(_nonce(number), data, None)

    def open(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        return self._decrypt(number, data, b"")

    def close_table(self, data: bytes, footer: bytes) -> bytes:
        return self.head + self._cipher.encrypt(_nonce(_TABLE), data, footer)

    def open_table(self, data: bytes, footer: bytes) -> bytes:
        return self._decrypt(_TABLE, data[len(self.head) :], footer)

    def padding(self, size: int) -> int | None:
        return padded(size + _TAG) - size - _TAG

    def _decrypt(self, number: int, data: bytes | memoryview, context: bytes) -> bytes:
        try:
            return self._cipher.decrypt(_nonce(number), data, context)
        except (InvalidTag, ValueError):
            raise IntegrityError("it does not open with the key that it is said to be sealed with") from None


def encrypt(key: bytes, data: bytes, context: bytes) -> bytes:
    """Encrypt something with a random nonce, which comes first in the result.

    Args:
        key: 32 bytes.
        data: What to hide.
        context: What is not hidden, but must be the same when it is decrypted.
    """
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data, context)


def decrypt(key: bytes, data: bytes, context: bytes) -> bytes:
    """Undo `encrypt`.

    Raises:
        IntegrityError: It was not encrypted with that key and context.
    """
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], context)
    except (InvalidTag, ValueError):
        raise IntegrityError("it does not open with the key that it is said to be sealed with") from None


def stretch(secret: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """Derive a key from a passphrase by scrypt (RFC 7914), which takes ``128 * n * r`` bytes of memory."""
    return Scrypt(salt=salt, length=KEY, n=n, r=r, p=p).derive(secret)


def derive(secret: bytes, info: bytes, *, salt: bytes | None = None, length: int = KEY) -> bytes:
    """Derive a key, or the name of one, by HKDF with SHA-256."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def _context(place: str, previous: str) -> bytes:
    return f"{place}\n{previous}".encode()


def _nonce(number: int) -> bytes:
    return number.to_bytes(_NONCE, "little")
