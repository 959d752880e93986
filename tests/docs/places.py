"""Where the documents are, and what a child process gets."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def environment() -> dict[str, str]:
    """Give the environment for a child process: ours, with warnings as errors."""
    return {**os.environ, "PYTHONWARNINGS": "error,ignore::DeprecationWarning", "PYTHONPATH": ""}
