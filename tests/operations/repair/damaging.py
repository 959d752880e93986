"""A repository of several small packs, copies of it of every kind, and ways to damage it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

import trees
from novabackup import IndexStore, Repository
from novabackup.components import Files
from novabackup.keys import Passphrase


def opened(url: object, secret: str | None = None) -> Repository:
    return Repository(url, key=Passphrase(secret) if secret else None)


def grow(folder: Path, number: int) -> None:
    """Let a store grow at its end, and change in the middle."""
    noise = random.Random(1).randbytes(200_000 + 60_000 * number)
    (folder / "noise.bin").write_bytes(noise[:90_000] + b"inserted" * number + noise[90_000:])
    (folder / "same.bin").write_bytes(random.Random(2).randbytes(70_000))
    (folder / "text.txt").write_text("".join(f"Section {line}\n" for line in range(9_000 + 2_000 * number)))
    np.save(folder / "vectors.npy", np.random.default_rng(3).normal(size=(500 + 50 * number, 32)).astype(np.float32))
    (folder / "empty").write_bytes(b"")


def objects(url: Path, folder: str = "") -> list[Path]:
    """Give the objects of a repository, without those that were set aside."""
    return sorted(
        path for path in (url / folder).rglob("*") if path.is_file() and path.relative_to(url).parts[0] != "damaged"
    )


class Case:
    """A repository with three snapshots, copies of it, and what they hold.

    Attributes:
        url: Where it is.
        secret: Its passphrase; None if it is not encrypted.
        store: What it is of.
        before: What is in its snapshots.
    """

    def __init__(self, root: Path, secret: str | None) -> None:
        self.root = root
        self.url = root / "repository"
        self.secret = secret
        self.store = IndexStore(root / "store", components=[Files("*")])
        (root / "store").mkdir()
        for number in range(3):
            grow(Path(self.store.url), number)
            self.open().backup(self.store)
        for other in (None, "another"):
            self.open().copy(to=self.copied(other))
        self.byte_copy()
        self._whole = trees.files(root)
        self._before = trees.snapshots(self.open())

    def renew(self) -> None:
        """Bring everything back to what it was at first."""
        trees.put_back(self.root, self._whole)
        self.before = {name: dict(files) for name, files in self._before.items()}

    def open(self) -> Repository:
        return opened(self.url, self.secret)

    def byte_copy(self) -> Repository:
        """Make a copy byte by byte of what is there now."""
        shutil.rmtree(self.root / "bytes", ignore_errors=True)
        shutil.copytree(self.url, self.root / "bytes")
        return opened(self.root / "bytes", self.secret)

    def copied(self, secret: str | None) -> Repository:
        """Give a copy with keys of its own, of what was there at first."""
        return opened(self.root / f"copy-{secret}", secret)

    def is_whole(self) -> None:
        again = self.open()
        assert not again.check(read_data_subset="100%")
        assert trees.snapshots(again) == self.before


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[min(place, len(content) // 2)] ^= 1
    path.write_bytes(content)


def flip_table(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "shifted": lambda path: path.write_bytes(b"x" + path.read_bytes()),
    "a bit at the start": lambda path: flip(path, 3),
    "a bit in a frame": lambda path: flip(path, 1000),
    "a bit in the table": flip_table,
}
