"""Requests per second and p99 of the default service, access log on, under each server.

Under the default one also against itself without access lines, bare FastAPI with Uvicorn's own, and
s3rius/FastAPI-template: our route with a path, a query and a model against its `/api/health`, which answers
null, each with its own access log.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.comparing import Options, Row, Samples, alternate, pairs
from benchmarks.load import Load, needs_wrk, pinned, wrk
from benchmarks.services import BARE, PEER, PEER_COMMAND, bare_command, installed, own_command, peer
from harness.matrix import DEFAULTS, values
from harness.ports import reserved_port
from harness.running import variables

SIDES = {
    "service": "",
    "bare FastAPI": "fastapi",
    "bare FastAPI with its routers": "routers",
    "bare Starlette": "starlette",
    "bare ASGI": "asgi",
}
SILENT = "service without access lines"
LOGGED = "bare FastAPI with Uvicorn's access log"


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows = []
    for server in values("server"):
        if options.wanted(server):
            rows += under(server, folder, options)
    return rows


def under(server: str, folder: Path, options: Options) -> list[Row]:
    service = installed(folder / server, server=server)
    # Not beside the service, whose gunicorn.conf.py it would read.
    elsewhere = folder / f"{server}-bare"
    elsewhere.mkdir()
    shutil.copy(BARE, elsewhere)
    rates: Samples = {side: [] for side in (*SIDES, SILENT, LOGGED, PEER)}
    tails: Samples = {side: [] for side in (*SIDES, SILENT, LOGGED, PEER)}

    def side(name: str, application: str, *, logged: bool = True) -> Callable[[], float]:
        def loaded() -> float:
            with reserved_port() as port:
                assert port
                if application:
                    command, env = bare_command(service, server, application, port, logged=logged)
                else:
                    command, env = own_command(service, server, port)
                    env |= {} if logged else {"LOG_LEVEL": "WARNING"}
                url = f"http://127.0.0.1:{port}/items/5?q=x"
                load = put_under_load(command, elsewhere if application else service, env, url, options)
            rates[name].append(load.rate)
            tails[name].append(load.p99)
            return load.per_cpu_second

        return loaded

    sides = {name: side(name, application, logged=not application) for name, application in SIDES.items()}
    if server == DEFAULTS["server"]:
        sides[SILENT] = side(SILENT, "", logged=False)
        sides[LOGGED] = side(LOGGED, "fastapi")
        sides[PEER] = of_peer(folder, options, rates, tails)
    counts = alternate(sides, options.rounds)
    against = list(sides)[1:]
    by_the_clock = [name for name in ("bare FastAPI", PEER) if name in sides]
    return [
        *pairs("throughput", server, "requests per CPU second", counts, *against, reach=0.9),
        *pairs("throughput", f"{server}, by the clock", "requests/s", rates, *by_the_clock),
        *pairs("throughput", f"{server}, p99", "ms", tails, *by_the_clock),
    ]


def of_peer(folder: Path, options: Options, rates: Samples, tails: Samples) -> Callable[[], float]:
    service = peer(folder / "peer")

    def loaded() -> float:
        with reserved_port() as port:
            env = variables(service) | {"PEER_PORT": str(port)}
            url = f"http://127.0.0.1:{port}/api/health"
            load = put_under_load(PEER_COMMAND, service, env, url, options)
        rates[PEER].append(load.rate)
        tails[PEER].append(load.p99)
        return load.per_cpu_second

    return loaded


def put_under_load(command: list[str], folder: Path, env: dict[str, str], url: str, options: Options) -> Load:
    with pinned(command, folder, env, url) as pid:
        wrk(url, 1, pid)
        return wrk(url, options.seconds, pid)
