"""Spans of OpenTelemetry around pieces of work, where the program has it; nothing where it has not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["traced"]


@contextlib.contextmanager
def traced(name: str, **attributes: str) -> Iterator[None]:
    """Run a block within a span, which notes its exception if it raises one.

    Args:
        name: Of the span.
        attributes: Of the span; their names get ``novabackup.`` in front.
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
        from opentelemetry import trace  # noqa: PLC0415 - no dependency: it is there or it is not
    except ImportError:
        return None
    return trace.get_tracer("novabackup")
