"""The types of single settings: layouts, components, policies, URLs, headers and programs."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import msgspec

from novabackup import components
from novabackup.cli.config.readers import (
    Document,
    Location,
    Read,
    Seconds,
    Section,
    Text,
    WrongValueError,
    at,
    choice,
    entries,
    refuse_unknown,
    secret,
    wrong,
)
from novabackup.cli.config.secrets import Secret
from novabackup.cli.config.units import parse_size
from novabackup.errors import ConfigurationError
from novabackup.retention import Policy
from novabackup.store import layouts

if TYPE_CHECKING:
    from novabackup.integrations.runs import Kind


def _dashed(name: str) -> str:
    """Return the name of a constant or a class as the command line and the configuration spell it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


LAYOUTS: dict[str, tuple[components.Component, ...]] = {
    _dashed(name): layout
    for name in layouts.__all__
    if isinstance(layout := getattr(layouts, name), tuple)
    and all(isinstance(one, components.Component) for one in layout)
}
"""The ready-made lists of components by their names in the configuration."""

_COMPONENTS: dict[str, type[components.Component]] = {
    _dashed(name): getattr(components, name) for name in components.__all__ if name != components.Component.__name__
}

WATCHED: Mapping[str, Kind] = {
    "snapshot": "backup",
    "run": "ingest",
    "restore": "restore",
    "full-recovery": "restore",
    "verify": "verify",
    "check": "check",
    "drill": "drill",
    "forget": "forget",
    "prune": "prune",
    "copy": "copy",
    "mirror": "copy",
}
"""The commands that hooks run around, and the kind of run as which each is recorded."""

_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)


def _component(document: Document, value: object) -> components.Component:
    if not isinstance(value, dict):
        raise wrong('a table such as { kind = "faiss", path = "faiss_index.bin" }', value)
    kind = _COMPONENTS[at("kind", functools.partial(choice, _COMPONENTS), value.get("kind", "none"))]
    names = [field.name for field in attrs.fields(kind)]
    types = {"optional": bool, "timeout": Seconds}
    optional = [(name, types.get(name, Text), None) for name in names if name != "path"]
    table = msgspec.defstruct(kind.__name__, [("kind", str), ("path", Text), *optional], bases=(Section,))
    read = document.read(table, value)
    return kind(**{name: getattr(read, name) for name in names if name in value})


def _policy(_document: Document, value: object) -> Policy:
    """Read a policy: a text, or a table whose rules are checked one by one, so that an error names the line."""
    if not isinstance(value, str | dict):
        raise wrong('a text such as "daily 30, weekly 12", or a table such as { daily = 30 }', value)
    if isinstance(value, dict):
        refuse_unknown(value, attrs.fields_dict(Policy))
        for key, rule in value.items():
            if key == "tags" and isinstance(rule, dict):
                for tag, rules in rule.items():
                    _check_rule((key, tag), {key: {tag: rules}})
            else:
                beside = "daily" if key == "yearly" else "yearly"  # a rule of 0 is fine beside others
                _check_rule((key,), {beside: "forever", key: rule})
    return Policy.of(value)


def _check_rule(path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    try:
        Policy.of(table)
    except ConfigurationError as error:
        raise WrongValueError(str(error).removeprefix(f"{path[-1]!r}: "), path) from None


def _headers(document: Document, value: object) -> dict[str, str | Secret]:
    """Read HTTP headers; a secret one must be kept elsewhere."""
    if not isinstance(value, dict):
        raise wrong('a table such as { Authorization = { env = "NOVA_TOKEN" } }', value)

    def read(name: str, header: object) -> str | Secret:
        if isinstance(header, str) and not _SECRET_HEADER.search(name):
            return document.read(Text, header)
        return secret(document, header)

    return {name: at(name, functools.partial(read, name), header) for name, header in value.items()}


def _pattern(document: Document, value: object) -> str:
    pattern: str = document.read(Text, value)
    try:
        re.compile(pattern)
    except re.error as error:
        raise WrongValueError(f"expected a regular expression, found {pattern!r}: {error}") from None
    return pattern


def _web_url(document: Document, value: object) -> str:
    from novabackup.integrations.probes import HealthCheck  # noqa: PLC0415 - only configurations that name it load it

    return HealthCheck(document.read(Text, value)).url


def _systemd_unit(document: Document, value: object) -> str:
    from novabackup.integrations.service import SystemdUnit  # noqa: PLC0415 - only configurations that name it load it

    return SystemdUnit(document.read(Text, value)).unit


def _labels(document: Document, value: object) -> dict[str, str]:
    from novabackup.integrations.metrics import Pushgateway  # noqa: PLC0415 - only configurations that name it load it

    labels = entries(value, functools.partial(document.read, Text), 'a table such as { instance = "nova-1" }')
    return dict(Pushgateway("http://localhost", grouping=labels).grouping or {})


def _textfile(document: Document, value: object) -> str:
    from novabackup.integrations.metrics import Textfile  # noqa: PLC0415 - only configurations that name it load it

    return str(Textfile(document.read(Location, value)).path)


def _rate(document: Document, value: object) -> float:
    try:
        return parse_size(document.read(Text, value))
    except ValueError:
        raise wrong('bytes a second, such as "500kB" or "5MB"', value) from None


Layout = Read[str, lambda _document, value: choice(LAYOUTS, value)]
AnyComponent = Read[components.Component, _component]
Retention = Read[Policy, _policy]
Headers = Read[Mapping[str, str | Secret], _headers]
Labels = Read[Mapping[str, str], _labels]
Pattern = Read[str, _pattern]
Rate = Read[float, _rate]
WebUrl = Read[str, _web_url]
Unit = Read[str, _systemd_unit]
TextfilePath = Read[str, _textfile]
WatchedCommands = Annotated[
    tuple[Read[str, lambda _document, value: choice(WATCHED, value)], ...],
    msgspec.Meta(description='a list such as ["snapshot", "run"]'),
]
Program = Annotated[
    tuple[Text, ...],
    msgspec.Meta(
        min_length=1,
        description='a command as a list such as ["systemctl", "stop", "nova-nic"]; it is not run by a shell',
    ),
]
Programs = Annotated[
    tuple[Program, ...],
    msgspec.Meta(description='a list of commands, each a list, such as [["mount", "/mnt/backups"]]'),
]
