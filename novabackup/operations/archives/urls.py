"""Telling the name of a single file from the folder that is opened as a storage."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["folder_and_name"]


def folder_and_name(url: str | os.PathLike[str]) -> tuple[str, str]:
    """Take a path or URL of a file apart.

    A local path is resolved first: a link, such as one to the latest archive, may lead to another folder.
    """
    text = os.fspath(url)
    if "://" not in text:
        text = str(Path(text).expanduser().resolve())
    folder, slash, name = text.rpartition("/")
    # What is right behind the protocol has no folder: memory://archive.tar.gz
    return folder + slash if not folder or folder.endswith(":/") else folder, name
