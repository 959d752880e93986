"""Repair the small objects of a repository: their content is known from elsewhere, or a copy has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from novabackup.errors import FormatError, IntegrityError
from novabackup.format.layout import CONFIG_KEY, EXTRACT_KEY, KEYS, PIN_NAME, README_KEY
from novabackup.format.readme import sealed_readme, sealed_script
from novabackup.format.records import Drill, Forgotten, Pin, encode
from novabackup.format.sealing import OtherKeyError
from novabackup.objects.objects import Objects
from novabackup.objects.slots import read_config, read_slot
from novabackup.operations import pins
from novabackup.operations.repair import quarantine
from novabackup.operations.repair.plan import Loss, Remedy, Repair, Task

_FORGOTTEN = "forgotten"
_DRILLS = "drills"


class SmallObjects:
    """Plans the repair of config, texts for people, keys, pins, notes and drills; collects what is lost."""

    def __init__(self, objects: Objects, others: Sequence[Objects]) -> None:
        self._objects = objects
        self._others = others
        self.lost: list[Loss] = []

    def tasks(self, key: str) -> Iterator[Task]:
        """Plan the repair of an object that is damaged or missing; write nothing."""
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
        """Return why a record cannot be opened although it is not damaged: with another data key; empty otherwise."""
        try:
            where = f"{self._objects.url}/{key}"
            self._objects.access.protection.open_record(self._objects.storage.read(key), key, where)
        except OtherKeyError as error:
            return str(error.args[0])
        except (FileNotFoundError, IntegrityError, FormatError):
            pass
        return ""

    def _write(self, key: str, do: Callable[[], object], source: str = "") -> Task:
        step = Remedy.COPY if source else Remedy.WRITE
        return Task(repair=Repair(step=step, key=key, source=source), do=do)

    def _write_config(self) -> None:
        if self._objects.storage.exists(CONFIG_KEY):
            quarantine.move(self._objects.storage, CONFIG_KEY)
        self._objects.access.ensure()

    def _write_readme(self) -> None:
        quarantine.keep(self._objects.storage, README_KEY)
        text = sealed_readme(encrypted=self._objects.access.encrypted)
        self._objects.storage.write(README_KEY, [text])
        if not self._objects.storage.exists(EXTRACT_KEY):
            self._objects.storage.write(
                EXTRACT_KEY, [sealed_script()]
            )  # the new text mentions it, even if the lost one did not

    def _write_script(self) -> None:
        quarantine.keep(self._objects.storage, EXTRACT_KEY)
        self._objects.storage.write(EXTRACT_KEY, [sealed_script()])

    def _pin(self, key: str, name: str) -> Iterator[Task]:
        for other in self._others:
            try:
                pin, source = other.access.read_record(key, Pin)[0], other.url
                break
            except (FileNotFoundError, IntegrityError, FormatError):
                continue
        else:
            pin, source = None, ""

        def write() -> None:
            quarantine.keep(self._objects.storage, key)
            if pin is None:
                pins.pin(self._objects.access, name, "the message is lost: the pin was damaged")
            else:
                self._objects.access.write_record(key, pin)

        yield self._write(key, write, source)

    def _record(self, key: str, folder: str) -> Iterator[Task]:
        """Copy a record back, which only a byte-for-byte copy can have, or set it quarantine."""
        for other in self._others:
            try:
                data = self._same_record(other, key, folder)
            except (FileNotFoundError, IntegrityError, FormatError):
                continue

            def write(data: bytes = data) -> None:
                quarantine.keep(self._objects.storage, key)
                self._objects.storage.write(key, [data])

            yield self._write(key, write, other.url)
            return
        consequences = {
            KEYS: "the key no longer opens the repository: add it again with keys.add",
            _FORGOTTEN: "it listed snapshots that were forgotten on purpose: check may report them as missing",
            _DRILLS: "it was the result of a drill; no snapshot needs it",
        }
        self.lost.append(Loss(key=key, message=consequences[folder]))
        yield self._set_aside(key)

    def _set_aside(self, key: str) -> Task:
        repair = Repair(step=Remedy.SET_ASIDE, key=key)
        return Task(repair=repair, do=functools.partial(quarantine.move, self._objects.storage, key))

    def _same_record(self, other: Objects, key: str, folder: str) -> bytes:
        """Read a record of a copy with the same id and keys; return its bytes as they are stored here."""
        if folder == KEYS:
            slot = read_slot(other.storage, key)
            if slot.repository != read_config(self._objects.storage).id:
                raise FileNotFoundError(key)
            return encode(slot)
        kind: type[Forgotten | Drill] = Forgotten if folder == _FORGOTTEN else Drill
        record = other.access.read_record(key, kind)[0]
        if other.access.encrypted and other.access.protection.key != self._objects.access.protection.key:
            raise FileNotFoundError(key)
        return self._objects.access.protection.close_record(encode(record), key, "")
