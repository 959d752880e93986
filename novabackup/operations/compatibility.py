"""Compare what wrote the files of a snapshot with what would load them here: `compare`."""

from __future__ import annotations

import enum
import functools
import importlib.util
import pickle
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import attrs

from novabackup._support.tables import TableData, Tabular
from novabackup._support.text import first_of
from novabackup.format.records import FileEntry, Report, SnapshotRecord

_PACKAGES = ("faiss-cpu", "faiss-gpu", "novabackup", "numpy", "rank-bm25", "sentence-transformers")
_FAISS = ("faiss-cpu", "faiss-gpu")
_PROTOCOL = re.compile(r"pickle protocol (\d)")
_NUMPY_2 = "numpy._core."


class Severity(enum.StrEnum):
    """How bad it is."""

    NOTE = "note"
    """It should load and give the same results."""
    WARNING = "warning"
    """It may not load, or load and give other results."""
    ERROR = "error"
    """It will not load here."""


@attrs.frozen(kw_only=True)
class Concern:
    """One difference between here and where the snapshot was taken.

    Attributes:
        severity: How bad it is.
        code: A stable name for programs: ``faiss-version``, ``missing-module`` …
        paths: The files that it affects.
        message: What wrote them, what is installed here, and what can be done.
    """

    severity: Severity
    code: str
    paths: tuple[str, ...] = ()
    message: str

    def __str__(self) -> str:
        where = f" ({', '.join(self.paths)})" if self.paths else ""
        return f"{self.severity}: {self.code}{where}: {self.message}"


class Compatibility(tuple[Concern, ...], Tabular):
    """All differences, the most severe first."""

    __slots__ = ()

    @property
    def loads(self) -> bool:
        """Whether nothing is known that would prevent loading the files."""
        return all(concern.severity is not Severity.ERROR for concern in self)

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "nothing is known that would prevent loading the files here"

    def _table(self) -> TableData:
        rows = ((str(one.severity), one.code, ", ".join(one.paths), one.message) for one in self)
        return "Will it load here?", ["severity", "what", "files", "details"], rows


@attrs.frozen(kw_only=True)
class Installed:
    """What is installed to load files with.

    Attributes:
        versions: Versions of Python and of packages, as in a snapshot.
        protocol: The newest pickle protocol that can be read.
        has: Whether a top-level module can be imported.
    """

    versions: Mapping[str, str]
    protocol: int = pickle.HIGHEST_PROTOCOL
    has: Callable[[str], bool]


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the installed versions of the packages that write such files, without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def here() -> Installed:
    """Return what is installed in this process."""
    return Installed(versions=versions(), has=_has)


def _has(module: str) -> bool:
    # Only top-level names: searching for a submodule would import, that is run, its parent.
    try:
        return module.isidentifier() and importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return module == "__main__"


def compare(
    record: SnapshotRecord, installed: Installed, live: Sequence[Report] = (), embedding_model: str = ""
) -> Compatibility:
    """List what may prevent loading a snapshot's files, or change their results.

    Args:
        record: The snapshot.
        installed: What is installed to load its files with.
        live: Reports of the store that the files would be restored to, if it has files.
        embedding_model: The embedding model of that store; empty if it is not known.
    """
    found = [
        *_faiss(record, installed),
        *_pickles(record, installed),
        *_python(record, installed),
        *_dimensions(record, live),
        *_model(record, embedding_model),
    ]
    order = list(reversed(Severity))
    return Compatibility(sorted(found, key=lambda concern: order.index(concern.severity)))


def _of(record: SnapshotRecord, *components: str) -> tuple[str, ...]:
    return tuple(entry.path for entry in record.files if entry.report and entry.report.component in components)


def _faiss(record: SnapshotRecord, installed: Installed) -> Iterator[Concern]:
    paths = _of(record, "Faiss")
    wrote = next((record.versions[name] for name in _FAISS if name in record.versions), "")
    reads = next((installed.versions[name] for name in _FAISS if name in installed.versions), "")
    if not paths:
        return
    if not reads and not installed.has("faiss"):
        message = f"expected faiss{_by(wrote)}, found none. Install faiss-cpu"
        yield Concern(severity=Severity.ERROR, code="missing-module", paths=paths, message=message)
    elif wrote and reads and _numbers(wrote)[:2] != _numbers(reads)[:2]:
        newer, same = _numbers(wrote) > _numbers(reads), _numbers(wrote)[:1] == _numbers(reads)[:1]
        message = f"written with faiss {wrote}, found {reads} here" + (
            ": it may not know every kind of index. Install the version that wrote them" if newer else ""
        )
        severity = Severity.NOTE if same and not newer else Severity.WARNING
        yield Concern(severity=severity, code="faiss-version", paths=paths, message=message)


