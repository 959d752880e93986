"""The configuration file: which one counts, what may stand in it, and what it says."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from novabackup import components
from novabackup.cli.config.amounts import bytes_of
from novabackup.cli.config.lines import lines_of
from novabackup.cli.config.readers import (
    Found,
    Place,
    choice,
    flag,
    keys,
    location,
    options,
    seconds,
    secret,
    section,
    setting,
    tables,
    text,
    texts,
)
from novabackup.cli.config.secrets import Secret
from novabackup.cli.config.sections import (
    HealthSettings,
    HooksSettings,
    MetricsSettings,
    QuerySettings,
    RecoverySettings,
    ScheduleSettings,
    ServiceSettings,
    query,
    schedule,
    service,
)
from novabackup.components import Component
from novabackup.errors import ConfigurationError
from novabackup.format.packs import Compression
from novabackup.retention import Policy
from novabackup.store import layouts

__all__ = ["LAYOUTS", "NAME", "Config", "CopySettings", "RepositorySettings", "StoreSettings", "find", "load"]

NAME = "novabackup.toml"
_LARGEST = 1 << 20


def _dashed(name: str) -> str:
    """Write the name of a constant or a class as the command line and the configuration do."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


LAYOUTS: dict[str, tuple[Component, ...]] = {
    _dashed(name): layout
    for name in layouts.__all__
    if isinstance(layout := getattr(layouts, name), tuple) and all(isinstance(one, Component) for one in layout)
}
"""The ready-made lists of components, by the names that people give."""

_KINDS: dict[str, type[Component]] = {
    _dashed(name): getattr(components, name) for name in components.__all__ if name != Component.__name__
}


def _component(place: Place, value: object) -> Component:
    if not isinstance(value, dict):
        raise place.wrong('a table such as { kind = "faiss", path = "faiss_index.bin" }', value)
    kind = _KINDS[choice(*_KINDS)(place / "kind", value.get("kind", "none"))]
    fields = {field.name: field for field in attrs.fields(kind)}
    keys(place, value, ["kind", *fields])
    readers = {"path": text, "optional": flag, "timeout": seconds}
    said: dict[str, Any] = {
        key: readers.get(key, text)(place / key, found) for key, found in value.items() if key != "kind"
    }
    if "path" not in said:
        raise place.wrong("the key path", Found("none"))
    try:
        return kind(**said)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def _components(place: Place, value: object) -> tuple[Component, ...]:
    if not isinstance(value, list) or not value:
        raise place.wrong("a list of components", value)
    return tuple(_component(place / number, item) for number, item in enumerate(value))


def _policy(place: Place, value: object) -> Policy:
    """Read a policy: a text, or a table, whose rules are looked at one by one to say in which line a mistake is."""
    if not isinstance(value, str | dict):
        raise place.wrong('a text such as "daily 30, weekly 12", or a table such as { daily = 30 }', value)
    if isinstance(value, dict):
        keys(place, value, attrs.fields_dict(Policy))
        for key, said in value.items():
            if key == "tags" and isinstance(said, dict):
                for tag, rules in said.items():
                    _understood(place / key / tag, {key: {tag: rules}})
            else:
                beside = "daily" if key == "yearly" else "yearly"  # a rule of 0 is fine beside others
                _understood(place / key, {beside: "forever", key: said})
    return _understood(place, value)


