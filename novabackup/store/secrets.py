"""Which files hold passwords and keys, told by their names and by what is in them; nothing here does any I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from novabackup._support.paths import matches
from novabackup.errors import ConfigurationError, printable

__all__ = ["LOOKED_INTO", "require_leave", "secret_content", "secret_name"]

LOOKED_INTO = 64 << 10
"""Bytes of the largest file whose content is looked at: keys and configurations are small."""

_NAMES = {
    "settings with passwords": (".env", ".env.*", "*.env", "secrets.*"),
    "credentials": ("credentials", "credentials.*", "*credentials.json"),
    "a private key": ("*.pem", "*.key", "*.ppk", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "id_xmss*"),
    "a key store": ("*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.kdb"),
    "stored passwords": (".netrc", ".pgpass", ".my.cnf", ".git-credentials", ".htpasswd", ".npmrc", ".pypirc"),
    "the key of a service account": ("*service-account*.json", "*service_account*.json"),
}
_HARMLESS = (
    *("*.example", "*.sample", "*.template", "*.dist", "*.example.*", "*.pub", "*.crt"),
    *("*.md", "*.html", "*.pdf", "*.py"),
)
"""What is named like a secret and is none: patterns of one, public halves, texts about them."""
_BEGINNINGS = re.compile(rb"-----BEGIN [A-Z0-9 ]{1,40}-----")

_CONTENT = {
    "a private key": rb"-----BEGIN (?:[A-Z0-9]{2,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    "an access key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a secret key of AWS": rb"(?i:aws_?secret_?(?:access_?)?key)[\"']?\s{0,9}[=:]\s{0,9}[\"']?[0-9A-Za-z/+]{40}\b",
    "the key of a service account": rb"\"type\"\s{0,9}:\s{0,9}\"service_account\"",
    "a token of GitHub": rb"\bgh[pousr]_[0-9A-Za-z]{36,}|\bgithub_pat_[0-9A-Za-z_]{60,}",
    "a token of Slack": rb"\bxox[abprs]-[0-9A-Za-z-]{20,}",
}
_FOUND = {what: re.compile(pattern) for what, pattern in _CONTENT.items()}


def secret_name(path: str) -> str | None:
    """Say what a file with such a name holds, if it is a secret."""
    name = path.rpartition("/")[2].lower()
    if any(fnmatchcase(name, pattern) for pattern in _HARMLESS):
        return None
    return next((what for what, names in _NAMES.items() if any(fnmatchcase(name, one) for one in names)), None)


def secret_content(path: str, content: bytes) -> str | None:
    """Say what is secret in a file, by name and content.

    Args:
        path: Its path.
        content: All of it.
    """
    found = next((what for what, pattern in _FOUND.items() if pattern.search(content)), None)
    if found:
        return found
    if _BEGINNINGS.search(content) and path.lower().endswith(".pem"):
        return None  # certificates, which are public
    return secret_name(path)


def require_leave(secrets: Mapping[str, str], accepted: Collection[str], url: str) -> None:
    """Refuse secrets that nobody has said may be kept where everybody who has the storage can read them.

    Args:
        secrets: What each file holds, by path.
        accepted: Paths and patterns of those that may.
        url: The repository.

    Raises:
        ConfigurationError: There are others.
    """
    refused = {path: what for path, what in secrets.items() if not any(matches(path, one) for one in accepted)}
    if refused:
        some = ", ".join(f"{printable(path)} ({what})" for path, what in sorted(refused.items()))
        raise ConfigurationError(
            f"{url} is not encrypted and not on this host, and {len(refused)} files hold secrets, which whoever can "
            f"read that storage could read: {some}. Use a repository with a key, leave them out with exclude=, or say "
            "that they may be kept there: Repository(..., plaintext_secrets=[...])"
        )
