"""Measures the number of 100,000 items, which a service reads from its cache or has PostgreSQL count.

Both sides are the same service. One finds no cache at its address, as while the cache is away.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.comparing import Options, Row, pairs
from benchmarks.database import started
from benchmarks.load import LoadedServer, cores, measure_in_turn, needs_wrk, pinned
from benchmarks.services import installed, own_command
from harness.containers import docker, unique
from harness.ports import reserved_port
from harness.running import run
from harness.waiting import until

ITEMS = 100_000
# Run by the service's own Python, because only that has the driver.
INSERT = f"""
import asyncio, asyncpg, sys

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    numbers = "generate_series(1, {ITEMS}) AS n"
    await connection.execute("INSERT INTO items (name) SELECT 'item ' || n FROM " + numbers)
    await connection.execute("VACUUM ANALYZE items")

asyncio.run(main())
"""


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    with started("postgresql", folder) as database_url, cache() as cache_url:
        service = installed(folder / "service", database="postgresql", cache="redis")
        addresses = {"DATABASE_URL": database_url, "CACHE_URL": cache_url}
        run("alembic upgrade head", service, **addresses)
        (folder / "insert.py").write_text(INSERT)
        run(f"python ../insert.py {database_url}", service)
        with reserved_port() as closed:
            away = addresses | {"CACHE_URL": f"redis://127.0.0.1:{closed}"}
            sides = {
                "with the cache": LoadedServer(partial(serving, service, addresses)),
                "while the cache is away": LoadedServer(partial(serving, service, away)),
            }
            counts, rates, _ = measure_in_turn(sides, options)
    case = f"the number of {ITEMS:,} items"
    return [
        *pairs("cache", case, "requests per CPU second", counts, "while the cache is away"),
        *pairs("cache", f"{case}, by the clock", "requests/s", rates, "while the cache is away"),
    ]


@contextmanager
def cache() -> Iterator[str]:
    """Yield the URL of an empty cache, which runs on the core of wrk."""
    name = unique("cache")
    try:
        server = ["valkey/valkey:9", "valkey-server", "--protected-mode", "no", "--save", ""]
        docker("run", "--detach", f"--name={name}", f"--cpuset-cpus={cores()[1]}", *server)
        until(lambda: "PONG" in docker("exec", name, "sh", "-c", "valkey-cli ping || true"), "a cache", 60)
        address = docker("inspect", "--format={{.NetworkSettings.Networks.bridge.IPAddress}}", name).strip()
        yield f"redis://{address}"
    finally:
        docker("rm", "--force", "--volumes", name)


@contextmanager
def serving(service: Path, addresses: dict[str, str]) -> Iterator[tuple[str, int]]:
    with reserved_port() as port:
        assert port
        command, env = own_command(service, "uvicorn", port)
        url = f"http://127.0.0.1:{port}/items/all/count"
        with pinned(command, service, env | addresses, url) as pid:
            yield url, pid
