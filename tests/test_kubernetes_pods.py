"""Tests the rendered manifests by running them: the pods, the migrations, and how both end."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from harness.containers import Container, DockerError, docker, unique
from harness.matrix import Answers, label
from harness.otlp import Receiver, receiver
from harness.pods import Cache, Database, Namespace, Node, Pod, Service, node, why_no_pods
from harness.production import MIGRATION, MIGRATIONS, replace
from harness.stacks import CACHES, DATABASE_SERVERS
from harness.traffic import Sent, Traffic
from harness.variants import variants
from harness.waiting import until
from tests.conftest import RenderTo
from tests.test_docker import PROBES, main_of, stop_with_requests_in_flight

pytestmark = [
    pytest.mark.docker,
    pytest.mark.project,
    pytest.mark.usefixtures("newest_python"),
    # One node has the images, and one server of each kind the data.
    pytest.mark.xdist_group("kubernetes-pods"),
]

TRACED: Answers = {"observability": "opentelemetry"}
# Each server once, and each database with and without a cache. One image has two workers, and its pods one.
SERVICES: list[Answers] = [
    {"server": "uvicorn", "database": "postgresql", "cache": "redis"},
    {"server": "fastapi", "database": "mysql", "cache": "none"},
    {"server": "gunicorn", "database": "postgresql", "cache": "none", "workers": 2, **TRACED},
    {"server": "granian", "database": "mysql", "cache": "redis"},
]
FIRST = SERVICES[0]
# The server with the longest graceful timeout, and what is sent to the collector after it.
LONGEST = SERVICES[2]
WITHOUT_DATA: Answers = {"server": "uvicorn", "database": "none", "cache": "none"}

EACH = pytest.mark.parametrize("answers", variants(SERVICES, 2), ids=label)

# A request that never ends.
ENDLESS = """

@app.get("/endless")
async def endless() -> None:
    Path("/tmp/endless").touch()
    await asyncio.Event().wait()
"""

# Prints what a container may do. Process 1 is the command of its manifest.
RIGHTS = """
import json, os
from pathlib import Path

def is_writable(folder):
    try:
        Path(folder, "written").touch()
    except OSError as error:
        return error.strerror
    return True

limits = [Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes")]
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "status": dict(line.split(":\\t") for line in open("/proc/1/status").read().splitlines()),
    "writable": {folder: is_writable(folder) for folder in ("/", "/code", "/tmp")},
    "memory": [int(limit.read_text()) for limit in limits if limit.exists()],
    "secrets": {file.name: file.read_text() for file in Path("/run/secrets").iterdir()},
    "environment": dict(os.environ),
}))
"""


class Deployments:
    """Deploys services on a node, each when it is first asked for."""

    def __init__(self, node: Node, render: Callable[..., Path], held: ExitStack) -> None:
        self.node = node
        self.render = render
        self.held = held
        self.services: dict[str, Service] = {}
        self.served: dict[str, Served] = {}
        self.databases: dict[str, Database] = {}
        self.caches: dict[str, Cache] = {}
        self.collector: Receiver | None = None

    def service(self, answers: Answers) -> Service:
        if label(answers) not in self.services:
            self.services[label(answers)] = self.make(answers)
        return self.services[label(answers)]

    def make(self, answers: Answers) -> Service:
        folder = self.render(kubernetes="yes", **answers)
        with main_of(folder).open("a") as main:
            main.write(PROBES + ENDLESS)
        if TRACED.items() <= answers.items():
            self.collector = self.held.enter_context(receiver(self.node.host))
            literal = "- OTEL_EXPORTER_OTLP_ENDPOINT="
            file = folder / "deploy/kubernetes/base/kustomization.yaml"
            replace(file, literal + "\n", f"{literal}{self.collector.url}\n")
        return Service(self.node, folder, answers)

    def database(self, kind: str) -> Database:
        if kind not in self.databases:
            self.databases[kind] = Database(self.node.network, kind)
            self.held.callback(self.databases[kind].remove)
        return self.databases[kind]

    def cache(self, kind: str) -> Cache:
        if kind not in self.caches:
            self.caches[kind] = Cache(self.node.network)
            self.held.callback(self.caches[kind].remove)
        return self.caches[kind]

    def namespace(self, answers: Answers) -> Namespace:
        """Make a namespace with a new database, and the service's Secret in it."""
        addresses = {}
        if answers["database"] in DATABASE_SERVERS:
            addresses["database_url"] = self.database(answers["database"]).new()
        if answers["cache"] in CACHES:
            addresses["cache_url"] = self.cache(answers["cache"]).url
        return Namespace(self.service(answers), **addresses)

    def serving(self, answers: Answers) -> "Served":
        """Deploy a service, which all tests share: a pod of it, and then its migration."""
        if label(answers) not in self.served:
            namespace = self.namespace(answers)
            pod = self.held.enter_context(namespace.serve())
            before = {kind: pod.probe(kind) for kind in ("startup", "liveness", "readiness")}
            code, log = namespace.migrate()
            assert code == 0, log
            pod.wait_until("readiness")
            self.served[label(answers)] = Served(namespace, pod, before)
        return self.served[label(answers)]


