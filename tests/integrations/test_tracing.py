"""Spans where OpenTelemetry is there, nothing where it is not."""

from __future__ import annotations

import sys

import pytest

from novabackup.integrations import tracing
from novabackup.integrations.monitoring import Monitor


@pytest.fixture
def spans(monkeypatch):
    """Give a function that tells the spans that have ended."""
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter.get_finished_spans
    provider.shutdown()


def test_each_run_is_a_span_with_its_error(spans, store, repository, tmp_path):
    monitor = Monitor(repository, tmp_path / "runs")
    with monitor.observed("backup", store):
        repository.backup(store)
    with pytest.raises(OSError, match="disk full"), monitor.observed("drill"):
        raise OSError("disk full")
    good, failed = spans()
    assert good.name == "novabackup backup"
    assert dict(good.attributes) == {
        "novabackup.store": store.url,
        "novabackup.repository": repository.url,
    }
    assert good.status.is_ok
    assert failed.status.description == "OSError: disk full"
    assert failed.events[0].name == "exception"


def test_without_opentelemetry_the_block_just_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    ran = []
    with tracing.traced("novabackup backup"):
        ran.append(True)
    assert ran
    with pytest.raises(ImportError, match="of the block"), tracing.traced("novabackup backup"):
        raise ImportError("of the block")
