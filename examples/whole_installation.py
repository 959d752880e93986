"""Back up a whole Nova folder while its service writes to it, lose the disk, and get everything back."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import manuals

from novabackup import ConfigurationError, IndexStore, Repository, layouts

place = Path(tempfile.mkdtemp(prefix="novabackup-"))
nova = place / "nova-nic"
manuals.ingest(nova / "vector_db", "brakes", "engine")
for path, text in {
    ".env": "PASSWORD=secret\n",
    "config/production.toml": "port = 5000\n",
    "data/brakes.txt": "the document itself\n",
    "cache/sessions/42.json": "{}",
    "logs/nova.log": "left out",
    ".venv/pyvenv.cfg": "left out",
}.items():
    (nova / path).parent.mkdir(parents=True, exist_ok=True)
    (nova / path).write_text(text)
(nova / "config/current.toml").symlink_to("production.toml")
(nova / "data/incoming").mkdir()
with sqlite3.connect(nova / "query_log.db") as database:
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE queries (number INTEGER)")
database.close()

stop, started = threading.Event(), threading.Event()


def serve() -> None:
    """Log queries, one transaction after the other."""
    database = sqlite3.connect(nova / "query_log.db")
    number = 0
    while not stop.is_set():
        database.execute("INSERT INTO queries VALUES (?)", (number,))
        database.commit()
        number += 1
        started.set()
    database.close()


service = threading.Thread(target=serve)
service.start()
started.wait()

# The folder, with the parts of Nova's handbook.
store = IndexStore(nova, components=layouts.NOVA_INSTALLATION)
repository = Repository(place / "backups")
point = repository.backup(store, tags=["nightly"])
print(f"{len(point.files)} files, {len(point.links)} link, {len(point.folders)} folders")
print("problems:", len(point.problems))
print("left out:", "logs/nova.log" not in point.files and ".venv/pyvenv.cfg" not in point.files)

# Secrets do not go where others could read them.
try:
    Repository("memory://bucket/nova").backup(store)
except ConfigurationError as error:
    print("refused:", ".env (settings with passwords)" in str(error))

stop.set()
service.join()
shutil.rmtree(nova)

# On a new disk.
plan = repository["latest"].restore()
print(f"restored {len(plan.paths('write'))} files, {len(plan.paths('write', 'link'))} link")
print("the link:", (nova / "config/current.toml").readlink(), "- the empty folder:", (nova / "data/incoming").is_dir())
with sqlite3.connect(nova / "query_log.db") as database:
    numbers = [row[0] for row in database.execute("SELECT number FROM queries ORDER BY number")]
    whole = database.execute("PRAGMA integrity_check").fetchone()[0]
database.close()
print(f"database: {whole}, nothing missing: {numbers == list(range(len(numbers)))}")
print("indexes healthy:", not store.check())

# Weekly, the documents alone; nothing of them is new.
weekly = IndexStore(nova, components=layouts.nova_installation(frequencies=["weekly"]))
print("weekly:", *repository.backup(weekly).files)

shutil.rmtree(place)
