"""What the documents need around them: a store, somewhere for backups, an ingestion, an S3 server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import EXAMPLES


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


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Run an S3 server in a process of its own; give its endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            endpoint = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and server.poll() is None:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(endpoint, timeout=5).close()
                    break
                time.sleep(0.05)
            yield endpoint
        finally:
            server.kill()


@pytest.fixture
def bucket(moto, monkeypatch) -> str:
    """Make an empty bucket that programs find by the usual environment variables; give the endpoint."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()
    put = urllib.request.Request(
        f"{moto}/bucket",
        method="PUT",
        data=b'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>",
    )
    urllib.request.urlopen(put).close()
    return moto
