"""What is damaged and mended here: made once, and anew for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from damaging import Case

from novabackup import keys, packer
from novabackup.packs import builder


@pytest.fixture(scope="session")
def small() -> Iterator[None]:
    """Cheap passphrases, packs of a few frames, frames of a few chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_N", 1 << 4)
        patch.setattr(builder, "PACK_SIZE", 150_000)
        patch.setattr(builder, "FRAME_SIZE", 1 << 16)
        patch.setattr(packer, "FRAME_SIZE", 1 << 16)
        yield


@pytest.fixture(scope="session")
def cases(small, tmp_path_factory) -> dict[str, Case]:
    secrets = {"plain": None, "sealed": "one"}
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
