"""Rendered services that keep data, in compose projects with their database and their cache."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx2
import pytest
from _pytest.mark import ParameterSet

from harness.containers import DockerError, Project, build, composed, docker, unique
from harness.matrix import Answers, combinations, has, label, pairs, values
from harness.pages import service_section, shell
from harness.ports import reserved_port
from harness.running import run
from harness.waiting import until

DATABASES = [database for database in values("database") if has("with_database", database=database)]
# Those that are a server of their own, which can be stopped.
DATABASE_SERVERS = [database for database in DATABASES if has("with_database_server", database=database)]
CACHES = [cache for cache in values("cache") if has("with_cache", cache=cache)]
DATA = [
    {"database": database, "cache": cache}
    for database in values("database")
    for cache in values("cache")
    if database in DATABASES or cache in CACHES
]
# Every database once, with and without a cache in turn.
DATA_ONCE = [
    {"database": database, "cache": cache}
    for database, cache in zip(values("database"), itertools.cycle(reversed(values("cache"))), strict=False)
]
CACHED = [answers["database"] for answers in DATA if answers["cache"] == CACHES[0]]
# How many there are where a test takes something away.
WORKERS = 2
POOL_SIZE = 5
# What is turned through beside them.
TURNED = ("server", "package_manager", "python_version")


# What is tested with more than one build can: a service for each database, each with another server.
DEPLOYMENTS: dict[str, Answers] = {
    database: {"database": database, "cache": CACHES[0], "server": server}
    for database, server in zip(
        [*DATABASE_SERVERS, *(name for name in CACHED if name not in DATABASE_SERVERS)],
        itertools.cycle([values("server")[0], *reversed(values("server")[1:])]),
        strict=False,
    )
}

# Runs a statement, its first argument, as the service itself would, and prints the rows.
SQL = """
import asyncio, json, sys
from sqlalchemy import text
from app.engine import create_engines
from app.settings import Settings

async def main():
    engine, _ = create_engines(Settings())
    async with engine.connect() as connection:
        result = await connection.execute(text(sys.argv[1]))
        print(json.dumps([list(row) for row in result] if result.returns_rows else []))
    await engine.dispose()

asyncio.run(main())
"""


def turned(*lists: list[Answers]) -> list[list[Answers]]:
    """These answers, beside others in turn: as many of both as possible meet, here or in DEPLOYMENTS."""
    data = {(name, value) for answers in DATA for name, value in answers.items()}
    met = {pair for answers in DEPLOYMENTS.values() for pair in pairs(answers)}

    def new(answers: Answers) -> set[tuple[object, ...]]:
        return {pair for pair in pairs(answers) - met if len({*pair} & data) == 1}

    chosen: list[list[Answers]] = []
    for given in lists:
        chosen.append([])
        for answers in given:
            candidates = combinations(*TURNED, layout="package", **answers)
            best = max(candidates, key=lambda candidate: len(new(candidate)))
            chosen[-1].append(best)
            met |= pairs(best)
    return chosen


def in_group(answers: Answers, value: object = None) -> ParameterSet:
    """A case whose database is no other's in this test run's processes."""
    mark = pytest.mark.xdist_group(f"data-{answers['database']}")
    return pytest.param(value or answers, id=label(answers), marks=mark)


class Image:
    """A service's production image and the secrets that it is started with; removed at the end."""

    def __init__(self, service: Path, answers: Answers) -> None:
        self.service = service
        self.answers = answers
        self.secrets = make_secrets(service)
        self.secret_texts = {secret.read_text().strip() for secret in self.secrets}
        name = unique("image")
        self.tag = f"{name}:1"
        self.environment = {"IMAGE": name, "TAG": "1", "CPU_LIMIT": "1"}
        build(service, self.tag)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        docker("image", "rm", "--force", self.tag)


def make_secrets(service: Path) -> list[Path]:
    """Run what the service's page says to run once on the server; return the files that it made, if any."""
    for block in shell(service_section(service, "Once on the server")):
        run(block, service)
    return sorted((service / "secrets").glob("*"))


