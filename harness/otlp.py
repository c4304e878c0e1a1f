"""Receives OTLP over HTTP, as a collector does, and keeps what it was sent."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

REQUESTS: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


@dataclass
class Span:
    """Records a span that was received. Its ids are hexadecimal, and the parent's is "" at a root."""

    worker: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Record:
    """Records a log record that was received."""

    worker: str
    logger: str
    body: str
    trace_id: str
    attributes: dict[str, Any]


@dataclass
class Receiver:
    """Keeps what arrives at its address, with a status that can be changed."""

    url: str = ""
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    # The newest value of each series, by the worker, the metric's name and the attributes.
    series: dict[tuple[str, str, frozenset[tuple[str, Any]]], float] = field(default_factory=dict)
    # All that was received, as text.
    text: str = ""
    # Until it is set, requests wait.
    answers: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, path: str, body: bytes) -> None:
        message = REQUESTS[path].FromString(body)
        with self.lock:
            self.text += str(message)
            if path == "/v1/traces":
                self.spans += spans_of(message)
            elif path == "/v1/logs":
                self.records += records_of(message)
            else:
                self.series |= series_of(message)

    def total(self, metric: str, **attributes: Any) -> float:
        """Return the sum of a metric over all workers, and over the series that have these attributes."""
        wanted = {(name.replace("_", "."), value) for name, value in attributes.items()}
        with self.lock:
            return sum(
                value
                for (_, name, labels), value in self.series.items()
                if name == metric and wanted <= labels
            )

    def metrics(self) -> set[str]:
        with self.lock:
            return {name for _, name, _ in self.series}

    def children(self, parent: Span) -> list[Span]:
        with self.lock:
            return [span for span in self.spans if span.parent_id == parent.span_id]

    def requests(self) -> list[Span]:
        """Return the spans of requests, and not those of what a request does."""
        with self.lock:
            return [span for span in self.spans if "http.request.method" in span.attributes]


def spans_of(message: Any) -> Iterator[Span]:
    for group in message.resource_spans:
        worker = values(group.resource.attributes)["service.instance.id"]
        for scope in group.scope_spans:
            for span in scope.spans:
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                yield Span(worker, span.name, *ids, span.status.code == 2, values(span.attributes))


def records_of(message: Any) -> Iterator[Record]:
    for group in message.resource_logs:
        worker = values(group.resource.attributes)["service.instance.id"]
        for scope in group.scope_logs:
            for record in scope.log_records:
                body = record.body.string_value
                yield Record(worker, scope.scope.name, body, record.trace_id.hex(), values(record.attributes))


def series_of(message: Any) -> dict[tuple[str, str, frozenset[tuple[str, Any]]], float]:
    found = {}
    for group in message.resource_metrics:
        worker = values(group.resource.attributes)["service.instance.id"]
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                # One that nothing was measured for has no data.
                if not metric.WhichOneof("data"):
                    continue
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    labels = frozenset(values(point.attributes).items())
                    found[worker, metric.name, labels] = number(point)
    return found


def number(point: Any) -> float:
    """Return a point's value, or the count of a histogram."""
    if hasattr(point, "bucket_counts"):
        return float(point.count)
    return float(getattr(point, point.WhichOneof("value")))


def values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(map(value_of, value.array_value.values))
    return getattr(value, kind) if kind else None


@contextmanager
def receiver(address: str = "127.0.0.1", port: int = 0, *, keeps: bool = True) -> Iterator[Receiver]:
    """Yield a receiver at this port, or at a free one, until the block ends. It may also keep nothing."""
    received = Receiver()
    received.answers.set()
    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.answers.wait()
            if keeps and received.status == 200:
                received.receive(self.path, body)
            self.send_response(received.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    received.url = f"http://{address}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        received.answers.set()
        server.shutdown()
        server.server_close()
        # Those that are kept, too, as when a collector is killed.
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
