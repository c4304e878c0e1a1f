"""Tests what services with OpenTelemetry send under each server, and that nothing about it hurts them."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.development import in_git
from harness.matrix import DEFAULTS, Answers, label, values
from harness.otlp import Receiver, receiver
from harness.pages import page, section
from harness.ports import reserved_port
from harness.running import Process, run, serving
from harness.steps import follow
from harness.variants import variants
from harness.waiting import until
from tests.conftest import Render, RenderTo

pytestmark = pytest.mark.project

PAGE = page("docs/observability.md")
OWN = "Spans, metrics and attributes of your own"
REQUESTS_MADE = "Requests that the service makes"

TRACED = DEFAULTS | {"observability": "opentelemetry"}

# Each server with one worker and with several, each layout, and the database that needs no server.
SERVICES: list[Answers] = [
    TRACED | {"server": server, "workers": workers, **({"database": "sqlite"} if workers > 1 else {})}
    for workers in (4, 1)
    for server in values("server")
]
SERVICES.insert(4, TRACED | {"layout": "single-file"})

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUESTS = 100


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as received:
        yield received


def migrated(service: Path) -> Path:
    if (service / "migrations").exists():
        run("alembic upgrade head", service)
    return service


def send_many(process: Process, path: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(lambda _: process.get(path), range(REQUESTS)):
            assert response.status_code == 200


@pytest.mark.parametrize("answers", variants(SERVICES, 5), ids=label)
def test_every_request_is_counted_once_whichever_worker_has_it(
    installed: RenderTo, collector: Receiver, answers: Answers
) -> None:
    service = migrated(installed(**answers))
    path = "/items" if answers["database"] != "none" else "/items/5?q=x"
    with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as process:
        send_many(process, path)
        traced = process.get(path, traceparent=PARENT)
        identifier = traced.headers["x-request-id"]
        process.stop()
        [line] = [record for record in process.records(logger="access") if record["request_id"] == identifier]
    assert collector.total("http.server.request.duration") == REQUESTS + 1
    spans = collector.requests()
    assert len(spans) == REQUESTS + 1
    # The probes of the test are not among them, and each worker has an id of its own.
    assert {span.attributes["url.path"] for span in spans} == {path.partition("?")[0]}
    assert 1 <= len({span.worker for span in spans}) <= answers["workers"]
    # One trace joins the caller, the span, the line of the log and the log record.
    _, trace_id, parent_id, _ = PARENT.split("-")
    [span] = [span for span in spans if span.trace_id == trace_id]
    assert span.parent_id == parent_id
    assert span.attributes["http.response.header.x-request-id"] == (identifier,)
    assert line["trace_id"] == trace_id
    assert trace_id in {record.trace_id for record in collector.records if record.logger == "access"}
    if answers["database"] != "none":
        [statement] = collector.children(span)
        assert (statement.name, statement.attributes["db.system.name"]) == ("SELECT", answers["database"])


def test_an_operator_has_the_metrics_that_are_asked_for_first(
    installed: RenderTo, collector: Receiver
) -> None:
    service = migrated(installed(**TRACED | {"database": "sqlite"}))
    with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as process:
        assert process.get("/items").status_code == 200
        process.stop()
    assert collector.metrics() >= {
        "http.server.request.duration",
        "http.server.active_requests",
        "db.client.connection.count",
        "db.client.connection.max",
        "db.client.connection.pending_requests",
        "process.memory.usage",
        "process.cpu.time",
    }
    assert collector.total("http.server.active_requests") == 0
    assert collector.total("db.client.connection.pending_requests") == 0
    assert collector.total("process.memory.usage") > 10_000_000


# What fails

SECRET = "hunter2"
FAILING = """
import os


@app.get("/fails")
async def fail() -> None:
    raise ValueError(os.environ["API_KEY"])
