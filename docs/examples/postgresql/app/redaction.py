"""Removes from spans and log records, before they are sent, what may hold a secret."""

import logging
import traceback
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

# What clients send in a query, and what errors say.
SECRET = {
    "url.query",
    "http.target",
    "exception.message",
    "exception.stacktrace",
}
# Addresses that the service asks. They are sent without a password and a query.
ADDRESSES = {"url.full", "http.url"}


class RedactedSpans(SpanExporter):
    """Sends spans without queries and without the text of errors."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.exporter.export([redacted(span) for span in spans])

    def shutdown(self) -> None:
        self.exporter.shutdown()


def redacted(span: ReadableSpan) -> ReadableSpan:
    known = span.attributes or {}
    may_hold_one = span.events or span.status.description
    if not may_hold_one and SECRET.isdisjoint(known) and ADDRESSES.isdisjoint(known):
        return span
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=without_secrets(span.attributes),
        events=[
            Event(event.name, without_secrets(event.attributes), event.timestamp)
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        # Without its description, which is the text of an error.
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def without_secrets(attributes: Any) -> dict[str, Any]:
    return {
        name: without_query(value) if name in ADDRESSES else value
        for name, value in (attributes or {}).items()
        if name not in SECRET
    }


def without_query(address: str) -> str:
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class RedactedLogs(LoggingHandler):
    """Sends log records: of an error, its type and where it was raised."""

    def emit(self, record: logging.LogRecord) -> None:
        # A collector that is away must not fill the queue with the news of it.
        if record.name.startswith("opentelemetry"):
            return
        fields = record.__dict__.copy()
        # Uvicorn repeats its messages in it, with colours.
        fields.pop("color_message", None)
        kind, _, frames = record.exc_info or (None, None, None)
        if kind:
            fields |= {
                "exc_info": None,
                "exc_text": None,
                "exception.type": kind.__qualname__,
                "exception.stacktrace": "".join(traceback.format_tb(frames)),
            }
        super().emit(logging.makeLogRecord(fields))
