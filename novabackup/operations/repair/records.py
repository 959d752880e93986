"""Mending the small objects of a repository: what they said is known from elsewhere, or a copy has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from novabackup.errors import FormatError, IntegrityError
from novabackup.format.readme import EXTRACT_KEY
from novabackup.format.records import Drill, Forgotten, Pin, encode
from novabackup.format.sealing import OtherKeyError
from novabackup.objects.founding import CONFIG_KEY, KEYS, README_KEY, read_config, read_slot, write_readme, write_script
from novabackup.objects.packs import Objects
from novabackup.objects.records import PIN_NAME
from novabackup.operations.repair import quarantine as aside
from novabackup.operations.repair.plan import Loss, Remedy, Repair, Task

__all__ = ["SmallObjects"]

_FORGOTTEN = "forgotten"
_DRILLS = "drills"


class SmallObjects:
    """Decides about all that is small: config, texts for people, keys, pins, notes, drills; looking writes nothing.

    Attributes:
        lost: What cannot be had back.
    """

    def __init__(self, objects: Objects, others: Sequence[Objects]) -> None:
        """Begin.

        Args:
            objects: The repository.
            others: Copies of it.
        """
        self._objects = objects
        self._others = others
        self.lost: list[Loss] = []

    def works(self, key: str) -> Iterator[Task]:
        """Say what is to be done about one object that is damaged or gone.

        Args:
            key: Of the object.
        """
        folder = key.partition("/")[0]
        if key == CONFIG_KEY:
            yield self._write(key, self._write_config)
        elif key == README_KEY:
            yield self._write(key, self._write_readme)
        elif key == EXTRACT_KEY:
            yield self._write(key, self._write_script)
        elif why := self._sealed_otherwise(key):
            self.lost.append(Loss(key=key, message=f"{why}. It stays as it is"))
        elif pin := PIN_NAME.fullmatch(key):
            yield from self._pin(key, pin[1])
        elif folder in (KEYS, _FORGOTTEN, _DRILLS):
            yield from self._record(key, folder)
        elif folder == "condemned":  # one that cannot be read condemns nothing
            yield self._set_aside(key)

    def _sealed_otherwise(self, key: str) -> str:
        """Say why a record is not damaged but sealed with a data key that is not at hand; empty if it is not."""
        try:
            where = f"{self._objects.url}/{key}"
            self._objects.protection.open_record(self._objects.storage.read(key), key, where)
        except OtherKeyError as error:
            return str(error.args[0])
        except (FileNotFoundError, IntegrityError, FormatError):
            pass
        return ""

    def _write(self, key: str, do: Callable[[], object], source: str = "") -> Task:
        step = Remedy.COPY if source else Remedy.WRITE
        return Task(action=Repair(step=step, key=key, source=source), do=do)

    def _write_config(self) -> None:
        if self._objects.storage.exists(CONFIG_KEY):
            aside.move(self._objects.storage, CONFIG_KEY)
        self._objects.ensure()

    def _write_readme(self) -> None:
        aside.keep(self._objects.storage, README_KEY)
        write_readme(self._objects.storage, encrypted=self._objects.encrypted)
        if not self._objects.storage.exists(EXTRACT_KEY):
            write_script(self._objects.storage)  # which the text speaks of, also where the lost one did not

    def _write_script(self) -> None:
        aside.keep(self._objects.storage, EXTRACT_KEY)
        write_script(self._objects.storage)

    def _pin(self, key: str, name: str) -> Iterator[Task]:
        for other in self._others:
            try:
                pin, source = other.read_record(key, Pin)[0], other.url
                break
            except (FileNotFoundError, IntegrityError, FormatError):
                continue
        else:
            pin, source = None, ""

        def write() -> None:
            aside.keep(self._objects.storage, key)
            if pin is None:
                self._objects.pin(name, "what was said here is lost: the pin was damaged")
            else:
                self._objects.write_record(key, pin)

        yield self._write(key, write, source)

    def _record(self, key: str, folder: str) -> Iterator[Task]:
        """Copy a record back that only a copy made byte by byte can have, or set it aside."""
        for other in self._others:
            try:
                data = self._same_record(other, key, folder)
            except (FileNotFoundError, IntegrityError, FormatError):
                continue

            def write(data: bytes = data) -> None:
                aside.keep(self._objects.storage, key)
                self._objects.storage.write(key, [data])

            yield self._write(key, write, other.url)
            return
        said = {
            KEYS: "whoever has this key cannot use it any more: add it again with keys.add",
            _FORGOTTEN: "it said which snapshots were forgotten on purpose: check may miss them from now on",
            _DRILLS: "it said how a drill went; no snapshot needs it",
        }
        self.lost.append(Loss(key=key, message=said[folder]))
        yield self._set_aside(key)

    def _set_aside(self, key: str) -> Task:
        action = Repair(step=Remedy.SET_ASIDE, key=key)
        return Task(action=action, do=functools.partial(aside.move, self._objects.storage, key))

    def _same_record(self, other: Objects, key: str, folder: str) -> bytes:
        """Read a record of a copy that has the same identity and keys; give its bytes as they are to be stored here."""
        if folder == KEYS:
            slot = read_slot(other.storage, key)
            if slot.repository != read_config(self._objects.storage).id:
                raise FileNotFoundError(key)
            return encode(slot)
        kind: type[Forgotten | Drill] = Forgotten if folder == _FORGOTTEN else Drill
        record = other.read_record(key, kind)[0]
        if other.encrypted and other.protection.key != self._objects.protection.key:
            raise FileNotFoundError(key)
        return self._objects.protection.close_record(encode(record), key, "")
