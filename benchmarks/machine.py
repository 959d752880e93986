"""What the numbers were measured on; no names of machines, people or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("novabackup", "faiss-cpu", "numpy", "rank-bm25", "blake3", "zstandard")
_COMMANDS = {
    "restic": ["restic", "version"],
    "borg": ["borg", "--version"],
    "tar": ["tar", "--version"],
    "gzip": ["gzip", "--version"],
}


def describe(work: Path) -> dict[str, str]:
    """Describe the machine, the file system of a folder, and the versions of all that takes part."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    about = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        "file system": _file_system(work),
        "Python": platform.python_version(),
    }
    about |= {name: version(name) for name in _PACKAGES}
    about["novabackup"] += _revision()
    return about | {name: _version(command) for name, command in _COMMANDS.items()}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """Give the kind of file system that a folder is on: that of the innermost mount point around it."""
    kinds = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, point, kind = line.split()[:3]
        kinds[Path(point)] = kind
    return next((kinds[parent] for parent in [folder, *folder.parents] if parent in kinds), "unknown")


def _revision() -> str:
    here = str(Path(__file__).resolve().parent)
    done = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def _version(command: list[str]) -> str:
    """Give the first version number that a command names."""
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"\d+\.[\d.]*\d", said)[0]
