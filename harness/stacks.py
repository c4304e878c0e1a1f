"""Runs rendered services that keep data, in compose projects with their database and their cache."""

import itertools
import json
import re
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
# The databases that are a server of their own, which can be stopped.
DATABASE_SERVERS = [database for database in DATABASES if has("with_database_server", database=database)]
CACHES = [cache for cache in values("cache") if has("with_cache", cache=cache)]
DATA = [
    {"database": database, "cache": cache}
    for database in values("database")
    for cache in values("cache")
    if database in DATABASES or cache in CACHES
]
# Every database once, alternately with and without a cache.
DATA_ONCE = [
    {"database": database, "cache": cache}
    for database, cache in zip(values("database"), itertools.cycle(reversed(values("cache"))), strict=False)
]
CACHED = [answers["database"] for answers in DATA if answers["cache"] == CACHES[0]]
# The size of a service in DEPLOYMENTS: its workers, and the connections in the pool of each.
WORKERS = 2
POOL_SIZE = 5
# The questions whose answers rotate through the other services.
ROTATED = ("server", "package_manager", "python_version")


# The services for tests that share one deployment: one for each database, each with another server.
DEPLOYMENTS: dict[str, Answers] = {
    database: {"database": database, "cache": CACHES[0], "server": server}
    for database, server in zip(
        [*DATABASE_SERVERS, *(name for name in CACHED if name not in DATABASE_SERVERS)],
        itertools.cycle([values("server")[0], *reversed(values("server")[1:])]),
        strict=False,
    )
}

# Runs the statement in its first argument through the service's own engine, and prints the rows.
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


def with_rotating_answers(*lists: list[Answers]) -> list[list[Answers]]:
    """Add a server, a package manager and a Python to each of these answers.

    They are chosen so that as many pairs as possible of both are tested, here or in DEPLOYMENTS.
    """
    data = {(name, value) for answers in DATA for name, value in answers.items()}
    met = {pair for answers in DEPLOYMENTS.values() for pair in pairs(answers)}

    def new(answers: Answers) -> set[tuple[object, ...]]:
        return {pair for pair in pairs(answers) - met if len({*pair} & data) == 1}

    chosen: list[list[Answers]] = []
    for given in lists:
        chosen.append([])
        for answers in given:
            candidates = combinations(*ROTATED, layout="package", **answers)
            best = max(candidates, key=lambda candidate: len(new(candidate)))
            chosen[-1].append(best)
            met |= pairs(best)
    return chosen


def in_group(answers: Answers, value: object = None) -> ParameterSet:
    """Return a test case that runs in the same process as all others with its database."""
    mark = pytest.mark.xdist_group(f"data-{answers['database']}")
    return pytest.param(value or answers, id=label(answers), marks=mark)


class Image:
    """Builds a service's production image, makes its secrets, and removes the image at the end."""

    def __init__(self, service: Path, answers: Answers) -> None:
        self.service = service
        self.answers = answers
        self.secrets = make_secrets(service)
        self.secret_texts = {secret.read_text().strip() for secret in self.secrets}
        name = unique("image")
        self.tag = f"{name}:1"
        self.environment = {"IMAGE": name, "TAG": "1"}
        build(service, self.tag)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        docker("image", "rm", "--force", self.tag)


def addresses(service: Path) -> dict[str, str]:
    """Return the variables of `.env.example` with the addresses of the database and the cache."""
    example = (service / ".env.example").read_text()
    return dict(re.findall(r"^(\w+_URL)=(\S+)$", example, re.MULTILINE))


def make_secrets(service: Path) -> list[Path]:
    """Run the commands of the page's "Once on the server", and return the files that they made, if any."""
    for block in shell(service_section(service, "Once on the server")):
        run(block, service)
    return sorted((service / "secrets").glob("*"))


