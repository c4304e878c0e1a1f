"""Counts requests and their durations, which the SDK would do ten times slower.

It looks at each attribute of each measurement. Here requests with the same attributes share a
series, and the attributes are made when the series is sent.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from starlette.types import Scope

# Seconds, as in OpenTelemetry's conventions.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# Any other method is counted as `_OTHER`, because clients could make a series of each.
METHODS = {
    *("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"),
}


class RequestKind(NamedTuple):
    """Holds what the requests of a series have in common. Status 0: the response never began."""

    method: str
    scheme: str
    version: str
    status: int
    route: str

    def attributes(self) -> dict[str, str | int]:
        found: dict[str, str | int] = {
            "http.request.method": self.method,
            "url.scheme": self.scheme,
            "network.protocol.version": self.version,
        }
        if self.route:
            found["http.route"] = self.route
        if self.status:
            found["http.response.status_code"] = self.status
        if not 0 < self.status < 500:
            found["error.type"] = str(self.status or "incomplete_response")
        return found


class Series:
    """Counts the durations of a series, in the buckets that end at the bounds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.least = float("inf")
        self.greatest = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.least = min(self.least, seconds)
        self.greatest = max(self.greatest, seconds)


class RequestMetrics:
    """Keeps the series of this worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.began = time.time_ns()
        self.series: dict[RequestKind, Series] = {}
        # Requests that are being handled, by their method and scheme.
        self.active: Counter[tuple[str, str]] = Counter()

    def begin(self, scope: Scope) -> tuple[str, str] | None:
        """Count a request as active. Return its method and scheme, or None if it isn't recorded."""
        if scope["type"] != "http" or scope.get("fastapi.telemetry") is None:
            return None
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        counted = method, scope.get("scheme", "http")
        self.active[counted] += 1
        return counted

    def end(
        self, counted: tuple[str, str], scope: Scope, status: int, seconds: float
    ) -> None:
        self.active[counted] -= 1
        route = scope["fastapi.telemetry"].route or ""
        kind = RequestKind(*counted, scope["http_version"], status, route)
        self.add(kind, seconds)

    def add(self, kind: RequestKind, seconds: float) -> None:
        with self.lock:
            series = self.series.get(kind)
            if series is None:
                series = self.series[kind] = Series()
            series.add(seconds)

    def take(self, temporality: AggregationTemporality) -> Histogram:
        """Return all series, which begin anew if the collector wants what is new each time."""
        with self.lock:
            now = time.time_ns()
            points = [
                point(kind, series, self.began, now)
                for kind, series in self.series.items()
            ]
            if temporality is AggregationTemporality.DELTA:
                self.series = {}
                self.began = now
        return Histogram(points, temporality)

    def observe_active(self, _: CallbackOptions) -> Iterable[Observation]:
        for (method, scheme), number in [*self.active.items()]:
            attributes = {"http.request.method": method, "url.scheme": scheme}
            yield Observation(number, attributes)


def point(
    kind: RequestKind, series: Series, began: int, now: int
) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=kind.attributes(),
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=sum(series.counts),
        sum=series.seconds,
        bucket_counts=[*series.counts],
        explicit_bounds=BOUNDS,
        min=series.least,
        max=series.greatest,
    )


requests = RequestMetrics()

metrics.get_meter(__name__).create_observable_up_down_counter(
    "http.server.active_requests",
    [requests.observe_active],
    unit="{request}",
    description="Requests that are being handled.",
)


class RequestMetricsExporter(OTLPMetricExporter):
    """Sends the series with what the SDK has measured."""

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float | None = 10_000,
        **options: Any,
    ) -> MetricExportResult:
        preferred = self._preferred_temporality or {}
        cumulative = AggregationTemporality.CUMULATIVE
        durations = Metric(
            name="http.server.request.duration",
            description="Seconds until the end of the response.",
            unit="s",
            data=requests.take(preferred.get(HistogramInstrument, cumulative)),
        )
        [measured] = metrics_data.resource_metrics
        own = ScopeMetrics(InstrumentationScope(__name__), [durations], schema_url="")
        scopes = [*measured.scope_metrics, own]
        data = MetricsData([replace(measured, scope_metrics=scopes)])
        return super().export(data, timeout_millis, **options)
