"""Servers that tests talk to: each in a process of its own, on a free port of this host, gone with its fixture."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import pytest


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
    script = Path(__file__).with_name("moto_server.py")
    return _running([sys.executable, str(script), "-H", "127.0.0.1", "-p", str(port)], port, folder / "moto.log")


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


@contextlib.contextmanager
def sshd(folder: Path):
    """An SSH server: OpenSSH's where it is installed and lets this user in, otherwise asyncssh's own."""
    port = free_port()
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
        (folder / name).chmod(0o600)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    with contextlib.ExitStack() as stack:
        if program:
            command = [program, "-D", "-e", "-f", str(_sshd_config(folder, port))]
            stack.enter_context(_running(command, port, folder / "sshd.log"))
        server = SshServer(port, folder, is_openssh=bool(program))
        if not program or not asyncio.run(server.lets_us_in()):
            stack.close()
            stack.enter_context(_running([sys.executable, __file__, str(port), str(folder)], port, folder / "ssh.log"))
            server.is_openssh = False
        yield server


def _sshd_config(folder, port):
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it shuts its unprivileged part in
    settings = {
        "PidFile": folder / "pid",
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "client.pub",
        "StrictModes": "no",
        "PermitRootLogin": "yes",
        "PasswordAuthentication": "no",
        "MaxStartups": 100,
        "Subsystem": "sftp internal-sftp",
    }
    path = folder / "sshd_config"
    path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return path


class SshServer:
    """Where an SSH server is and how to log in."""

    def __init__(self, port, folder, *, is_openssh):
        self.port = port
        self.folder = folder
        self.is_openssh = is_openssh

    def url(self, path):
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    @property
    def options(self):
        """What asyncssh needs to log in, whatever the user who runs the tests has in his home."""
        return {
            "client_keys": [str(self.folder / "client")],
            "known_hosts": str(self.folder / "known_hosts"),
            "config": [],
            "agent_path": None,
        }

    async def lets_us_in(self):
        """Tell whether this user may log in; an account can be locked."""
        with contextlib.suppress(asyncssh.PermissionDenied):
            async with asyncssh.connect("127.0.0.1", self.port, **self.options):
                return True
        return False

    def break_connections(self):
        """End the processes that serve connections now; give their number."""
        if not self.is_openssh:
            pytest.skip("needs OpenSSH's sshd, which serves each connection by a process of its own")
        parents, last, below = dict(_processes()), {int((self.folder / "pid").read_text())}, set()
        while last:
            last = {process for process, parent in parents.items() if parent in last}
            below |= last
        for process in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(below)


def _processes():
    """Give the number of each process and of its parent."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(status.parent.name), int(status.read_text().rpartition(")")[2].split()[1])


async def _serve_ssh(port, folder):
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[f"{folder}/host"],
        authorized_client_keys=f"{folder}/client.pub",
        sftp_factory=True,
    )
    await server.wait_closed()


def options(endpoint):
    """What s3fs needs to talk to any of them."""
    return {
        "key": "key",
        "secret": "secret",
        "endpoint_url": endpoint,
        "config_kwargs": {"s3": {"addressing_style": "path"}, "connect_timeout": 5, "read_timeout": 20},
    }


if __name__ == "__main__":
    asyncio.run(_serve_ssh(int(sys.argv[1]), sys.argv[2]))