def _pickles(record: SnapshotRecord, installed: Installed) -> Iterator[Concern]:
    for entry in record.files:
        protocol = _protocol(entry)
        if protocol is not None and protocol > installed.protocol:
            message = f"pickle protocol {protocol}, and the newest that can be read here is {installed.protocol}"
            yield Concern(severity=Severity.ERROR, code="pickle-protocol", paths=(entry.path,), message=message)
    for path, names in sorted(record.classes.items()):
        yield from _missing_modules(record, installed, path, names)
        if own := [name for name in names if _top(name) == "__main__"]:
            message = f"it holds classes defined in a script ({first_of(own)}), so only that script can load it"
            yield Concern(severity=Severity.WARNING, code="class-of-a-script", paths=(path,), message=message)
        numpy = installed.versions.get("numpy", "")
        if numpy and _numbers(numpy)[0] < 2 and any(name.startswith(_NUMPY_2) for name in names):
            message = (
                f"pickled with numpy 2{_by(record.versions.get('numpy', ''))}, found {numpy} here. Install numpy 2"
            )
            yield Concern(severity=Severity.ERROR, code="numpy-version", paths=(path,), message=message)
    wrote, reads = record.versions.get("rank-bm25", ""), installed.versions.get("rank-bm25", "")
    users = tuple(path for path, names in sorted(record.classes.items()) if "rank_bm25" in map(_top, names))
    if users and wrote and reads and wrote != reads:
        message = f"written with rank-bm25 {wrote}, found {reads} here: scores may differ"
        yield Concern(severity=Severity.NOTE, code="rank-bm25-version", paths=users, message=message)


def _missing_modules(
    record: SnapshotRecord, installed: Installed, path: str, names: Sequence[str]
) -> Iterator[Concern]:
    for module in sorted(set(map(_top, names)) - {"__main__"}):
        if not installed.has(module):
            wrote = _by(record.versions.get(module.replace("_", "-"), ""))
            needed = first_of([name for name in names if _top(name) == module])
            message = (
                f"the pickle needs the module {module}{wrote} ({needed}), which is not installed here. Install it, or "
                "put it on the path"
            )
            yield Concern(severity=Severity.ERROR, code="missing-module", paths=(path,), message=message)


def _python(record: SnapshotRecord, installed: Installed) -> Iterator[Concern]:
    wrote, reads = record.versions.get("python", ""), installed.versions.get("python", "")
    paths = tuple(entry.path for entry in record.files if _protocol(entry) is not None)
    if paths and wrote and reads and _numbers(wrote)[:2] > _numbers(reads)[:2]:
        message = f"pickled with Python {wrote}, found {reads} here"
        yield Concern(severity=Severity.NOTE, code="python-version", paths=paths, message=message)


def _dimensions(record: SnapshotRecord, live: Sequence[Report]) -> Iterator[Concern]:
    now = {report.path: report.dimension for report in live if report.dimension is not None}
    for entry in record.files:
        then = entry.report.dimension if entry.report else None
        if then is not None and now.get(entry.path, then) != then:
            message = (
                f"{then} dimensions, and the index in the store now has {now[entry.path]}: it was made with another "
                "embedding model. Set the service to the model of this snapshot before it loads it"
            )
            yield Concern(severity=Severity.WARNING, code="dimension", paths=(entry.path,), message=message)


def _model(record: SnapshotRecord, embedding_model: str) -> Iterator[Concern]:
    if record.embedding_model and embedding_model and record.embedding_model != embedding_model:
        message = (
            f"the vectors were made by {record.embedding_model}, and the store uses {embedding_model}: queries would "
            "be embedded in another way than the documents. Set the service to the model of this snapshot"
        )
        paths = tuple(entry.path for entry in record.files if entry.report and entry.report.dimension is not None)
        yield Concern(severity=Severity.WARNING, code="embedding-model", paths=paths, message=message)


def _protocol(entry: FileEntry) -> int | None:
    found = _PROTOCOL.match(entry.report.written_with or "") if entry.report else None
    return int(found[1]) if found else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text.partition("+")[0])[:3]) or (0,)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _by(wrote: str) -> str:
    return f" ({wrote} was installed when it was backed up)" if wrote else ""
