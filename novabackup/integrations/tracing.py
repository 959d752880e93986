"""OpenTelemetry spans around work, if the program has OpenTelemetry installed; otherwise nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["traced"]


@contextlib.contextmanager
def traced(name: str, **attributes: str) -> Iterator[None]:
    """Run a block within a span, which records an exception of the block.

    Args:
        name: Name of the span.
        attributes: Attributes of the span; their names are prefixed with ``novabackup.``.
    """
    tracer = _tracer()
    if tracer is None:
        yield
        return
    noted = {f"novabackup.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(name, attributes=noted):
        yield


def _tracer() -> Any:
    try:
        from opentelemetry import trace  # noqa: PLC0415 - optional, and no extra of ours
    except ImportError:
        return None
    return trace.get_tracer("novabackup")
