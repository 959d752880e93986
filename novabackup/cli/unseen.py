"""What a command reports its progress to; it shows nothing, for when nobody watches."""

from __future__ import annotations

from fsspec.callbacks import Callback

__all__ = ["Unseen"]


class Unseen(Callback):  # type: ignore[misc]
    """A callback that shows nothing."""

    def rest(self, label: str = "") -> None:
        """Stop showing anything until there is something new to tell of.

        Args:
            label: What will be done then; by default the same.
        """
