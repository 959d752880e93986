"""All that is in one repository: what every operation on it is given."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable

from novabackup.format.layout import CONFIG_KEY
from novabackup.format.packs import Compression
from novabackup.keys import Key
from novabackup.objects.access import Access
from novabackup.objects.packs import Packs
from novabackup.objects.records import Records
from novabackup.storage import Storage


class Objects:
    """All that is in one repository.

    Attributes:
        access: Opens it, and reads and writes single records.
        records: Its snapshots.
        packs: The content of their files.
        compression: How much time to spend on new packs.
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
        self.access = Access(storage, key)
        self.records = Records(self.access)
        self.packs = Packs(self.access, packs or storage)
        self.compression = compression
        self.plaintext_secrets = tuple(plaintext_secrets)

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self.access.url

    @property
    def storage(self) -> Storage:
        """Where all objects but new packs are written."""
        return self.access.storage

    @property
    def exposed(self) -> bool:
        """Whether users of other hosts may be able to read what is in the repository."""
        # With a key, a repository is created encrypted or must be encrypted already: anything else is an error.
        return not self.access.has_key and self.storage.local_path(CONFIG_KEY) is None

    def avoiding(self, packs: Iterable[str]) -> Objects:
        """Return the same repository, without sharing some of its packs."""
        return self._with(self.packs.avoiding(packs))

    def set_aside(self) -> Objects:
        """Return the same repository, reading the packs that a repair has set aside because they are damaged."""
        return self._with(self.packs.set_aside())

    def _with(self, packs: Packs) -> Objects:
        twin = copy.copy(self)
        twin.packs = packs
        return twin
