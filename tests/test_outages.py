"""Tests services in production whose database or cache goes away, hangs, refuses or is not there yet."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.containers import Container, unique
from harness.stacks import (
    CACHED,
    DATABASE_SERVERS,
    DATABASES,
    WORKERS,
    Load,
    Stack,
    in_group,
)
from harness.variants import variants
from harness.waiting import until

pytestmark = pytest.mark.docker

Deployment = Callable[[str], Stack]

EACH_DATABASE = [in_group({"database": database}, database) for database in DATABASES]
EACH_SERVER = variants(in_group({"database": database}, database) for database in DATABASE_SERVERS)
EACH_CACHED = [in_group({"database": database}, database) for database in CACHED]
EACH_CACHED_DATABASE = [
    in_group({"database": database}, database) for database in CACHED if database in DATABASES
]
# A cache that hangs, beside each database, and one that is gone.
EACH_CACHE_AWAY = [
    pytest.param(*case.values, "pause", "unpause", id=f"{case.id}-pause", marks=case.marks)
    for case in EACH_CACHED_DATABASE
]
EACH_CACHE_AWAY += [
    pytest.param(*case.values, "stop", "start", id=f"{case.id}-stop", marks=case.marks)
    for case in EACH_CACHED_DATABASE[:1]
]

ALIVE = "GET /health/live"
COUNT = "GET /items/all/count"
NEED_THE_DATABASE = ("GET /items", "POST /items", "GET /health/ready")

# Seconds. A request waits at most this long for a server that is gone, and for one that hangs. RECOVERED is
# the time in which requests succeed again.
GONE = 6
HANGS = 15
RECOVERED = 5


class Outage:
    """Sends requests to a service while its database is taken away and given back."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.load = Load(stack, ALIVE, *NEED_THE_DATABASE, *["GET /items"] * 8, *["POST /items"] * 2)

    def run(self, take: str, give: str, longest: float) -> None:
        """Fail unless the service goes on without its database, and with it again, without a restart."""
        processes = self.stack.processes()
        started = self.stack.inspect("app")["State"]["StartedAt"]
        with self.load:
            until(lambda: self.answered({200, 201}, 0), "successful responses")
            self.stack.take(take, "database")
            taken = time.monotonic()
            try:
                until(lambda: self.answered({503}, taken), "503 responses", 5 * longest)
            finally:
                self.stack.compose(give, "database")
            self.stack.wait_until_healthy("database")
            until(lambda: self.stack.at_once(20, "/items") == [200] * 20, "20 responses at once", RECOVERED)
            given = time.monotonic()
            until(lambda: self.answered({200, 201}, given), "successful responses again")
        for answer in self.load.answers:
            assert answer.is_json, answer
            assert answer.status in ({200} if answer.request == ALIVE else {200, 201, 503}), answer
            assert answer.seconds < longest, answer
        assert self.load.statuses(ALIVE, taken).count(200) > 10
        assert self.stack.processes() >= processes
        assert self.stack.inspect("app")["State"]["StartedAt"] == started
        self.check_kept()

    def answered(self, statuses: set[int], since: float) -> bool:
        """Tell whether every thread that needs the database got such a status for a request sent since then.

        The requests that the thread sent before have then ended, too.
        """
        answered = {
            answer.thread
            for answer in [*self.load.answers]
            if answer.request != ALIVE and answer.status in statuses and answer.sent >= since
        }
        return len(answered) == len(self.load.threads) - 1

    def check_kept(self) -> None:
        """Check that every item whose creation got a 201 is there."""
        created = [answer.location for answer in self.load.answers if answer.status == 201]
        kept = {f"/items/{id}" for [id] in self.stack.sql("SELECT id FROM items")}
        assert created
        assert kept >= {*created}


class TestDatabase:
    @pytest.mark.parametrize("database", EACH_SERVER)
    def test_without_the_database_requests_fail_fast_and_with_it_they_succeed_without_a_restart(
        self, deployment: Deployment, database: str
    ) -> None:
        Outage(deployment(database)).run("stop", "start", GONE)

    @pytest.mark.parametrize("database", EACH_SERVER)
    def test_while_it_hangs_no_request_waits_for_ever(self, deployment: Deployment, database: str) -> None:
        Outage(deployment(database)).run("pause", "unpause", HANGS)


