"""Takes parts of a service in production away while clients write, and counts what was lost: `make faults`.

For each fault, Locust's users write until enough writes are acknowledged, before, while and after the fault.
Then every acknowledged write is looked up in the database. The command fails if a write is lost, if a
response was stale, if there was a 500, or if the service does not serve again by itself.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.services import rendered
from harness.containers import docker
from harness.matrix import Answers
from harness.running import variables
from harness.stacks import CACHES, DATABASE_SERVERS, DATABASES, WORKERS, Image, Stack, stacked
from harness.waiting import until

LOCUST = ("uv", "tool", "run", "--quiet", "--from=locust==2.47.0", "locust")
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
USERS = 16
# Seconds that a fault lasts, if it does not end by itself: longer than any time limit of the service.
LASTS = 14
# Seconds after a fault in which every request must succeed again.
RECOVERS = 60

Record = dict[str, Any]


# What the clients saw


@dataclass
class Seen:
    """Holds what clients saw, and how each item has to be.

    A write without an acknowledgement may have happened: then an item has one of several names.
    """

    acknowledged: int = 0
    names: dict[int, set[str]] = field(default_factory=dict)
    stale: list[Record] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    longest_gap: float = 0
    last: float = 0

    def add(self, record: Record) -> None:
        """Take the next record of a user. Records of different users may come in any order."""
        status, response = record["status"], record["response"]
        self.statuses[status] += 1
        if "at_least" in record:
            if response and response["count"] < record["at_least"]:
                self.stale.append(record)
        elif record["method"] == "POST":
            if response:
                self.names[response["id"]] = {record["name"]}
        elif record["method"] == "PATCH":
            if response:
                self.names[record["item"]] = {record["name"]}
            else:
                self.names[record["item"]].add(record["name"])
        elif status == 404 or (response and response["name"] not in self.names[record["item"]]):
            self.stale.append(record)
        if record["method"] != "GET" and response:
            self.acknowledged += 1
            done = record["sent"] + record["seconds"]
            if self.last:
                self.longest_gap = max(self.longest_gap, done - self.last)
            self.last = max(self.last, done)

    def lost(self, stored: Iterable[tuple[int, str]]) -> list[int]:
        """Return the items whose acknowledged state is not in the database."""
        now = dict(stored)
        return [item for item, names in self.names.items() if now.get(item) not in names]


class Clients:
    """Runs Locust until `stop`, and reads what it records."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.seen = Seen()
        path = folder / "records"
        path.touch()
        self.records = path.open()
        options = ["--headless", f"--users={USERS}", f"--spawn-rate={USERS}", "--loglevel=ERROR"]
        # At its end, each user waits for the response to the last request.
        options.append("--stop-timeout=60")
        self.process = subprocess.Popen(
            [*LOCUST, f"--locustfile={LOCUSTFILE}", f"--host={stack.client.base_url}", *options],
            env=variables() | {"RECORDS": str(path), "COUNTED": str(int(stack.answers["cache"] in CACHES))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def acknowledged(self) -> int:
        """Read the records that are new, and return how many writes have been acknowledged."""
        while (line := self.records.readline()).endswith("\n"):
            self.seen.add(json.loads(line))
        # The rest of the line is not written yet.
        self.records.seek(self.records.tell() - len(line))
        return self.seen.acknowledged

    def write(self, count: int) -> None:
        """Wait until this many more writes are acknowledged."""
        reached = self.acknowledged() + count
        until(lambda: self.acknowledged() >= reached, f"{count} acknowledged writes", 900)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.acknowledged()


# The faults


def kill(stack: Stack, pid: int) -> None:
    """End a process of a container as the kernel does when memory is short."""
    code = f"import os; os.kill({pid}, 9)"
    docker("run", "--rm", "--privileged", "--pid=host", "--user=0", image_of(stack), "python", "-c", code)


def image_of(stack: Stack) -> str:
    return f"{stack.project.environment['IMAGE']}:{stack.project.environment['TAG']}"


def kill_service(service: str) -> Callable[[Stack], None]:
    def fault(stack: Stack) -> None:
        kill(stack, stack.inspect(service)["State"]["Pid"])

    return fault


def kill_worker(stack: Stack) -> None:
    parent = stack.inspect("app")["State"]["Pid"]
    listed = docker("top", stack.project.container, "-eo", "pid,ppid,args").splitlines()[1:]
    workers = [int(line.split()[0]) for line in listed if line.split()[1] == str(parent) and "spawn" in line]
    kill(stack, workers[-1])


def restart(service: str) -> Callable[[Stack], None]:
    def fault(stack: Stack) -> None:
        stack.compose("restart", service)

    return fault


def pause(service: str) -> Callable[[Stack], None]:
    def fault(stack: Stack) -> None:
        stack.take("pause", service)
        time.sleep(LASTS)
        stack.compose("unpause", service)

    return fault


def cut(service: str) -> Callable[[Stack], None]:
    """Take a container's network away, so that packets vanish and nothing is refused."""

    def fault(stack: Stack) -> None:
        container = stack.inspect(service)
        [network] = container["NetworkSettings"]["Networks"]
        docker("network", "disconnect", network, container["Id"])
        time.sleep(LASTS)
        docker("network", "connect", f"--alias={service}", network, container["Id"])

    return fault


END_CONNECTIONS = {
    "postgresql": ("SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid()",
                   "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT id FROM information_schema.processlist WHERE id <> connection_id()", "KILL {}"),
}  # fmt: skip


# Runs in the service's container. Its arguments list the connections, and end one of them.
END = """
import asyncio, sys
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app.engine import create_engines
from app.settings import Settings

async def main():
    _, engine = create_engines(Settings.read())
    for _ in range(20):
        async with engine.connect() as connection:
            listed = [row[0] for row in await connection.execute(text(sys.argv[1]))]
            for one in listed:
                try:
                    await connection.execute(text(sys.argv[2].format(one)))
                except DBAPIError:
                    # It ended meanwhile.
                    await connection.rollback()
        await asyncio.sleep(0.5)
    await engine.dispose()

asyncio.run(main())
"""


def end_connections(stack: Stack) -> None:
    listed, end = END_CONNECTIONS[stack.answers["database"]]
    stack.compose("exec", "-T", "app", "python", "-c", END, listed, end)


# Runs in the service's container and holds all rows for some seconds. Its argument is a list of statements.
LOCK = """
import asyncio, json, sys
from sqlalchemy import text
from app.engine import create_engines
from app.settings import Settings

async def main():
    _, engine = create_engines(Settings.read())
    async with engine.connect() as connection:
        for statement in json.loads(sys.argv[1]):
            await connection.execute(text(statement))
        await asyncio.sleep(float(sys.argv[2]))
    await engine.dispose()

asyncio.run(main())
"""
LOCKS = {
    "postgresql": ["LOCK TABLE items IN ACCESS EXCLUSIVE MODE"],
    "mysql": ["LOCK TABLES items WRITE"],
    "sqlite": ["SELECT 1"],
}


def lock_table(stack: Stack) -> None:
    statements = json.dumps(LOCKS[stack.answers["database"]])
    stack.compose("exec", "-T", "app", "python", "-c", LOCK, statements, str(LASTS))


def fill_disk(stack: Stack) -> None:
    """Fill the disk beside the data, and fill again what the database sets free."""
    fill = f"timeout {LASTS} sh -c 'while :; do cat /dev/zero >>/disk/filler; sleep 0.2; done' 2>/dev/null"
    # Not in the container of the database, which ends when it can't write.
    volume = f"--volume={stack.project.name}_{volume_of(stack.answers)}:/disk"
    docker("run", "--rm", "--user=0", volume, image_of(stack), "sh", "-c", f"{fill}; rm /disk/filler")


def volume_of(answers: Answers) -> str:
    return "data" if answers["database"] == "sqlite" else "database"


def flush_cache(stack: Stack) -> None:
    for _ in range(30):
        cache(stack, "flushall")


def garble_cache(stack: Stack) -> None:
    """Overwrite every entry with what the service never wrote."""
    for value in ("garbage", "{}", "null") * 10:
        for key in cache(stack, "keys '*'").split():
            cache(stack, f"set {key} '{value}'")


def full_cache(stack: Stack) -> None:
    cache(stack, "config set maxmemory-policy noeviction")
    cache(stack, "config set maxmemory 1")
    time.sleep(LASTS)
    cache(stack, "config set maxmemory 64mb")


def other_password(stack: Stack) -> None:
    cache(stack, "config set requirepass other")
    cache(stack, "client kill type normal skipme yes", "other")
    time.sleep(LASTS)
    cache(stack, 'config set requirepass "$(cat /run/secrets/cache_password)"', "other")


def cache(stack: Stack, command: str, password: str = "$(cat /run/secrets/cache_password)") -> str:
    line = f"REDISCLI_AUTH={password} valkey-cli {command}"
    return stack.compose("exec", "-T", "cache", "sh", "-c", line)


SERVICE = {
    "the service is killed": kill_service("app"),
    "a worker is killed": kill_worker,
    "the service restarts": restart("app"),
    "the table is locked": lock_table,
    "the disk is full": fill_disk,
}
DATABASE = {
    "the database is killed": kill_service("database"),
    "the database restarts": restart("database"),
    "the database is paused": pause("database"),
    "the database is cut off": cut("database"),
    "all connections are ended, 20 times": end_connections,
}
CACHE = {
    "the cache is killed": kill_service("cache"),
    "the cache is paused": pause("cache"),
    "the cache is cut off": cut("cache"),
    "the cache is flushed, 30 times": flush_cache,
    "the cache holds garbage": garble_cache,
    "the cache is full": full_cache,
    "the cache has another password": other_password,
}


# The measurement


@contextmanager
def in_production(folder: Path, answers: Answers, disk: str) -> Iterator[Stack]:
    """Yield the service of compose.prod.yaml, with a disk for its data that is mounted with these options."""
    service = rendered(folder / "orders-api", project_name="orders-api", workers=WORKERS, **answers)
    file = service / "compose.prod.yaml"
    volume = volume_of(answers)
    options = f"    driver_opts: {{type: tmpfs, device: tmpfs, o: '{disk}'}}\n"
    # Docker empties such a disk when no container has it.
    holder = f"  holder:\n    <<: *app\n    command: [sleep, infinity]\n    volumes: ['{volume}:/held']\n"
    holder += "    healthcheck: {test: 'true'}\n"
    text = file.read_text().replace("\nservices:\n", f"\nservices:\n{holder}", 1)
    head, volumes, tail = text.partition(f"\nvolumes:\n  {volume}:\n")
    file.write_text(head + volumes + options + tail)
    with Image(service, answers) as image, stacked(service, file.name, answers, **image.environment) as stack:
        stack.compose("up", "--detach", "holder")
        yield stack.up()


def measure(stack: Stack, fault: Callable[[Stack], None], writes: int) -> tuple[Seen, list[int], float]:
    """Apply a fault under load. Return what clients saw, what is lost, and the seconds until all was well."""
    with tempfile.TemporaryDirectory() as folder:
        clients = Clients(stack, Path(folder))
        try:
            clients.write(writes // 4)
            fault(stack)
            ended = time.monotonic()
            until(lambda: stack.at_once(10, "/health/ready") == [200] * 10, "a ready service", RECOVERS)
            recovered = time.monotonic() - ended
            rest = max(writes - clients.acknowledged(), writes // 4)
            clients.write(rest)
        finally:
            clients.stop()
    stored = [(int(item), str(name)) for item, name in stack.sql("SELECT id, name FROM items")]
    if stack.answers["cache"] in CACHES:
        counts = {stack.ask("GET", "/items/all/count").json()["count"] for _ in range(20)}
        assert counts == {len(stored)}, (counts, len(stored))
    return clients.seen, clients.seen.lost(stored), recovered


COLUMNS = (
    *("database", "fault", "writes acknowledged", "lost", "stale", "500", "503", "cut off"),
    *("longest time without an acknowledged write", "ready again after"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--writes", type=int, default=10_000, help="acknowledged writes for each fault")
    parser.add_argument("--only", default="", help="a word that the database or the fault has to have")
    arguments = parser.parse_args()
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    bad = 0
    for database in DATABASES:
        faults = SERVICE | (DATABASE if database in DATABASE_SERVERS else {}) | CACHE
        chosen = {name: fault for name, fault in faults.items() if arguments.only in f"{database}, {name}"}
        if not chosen:
            continue
        answers = {"database": database, "cache": CACHES[0]}
        disk = "size=64m,uid=10001" if database == "sqlite" else "size=1500m"
        with (
            tempfile.TemporaryDirectory(prefix="faults-") as folder,
            in_production(Path(folder), answers, disk) as stack,
        ):
            for name, fault in chosen.items():
                print(f"{database}, {name} …", file=sys.stderr, flush=True)
                seen, lost, recovered = measure(stack, fault, arguments.writes)
                bad += len(lost) + len(seen.stale) + seen.statuses[500]
                lines.append(
                    f"| {database} | {name} | {seen.acknowledged:,} | {len(lost)} | {len(seen.stale)} "
                    f"| {seen.statuses[500]} | {seen.statuses[503]} | {seen.statuses[0]} "
                    f"| {seen.longest_gap:.1f} s | {recovered:.1f} s |"
                )
                print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    results = Path(__file__).with_name("results")
    results.mkdir(exist_ok=True)
    (results / "faults.md").write_text(text)
    print(text)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
