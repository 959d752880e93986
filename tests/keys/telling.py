"""What an encrypted repository must not tell."""

from __future__ import annotations

SECRET = "correct horse battery staple"
TEXT = b"Tighten the wheel nuts crosswise with one hundred and ten newton metres. " * 400
