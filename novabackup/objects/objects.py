"""One repository as the verbs receive it: access to it, its snapshots, and its packs."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable

from novabackup.format.packs import Compression
from novabackup.keys import Key
from novabackup.objects.access import Access
from novabackup.objects.packs import Packs
from novabackup.objects.records import Records
from novabackup.storage import Storage


class Objects:
    """The objects of one repository.

    Attributes:
        storage: Where they are.
        access: Opens the repository, and reads and writes single records.
        records: Its snapshots.
        packs: Its packs.
        plaintext_secrets: Paths and patterns of secrets that may be kept although others could read them there.
    """

    def __init__(
        self,
        storage: Storage,
        key: Key | None = None,
        packs: Storage | None = None,
        compression: Compression = Compression.FAST,
        plaintext_secrets: Collection[str] = (),
    ) -> None:
        """Work on a storage, without touching it yet.

        Args:
            storage: Where the repository is, or will be.
            key: What opens it if it is encrypted, or is to open it once it is created.
            packs: The same place, as packs are written to it; by default as everything else.
            compression: How much time to spend on new packs.
            plaintext_secrets: Paths and patterns of secrets that may be kept although others could read them there.
        """
        self.storage = storage
        self.access = Access(storage, key)
        self.records = Records(self.access)
        self.packs = Packs(self.access, packs, compression)
        self.plaintext_secrets = tuple(plaintext_secrets)

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self.storage.url

    def avoiding(self, packs: Iterable[str]) -> Objects:
        """Return the same repository once more; that one shares nothing with some packs."""
        twin = copy.copy(self)
        twin.packs = self.packs.avoiding(packs)
        return twin

    def set_aside(self) -> Objects:
        """Return the same repository once more; that one reads packs where damaged ones are set aside."""
        twin = copy.copy(self)
        twin.packs = self.packs.set_aside()
        return twin