def _understood(place: Place, value: str | Mapping[str, Any]) -> Policy:
    try:
        return Policy.of(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {str(error).removeprefix(f'{place.path[-1]!r}: ')}") from None


@attrs.frozen(kw_only=True)
class StoreSettings:
    """What is backed up: ``[store]``.

    Attributes:
        url: Where the index files are.
        layout: Name of a ready-made list of components.
        components: The components themselves, instead of a layout.
        include: Folders and patterns of what belongs to the store as well.
        exclude: Patterns of what the components' patterns do not select; None for what is usual.
        options: Options of the file system; secrets are told by where they are kept.
        single_writer: Nobody else writes there.
        timeout: Seconds to wait for another writer.
    """

    url: str | None = setting(location, None)
    layout: str | None = setting(choice(*LAYOUTS), None)
    components: tuple[Component, ...] = setting(_components, ())
    include: tuple[str, ...] = setting(texts, ())
    exclude: tuple[str, ...] | None = setting(texts, None)
    options: Mapping[str, Any] = setting(options, attrs.Factory(dict))
    single_writer: bool = setting(flag, False)
    timeout: float | None = setting(seconds, None)


@attrs.frozen(kw_only=True)
class KeySettings:
    """What opens an encrypted repository: one of these.

    Attributes:
        passphrase: Where the passphrase is kept.
        keyfile: Path of a file with a random key.
    """

    passphrase: Secret | None = setting(secret, None)
    keyfile: str | None = setting(location, None)


def _key(place: Place, value: object) -> KeySettings:
    if not isinstance(value, dict):
        raise place.wrong("a table such as { passphrase = … } or { keyfile = … }", Found("something else (not shown)"))
    found = section(KeySettings)(place, value)
    if (found.passphrase is None) == (found.keyfile is None):
        raise place.wrong("one of passphrase and keyfile", Found("both" if found.passphrase else "none"))
    return found


@attrs.frozen(kw_only=True)
class RepositorySettings:
    """Where backups are kept: ``[repository]``.

    Attributes:
        url: The repository; by default ``backups`` in the store.
        key: What opens it; a repository that is created with a key is encrypted.
        storage_class: The class that new content is written in, where there are such.
        compression: How much time to spend on making it small.
        options: Options of the file system; secrets are told by where they are kept.
    """

    url: str | None = setting(location, None)
    key: KeySettings | None = setting(_key, None)
    storage_class: str | None = setting(text, None)
    compression: str = setting(choice(*(one.value for one in Compression)), Compression.FAST.value)
    options: Mapping[str, Any] = setting(options, attrs.Factory(dict))


def _rate(place: Place, value: object) -> float:
    try:
        return bytes_of(text(place, value))
    except ValueError:
        raise place.wrong('bytes a second, such as "500kB" or "5MB"', value) from None


@attrs.frozen(kw_only=True)
class CopySettings(RepositorySettings):
    """Another repository that snapshots are copied to: ``[copies.<name>]``.

    Attributes:
        url: Where it is.
        retention: What `mirror` keeps there; None for the policy remote.
        limit: Bytes a second that are read and sent at most; None for as fast as it goes.
    """

    url: str = setting(location)
    retention: Policy | None = setting(_policy, None)
    limit: float | None = setting(_rate, None)


@attrs.frozen(kw_only=True)
class Config:
    """All that a configuration file says.

    Attributes:
        store: What is backed up.
        repository: Where to.
        retention: What `forget` keeps; None if the file does not say.
        copies: Other repositories by their names.
        service: What is stopped while files change; None if there is nothing to stop.
        health: Where the service says whether it is well; None if it is not asked.
        query: A question to the service; None if none is put.
        hooks: What runs around commands.
        metrics: Who is told how backups are; None if runs are not even remembered.
        recovery: How a whole installation comes back.
        schedule: What is done again and again.
    """

    store: StoreSettings = setting(section(StoreSettings), StoreSettings())
    repository: RepositorySettings = setting(section(RepositorySettings), RepositorySettings())
    retention: Policy | None = setting(_policy, None)
    copies: Mapping[str, CopySettings] = setting(tables(section(CopySettings)), attrs.Factory(dict))
    service: ServiceSettings | None = setting(service, None)
    health: HealthSettings | None = setting(section(HealthSettings), None)
    query: QuerySettings | None = setting(query, None)
    hooks: HooksSettings = setting(section(HooksSettings), HooksSettings())
    metrics: MetricsSettings | None = setting(section(MetricsSettings), None)
    recovery: RecoverySettings = setting(section(RecoverySettings), RecoverySettings())
    schedule: ScheduleSettings = setting(schedule, ScheduleSettings())


def find(named: Path | None) -> Path | None:
    """Find the configuration file that counts.

    In this order: the one that is named; ``novabackup.toml`` in the working folder or the nearest folder above it; the
    user's own; the system's. A file that is come upon by chance, and belongs to somebody else, is refused: it could
    name commands to run.

    Args:
        named: By ``--config`` or ``NOVABACKUP_CONFIG``.

    Returns:
        Its path; None if there is none.

    Raises:
        ConfigurationError: The named one is not there, or the one that was found belongs to another user.
    """
    if named is not None:
        if not named.is_file():
            raise ConfigurationError(f"{named}: expected a configuration file, found none. Look at --config")
        return named
    for path in _places():
        if path.is_file():
            # Of a link, too: whoever made it can let it lead elsewhere before the file is read.
            owner = next(
                (one.st_uid for one in (path.lstat(), path.stat()) if one.st_uid not in (0, os.getuid())), None
            )
            if owner is not None:
                raise ConfigurationError(
                    f"{path} belongs to another user (id {owner}), so it is not read by itself. "
                    f"If you trust it: --config {path}"
                )
            return path
    return None


def _places() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / NAME
    own = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    yield Path(own, "novabackup", "config.toml").expanduser()
    yield Path("/etc", NAME)


def load(path: Path | None) -> Config:
    """Read a configuration file.

    Args:
        path: What `find` found; None gives what holds without any file.

    Returns:
        What it says; no secret has been looked at.

    Raises:
        ConfigurationError: Something in it cannot be. The message names the file, the line and the setting.
    """
    if path is None:
        return Config()
    path = Path(path).absolute()
    try:
        with path.open(encoding="utf-8") as file:
            written = file.read(_LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    if len(written) > _LARGEST:
        raise ConfigurationError(f"{path}: expected a configuration of 1 MiB at most, found more")
    try:
        table = tomllib.loads(written)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(_not_toml(path, str(error))) from None
    config = section(Config)(Place(path, lines_of(written)), table)
    if config.store.layout and config.store.components:
        raise ConfigurationError(f"{path}: store: expected layout or components, found both. Keep one of them")
    return config


def _not_toml(path: Path, said: str) -> str:
    """Put the position where people and editors look for it."""
    found = re.fullmatch(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", said)
    if not found:
        return f"{path}: expected TOML: {said}"
    if not found["line"]:
        return f"{path}: expected TOML: {found['what']} at the end of the file"
    return f"{path}:{found['line']}:{found['column']}: expected TOML: {found['what']}"
