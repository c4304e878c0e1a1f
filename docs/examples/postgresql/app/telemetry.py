"""Sends traces, metrics and logs by OTLP, where the standard OTEL_ variables name an endpoint."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.process_metrics import measure_delays
from app.redaction import RedactedLogs, RedactedSpans
from app.request_metrics import RequestMetricsExporter
from app.request_telemetry import ids

logger = logging.getLogger(__name__)

# Seconds that the end of the service waits for a collector.
PATIENCE = 1.5

# What stops the sending of a signal, after it has sent the rest.
Stop = Callable[[], Any]


class OncePerMinute(logging.Filter):
    """Lets one record a minute through."""

    next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self.next_at:
            return False
        self.next_at = now + 60
        return True


# While the collector is away, they would log it several times in ten seconds.
for name in ("trace_exporter", "metric_exporter", "_log_exporter"):
    exporter = logging.getLogger(f"opentelemetry.exporter.otlp.proto.http.{name}")
    exporter.addFilter(OncePerMinute())


@asynccontextmanager
async def open_telemetry() -> AsyncGenerator[None]:
    """Send what is recorded until the end. A collector that is away loses it, and slows no request."""
    try:
        stops = start()
    except Exception:
        logger.exception("Telemetry is off, because its variables can't be used")
        stops = []
    measuring = asyncio.create_task(measure_delays()) if stops else None
    try:
        yield
    finally:
        if measuring:
            measuring.cancel()
        await stop_in_time(stops)


def start() -> list[Stop]:
    """Begin to send each signal that has an endpoint, in this worker, and return what stops it."""
    stops: list[Stop] = []
    if has_endpoint("TRACES"):
        spans = BatchSpanProcessor(RedactedSpans(OTLPSpanExporter()))
        tracers = TracerProvider(
            resource=resource(), id_generator=ids, shutdown_on_exit=False
        )
        tracers.add_span_processor(spans)
        trace.set_tracer_provider(tracers)
        stops.append(spans.shutdown)
    if has_endpoint("METRICS"):
        reader = PeriodicExportingMetricReader(RequestMetricsExporter())
        meters = MeterProvider([reader], resource=resource(), shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        stops.append(reader.shutdown)
    if has_endpoint("LOGS"):
        records = BatchLogRecordProcessor(OTLPLogExporter())
        loggers = LoggerProvider(resource=resource(), shutdown_on_exit=False)
        loggers.add_log_record_processor(records)
        _logs.set_logger_provider(loggers)
        handler = RedactedLogs(logger_provider=loggers)
        logging.getLogger().addHandler(handler)

        def stop_logs() -> None:
            logging.getLogger().removeHandler(handler)
            records.shutdown()  # type: ignore[no-untyped-call]

        stops.append(stop_logs)
    return stops


def has_endpoint(signal: str) -> bool:
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER") or "otlp"
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    names = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    return exporter == "otlp" and not disabled and any(map(os.environ.get, names))


def resource() -> Resource:
    """Return what identifies this worker: the service's name, and an id."""
    found = Resource.create()
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "orders-api"}))
    return found


async def stop_in_time(stops: list[Stop]) -> None:
    """Send the rest. Threads that wait for the collector longer than patience lasts are left behind."""
    # As daemons, because the process waits for other threads at its end.
    threads = [threading.Thread(target=stop, daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    last = time.monotonic() + PATIENCE
    while any(thread.is_alive() for thread in threads):
        if time.monotonic() > last:
            logger.warning("The collector did not answer in time")
            return
        await asyncio.sleep(0.01)
