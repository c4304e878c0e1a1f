import pytest
from fastapi import APIRouter
from httpx2 import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler

from app import request_log
from app.request_metrics import RequestKind, RequestMetrics
from app.request_telemetry import ids
from app.service import Service
from app.trace_id import current_trace_id

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CUMULATIVE = AggregationTemporality.CUMULATIVE
DELTA = AggregationTemporality.DELTA


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> RequestMetrics:
    kept = RequestMetrics()
    monkeypatch.setattr(request_log, "requests", kept)
    return kept


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service with endpoints for both signals, which are not sent to."""
    for signal in ("TRACES", "METRICS"):
        name = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
        monkeypatch.setenv(name, "http://collector.invalid")
    service = Service()
    router = APIRouter()

    @router.get("/orders/{order_id}")
    async def read_order(order_id: int) -> str:
        return current_trace_id()

    # With options, so that FastAPI finds the route within an included router.
    service.include_router(router, prefix="/v1", tags=["orders"])
    return service


async def send(service: Service, path: str, flags: str = "00") -> str:
    transport = ASGITransport(service)
    headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-{flags}"}
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get(path, headers=headers)
        return response.text


def points(requests: RequestMetrics) -> list[HistogramDataPoint]:
    return [*requests.take(CUMULATIVE).data_points]


def use(monkeypatch: pytest.MonkeyPatch, sampler: Sampler) -> InMemorySpanExporter:
    sent = InMemorySpanExporter()
    provider = TracerProvider(sampler, id_generator=ids)
    provider.add_span_processor(SimpleSpanProcessor(sent))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return sent


async def test_a_request_that_is_not_sampled_is_counted_with_its_route_and_keeps_its_trace(
    recorded: Service, requests: RequestMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = use(monkeypatch, ParentBased(ALWAYS_OFF))
    assert await send(recorded, "/v1/orders/5") == f'"{TRACE_ID}"'
    assert not sent.get_finished_spans()
    [point] = points(requests)
    assert point.count == 1
    assert point.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.route": "/v1/orders/{order_id}",
        "http.response.status_code": 200,
    }
    assert requests.active == {("GET", "http"): 0}


async def test_a_request_that_is_sampled_has_a_span_and_is_counted_once(
    recorded: Service, requests: RequestMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = use(monkeypatch, ParentBased(ALWAYS_OFF))
    assert await send(recorded, "/v1/orders/5", "01") == f'"{TRACE_ID}"'
    [span] = sent.get_finished_spans()
    assert span.name == "GET /v1/orders/{order_id}"
    [point] = points(requests)
    assert (point.count, (point.attributes or {})["http.route"]) == (1, span.name[4:])


async def test_a_path_that_is_not_found_makes_no_series_of_its_own(
    recorded: Service, requests: RequestMetrics
) -> None:
    for path in ("/one", "/two"):
        await send(recorded, path)
    [point] = points(requests)
    attributes = point.attributes or {}
    assert point.count == 2
    assert attributes["http.response.status_code"] == 404
    assert "http.route" not in attributes


async def test_probes_are_not_counted(
    recorded: Service, requests: RequestMetrics
) -> None:
    await send(recorded, "/health/live")
    assert points(requests) == []


def test_a_collector_that_wants_what_is_new_gets_each_request_once() -> None:
    requests = RequestMetrics()
    kind = RequestKind("GET", "http", "1.1", 503, "/")
    requests.add(kind, 0.02)
    [first] = requests.take(DELTA).data_points
    assert (first.count, first.sum) == (1, 0.02)
    assert [*first.bucket_counts][:4] == [0, 0, 1, 0]
    assert (first.attributes or {})["error.type"] == "503"
    assert not requests.take(DELTA).data_points
