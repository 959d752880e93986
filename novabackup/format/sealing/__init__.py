"""How content and records are sealed: hidden and proved by keys that only readers have, or not at all."""

from novabackup.format.sealing.base import PLAIN, OtherKeyError, PackSeal, Protection, padded

__all__ = ["PLAIN", "OtherKeyError", "PackSeal", "Protection", "padded"]