class Served(NamedTuple):
    """Knows a pod that serves, and the statuses of its probes before the migration."""

    namespace: Namespace
    pod: Pod
    before: dict[str, int]


@pytest.fixture(scope="module")
def deployments(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    if reason := why_no_pods():
        pytest.skip(reason)

    def render(**answers: Any) -> Path:
        return render_to(tmp_path_factory.mktemp("service") / "orders-api", **answers)

    with ExitStack() as held:
        yield Deployments(held.enter_context(node()), render, held)


def stores(pod: Pod, answers: Answers) -> None:
    """Create an item, read it, and use the cache where there is one."""
    created = pod.ask("POST", "/items", json={"name": unique("item")})
    assert created.status_code == 201, created.text
    assert pod.ask("GET", created.headers["location"]).json() == created.json()
    if answers["cache"] in CACHES:
        assert pod.status("/items/all/count") == 200


# What a container may do


@pytest.fixture(scope="module", params=["Deployment", "Job"])
def rights(request: pytest.FixtureRequest, deployments: Deployments) -> tuple[Namespace, Pod, dict[str, Any]]:
    """A pod of each kind, and what its container may do."""
    namespace, pod, _ = deployments.serving(FIRST)
    if request.param == "Deployment":
        return namespace, pod, json.loads(pod.python(RIGHTS))
    with namespace.start("Job", command=["python", "-c", RIGHTS.strip()]) as pod:
        assert pod.wait() == 0
        return namespace, pod, json.loads(pod.logs())


Rights = tuple[Namespace, Pod, dict[str, Any]]


def test_a_container_runs_as_a_user_that_is_not_root(rights: Rights) -> None:
    assert rights[2]["user"] == [10001, 10001]


def test_a_container_has_no_capabilities_and_gets_none(rights: Rights) -> None:
    status = rights[2]["status"]
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_the_system_calls_of_a_container_are_filtered(rights: Rights) -> None:
    assert rights[2]["status"]["Seccomp"] == "2"


def test_a_container_writes_to_tmp_and_not_to_its_image(rights: Rights) -> None:
    refused = "Read-only file system"
    assert rights[2]["writable"] == {"/": refused, "/code": refused, "/tmp": True}


def test_a_container_has_the_memory_of_its_manifest(rights: Rights) -> None:
    _, pod, found = rights
    limit = pod.manifest["resources"]["limits"]["memory"]
    assert found["memory"] == [int(limit.removesuffix("Mi")) * 2**20]


def test_the_secrets_are_files_and_not_in_the_environment(rights: Rights) -> None:
    namespace, _, found = rights
    assert found["secrets"] == {name: f"{text}\n" for name, text in namespace.addresses.items()}
    for address in namespace.addresses.values():
        assert address not in str(found["environment"])


@pytest.mark.parametrize("rights", ["Deployment"], indirect=True)
def test_a_server_has_the_variables_of_the_configmap(rights: Rights) -> None:
    environment = rights[2]["environment"]
    assert (environment["LOG_LEVEL"], environment["DATABASE_POOL_SIZE"]) == ("INFO", "5")


@EACH
def test_one_process_serves_whatever_the_image_says(deployments: Deployments, answers: Answers) -> None:
    _, pod, _ = deployments.serving(answers)
    assert len({pod.ask("GET", "/pid").text for _ in range(20)}) == 1


# Migrations


@EACH
def test_a_pod_is_ready_when_its_migration_has_run_and_live_before(
    deployments: Deployments, answers: Answers
) -> None:
    _, pod, before = deployments.serving(answers)
    assert before == {"startup": 200, "liveness": 200, "readiness": 503}
    assert pod.probe("readiness") == 200
    stores(pod, answers)


def test_a_migration_that_runs_again_changes_nothing(deployments: Deployments) -> None:
    namespace, pod, _ = deployments.serving(FIRST)
    code, log = namespace.migrate()
    assert (code, "Running upgrade" in log) == (0, False), log
    assert pod.probe("readiness") == 200


def migrating(service: Service, folder: Path, name: str) -> str:
    """Make a release with a migration more, and return its tag."""
    file = folder / "0002_price.py"
    file.write_text(MIGRATION.format(MIGRATIONS[name]))
    return service.release(f"COPY --chmod=644 {file.name} migrations/versions/", file)


@dataclass
class Rollout:
    """Knows two releases in one namespace, of which the second has a migration more."""

    namespace: Namespace
    old: Pod
    new: Pod
    tag: str


@pytest.fixture(scope="module")
def rollout(
    request: pytest.FixtureRequest, deployments: Deployments, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rollout]:
    """A release that serves, and a pod of the next, whose migration succeeds or fails."""
    namespace = deployments.namespace(FIRST)
    tag = migrating(namespace.service, tmp_path_factory.mktemp("release"), request.param)
    assert namespace.migrate()[0] == 0
    with namespace.serve() as old, namespace.serve(tag) as new:
        old.wait_until("readiness")
        yield Rollout(namespace, old, new, tag)


@pytest.mark.parametrize("rollout", ["migrates"], indirect=True)
def test_a_release_gets_ready_with_its_own_migration_while_the_one_before_serves(rollout: Rollout) -> None:
    assert rollout.new.probe("readiness") == 503
    code, log = rollout.namespace.migrate(rollout.tag)
    assert (code, "Running upgrade 0001 -> 0002" in log) == (0, True), log
    rollout.new.wait_until("readiness")
    for pod in (rollout.old, rollout.new):
        assert pod.probe("readiness") == 200
        stores(pod, FIRST)


@pytest.mark.parametrize("rollout", ["migrates"], indirect=True)
def test_the_migration_of_an_older_image_leaves_a_newer_schema_as_it_is(rollout: Rollout) -> None:
    assert rollout.namespace.migrate(rollout.tag)[0] == 0
    with pytest.raises(DockerError, match="Can't locate revision identified by '0002'"):
        rollout.old.run("alembic", "--quiet", "upgrade", "head")
    code, log = rollout.namespace.migrate()
    assert (code, "The schema is newer than this release, and stays as it is." in log) == (0, True), log
    assert "0002 (head)" in rollout.new.run("alembic", "current")
    assert rollout.old.probe("readiness") == 200
    stores(rollout.old, FIRST)


@pytest.mark.parametrize("rollout", ["fails"], indirect=True)
def test_a_migration_that_fails_ends_its_job_with_an_error_and_the_release_before_serves(
    rollout: Rollout,
) -> None:
    code, log = rollout.namespace.migrate(rollout.tag)
    assert code == 1
    assert 'relation \\"nowhere\\" does not exist' in log
    assert (rollout.new.probe("liveness"), rollout.new.probe("readiness")) == (200, 503)
    assert rollout.old.probe("readiness") == 200
    stores(rollout.old, FIRST)


# Secrets


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_without_its_secret_a_pod_does_not_start(deployments: Deployments, kind: str) -> None:
    namespace = Namespace(deployments.service(FIRST))
    with pytest.raises(DockerError, match=f"no secret with name or id .*{namespace.secret}"):
        namespace.start(kind)


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_a_pod_without_one_of_its_addresses_says_which(deployments: Deployments, kind: str) -> None:
    service = deployments.service(FIRST)
    namespace, _, _ = deployments.serving(FIRST)
    secret = service.secret(f"{namespace.secret}-{kind.lower()}", **namespace.addresses)
    del secret["data"]["database_url"]
    deployments.node.play(secret)
    namespace = Namespace(service)
    namespace.secret = secret["metadata"]["name"]
    with namespace.start(kind) as pod:
        said = until(
            lambda: [line for line in pod.logs().splitlines() if "DATABASE_URL" in line], "a message"
        )
    assert "The environment is not valid. DATABASE_URL: " in said[0]
    assert "Traceback" not in said[0]


# Without a database, and with a collector


def test_a_service_without_data_serves_without_a_secret(deployments: Deployments) -> None:
    with deployments.namespace(WITHOUT_DATA).serve() as pod:
        assert pod.probe("readiness") == 200
        assert pod.ask("GET", "/items/5?q=lamp").json() == {"item_id": 5, "q": "lamp"}


def test_the_requests_to_a_pod_reach_the_collector_of_the_configmap(deployments: Deployments) -> None:
    _, pod, _ = deployments.serving(LONGEST)
    collector = deployments.collector
    assert collector
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = pod.ask("GET", "/items", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert sent.status_code == 200
    until(lambda: [span for span in collector.requests() if span.trace_id == trace], "the request's span")


# How pods end


@dataclass
class End:
    """Records how a pod ended under load, with requests of some seconds that had just begun."""

    sent: list[Sent]
    missing: list[str]
    long: list[int]
    code: int


# Looks the pods up under a name, as a gateway does: at once it knows only of changes some seconds ago.
CADDYFILE = """
:8000 {
	reverse_proxy {
		dynamic a {
			name pods
			port 8000
			refresh 1s
			versions ipv4
		}
	}
}
"""


@pytest.fixture(scope="module")
def ends(deployments: Deployments, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Answers], End]:
    """End one of two pods behind a gateway as a cluster does. Each server's is ended once."""
    found: dict[str, End] = {}

    def ends(answers: Answers) -> End:
        if label(answers) not in found:
            found[label(answers)] = end(deployments, answers, tmp_path_factory.mktemp("gateway"))
        return found[label(answers)]

    return ends


def end(deployments: Deployments, answers: Answers, folder: Path) -> End:
    namespace, stays, _ = deployments.serving(answers)
    folder.chmod(0o755)
    (folder / "Caddyfile").write_text(CADDYFILE)
    options = (f"--network={deployments.node.network}", f"--volume={folder}:/etc/caddy:ro")
    with (
        namespace.serve().wait_until("readiness") as pod,
        Container("caddy:2", *options) as gateway,
        httpx2.Client(base_url=gateway.url, trust_env=False, timeout=30) as client,
    ):

        def send_to(*pods: Pod) -> None:
            lines = "\n".join(f"{pod.address} pods" for pod in pods)
            docker("exec", gateway.name, "sh", "-c", f"echo '{lines}' > /etc/hosts")

        def connect(limits: httpx2.Limits) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30, limits=limits)

        def is_up() -> bool:
            try:
                return client.get("/health/ready").status_code == 200
            except httpx2.TransportError:
                return False

        def handled() -> int:
            return sum('"path":"/items"' in line for line in pod.logs().splitlines())

        send_to(stays, pod)
        until(is_up, "the gateway answers")
        with Traffic(connect) as traffic:
            until(lambda: handled() > 0, "requests to the pod that ends")
            # It is told to end, and its node waits for preStop. Meanwhile the gateway hears of it.
            send_to(stays)
            time.sleep(pod.pre_stop)
            long, code = asyncio.run(stop_with_requests_in_flight(pod, 10))
            traffic.more()
        return End(traffic.sent, traffic.missing(client.get), long, code)


