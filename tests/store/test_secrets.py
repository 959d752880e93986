"""Passwords and keys do not go where others could read them, unless somebody says so."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from novabackup import ConfigurationError, IndexStore, Repository, keys, snapshot
from novabackup.components import Files, Tree
from novabackup.store.secrets import secret_content, secret_name

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----\n"
AWS = "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nova"
    (folder / "config").mkdir(parents=True)
    (folder / ".env").write_text("PASSWORD=x\n")
    (folder / "config/nova.toml").write_text("port = 5000\n")
    (folder / "config/deploy").write_text(KEY)
    (folder / "config/large.bin").write_bytes(KEY.encode() + bytes(100_000))
    return folder


@pytest.fixture
def store(folder: Path) -> IndexStore:
    return IndexStore(folder, components=[Files(".env"), Tree("config")])


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def test_they_are_refused_before_anything_is_written(store, url):
    repository = Repository(url)
    with pytest.raises(ConfigurationError, match=r"2 files .*\.env \(settings with passwords\), config/dep"):
        repository.backup(store)
    with pytest.raises(ConfigurationError, match="secrets"), snapshot(store, repository):
        raise AssertionError("the block ran")
    assert not list(repository._objects.storage.entries())


def test_the_refusal_does_not_tell_the_secrets(store, url):
    with pytest.raises(ConfigurationError) as caught:
        Repository(url).backup(store)
    assert "PASSWORD" not in str(caught.value)
    assert "b3Blbn" not in str(caught.value)


def test_they_are_kept_where_it_is_said_or_nobody_else_can_read_them(folder, store, url, tmp_path):
    assert Repository(tmp_path / "local").backup(store).files[".env"]
    assert Repository(f"{url}/encrypted", key=keys.Passphrase("correct horse")).backup(store).files[".env"]
    with pytest.raises(ConfigurationError, match=r"1 files .*config/deploy"):
        Repository(f"{url}/plain", plaintext_secrets=".env").backup(store)
    assert Repository(f"{url}/plain", plaintext_secrets=[".env", "config/*"]).backup(store).files[".env"]
    without = IndexStore(folder, components=[Tree("config")], exclude=["config/deploy"])
    assert ".env" not in Repository(f"{url}/without").backup(without).files


def test_they_are_not_copied_there_either(store, url, tmp_path):
    local = Repository(tmp_path / "local")
    local.backup(store)
    with pytest.raises(ConfigurationError, match=r"2 files .*\.env.*config/deploy"):
        local.copy(to=Repository(url))
    with pytest.raises(ConfigurationError, match="secrets"):
        local.mirror(to=Repository(url))
    assert not list(Repository(url)._objects.storage.entries())
    local.copy(to=Repository(f"{url}/encrypted", key=keys.Passphrase("correct horse")))
    local.copy(to=Repository(f"{url}/plain", plaintext_secrets=["**"]))
    assert len(Repository(f"{url}/plain")) == 1


@pytest.mark.parametrize(
    "path",
    [
        ".env", "a/.env.production", "prod.env", "tls/server.key", "server.pem", "id_rsa", ".ssh/id_ed25519_backup",
        ".netrc", ".pgpass", "credentials", "credentials.json", "gcp-credentials.json", "a.p12", "a.PFX", "pw.kdbx",
        "my-service-account-1.json", "config/secrets.toml", ".git-credentials",
    ],
)  # fmt: skip
def test_names_of_secrets_are_known(path):
    assert secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env.example", ".env.sample", "id_rsa.pub", "metadata.json", "faiss_index.bin", "keys.txt", "environment.yml",
        "credentials.md", "secrets.py", "manuals/key.pdf", "monkey", ".envrc.example", "server.crt",
    ],
)  # fmt: skip
def test_harmless_names_are_let_through(path):
    assert secret_name(path) is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (KEY, "a private key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "a private key"),
        ("id: AKIAIOSFODNN7EXAMPLE", "an access key of AWS"),
        (AWS, "a secret key of AWS"),
        ('{"type": "service_account", "project_id": "x"}', "the key of a service account"),
        ("token=ghp_" + "a" * 36, "a token of GitHub"),
        ("port = 5000", None),
        ("-----BEGIN PUBLIC KEY-----", None),
        ("AKIA is the beginning of a key", None),
    ],
)
def test_content_of_secrets_is_known(content, found):
    assert secret_content("notes.txt", content.encode()) == found


def test_certificates_are_no_secrets():
    assert secret_content("ca.pem", b"-----BEGIN CERTIFICATE-----\nMIIB") is None
    assert secret_content("ca.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n" + KEY.encode())
    assert secret_content("ca.pem", b"\x30\x82")


def test_no_content_takes_long_to_look_at():
    for piece in (b"-----BEGIN ", b"aws_secret_access_key = ", b"A" * 40, b'"type" ', b"-----BEGIN A A A "):
        secret_content("x", piece * (65536 // len(piece)))  # a pattern that went astray would not end
