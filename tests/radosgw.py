"""A whole Ceph with an S3 gateway for tests: one monitor, one OSD in memory, one radosgw.

Usage: radosgw.py PORT ACCESS_KEY SECRET_KEY FOLDER

Runs Debian's packages ceph-mon, ceph-osd, radosgw and ceph-common in the foreground; SIGTERM ends all of it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

# The monitor usually collects changes for a second before it decides about them; a dozen of them are needed to start.
_CONFIG = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}/0]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
keyring = {root}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 5000
paxos propose interval = 0.02
paxos min wait = 0.01
run dir = {root}/run
crash dir = {root}/run
admin socket = {root}/run/$name.$pid.asok
pid file = {root}/run/$name.pid
log file = {root}/$name.log
log to stderr = false
[mon]
mon data = {root}/mon
mon data avail crit = 1
mon data avail warn = 2
[osd]
keyring = {root}/osd/keyring
osd data = {root}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd max object name len = 256
[client]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {root}/rgw
rgw enable usage log = false
rgw dns name = localhost
"""


def run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")


def main(port: str, access: str, secret: str, root: Path) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def stop(*_signal: object) -> None:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    for name in ("mon", "osd", "run", "rgw"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        mon_port = listener.getsockname()[1]
    fsid, osd, keyring = str(uuid.uuid4()), str(uuid.uuid4()), f"{root}/keyring"
    config = root / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, mon_port=mon_port, root=root, port=port))

    def start(program: str, *arguments: str) -> None:
        # Should this process be killed, its children are, too.
        alive = ("setpriv", "--pdeathsig", "KILL")
        children.append(subprocess.Popen([*alive, program, "-f", "--conf", str(config), *arguments]))

    def ask(program: str, *arguments: str) -> None:
        run(program, "--conf", str(config), *arguments)

    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    may = ("mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd")
    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}/0]", f"{root}/monmap")
    run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
    ask("ceph-mon", "--mkfs", "-i", "a", "--keyring", keyring, "--monmap", f"{root}/monmap")
    start("ceph-mon", "-i", "a")
    ask("ceph", "--connect-timeout", "20", "osd", "new", osd, "0")
    ask("ceph", "auth", "get-or-create", "osd.0", *may, "-o", f"{root}/osd/keyring")
    ask("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    start("ceph-osd", "-i", "0")
    user = ("--uid=tests", "--display-name=tests", f"--access-key={access}", f"--secret-key={secret}")
    ask("radosgw-admin", "user", "create", *user)
    start("radosgw", "-n", "client.admin", "--keyring", keyring)
    # Whichever ends first: without it the others are of no use.
    os.waitpid(-1, 0)
    stop()


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]))
