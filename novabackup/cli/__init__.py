"""The command ``novabackup``: what the library does, for terminals, cron and programs of any language."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = frozenset({"cyclopts", "rich"})
_CANNOT_START = 2


def main() -> int:
    """Run the command that this process was started with; return its exit code (see `novabackup.cli.exits`)."""
    try:
        from novabackup.cli.main import run  # noqa: PLC0415 - these packages need not be installed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"The command novabackup needs the package {error.name}, which is not installed. "
            "Install it with: pip install 'novabackup[cli]'\n"
        )
        return _CANNOT_START
    return run(sys.argv[1:])
