"""Split the URL of a single file into the folder that is opened as a storage, and the name."""

from __future__ import annotations

import os
from pathlib import Path


def folder_and_name(url: str | os.PathLike[str]) -> tuple[str, str]:
    """Split a path or URL of a file.

    A local path is resolved first: a link, such as one to the latest archive, may lead to another folder.
    """
    text = os.fspath(url)
    if "://" not in text:
        text = str(Path(text).expanduser().resolve())
    folder, slash, name = text.rpartition("/")
    # A name right after the protocol has no folder: memory://archive.tar.gz
    return folder + slash if not folder or folder.endswith(":/") else folder, name
