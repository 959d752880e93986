"""Several hosts that ingest into one store; run as a program of its own, which gets what it needs on standard input.

Each host is a process with a working folder of its own, in which there is a /proc of its own: with another boot id, and
without the processes of the others. So nothing can be told of those but what stands in the journal.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
import uuid
from pathlib import Path

from novabackup import IndexStore, Repository, snapshot
from novabackup.components import JsonLines, Metadata
from novabackup.transaction import owner

COMPONENTS = (JsonLines("entries.jsonl"), Metadata("ids.json"))


def move_to(folder: Path, name: str) -> None:
    """Let this process be on a host of its own, as far as novabackup can tell."""
    proc = folder / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text(str(uuid.uuid4()))
    (proc / "self/ns").mkdir(parents=True)
    (proc / "self/ns/pid").symlink_to(os.readlink("/proc/self/ns/pid"))
    (proc / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    owner._PROC = proc
    socket.gethostname = lambda: name
    os.chdir(folder)


def append(store: IndexStore, record: str) -> None:
    """Read what is there and write it with one record more, without any precaution: that is the guard's task."""
    entries = store.storage.read("entries.jsonl")
    ids = json.loads(store.storage.read("ids.json"))
    store.storage.write("entries.jsonl", [entries + json.dumps({"id": record}).encode() + b"\n"])
    store.storage.write("ids.json", [json.dumps([*ids, record]).encode()])


def ingest(url: str, options: dict[str, object], name: str, rounds: int) -> None:
    store = IndexStore(url, components=COMPONENTS, storage_options=options)
    repository = Repository(f"{url}/backups", storage_options=options)
    for at in range(rounds):
        with snapshot(store, repository, timeout=600):
            append(store, f"{name}-{at}")


def main() -> None:
    place = json.load(sys.stdin)
    children = []
    for number in range(place["hosts"]):
        # Forked before anything runs, so that each has clients of its own.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                move_to(Path(place["folder"]) / str(number), f"host-{number}")
                ingest(place["url"], place["options"], f"host-{number}", place["rounds"])
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))


if __name__ == "__main__":
    main()
