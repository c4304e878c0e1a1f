"""Measures a row read by its key and a row written, access log on, on each database.

Both are compared with FastAPI on the bare driver, and with FastAPI on the ORM with its defaults, neither of
which has a log. With PostgreSQL, a row is also read through s3rius/FastAPI-template, as it reads and serves
its own table.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2

from benchmarks.comparing import Options, Row, pairs
from benchmarks.load import LoadedServer, cores, measure_in_turn, needs_wrk, pinned
from benchmarks.services import PEER, PEER_COMMAND, bare_command, installed, own_command, peer_with_rows
from harness.containers import docker, unique
from harness.matrix import values
from harness.ports import reserved_port
from harness.running import run
from harness.waiting import until

SIDES = {"service": "", "bare driver": "driver", "ORM's defaults": "orm"}
APPLICATIONS = Path(__file__).with_name("bare_database.py")
POST_ITEMS = Path(__file__).with_name("post_items.lua")
IMAGES = {
    "postgresql": ("postgres:18", "POSTGRES", 5432, "pg_isready --quiet --host 127.0.0.1"),
    # Through TCP, because MySQL listens on no port until its volume is set up.
    "mysql": ("mysql:9", "MYSQL", 3306, "mysqladmin ping --silent --protocol=tcp --user=app --password=app"),
}


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows = []
    for database in values("database"):
        if database != "none" and options.wanted(database):
            with started(database, folder) as url:
                rows += measure_database(database, url, folder, options)
    return rows


@contextmanager
def started(database: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database, whose server runs on the core of wrk."""
    if database not in IMAGES:
        yield f"sqlite:///{folder / 'app.db'}"
        return
    image, prefix, port, check = IMAGES[database]
    given = [f"--env={prefix}_{name}=app" for name in ("USER", "PASSWORD", "DATABASE", "DB")]
    if database == "mysql":
        given.append("--env=MYSQL_RANDOM_ROOT_PASSWORD=1")
    name = unique(database)
    try:
        docker("run", "--detach", f"--name={name}", f"--cpuset-cpus={cores()[1]}", *given, image)

        def ready() -> bool:
            return "ready" in docker("exec", name, "sh", "-c", f"{check} && echo ready || true")

        until(ready, f"{image} is ready", 180)
        # The container's own address: the engine's proxy would be measured too.
        address = docker("inspect", "--format={{.NetworkSettings.Networks.bridge.IPAddress}}", name).strip()
        yield f"{database}://app:app@{address}:{port}/app"
    finally:
        docker("rm", "--force", "--volumes", name)


def measure_database(database: str, url: str, folder: Path, options: Options) -> list[Row]:
    service, elsewhere = prepared(database, url, folder)
    rows = []
    for what, script in (("read", None), ("written", POST_ITEMS)):
        sides = {
            name: LoadedServer(partial(serving, service, application, url, elsewhere, "/items/1"), script)
            for name, application in SIDES.items()
        }
        if database == "postgresql" and what == "read":
            other, env = peer_with_rows(folder / "peer", url)
            with serving_peer(other, env) as (dummies, _):
                httpx2.put(dummies, json={"name": "lamp"}, timeout=60).raise_for_status()
            sides[PEER] = LoadedServer(partial(serving_peer, other, env, "?limit=1"))
        counts, rates, tails = measure_in_turn(sides, options)
        case = f"{database}, a row {what}"
        against = list(sides)[1:]
        reach = 0.55 if database == "postgresql" and what == "read" else None
        rows += [
            *pairs("database", case, "requests per CPU second", counts, *against, reach=reach),
            *pairs("database", f"{case}, by the clock", "requests/s", rates, *against, reach=reach),
            *pairs("database", f"{case}, p99", "ms", tails, *against, reach=3 if reach else None),
        ]
    return rows


def prepared(database: str, url: str, folder: Path) -> tuple[Path, Path]:
    """Install a service, whose table gets a row, and return it with the folder of the other applications."""
    service = installed(folder / database, database=database)
    run("alembic upgrade head", service, DATABASE_URL=url)
    elsewhere = folder / f"{database}-bare"
    elsewhere.mkdir()
    shutil.copy(APPLICATIONS, elsewhere / "bare.py")
    with serving(service, "", url, elsewhere, "/items") as (items, _):
        httpx2.post(items, json={"name": "lamp"}, timeout=60).raise_for_status()
    return service, elsewhere


@contextmanager
def serving(
    service: Path, application: str, database_url: str, elsewhere: Path, path: str
) -> Iterator[tuple[str, int]]:
    """Run the service, or an application of `bare_database.py`, and yield the path's URL and a process id."""
    with reserved_port() as port:
        assert port
        if application:
            command, env = bare_command(service, "uvicorn", application, port)
        else:
            command, env = own_command(service, "uvicorn", port)
        url = f"http://127.0.0.1:{port}{path}"
        env |= {"DATABASE_URL": database_url}
        with pinned(command, elsewhere if application else service, env, url) as pid:
            yield url, pid


@contextmanager
def serving_peer(service: Path, env: dict[str, str], query: str = "") -> Iterator[tuple[str, int]]:
    """Run a service of s3rius/FastAPI-template, and yield the URL of its rows and a process id."""
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}/api/dummy/"
        with pinned(PEER_COMMAND, service, env | {"PEER_PORT": str(port)}, url) as pid:
            yield url + query, pid
