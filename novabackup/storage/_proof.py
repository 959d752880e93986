"""Content that was read in pieces, compared with what a storage knows of it as a whole."""

from __future__ import annotations


class Proof:
    """What a storage knows of the content of one version of an object.

    This one knows nothing: local files come over no line on which they could be altered.
    """

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, in order, from the first one on."""

    def confirm(self) -> None:
        """Compare, when all bytes have been taken.

        Raises:
            ChangedError: Other bytes arrived than the storage has.
        """