# Statements that make the COMMIT of a new item fail, and statements that undo them. MySQL checks nothing as
# late as at COMMIT.
REFUSE_COMMIT = {
    "postgresql": (
        [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$",
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON items "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
        ],
        ["DROP TRIGGER refuse ON items", "DROP FUNCTION refuse"],
    ),
    "sqlite": (
        [
            "CREATE TABLE owners (id INTEGER PRIMARY KEY)",
            "CREATE TABLE owned (owner INTEGER REFERENCES owners DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TRIGGER refuse AFTER INSERT ON items BEGIN INSERT INTO owned VALUES (1); END",
        ],
        ["DROP TRIGGER refuse", "DROP TABLE owned", "DROP TABLE owners"],
    ),
}


@pytest.mark.parametrize(
    "database", [in_group({"database": database}, database) for database in REFUSE_COMMIT]
)
def test_a_commit_that_fails_is_a_500_and_stores_nothing(deployment: Deployment, database: str) -> None:
    stack = deployment(database)
    refuse, allow = REFUSE_COMMIT[database]
    item = {"name": unique("item")}
    for statement in refuse:
        stack.sql(statement)
    try:
        refused = [stack.ask("POST", "/items", json=item) for _ in range(20)]
    finally:
        for statement in allow:
            stack.sql(statement)
    assert {answer.status_code for answer in refused} == {500}
    assert refused[0].json() == {"detail": "Internal Server Error"}
    assert stack.sql(f"SELECT id FROM items WHERE name = '{item['name']}'") == []
    assert stack.ask("POST", "/items", json=item).status_code == 201


@pytest.mark.parametrize("database", EACH_DATABASE)
def test_migrations_that_start_at_the_same_moment_apply_each_revision_once_and_make_the_service_ready(
    deployment: Deployment, database: str
) -> None:
    stack = deployment(database)
    for table in ("items", "alembic_version"):
        stack.sql(f"DROP TABLE {table}")
    stack.compose("restart", "app")
    stack.wait_until_healthy("app")
    started = stack.inspect("app")["State"]["StartedAt"]
    early = stack.ask("GET", "/health/ready")
    assert early.status_code == 503
    assert early.json() == {"detail": "The schema is behind. Run alembic upgrade head."}

    def migrate(_: int) -> str:
        return stack.compose("run", "--rm", "-T", "--no-deps", "migrate")

    with ThreadPoolExecutor(2) as pool:
        printed = "".join(pool.map(migrate, range(2)))
    revisions = [*(stack.project.service / "migrations" / "versions").glob("*.py")]
    assert printed.count("Running upgrade") == len(revisions)
    assert len(stack.sql("SELECT version_num FROM alembic_version")) == 1
    assert stack.at_once(20, "/health/ready") == [200] * 20
    stack.store()
    assert stack.inspect("app")["State"]["StartedAt"] == started


# The name server never responds, so a resolution takes longer than the cache's limit of 0.25 s. A failure
# that nobody waits for is logged when it is collected.
READ_WITHOUT_A_NAME_SERVER = """
import asyncio, gc, socket, uvloop
from app.cache import open_cache
from app.settings import Settings

async def load():
    return "1"

async def main():
    read = []
    async with open_cache(Settings.read()) as cache:
        for _ in range(3):
            cache.next_try = 0
            read.append(await cache.read("lamp", load, str))
    try:
        await asyncio.get_running_loop().getaddrinfo("cache.invalid", 6379)
    except socket.gaierror:
        gc.collect()
        print(*read)

with socket.socket(type=socket.SOCK_DGRAM) as name_server:
    name_server.bind(("127.0.0.1", 53))
    uvloop.run(main())
"""