@EACH
def test_a_pod_that_ends_loses_no_request(ends: Callable[[Answers], End], answers: Answers) -> None:
    ended = ends(answers)
    assert [sent for sent in ended.sent if sent.status not in {200, 201}] == []
    assert ended.missing == []


@EACH
def test_requests_that_began_just_before_the_end_are_answered(
    ends: Callable[[Answers], End], answers: Answers
) -> None:
    assert ends(answers).long == [200] * 10


@EACH
def test_a_pod_ends_by_itself(ends: Callable[[Answers], End], answers: Answers) -> None:
    assert ends(answers).code in {0, 143}


def test_a_pod_ends_in_its_grace_period_although_a_request_and_the_collector_hang(
    deployments: Deployments,
) -> None:
    namespace, _, _ = deployments.serving(LONGEST)
    collector = deployments.collector
    assert collector
    with namespace.serve() as pod, ThreadPoolExecutor(1) as pool:
        collector.answers.clear()
        try:
            # `fastapi run` would wait for it until it is killed.
            request = pool.submit(pod.status, "/endless")
            is_there = "from pathlib import Path; print(Path('/tmp/endless').exists())"
            until(lambda: pod.python(is_there) == "True", "the request in its handler")
            assert pod.stop() in {0, 143}
        finally:
            collector.answers.set()
        # It was cut off, or told that the server ends.
        assert request.result() in {0, 500}
