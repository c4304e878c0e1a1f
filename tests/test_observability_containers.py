"""Tests what services send from containers, and that the alerts of the page are raised."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from harness.containers import Container, DockerError, docker
from harness.matrix import DEFAULTS, Answers, label
from harness.otlp import Receiver, receiver
from harness.pages import codes, page, rows, section, shell
from harness.running import run, serving
from harness.stacks import Image, Stack, stacked
from harness.variants import variants
from harness.waiting import until
from tests.conftest import Render, RenderTo

pytestmark = pytest.mark.docker

TRACED = DEFAULTS | {"observability": "opentelemetry"}
REQUESTS = 100
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = PARENT.split("-")[1]

# Each database server with a cache, and another server with several workers. One is Uvicorn's one process.
DEPLOYED: list[Answers] = [
    TRACED | {"database": "postgresql", "cache": "redis", "server": "gunicorn", "workers": 4},
    TRACED | {"database": "mysql", "cache": "redis", "server": "granian", "workers": 4},
    TRACED | {"database": "postgresql", "cache": "redis", "server": "uvicorn", "workers": 1},
]


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """A receiver at the address under which containers reach this machine."""
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    with receiver(docker("network", "inspect", "bridge", f"--format={gateway}").strip()) as received:
        yield received


@pytest.fixture
def deployed(
    request: pytest.FixtureRequest, render: Render, collector: Receiver
) -> Iterator[tuple[Stack, Receiver]]:
    answers: Answers = request.param
    service = render(**answers)
    (service / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n")
    with (
        Image(service, answers) as image,
        stacked(service, "compose.prod.yaml", answers, **image.environment) as stack,
    ):
        yield stack.up(), collector


@pytest.mark.parametrize("deployed", variants(DEPLOYED), ids=label, indirect=True)
def test_a_deployed_service_sends_its_requests_with_their_statements_and_commands(
    deployed: tuple[Stack, Receiver],
) -> None:
    stack, collector = deployed
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(stack.status, ["/items"] * REQUESTS)) == {200}
    created = stack.ask("POST", "/items", json={"name": "lamp"}, headers={"traceparent": PARENT})
    assert created.status_code == 201
    # The first time, it is loaded from the database.
    for _ in range(2):
        counted = stack.ask("GET", "/items/all/count", headers={"traceparent": PARENT})
        assert counted.status_code == 200
    stack.compose("stop", "app")
    # It ended by itself.
    assert stack.inspect("app")["State"]["ExitCode"] in {0, 143}

    assert collector.total("http.server.request.duration") == REQUESTS + 3
    requests = collector.requests()
    assert len(requests) == REQUESTS + 3
    assert 1 <= len({span.worker for span in requests}) <= stack.answers["workers"]
    lists = [span for span in requests if span.name == "GET /items"]
    assert {tuple(made.name for made in collector.children(span)) for span in lists} == {("SELECT",)}

    [post] = [span for span in requests if span.name == "POST /items"]
    statements = [span for span in collector.children(post) if "db.system.name" in span.attributes]
    assert {span.attributes["db.system.name"] for span in statements} == {stack.answers["database"]}
    assert "INSERT" in {span.name for span in statements}
    # The values are not among what was sent.
    assert "lamp" not in collector.text

    counts = [span for span in requests if span.name == "GET /items/all/count"]
    assert {span.trace_id for span in [post, *counts]} == {TRACE}
    for span in counts:
        assert "redis" in {made.attributes.get("db.system") for made in collector.children(span)}
    assert collector.total("cache.reads", cache_result="miss") == 1
    assert collector.total("cache.reads", cache_result="hit") == 1
    lines = stack.compose("logs", "--no-color", "--no-log-prefix", "app").splitlines()
    assert sum(f'"trace_id":"{TRACE}"' in line and '"logger":"access"' in line for line in lines) == 3


@pytest.mark.parametrize("deployed", DEPLOYED[:1], ids=label, indirect=True)
def test_a_container_ends_by_itself_while_the_collector_hangs(deployed: tuple[Stack, Receiver]) -> None:
    stack, collector = deployed
    collector.answers.clear()
    assert stack.ask("GET", "/items").status_code == 200
    stack.compose("stop", "app")
    assert stack.inspect("app")["State"]["ExitCode"] in {0, 143}
    assert stack.lines("The collector did not answer in time") >= 1


def test_the_profile_of_development_sends_to_its_collector(render: Render) -> None:
    service = render(**TRACED)
    # The image can't be had everywhere. What stands in for it prints each request, and takes none.
    file = service / "compose.yaml"
    named = re.search(r"^    image: grafana/otel-lgtm:[\d.]+$", file.read_text(), re.MULTILINE)
    assert named
    image = re.search(r"^FROM (python:\S+)", (service / "Dockerfile").read_text(), re.MULTILINE)
    assert image
    stand_in = f"    image: {image[1]}\n    command: python -u -m http.server 4318"
    file.write_text(file.read_text().replace(named[0], stand_in))
    environment = {
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "GRAFANA_HOST_PORT": "0",
    }
    with stacked(service, "compose.yaml", TRACED, **environment) as stack:
        assert "lgtm" not in stack.services()
        [command] = shell(section(page("docs/observability.md"), "From nothing to a trace"))
        # The page's command would run until Ctrl-C.
        stack.project.environment["COMPOSE_PROJECT_NAME"] = stack.project.name
        run(f"{command.strip()} --detach --wait", service, **stack.project.environment)
        # The profile in `.env` makes it the default.
        stack.project.environment["COMPOSE_PROFILES"] = "observability"
        assert "lgtm" in stack.services()
        assert stack.status("/items/5") == 200
        until(lambda: stack.lines('"POST /v1/traces', "lgtm") > 0, "the trace")


# Alerts

METRICS = "victoriametrics/victoria-metrics:v1.145.0"
TABLE = rows(section(page("docs/observability.md"), "Alerts"), "what is wrong")
ALERTS = {name: codes(query)[0] for name, query in TABLE}

# What makes each alert, in their order.
TROUBLE = {
    "/fails": "raise ValueError",
    "/takes-long": "await asyncio.sleep(2)",
    "/holds": "async with database.session():\n        await asyncio.sleep(2)",
    "/blocks": "time.sleep(0.5)",
}
ENDPOINT = """

