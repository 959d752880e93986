"""The interface of a protection: how packs and records are sealed; and the one that hides nothing."""

from __future__ import annotations

import abc

from blake3 import blake3

from novabackup.errors import IntegrityError

__all__ = ["MARK", "PLAIN", "OtherKeyError", "PackSeal", "Protection", "padded"]

MARK = 12
"""Bytes in the footer of a pack that say how it is sealed."""


class OtherKeyError(IntegrityError):
    """It is sealed with another data key: this reader cannot use it, but it may be intact."""


class PackSeal(abc.ABC):
    """The seal of one pack.

    Attributes:
        encryption: Its number in the format.
        key: Id of the data key; empty if there is none.
        mark: What the footer says of it; `MARK` bytes.
        head: What precedes the table, for the reader that opens it.
    """

    encryption: int
    key: str
    mark: bytes
    head: bytes

    @abc.abstractmethod
    def digest(self, raw: bytes | memoryview) -> bytes:
        """Return the hash by which content is found again; 32 bytes."""

    @abc.abstractmethod
    def close(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        """Seal a frame.

        Args:
            number: Of the frame in the pack; each is sealed once.
            data: What is stored of it.
        """

    @abc.abstractmethod
    def open(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        """Undo `close`.

        Raises:
            IntegrityError: This is not what was sealed under that number.
        """

    @abc.abstractmethod
    def close_table(self, data: bytes, footer: bytes) -> bytes:
        """Seal the table, together with the footer that will follow it."""

    @abc.abstractmethod
    def open_table(self, data: bytes, footer: bytes) -> bytes:
        """Undo `close_table`.

        Raises:
            IntegrityError: This is not what was sealed.
        """

    @property
    @abc.abstractmethod
    def table_overhead(self) -> int:
        """How many bytes a sealed table is longer than what is in it, with what stands before it."""

    @abc.abstractmethod
    def padding(self, size: int) -> int | None:
        """Return how many bytes of padding a pack of some size needs to reveal little by its size; None for none."""


class Protection(abc.ABC):
    """How everything in one repository is sealed.

    Attributes:
        key: Id of the data key that seals what is new; empty if there is none.
    """

    key: str

    @abc.abstractmethod
    def new_pack(self) -> PackSeal:
        """Return the seal of a new pack."""

    @abc.abstractmethod
    def digest(self, raw: bytes | memoryview) -> bytes:
        """Return the hash by which content is found again in new packs; 32 bytes."""

    @abc.abstractmethod
    def pack_seal(self, pack_id: str, encryption: int, mark: bytes, table: bytes) -> PackSeal:
        """Return the seal of an existing pack.

        Args:
            pack_id: For messages.
            encryption: What the footer says.
            mark: What the footer says.
            table: The table as stored.

        Raises:
            IntegrityError: A pack of this kind does not belong here.
        """

    @abc.abstractmethod
    def close_record(self, data: bytes, place: str, previous: str) -> bytes:
        """Seal a record.

        Args:
            data: The record as `novabackup.format.records.encode` gives it.
            place: The key that it will have.
            previous: A snapshot that existed before; if it is missing later, it was deleted.
        """

    @abc.abstractmethod
    def open_record(self, data: bytes, place: str, where: str) -> tuple[bytes, str]:
        """Undo `close_record`.

        Args:
            data: All bytes of the object.
            place: The key that it has.
            where: Its URL, for messages.

        Returns:
            The record, and the snapshot that was there before; empty if that was not noted.

        Raises:
            IntegrityError: It is not what was sealed for that place.
        """


class _PlainPack(PackSeal):
    """Leaves everything as it is."""

    encryption = 0
    key = ""
    mark = bytes(MARK)
    head = b""
    table_overhead = 0

    def digest(self, raw: bytes | memoryview) -> bytes:
        return blake3(raw).digest()

    def close(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        return data

    def open(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        return data

    def close_table(self, data: bytes, footer: bytes) -> bytes:
        return data

    def open_table(self, data: bytes, footer: bytes) -> bytes:
        return data

    def padding(self, size: int) -> int | None:
        return None


class _Plain(Protection):
    """No keys, nothing hidden; hashes detect accidents."""

    key = ""
    _pack = _PlainPack()

    def new_pack(self) -> PackSeal:
        return self._pack

    def digest(self, raw: bytes | memoryview) -> bytes:
        return blake3(raw).digest()

    def pack_seal(self, pack_id: str, encryption: int, mark: bytes, table: bytes) -> PackSeal:
        if encryption or any(mark):
            raise IntegrityError(f"pack {pack_id}: expected one that is not encrypted, as all in this repository")
        return self._pack

    def close_record(self, data: bytes, place: str, previous: str) -> bytes:
        return data

    def open_record(self, data: bytes, place: str, where: str) -> tuple[bytes, str]:
        return data, ""


PLAIN: Protection = _Plain()


def padded(size: int) -> int:
    """Round a size up so that it tells little of what is inside, by at most 12 %, and for large ones by less.

    Sizes that have the same magnitude and the same leading bits become one, as "Padmé" does (Nikitin and others,
    *Reducing Metadata Leakage from Encrypted Files and Communication with PURBs*, 2019).
    """
    magnitude = max(size, 1).bit_length() - 1
    step = 1 << max(magnitude - magnitude.bit_length(), 0)
    return -(-size // step) * step
