"""A row read by its key and a row written, access log on, on each database.

Against FastAPI on the bare driver, and on the ORM as it is without an option; neither with a log. A row
of PostgreSQL is also read through s3rius/FastAPI-template, as it reads and serves its own table.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from benchmarks.comparing import Options, Row, Samples, alternate, pairs
from benchmarks.load import cores, needs_wrk, pinned, wrk
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
    # Until its volume is set up, it listens on no port.
    "mysql": ("mysql:9", "MYSQL", 3306, "mysqladmin ping --silent --protocol=tcp --user=app --password=app"),
}


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows = []
    for database in values("database"):
        if database != "none" and options.wanted(database):
            with started(database, folder) as url:
                rows += of(database, url, folder, options)
    return rows


@contextmanager
def started(database: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database. Its server has the core of wrk."""
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

        until(ready, f"{image} answers", 180)
        # Not through the engine's proxy, which would be measured too.
        address = docker("inspect", "--format={{.NetworkSettings.Networks.bridge.IPAddress}}", name).strip()
        yield f"{database}://app:app@{address}:{port}/app"
    finally:
        docker("rm", "--force", "--volumes", name)


def of(database: str, url: str, folder: Path, options: Options) -> list[Row]:
    service = installed(folder / database, database=database)
    run("alembic upgrade head", service, DATABASE_URL=url)
    elsewhere = folder / f"{database}-bare"
    elsewhere.mkdir()
    shutil.copy(APPLICATIONS, elsewhere / "bare.py")
    with serving(service, "", url, elsewhere, "/health/live") as (address, _):
        httpx2.post(f"{address}/items", json={"name": "lamp"}, timeout=60).raise_for_status()
    rows = []
    for what, script in (("read", []), ("written", [str(POST_ITEMS)])):
        rates: Samples = {side: [] for side in (*SIDES, PEER)}
        tails: Samples = {side: [] for side in (*SIDES, PEER)}

        def side(
            name: str, application: str, script: list[str], rates: Samples, tails: Samples
        ) -> Callable[[], float]:
            def loaded() -> float:
                with serving(service, application, url, elsewhere, "/items/1") as (address, pid):
                    for seconds in (1, options.seconds):
                        names = [uuid.uuid4().hex] if script else []
                        load = wrk(f"{address}/items/1", seconds, pid, *script, *names)
                rates[name].append(load.rate)
                tails[name].append(load.p99)
                return load.per_cpu_second

            return loaded

        sides = {name: side(name, application, script, rates, tails) for name, application in SIDES.items()}
        if database == "postgresql" and what == "read":
            sides[PEER] = of_peer(folder, url, options, rates, tails)
        counts = alternate(sides, options.rounds)
        case = f"{database}, a row {what}"
        against = list(sides)[1:]
        reach = 0.55 if database == "postgresql" and what == "read" else None
        rows += [
            *pairs("database", case, "requests per CPU second", counts, *against, reach=reach),
            *pairs("database", f"{case}, by the clock", "requests/s", rates, *against, reach=reach),
            *pairs("database", f"{case}, p99", "ms", tails, *against, reach=3 if reach else None),
        ]
    return rows


def of_peer(folder: Path, url: str, options: Options, rates: Samples, tails: Samples) -> Callable[[], float]:
    service, env = peer_with_rows(folder / "peer", url)

    def loaded() -> float:
        with reserved_port() as port:
            env["PEER_PORT"] = str(port)
            address = f"http://127.0.0.1:{port}/api/dummy/"
            with pinned(PEER_COMMAND, service, env, address) as pid:
                if not rates[PEER]:
                    httpx2.put(address, json={"name": "lamp"}, timeout=60).raise_for_status()
                for seconds in (1, options.seconds):
                    load = wrk(f"{address}?limit=1", seconds, pid)
        rates[PEER].append(load.rate)
        tails[PEER].append(load.p99)
        return load.per_cpu_second

    return loaded


@contextmanager
def serving(
    service: Path, application: str, url: str, elsewhere: Path, path: str
) -> Iterator[tuple[str, int]]:
    """The service, or an application of `bare_database.py`; its address and its process."""
    with reserved_port() as port:
        assert port
        if application:
            command, env = bare_command(service, "uvicorn", application, port)
        else:
            command, env = own_command(service, "uvicorn", port)
        address = f"http://127.0.0.1:{port}"
        env |= {"DATABASE_URL": url}
        with pinned(command, elsewhere if application else service, env, address + path) as pid:
            yield address, pid
