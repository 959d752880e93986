"""The command export."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.output import Result, size


def export(
    snapshot: str = "latest",
    /,
    *,
    to: Annotated[str, Parameter(metavar="FOLDER")],
    options: Options = BY_DEFAULT,
) -> Result:
    """Write a snapshot as a plain archive with a checksum for sha256sum.

    It is not encrypted, even if the repository is. No existing file is replaced.

    Args:
        snapshot: An id, the beginning of one, or latest.
        to: A folder, or a file whose name ends with .tar.gz; a path or a URL.
    """
    with options.open() as context:
        found = context.snapshot(snapshot)
        with context.progress("Exporting") as bar:
            written = found.export(to, storage_options=context.options_for(to), callback=bar)
        return Result(
            fields={"snapshot": found.id, "url": written.url, "size": written.size, "sha256": written.sha256},
            done=[f"{written.url}: {size(written.size)}, SHA-256 {written.sha256}"],
        )