class TestCache:
    @pytest.mark.parametrize("database", EACH_CACHED)
    def test_without_the_cache_requests_are_answered_and_each_worker_logs_it_once(
        self, deployment: Deployment, database: str
    ) -> None:
        stack = deployment(database)
        check = stack.store()
        away, back = stack.lines("No cache, continuing without it"), stack.lines("The cache answers again")

        def says(text: str, count: int) -> bool:
            check()
            return stack.lines(text) == count

        stack.compose("stop", "cache")
        until(lambda: says("No cache, continuing without it", away + WORKERS), "a warning of each worker")
        for _ in range(20):
            sent = time.monotonic()
            check()
            assert time.monotonic() - sent < 2
        assert stack.lines("No cache, continuing without it") == away + WORKERS
        stack.compose("start", "cache")
        stack.wait_until_healthy("cache")
        until(lambda: says("The cache answers again", back + WORKERS), "each worker uses it again")
        hits = self.hits(stack)
        for _ in range(20):
            check()
        assert self.hits(stack) > hits
        assert stack.lines("No cache, continuing without it") == away + WORKERS

    def hits(self, stack: Stack) -> int:
        """Return how often the cache held the key that it was asked for."""
        ask = "REDISCLI_AUTH=$(cat /run/secrets/cache_password) valkey-cli info stats"
        lines = stack.compose("exec", "-T", "cache", "sh", "-c", ask).split()
        return next(int(line.partition(":")[2]) for line in lines if line.startswith("keyspace_hits:"))

    @pytest.mark.parametrize("database", EACH_CACHED[:1])
    def test_a_cache_whose_name_is_not_resolved_is_one_line_in_the_log(
        self, deployment: Deployment, database: str
    ) -> None:
        image = deployment(database).inspect("app")["Config"]["Image"]
        options = ("--dns=127.0.0.1", "--env=RES_OPTIONS=timeout:1 attempts:1")
        with Container(image, *options, "--env=CACHE_URL=redis://cache.invalid:6379") as container:
            [warning, end] = container.python(READ_WITHOUT_A_NAME_SERVER).splitlines()
        assert warning == "No cache, continuing without it: Timeout connecting to server"
        assert end == "1 1 1"

    @pytest.mark.parametrize("database", EACH_CACHED_DATABASE)
    def test_what_was_written_is_read_at_once_by_every_worker(
        self, deployment: Deployment, database: str
    ) -> None:
        stack = deployment(database)
        count = self.stored(stack)
        with Load(stack, *[COUNT] * 4):
            for _ in range(100):
                self.write(stack)
                count += 1
                assert self.read(stack, 4) == {count}

    @pytest.mark.parametrize(("database", "take", "give"), EACH_CACHE_AWAY)
    def test_no_entry_outlives_what_was_written_while_the_cache_was_away(
        self, deployment: Deployment, database: str, take: str, give: str
    ) -> None:
        stack = deployment(database)
        count = self.stored(stack)
        assert self.read(stack, 8) == {count}
        with Load(stack, *[COUNT] * 4) as load:
            stack.take(take, "cache")
            taken = time.monotonic()
            try:
                self.write(stack)
                until(lambda: len(load.statuses(COUNT, taken)) > 8, "responses without the cache")
            finally:
                stack.compose(give, "cache")
            until(lambda: self.read(stack, 8) == {count + 1}, "what was written", RECOVERED)
            for _ in range(10):
                assert self.read(stack, 8) == {count + 1}
        assert {answer.status for answer in load.answers} == {200}

    def stored(self, stack: Stack) -> int:
        [[count]] = stack.sql("SELECT count(*) FROM items")
        return int(count)

    def write(self, stack: Stack) -> None:
        assert stack.ask("POST", "/items", json={"name": unique("item")}).status_code == 201

    def read(self, stack: Stack, count: int) -> set[int]:
        """Send GET requests at the same time, and return the numbers of items that they read."""
        with ThreadPoolExecutor(count) as pool:
            answers = pool.map(lambda _: stack.ask("GET", "/items/all/count"), range(count))
            return {answer.json()["count"] for answer in answers}
