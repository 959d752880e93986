"""Ready-made lists of components for well-known systems; any other layout is a tuple of components."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable

import attrs

from novabackup.components import Bm25, Component, Faiss, Files, JsonLines, Metadata, PickledList, Sqlite, Tree
from novabackup.errors import ConfigurationError

__all__ = [
    "LEFT_OUT",
    "NOVA",
    "NOVA_INSTALLATION",
    "NOVA_MULTI_DOMAIN",
    "NOVA_PARTS",
    "NOVA_VEHICLE",
    "Frequency",
    "Part",
    "Priority",
    "nova_installation",
]

LEFT_OUT = ("**/.novabackup", "**/.venv", "**/__pycache__", "**/*.log", "vector_db/backups")
"""Patterns that a backup of whole folders leaves out: files that can be created again, logs, and backups."""

NOVA: tuple[Component, ...] = (
    Faiss("faiss_index.bin"),
    Bm25("bm25_index.pkl"),
    Metadata("metadata.json"),
    Files("corpus_manifest.json", optional=True),
    Files("domain_metadata.json", optional=True),
    Files("bm25_corpus_hash.txt", optional=True),
)
"""Nova NIC: vectors, words and metadata of the same chunks, and the companion files that ingestion rewrites."""

NOVA_VEHICLE: tuple[Component, ...] = (
    Faiss("vehicle_index.faiss"),
    JsonLines("vehicle_docs.jsonl"),
)
"""Nova NIC's index of vehicle manuals: one line of text for each vector."""

NOVA_MULTI_DOMAIN: tuple[Component, ...] = (
    Faiss("faiss_index_multi_domain.bin"),
    PickledList("chunks_with_metadata.pkl"),
    Metadata("domain_metadata.json", count_key="total_chunks"),
)
"""Nova NIC's index over several domains: pickled chunks, and a summary that states how many there are."""


class Priority(enum.StrEnum):
    """How much is lost without a part."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Frequency(enum.StrEnum):
    """How often a part is backed up."""

    DAILY = "daily"
    WEEKLY = "weekly"
    ON_CHANGE = "on change"
    OPTIONAL = "optional"
    """Nothing is lost without it."""


@attrs.frozen(kw_only=True)
class Part:
    """Some files of an installation that are backed up together.

    Attributes:
        name: Name of the part.
        components: The files, relative to the folder of the installation.
        priority: How much is lost without them.
        frequency: How often they are backed up.
        before_ingest: An ingestion rewrites them, so they are backed up before each one, too.
    """

    name: str
    components: tuple[Component, ...]
    priority: Priority
    frequency: Frequency
    before_ingest: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths and patterns of the components."""
        return tuple(component.path for component in self.components)


NOVA_PARTS: tuple[Part, ...] = (
    Part(
        name="indexes",
        components=(
            *(attrs.evolve(component, path=f"vector_db/{component.path}") for component in NOVA),
            # In the same part as the tree around them, so that they are never copied as if they were plain files.
            Sqlite("vector_db/analytics.db", optional=True),
            Sqlite("vector_db/query_log.db", optional=True),
            Tree("vector_db"),
        ),
        priority=Priority.CRITICAL,
        frequency=Frequency.DAILY,
        before_ingest=True,
    ),
    Part(
        name="configuration",
        components=(Files(".env", optional=True), Tree("config")),
        priority=Priority.HIGH,
        frequency=Frequency.ON_CHANGE,
    ),
    Part(
        name="query log",
        components=(Sqlite("query_log.db", optional=True),),
        priority=Priority.MEDIUM,
        frequency=Frequency.DAILY,
    ),
    Part(name="sessions", components=(Tree("cache/sessions"),), priority=Priority.LOW, frequency=Frequency.OPTIONAL),
    Part(name="documents", components=(Tree("data"),), priority=Priority.MEDIUM, frequency=Frequency.WEEKLY),
    Part(name="logs", components=(Tree("logs"),), priority=Priority.MEDIUM, frequency=Frequency.DAILY),
)
"""The parts of a Nova NIC folder, with the priorities and frequencies of its handbook.

``indexes`` is everything in ``vector_db``: the files of `NOVA`, which are checked together, the databases, and all
other files."""


def nova_installation(
    parts: Iterable[str] | None = None,
    *,
    frequencies: Iterable[Frequency | str] | None = None,
    include: Iterable[str] = (),
) -> tuple[Component, ...]:
    """Choose parts of a Nova NIC folder, such as those with the same schedule.

    Args:
        parts: Names from `NOVA_PARTS`; by default all.
        frequencies: Only parts with one of these; by default any.
        include: Folders or patterns that belong to this installation as well.

    Returns:
        The components, for an `IndexStore` whose URL is the folder of the installation.

    Raises:
        ConfigurationError: There is no such part or frequency, or no part has both.
    """
    known = [part.name for part in NOVA_PARTS]
    names = _chosen("part", known if parts is None else parts, known)
    often = _chosen("frequency", Frequency if frequencies is None else frequencies, [one.value for one in Frequency])
    chosen = [part for part in NOVA_PARTS if part.name in names and part.frequency in often]
    components = [component for part in chosen for component in part.components]
    components += [Tree(pattern) for pattern in include]
    if not components:
        raise ConfigurationError(
            f"expected parts of an installation, found none that is one of {', '.join(sorted(names))} and backed up "
            f"{' or '.join(sorted(often))}. See novabackup.layouts.NOVA_PARTS"
        )
    return tuple(components)


def _chosen(what: str, names: Iterable[str], known: Collection[str]) -> set[str]:
    chosen = {names} if isinstance(names, str) else set(names)
    if unknown := chosen - set(known):
        raise ConfigurationError(
            f"there is no {what} {', '.join(map(repr, sorted(unknown)))}; known are {', '.join(map(repr, known))}"
        )
    return chosen


NOVA_INSTALLATION: tuple[Component, ...] = nova_installation()
"""All of a Nova NIC folder except `LEFT_OUT`; for backups and restores, not for guarding an ingestion."""