@app.get("{path}")
async def {name}(database: DatabaseDep) -> None:
    {body}
"""


@pytest.fixture(scope="module")
def metrics() -> Iterator[Container]:
    """VictoriaMetrics, which gives OpenTelemetry's metrics the names that Prometheus gives them."""
    try:
        docker("image", "inspect", METRICS)
    except DockerError:
        docker("pull", "--quiet", METRICS)
    flags = {
        "httpListenAddr": ":8000",
        "storageDataPath": "/tmp/data",
        "opentelemetry.usePrometheusNaming": "true",
        "search.latencyOffset": "0s",
    }
    with Container(METRICS, command=tuple(f"-{name}={value}" for name, value in flags.items())) as container:
        until(lambda: responds(container), "VictoriaMetrics")
        yield container


def responds(container: Container) -> bool:
    try:
        return container.get("/health").status_code == 200
    except httpx2.TransportError:
        return False


def result(container: Container, query: str) -> list[object]:
    # The last seconds stand for the last minutes.
    response = container.get("/api/v1/query", params={"query": query.replace("[5m]", "[5s]")})
    assert response.status_code == 200, response.text
    found: list[object] = response.json()["data"]["result"]
    return found


@pytest.mark.parametrize(("alert", "path"), [*zip(ALERTS, TROUBLE, strict=True)])
def test_an_alert_is_raised_by_what_it_is_for_and_not_before(
    installed: RenderTo, metrics: Container, alert: str, path: str
) -> None:
    service = installed(**TRACED | {"database": "sqlite"})
    run("alembic upgrade head", service)
    with (service / "app" / "main.py").open("a") as main:
        main.write("import asyncio, time\nfrom app.database import DatabaseDep\n")
        main.write(ENDPOINT.format(path=path, name=path.strip("/").replace("-", "_"), body=TROUBLE[path]))
    name = f"alert-{path.strip('/')}"
    # Each test has its own part of the metrics.
    query = re.sub(r"\b(\w+_(?:count|bucket|requests))\b(\{)?", rf'\1{{service_name="{name}",', ALERTS[alert])
    query = query.replace(",[", "}[")
    variables = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{metrics.url}/opentelemetry/v1/metrics",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_SERVICE_NAME": name,
    }
    series = f'http_server_request_duration_seconds_count{{service_name="{name}"}}'
    with serving(service, **variables) as process, ThreadPoolExecutor(8) as pool:

        def calm() -> bool:
            assert process.get("/items").status_code == 200
            assert result(metrics, query) == []
            return bool(result(metrics, f"rate({series}[5m]) > 0"))

        until(calm, "the metrics of requests")

        def troubled() -> bool:
            list(pool.map(lambda _: process.get(path).status_code, range(8)))
            return bool(result(metrics, query))

        until(troubled, alert)
