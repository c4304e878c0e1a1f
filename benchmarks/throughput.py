"""Measures requests per second and p99 of the default service, access log on, under each server.

Under the default server, the service is also compared with itself without access lines, with bare FastAPI and
Uvicorn's own access log, and with s3rius/FastAPI-template. There the service's route with a path, a query and
a model is compared with `/api/health`, which returns null, each with its own access log.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.comparing import Options, Row, pairs
from benchmarks.load import LoadedServer, measure_in_turn, needs_wrk, pinned
from benchmarks.services import BARE, PEER, PEER_COMMAND, bare_command, installed, own_command, peer
from harness.matrix import DEFAULTS, values
from harness.ports import reserved_port
from harness.running import variables

ITEM = "/items/5?q=x"
BARE_SIDES = {
    "bare FastAPI": "fastapi",
    "bare FastAPI with its routers": "routers",
    "bare Starlette": "starlette",
    "bare ASGI": "asgi",
}
SILENT = "service without access lines"
LOGGED = "bare FastAPI with Uvicorn's access log"

# Returns the command and the variables that start a server on a port.
Command = Callable[[int], tuple[list[str], dict[str, str]]]


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows = []
    for server in values("server"):
        if options.wanted(server):
            rows += measure_server(server, folder, options)
    return rows


def measure_server(server: str, folder: Path, options: Options) -> list[Row]:
    service = installed(folder / server, server=server)
    # Not in the service's folder, because Gunicorn would read its gunicorn.conf.py.
    elsewhere = folder / f"{server}-bare"
    elsewhere.mkdir()
    shutil.copy(BARE, elsewhere)
    own = partial(own_command, service, server)
    bare = partial(bare_command, service, server)
    sides = {"service": LoadedServer(partial(serving, own, service))}
    for name, application in BARE_SIDES.items():
        sides[name] = LoadedServer(partial(serving, partial(bare, application), elsewhere))
    if server == DEFAULTS["server"]:
        sides[SILENT] = LoadedServer(partial(serving, own, service, LOG_LEVEL="WARNING"))
        sides[LOGGED] = LoadedServer(partial(serving, partial(bare, "fastapi", logged=True), elsewhere))
        other = peer(folder / "peer")
        sides[PEER] = LoadedServer(partial(serving, partial(peer_command, other), other, "/api/health"))
    counts, rates, tails = measure_in_turn(sides, options)
    against = list(sides)[1:]
    by_the_clock = [name for name in ("bare FastAPI", PEER) if name in sides]
    return [
        *pairs("throughput", server, "requests per CPU second", counts, *against, reach=0.9),
        *pairs("throughput", f"{server}, by the clock", "requests/s", rates, *by_the_clock),
        *pairs("throughput", f"{server}, p99", "ms", tails, *by_the_clock),
    ]


def peer_command(service: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return PEER_COMMAND, variables(service) | {"PEER_PORT": str(port)}


@contextmanager
def serving(command: Command, folder: Path, path: str = ITEM, **changed: str) -> Iterator[tuple[str, int]]:
    """Run a server on a free port, and yield the URL to request and its process id."""
    with reserved_port() as port:
        assert port
        words, env = command(port)
        url = f"http://127.0.0.1:{port}{path}"
        with pinned(words, folder, env | changed, url) as pid:
            yield url, pid
