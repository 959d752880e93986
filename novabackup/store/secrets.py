"""Recognises files with passwords and keys by name and content; does no I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from novabackup._support.paths import matches
from novabackup.errors import ConfigurationError, printable

__all__ = ["LARGEST", "require_accepted", "secret_content", "secret_name"]

LARGEST = 64 << 10
"""Bytes of the largest file whose content is searched: keys and configurations are small."""

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
"""Named like secrets, but harmless: templates, public keys, texts about them."""
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
    """Return what a file with this name holds if it is a secret, for people; otherwise None."""
    name = path.rpartition("/")[2].lower()
    if any(fnmatchcase(name, pattern) for pattern in _HARMLESS):
        return None
    return next((what for what, names in _NAMES.items() if any(fnmatchcase(name, one) for one in names)), None)


def secret_content(path: str, content: bytes) -> str | None:
    """Return what is secret in a file by its content or name, for people; None if nothing is."""
    found = next((what for what, pattern in _FOUND.items() if pattern.search(content)), None)
    if found:
        return found
    if _BEGINNINGS.search(content) and path.lower().endswith(".pem"):
        return None  # certificates, which are public
    return secret_name(path)


def require_accepted(secrets: Mapping[str, str], accepted: Collection[str], url: str) -> None:
    """Refuse secrets in a repository that is not encrypted, unless the user accepts them there.

    Args:
        secrets: What each file holds, by path.
        accepted: Paths and patterns of the files that may be stored unencrypted.
        url: The repository.

    Raises:
        ConfigurationError: There are other files with secrets.
    """
    refused = {path: what for path, what in secrets.items() if not any(matches(path, one) for one in accepted)}
    if refused:
        some = ", ".join(f"{printable(path)} ({what})" for path, what in sorted(refused.items()))
        raise ConfigurationError(
            f"{url} is not encrypted and not on this host, and {len(refused)} files hold secrets that "
            f"anyone with access to that storage could read: {some}. Use a repository with a key, leave them out with "
            "exclude=, or accept that they are stored there: Repository(..., plaintext_secrets=[...])"
        )
