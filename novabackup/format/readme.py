"""The script that lies in a repository, so that its data can be had without novabackup."""

from __future__ import annotations

from importlib import resources

from blake3 import blake3

from novabackup.format.layout import EXTRACT_KEY

_SEAL = b"\n# blake3 of the text above: "


def sealed_script() -> bytes:
    """Give the script with a last line that tells whether the text above has been altered."""
    text = (resources.files("novabackup") / EXTRACT_KEY).read_bytes()
    return text + _SEAL + blake3(text).hexdigest().encode() + b"\n"


def script_intact(data: bytes) -> bool:
    """Tell whether a script is as some version of novabackup wrote it."""
    text, _, seal = data.rpartition(_SEAL)
    return seal == blake3(text).hexdigest().encode() + b"\n"