class Stack:
    """Sends requests to the service of a compose project, and controls its containers."""

    def __init__(self, project: Project, client: httpx2.Client, answers: Answers) -> None:
        self.project = project
        self.compose = project.compose
        self.client = client
        self.answers = answers

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.client.request(method, path, **options)

    def status(self, path: str) -> int:
        """Return the status of the response to a GET, or 0 if there is none."""
        try:
            return self.client.get(path).status_code
        except httpx2.TransportError:
            return 0

    def up(self) -> Self:
        """Start everything, and wait until the service is ready."""
        self.project.up()
        until(lambda: self.status("/health/ready") == 200, "the service is ready")
        return self

    def store(self) -> Callable[[], None]:
        """Create an item, if the service keeps any. Return a check that it is read as it was created."""
        if self.answers["database"] in DATABASES:
            created = self.ask("POST", "/items", json={"name": unique("item"), "description": "lamp"})
            assert created.status_code == 201, created.text
            path, item = created.headers["location"], created.json()
        else:
            path, item = "/items/5?q=lamp", {"item_id": 5, "q": "lamp"}

        def check() -> None:
            answer = self.ask("GET", path)
            assert (answer.status_code, answer.json()) == (200, item)
            if self.answers["database"] in DATABASES and self.answers["cache"] in CACHES:
                # The request that uses the cache.
                assert self.ask("GET", "/items/all/count").status_code == 200

        check()
        return check

    def sql(self, statement: str) -> list[list[Any]]:
        """Run a statement through the service's own engine, in its container, and return the rows."""
        printed = self.compose("exec", "-T", "app", "python", "-c", SQL, statement)
        # Other lines are warnings of a driver.
        [answer] = [line for line in printed.splitlines() if line.startswith("[")]
        rows: list[list[Any]] = json.loads(answer)
        return rows

    def services(self) -> list[str]:
        return self.compose("config", "--services").split()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows about a service's newest container. Raise if there is none."""
        containers = self.compose("ps", "--all", "--quiet", service).split()
        inspected: dict[str, Any] = json.loads(docker("inspect", containers[0]))[0]
        return inspected

    def wait_until_healthy(self, service: str) -> float:
        """Wait until the container is healthy, and return the time of that moment."""
        healthy = "healthy"
        until(lambda: self.inspect(service)["State"]["Health"]["Status"] == healthy, f"a healthy {service}")
        return time.monotonic()

    def take(self, command: str, service: str) -> None:
        """Stop or pause a service. Try again while runc can't freeze a busy container and lets it run on."""

        def taken() -> bool:
            try:
                self.compose(command, service)
            except DockerError as error:
                if "unable to freeze" in str(error):
                    return False
                raise
            return True

        until(taken, f"{command} {service}")

    def processes(self) -> set[str]:
        """Return the processes of the app's container, without those of the health check."""
        _, *lines = docker("top", self.project.container, "-eo", "pid,args").splitlines()
        return {line.split()[0] for line in lines if "http.client" not in line}

    def lines(self, text: str, service: str = "app") -> int:
        """Count the lines of a service's log that hold the text."""
        return sum(text in line for line in self.compose("logs", "--no-color", service).splitlines())

    def at_once(self, count: int, path: str) -> list[int]:
        """Send GET requests at the same time, and return the statuses of their responses."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(self.status, [path] * count))


@contextmanager
def stacked(service: Path, file: str, answers: Answers, **environment: str) -> Iterator[Stack]:
    """Yield a compose project on free ports of this machine, not started yet. Remove all of it at the end."""
    with ExitStack() as held:
        ports = {
            name: str(held.enter_context(reserved_port()))
            for name in ("HOST_PORT", "DATABASE_HOST_PORT", "CACHE_HOST_PORT")
        }
        project = held.enter_context(composed(service, file, **ports, **environment))
        # No connection is kept, so that each request may reach any worker.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        url = f"http://127.0.0.1:{ports['HOST_PORT']}"
        client = held.enter_context(
            httpx2.Client(base_url=url, limits=limits, timeout=60, trust_env=False, verify=False)
        )
        yield Stack(project, client, answers)


class Answer(NamedTuple):
    """Records a request of a load and its response. Status 0 is a connection that broke."""

    thread: int
    request: str
    sent: float
    seconds: float
    status: int
    is_json: bool
    location: str


# Seconds between two requests of a thread, in which the service has the cores.
PAUSE = 0.05


class Load:
    """Sends requests until the block ends, each of these again and again on a thread of its own."""

    def __init__(self, stack: Stack, *requests: str) -> None:
        self.stack = stack
        self.answers: list[Answer] = []
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.go_on, args=pair) for pair in enumerate(requests)]

    def go_on(self, thread: int, request: str) -> None:
        method, path = request.split()
        while not self.ends.is_set():
            time.sleep(PAUSE)
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
        """Return the statuses of the responses to this request, each time that it was sent since then."""
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
