"""What the documents need around them: a store, an ingestion, services that they name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import EXAMPLES

import fake_nova
import nova
import servers
from novabackup import IndexStore, Repository, keys
from novabackup.components import Tree


@pytest.fixture(scope="session")
def manuals():
    """Give the module that the examples share."""
    sys.path.insert(0, str(EXAMPLES))
    import manuals

    return manuals


@pytest.fixture
def beside_a_store(tmp_path, monkeypatch, manuals) -> Path:
    """Stand in a folder that has a Nova ``vector_db`` in it; give that store's folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "vector_db"
    manuals.ingest(folder, "brakes", "engine")
    return folder


@pytest.fixture
def beside_an_ingest(beside_a_store, tmp_path, monkeypatch) -> Path:
    """Stand there as a user without settings, with a program ``ingest.py`` that adds manuals; give that folder."""
    for name in ("NOVABACKUP_CONFIG", "NOVABACKUP_STORE", "NOVABACKUP_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    nova.install(tmp_path / "opt/nova-nic", nova.texts(4))
    (tmp_path / "ingest.py").write_text(
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import pathlib, manuals\n"
        "print(manuals.ingest(pathlib.Path('vector_db'), *sys.argv[1:]), 'chunks')\n"
    )
    return tmp_path


@pytest.fixture
def s3(bucket) -> dict[str, str]:
    """Provide ``s3://bucket``; nothing has to be moved for it."""
    return {}


@pytest.fixture
def passphrase(monkeypatch) -> dict[str, str]:
    """Set the passphrase that programs find by the environment; stretching it is cheap here."""
    monkeypatch.setenv("NOVABACKUP_PASSPHRASE", "check the brake pads every ten thousand kilometres")
    monkeypatch.setattr(keys, "_N", 1 << 4)
    return {}


@pytest.fixture
def key_service(bucket, monkeypatch) -> dict[str, str]:
    """Provide a key service with a key of the name that the document uses."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    kms = pytest.importorskip("boto3", reason="needs boto3").client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/nova-backups", TargetKeyId=key)
    return {}


@pytest.fixture
def operations(tmp_path) -> dict[str, str]:
    """Say where the folders of an operated host are."""
    return {place: str(tmp_path / place[1:]) for place in ("/mnt/backups", "/var/lib")}


@pytest.fixture
def pushgateway(pushgateway_url) -> dict[str, str]:
    """Say where the Pushgateway is."""
    return {"http://localhost:9091": pushgateway_url}


@pytest.fixture
def installation_snapshot(beside_a_store, tmp_path) -> dict[str, str]:
    """Take a snapshot of an installation that the service is part of; say where that is."""
    store = IndexStore(tmp_path, components=[Tree("vector_db")])
    Repository(tmp_path / "mnt/backups/installation").backup(store)
    return {"/opt/nova-nic": str(tmp_path / "opt/nova-nic")}


@pytest.fixture
def nova_service(beside_a_store, operations, tmp_path, monkeypatch):
    """Let ``systemctl`` control a Nova that serves the store, as the unit nova-nic; say where it is."""
    port = servers.free_port()
    commands = fake_nova.commands(beside_a_store, port, tmp_path / "nova.pid")
    programs = tmp_path / "programs"
    fake_nova.systemctl(programs, commands)
    (programs / "logger").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    subprocess.run(commands["start"], check=True)
    yield {**operations, "http://localhost:5000": f"http://127.0.0.1:{port}"}
    subprocess.run(commands["stop"], check=True)