"""


def test_no_secret_leaves_the_service(installed: RenderTo, collector: Receiver) -> None:
    service = migrated(installed(**TRACED | {"database": "sqlite"}))
    with (service / "app" / "main.py").open("a") as main:
        main.write(FAILING)
    with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, API_KEY=SECRET) as process:
        assert process.get(f"/items?password={SECRET}", authorization=f"Bearer {SECRET}").status_code == 200
        assert process.get(f"/fails?password={SECRET}").status_code == 500
        for status in (201, 409):
            created = process.client.post("/items", json={"name": SECRET})
            assert created.status_code == status
        process.stop()
    assert len(collector.requests()) == 4
    assert {span.attributes["error.type"] for span in collector.spans if span.failed} == {
        "500",
        "IntegrityError",
    }
    # Where the error was raised is known.
    assert any("raise ValueError(" in str(record.attributes) for record in collector.records)
    assert SECRET not in collector.text


# What an owner adds


def test_what_an_owner_records_is_sent(installed: RenderTo, collector: Receiver) -> None:
    service = installed(**TRACED)
    follow(section(PAGE, OWN), service)
    with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as process:
        assert process.client.post("/orders", json={"lines": 3}).status_code == 201
        process.stop()
    [request] = collector.requests()
    assert request.attributes["order.lines"] == 3
    assert [span.name for span in collector.children(request)] == ["reserve stock"]
    assert collector.total("orders.created") == 1


@contextmanager
def exchange_rates() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a service that the recipe's asks, and the `traceparent` of each request to it."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self.headers["traceparent"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"rate": 1.25}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("newest_python")
def test_a_request_that_the_service_makes_continues_the_trace(render: Render, collector: Receiver) -> None:
    service = in_git(render(**TRACED))
    follow(page("docs/recipes/http-client.md") + section(PAGE, REQUESTS_MADE), service)
    run("uv run pytest -q", service)
    with exchange_rates() as (url, received):
        address = url.replace("//", f"//user:{SECRET}@")
        with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, RATES_URL=address) as process:
            assert process.get("/rates/EUR").json() == {"rate": 1.25}
            process.stop()
    [request] = [span for span in collector.requests() if span.name == "GET /rates/{currency}"]
    [made] = collector.children(request)
    [traceparent] = received
    assert traceparent.startswith(f"00-{made.trace_id}-{made.span_id}-")
    assert made.attributes["http.url"] == f"{url}/latest/EUR"
    assert SECRET not in collector.text


# Without a collector, and with one that does not work


def test_nothing_is_sent_or_started_without_an_endpoint(installed: RenderTo) -> None:
    service = installed(**TRACED)
    script = (
        "import asyncio, threading\n"
        "from app.telemetry import open_telemetry\n"
        "async def main():\n"
        "    async with open_telemetry():\n"
        "        print(threading.active_count(), len(asyncio.all_tasks()))\n"
        "asyncio.run(main())"
    )
    assert run(f"python -c '{script}'", service).split() == ["1", "1"]


@pytest.mark.parametrize("collector_is", ["refusing", "hanging", "failing", "nonsense"])
def test_a_collector_that_does_not_work_slows_no_start_no_request_and_no_stop(
    installed: RenderTo, collector: Receiver, collector_is: str
) -> None:
    service = installed(**TRACED)
    with reserved_port() as port:
        url = {"refusing": f"http://127.0.0.1:{port}", "nonsense": "nonsense"}.get(
            collector_is, collector.url
        )
        collector.status = 500 if collector_is == "failing" else 200
        if collector_is == "hanging":
            collector.answers.clear()
        with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="100") as process:
            send_many(process, "/items/5")
            process.popen.send_signal(signal.SIGTERM)
            # Without a limit it would be 15 to 20 s.
            assert process.popen.wait(10) in {0, -signal.SIGTERM}
            # Each signal says that it can't be sent, once a minute.
            assert len([line for line in process.lines() if '"logger":"opentelemetry' in line]) <= 3


def test_a_collector_that_comes_back_gets_what_follows_and_counts_of_all(installed: RenderTo) -> None:
    service = installed(**TRACED)
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    with ExitStack() as first:
        killed = first.enter_context(receiver())
        with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=killed.url, **variables) as process:
            send_many(process, "/items/5")
            until(lambda: len(killed.requests()) == REQUESTS, "all spans")
            first.close()
            send_many(process, "/items/5")
            with receiver(port=urlsplit(killed.url).port or 0) as back:
                until(lambda: back.total("http.server.request.duration") == 2 * REQUESTS, "the counts")
                traced = process.get("/items/5", traceparent=PARENT)
                assert traced.status_code == 200
                process.stop()
    assert back.total("http.server.request.duration") == 2 * REQUESTS + 1
    assert PARENT.split("-")[1] in {span.trace_id for span in back.requests()}


def test_a_worker_that_is_killed_loses_no_more_than_what_it_had_not_sent(
    installed: RenderTo, collector: Receiver
) -> None:
    service = installed(**TRACED | {"workers": 2})
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "100"}
    with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **variables) as process:
        send_many(process, "/items/5")
        until(lambda: len(collector.requests()) == REQUESTS, "all spans")
        until(lambda: collector.total("http.server.request.duration") == REQUESTS, "all counts")
        os.kill(min(process.workers()), signal.SIGKILL)
        until(process.answers, "another worker")
        send_many(process, "/items/5")
        process.stop()
    assert len(collector.requests()) == 2 * REQUESTS
    assert collector.total("http.server.request.duration") == 2 * REQUESTS


def test_spans_are_dropped_and_not_kept_while_the_collector_is_away(
    installed: RenderTo, collector: Receiver
) -> None:
    service = installed(**TRACED)
    collector.answers.clear()
    variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "50", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    with serving(service, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **variables) as process:
        send_many(process, "/items/5")
        collector.answers.set()
        process.stop()
    # The queue, and the batch that was on its way.
    assert 50 <= len(collector.requests()) <= 60


def test_log_lines_have_no_trace_where_nothing_is_traced(installed: RenderTo) -> None:
    with serving(installed(**TRACED)) as process:
        process.get("/items/5")
        process.stop()
        lines = [json.loads(line) for line in process.lines()]
    assert Counter("trace_id" in line for line in lines)[True] == 0
