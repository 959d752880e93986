"""Servers that tests talk to: each in a process of its own, on a free port of this host, gone with its fixture."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def _running(command, port, log: Path):
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended with {process.returncode}: {log.read_text()}")
                time.sleep(0.05)
            else:
                raise RuntimeError(f"{command[0]} does not answer: {log.read_text()}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def moto(folder: Path):
    """A server that honours conditional writes."""
    port = free_port()
    script = Path(sys.executable).with_name("moto_server")
    return _running([str(script), "-H", "127.0.0.1", "-p", str(port)], port, folder / "moto.log")


def rclone(folder: Path):
    """A server that takes no notice of conditional writes, and checks signatures."""
    port = free_port()
    script = Path(sys.executable).with_name("rclone")
    options = ["--config", "/dev/null", "serve", "s3", "--auth-key", "key,secret", "--addr", f"127.0.0.1:{port}"]
    return _running([str(script), *options, ":memory:"], port, folder / "rclone.log")


CEPH = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "setpriv")
"""Programs of Debian's packages ceph-mon, ceph-osd, radosgw, ceph-common and util-linux."""


def has_ceph():
    return all(map(shutil.which, CEPH))


def radosgw(folder: Path):
    """A server that honours exclusive creation and refuses every comparison; it checks signatures and MD5 sums."""
    port = free_port()
    script = Path(__file__).with_name("radosgw.py")
    # Ends too when this process is killed, since nobody would want to find all that running later.
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, str(script)]
    return _running([*command, str(port), "key", "secret", str(folder / "ceph")], port, folder / "radosgw.log")


def pushgateway(folder: Path):
    """The real Pushgateway, of Debian's package of the same name."""
    port = free_port()
    # As Debian builds it, it would keep what it was given in /var/lib, for the next one to start with.
    options = [f"--web.listen-address=127.0.0.1:{port}", "--persistence.file="]
    return _running(["prometheus-pushgateway", *options], port, folder / "pushgateway.log")


def options(endpoint):
    """What s3fs needs to talk to any of them."""
    return {
        "key": "key",
        "secret": "secret",
        "endpoint_url": endpoint,
        "config_kwargs": {"s3": {"addressing_style": "path"}, "connect_timeout": 5, "read_timeout": 20},
    }
