"""Repositories to damage and repair: made once, and copied for each test."""

from __future__ import annotations

import pytest
from damaging import Case

from novabackup import keys
from novabackup.format.packs import builder
from novabackup.objects import packer


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Cheap passphrases, packs of a few frames, frames of a few chunks."""
    patch.setattr(keys, "_N", 1 << 4)
    patch.setattr(builder, "PACK_SIZE", 150_000)
    patch.setattr(builder, "FRAME_SIZE", 1 << 16)
    patch.setattr(packer, "FRAME_SIZE", 1 << 16)


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    make_small(monkeypatch)


@pytest.fixture(scope="session")
def cases(tmp_path_factory) -> dict[str, Case]:
    secrets = {"plain": None, "sealed": "one"}
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        return {name: Case(tmp_path_factory.mktemp(name), secret) for name, secret in secrets.items()}


@pytest.fixture(params=["plain", "sealed"])
def case(request, cases) -> Case:
    cases[request.param].renew()
    return cases[request.param]


@pytest.fixture
def plain(cases) -> Case:
    cases["plain"].renew()
    return cases["plain"]


@pytest.fixture
def sealed(cases) -> Case:
    cases["sealed"].renew()
    return cases["sealed"]
