"""Tests what each server does about clients that send slowly, without end or nothing.

All servers run at once, and all clients of a kind, because some of them wait for half a minute.
"""

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness.matrix import DEFAULTS, values
from harness.pages import page, rows, section
from harness.running import serving
from tests.conftest import RenderTo

pytestmark = [pytest.mark.project, pytest.mark.xdist_group("slow-clients")]

SERVERS = values("server")
# A route as an owner would append it.
ROUTE = """

from fastapi import Request


@app.post("/length")
async def read_length(request: Request) -> int:
    return len(await request.body())
"""

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = REQUEST + b"\r\n"
PART_OF_A_BODY = b"POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"
HEADER = b"X-Header: " + b"a" * 1012 + b"\r\n"

# Seconds that a connection stays open which is never closed, and that others may be closed too late.
LONG = 37
TOO_LATE = 5
# Bytes of headers that a server reads which never refuses them.
MANY = 8 * 2**20
# Seconds in which a probe must have its response. The image's health check gives a whole machine 3.
PROBE = 10

# What clients do, as the page says, with what each of them sends.
WAITING = {
    "sends a part of the headers": REQUEST,
    "connects and sends nothing": b"",
    "sends nothing after a response": WHOLE,
    "sends a part of the body": PART_OF_A_BODY,
}
CROWDS = {
    "opens 1,200 idle connections": (1200, WHOLE),
    "sends 1,000 parts of headers": (1000, REQUEST),
    "sends 1,000 parts of bodies": (1000, PART_OF_A_BODY),
}
ENDLESS = "sends headers without end"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int, sent: bytes) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    return reader, writer


async def closed_after(port: int, sent: bytes) -> float | None:
    """Return after how many seconds the server closes a connection, or nothing if it doesn't."""
    reader, writer = await connect(port, sent)
    begin = time.monotonic()
    try:
        await asyncio.wait_for(reader.read(), LONG)
    except TimeoutError:
        return None
    finally:
        writer.close()
    return time.monotonic() - begin


async def refuses_headers(port: int) -> bool:
    """Tell whether the server stops to read headers that don't end, with a response or without one."""
    reader, writer = await connect(port, REQUEST)
    response = asyncio.ensure_future(reader.read())
    try:
        for _ in range(MANY // len(HEADER)):
            writer.write(HEADER)
            await writer.drain()
            if response.done():
                return True
    except ConnectionError:
        return True
    finally:
        response.cancel()
        await asyncio.wait([response])
        writer.transport.abort()
    return False


async def is_live(port: int) -> bool:
    """Tell whether a probe that opens a connection of its own has its response in time."""
    try:
        async with asyncio.timeout(PROBE):
            reader, writer = await connect(port, REQUEST + b"Connection: close\r\n\r\n")
            response = await reader.read()
    except TimeoutError:
        return False
    writer.close()
    return response.startswith(b"HTTP/1.1 200 ")


async def serves_on(port: int, number: int, sent: bytes) -> bool:
    """Tell whether all probes have their responses while clients hold this many connections."""
    crowd: list[Connection] = await asyncio.gather(*(connect(port, sent) for _ in range(number)))
    try:
        return all([await is_live(port) for _ in range(5)])
    finally:
        for _, writer in crowd:
            writer.transport.abort()


def cell_of_closed(seconds: float | None) -> str:
    """Return the cell of the page, whose times are lower bounds on a busy machine."""
    if seconds is None:
        return "never closed"
    limits = [limit for limit in (2, 5, 30) if limit - 0.5 <= seconds < limit + TOO_LATE]
    return f"closed after {limits[-1]} s" if limits else f"closed after {seconds:.1f} s"


async def observe(ports: dict[str, int]) -> dict[tuple[str, str], str]:
    """Return the cell of the page for each server and for each thing that a client does."""
    cells: dict[tuple[str, str], str] = {}
    waiting = [(server, what) for server in ports for what in WAITING]
    closed = await asyncio.gather(*(closed_after(ports[server], WAITING[what]) for server, what in waiting))
    cells |= {cell: cell_of_closed(seconds) for cell, seconds in zip(waiting, closed, strict=True)}
    for server, port in ports.items():
        cells[server, ENDLESS] = "refused" if await refuses_headers(port) else "never refused"
        for what, (number, sent) in CROWDS.items():
            cells[server, what] = "serves on" if await serves_on(port, number, sent) else "fails probes"
    return cells


@pytest.fixture(scope="module")
def files() -> Iterator[None]:
    """Let this process and the servers open enough files. Skips a test if the machine doesn't allow them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip(f"only {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def observed(installed: RenderTo, files: None) -> dict[tuple[str, str], str]:
    with ExitStack() as running:
        ports: dict[str, int] = {}
        for server in SERVERS:
            service = installed(**DEFAULTS | {"server": server, "workers": 2})
            main = service / "app/main.py"
            main.write_text(main.read_text() + ROUTE)
            process = running.enter_context(serving(service))
            port = process.client.base_url.port
            assert port
            ports[server] = port
        return asyncio.run(observe(ports))


TABLE = rows(section(page("docs/servers.md"), "Slow clients and headers"), "what a client does")


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_a_server_does_about_slow_clients_what_the_page_says(
    observed: dict[tuple[str, str], str], row: list[str], server: str
) -> None:
    what, *cells = row
    assert observed[server, what] == cells[SERVERS.index(server)]


def test_the_table_has_all_that_is_observed_and_its_servers_in_their_order() -> None:
    text = section(page("docs/servers.md"), "Slow clients and headers")
    assert f"| what a client does | {' | '.join(f'`{server}`' for server in SERVERS)} |" in text
    assert {row[0] for row in TABLE} == {*WAITING, *CROWDS, ENDLESS}
