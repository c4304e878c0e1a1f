import logging

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.redaction import RedactedLogs, RedactedSpans


def test_a_span_is_sent_without_its_query_and_the_text_of_its_error() -> None:
    sent = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(RedactedSpans(sent)))
    attributes = {"url.query": "token=secret", "url.path": "/items"}
    with (
        pytest.raises(ValueError, match="secret"),
        provider.get_tracer("test").start_as_current_span("GET", attributes=attributes),
    ):
        raise ValueError("secret")
    [span] = sent.get_finished_spans()
    assert span.attributes == {"url.path": "/items"}
    assert dict(span.events[0].attributes or {}) == {
        "exception.type": "ValueError",
        "exception.escaped": "False",
    }
    assert "secret" not in span.to_json()


def test_a_log_record_is_sent_with_the_type_of_its_error_and_without_its_text() -> None:
    sent = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(sent))
    logger = logging.getLogger("test_redaction")
    handler = RedactedLogs(logger_provider=provider)
    logger.addHandler(handler)
    try:
        raise ValueError("secret".lower())
    except ValueError:
        logger.exception("It failed")
    finally:
        logger.removeHandler(handler)
    [record] = sent.get_finished_logs()
    attributes = dict(record.log_record.attributes or {})
    assert attributes["exception.type"] == "ValueError"
    assert "raise ValueError" in str(attributes["exception.stacktrace"])
    assert "exception.message" not in attributes