class Stack:
    """The compose project of a service, and the client that asks it."""

    def __init__(self, project: Project, client: httpx2.Client, answers: Answers) -> None:
        self.project = project
        self.compose = project.compose
        self.client = client
        self.answers = answers

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.client.request(method, path, **options)

    def status(self, path: str) -> int:
        """How a GET is answered, 0 where it is not."""
        try:
            return self.client.get(path).status_code
        except httpx2.TransportError:
            return 0

    def up(self) -> Self:
        """Start everything and wait until it is ready; the development image has no health check."""
        self.project.up()
        until(lambda: self.status("/health/ready") == 200, "a service that is ready")
        return self

    def store(self) -> Callable[[], None]:
        """Create an item, where the service keeps any; what checks that it is read as it was created."""
        if self.answers["database"] in DATABASES:
            created = self.ask("POST", "/items", json={"name": unique("item"), "description": "lamp"})
            assert created.status_code == 201, created.text
            path, item = created.headers["location"], created.json()
        else:
            path, item = "/items/5?q=lamp", {"item_id": 5, "q": "lamp"}

        def check() -> None:
            answer = self.ask("GET", path)
            assert (answer.status_code, answer.json()) == (200, item)

        check()
        return check

    def sql(self, statement: str) -> list[list[Any]]:
        """The rows of a statement, run as the service would, where it would."""
        printed = self.compose("exec", "-T", "app", "python", "-c", SQL, statement)
        # Beside a driver's warnings.
        [answer] = [line for line in printed.splitlines() if line.startswith("[")]
        rows: list[list[Any]] = json.loads(answer)
        return rows

    def services(self) -> list[str]:
        return self.compose("config", "--services").split()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's newest container; raises where there is none."""
        containers = self.compose("ps", "--all", "--quiet", service).split()
        inspected: dict[str, Any] = json.loads(docker("inspect", containers[0]))[0]
        return inspected

    def wait_until_healthy(self, service: str) -> float:
        """When the container became healthy."""
        healthy = "healthy"
        until(lambda: self.inspect(service)["State"]["Health"]["Status"] == healthy, f"a healthy {service}")
        return time.monotonic()

    def take(self, command: str, service: str) -> None:
        """Stop or pause a service. A busy container may not freeze at once: runc then lets it run on."""

        def taken() -> bool:
            try:
                self.compose(command, service)
            except DockerError as error:
                if "unable to freeze" in str(error):
                    return False
                raise
            return True

        until(taken, f"{service} to {command}")

    def processes(self) -> set[str]:
        """The processes of the app's container, without the health check's."""
        _, *lines = docker("top", self.project.container, "-eo", "pid,args").splitlines()
        return {line.split()[0] for line in lines if "http.client" not in line}

    def lines(self, text: str, service: str = "app") -> int:
        """How many of its log's lines hold the text."""
        return sum(text in line for line in self.compose("logs", "--no-color", service).splitlines())

    def at_once(self, count: int, path: str) -> list[int]:
        """The statuses of requests that are sent at the same time."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(self.status, [path] * count))


@contextmanager
def stacked(service: Path, file: str, answers: Answers, **environment: str) -> Iterator[Stack]:
    """A compose project on free ports of this machine, not started yet; all of it is removed at the end."""
    with ExitStack() as held:
        ports = {
            name: str(held.enter_context(reserved_port()))
            for name in ("HOST_PORT", "DATABASE_HOST_PORT", "CACHE_HOST_PORT")
        }
        project = held.enter_context(composed(service, file, **ports, **environment))
        # Without kept connections, so that each request may reach any worker.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        url = f"http://127.0.0.1:{ports['HOST_PORT']}"
        client = held.enter_context(
            httpx2.Client(base_url=url, limits=limits, timeout=60, trust_env=False, verify=False)
        )
        yield Stack(project, client, answers)


class Answer(NamedTuple):
    """How a request of a load was answered; status 0 is a connection that broke."""

    thread: int
    request: str
    sent: float
    seconds: float
    status: int
    is_json: bool
    location: str


class Load:
    """Requests without a pause, on a thread for each of these, until the block ends."""

    def __init__(self, stack: Stack, *requests: str) -> None:
        self.stack = stack
        self.answers: list[Answer] = []
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.go_on, args=pair) for pair in enumerate(requests)]

    def go_on(self, thread: int, request: str) -> None:
        method, path = request.split()
        while not self.ends.is_set():
            sent = time.monotonic()
            body = {"json": {"name": unique("item")}} if method == "POST" else {}
            try:
                answer = self.stack.ask(method, path, **body)
            except httpx2.TransportError:
                self.answers.append(Answer(thread, request, sent, time.monotonic() - sent, 0, False, ""))
                continue
            is_json = answer.headers.get("content-type") == "application/json"
            location = answer.headers.get("location", "")
            seconds = time.monotonic() - sent
            status = answer.status_code
            self.answers.append(Answer(thread, request, sent, seconds, status, is_json, location))

    def statuses(self, request: str, since: float = 0) -> list[int]:
        """How the requests were answered that were sent since then."""
        return [a.status for a in [*self.answers] if a.request == request and a.sent >= since]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ends.set()
        for thread in self.threads:
            thread.join()
