"""Tests WebSockets under each server: opened, logged, closed, refused, and open while the server stops."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from harness.matrix import DEFAULTS, values
from harness.running import DEADLINE, Process, missing_python, run, serving
from harness.waiting import until
from harness.websockets import connected
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

# Granian sends no headers of the application when it opens a WebSocket.
WITHOUT_HEADERS = {"granian"}
# Granian ends its workers without closing WebSockets. The others close them with 1012, Service Restart.
WITHOUT_GOODBYE = {"granian"}

# Endpoints as an owner would append them.
ROUTES = '''

import asyncio
from typing import Annotated

from fastapi import Depends, WebSocket, WebSocketException
from sqlalchemy import text

from app.database import DatabaseDep
from app.errors import Unavailable


async def user(websocket: WebSocket, token: str) -> str:
    if token != "secret":
        raise WebSocketException(1008)
    return "Ada"


@app.websocket("/echo")
async def echo(
    websocket: WebSocket, name: Annotated[str, Depends(user)], database: DatabaseDep
) -> None:
    await websocket.accept()
    async for received in websocket.iter_text():
        if received == "bug":
            raise RuntimeError("A bug")
        elif received == "away":
            raise Unavailable("The translator does not answer.")
        elif received == "bye":
            await websocket.close(4000, "Bye")
            raise RuntimeError("Too late for the client")
        elif received == "write":
            async with database.session() as session:
                await session.execute(text("INSERT INTO items (name) VALUES ('lamp')"))
            [row] = await database.rows(text("SELECT name FROM items"))
            await websocket.send_text(row.name)
        else:
            await websocket.send_text(f"{name}: {received}")


async def translator() -> None:
    raise Unavailable("The translator does not answer.")


@app.websocket("/away", dependencies=[Depends(translator)])
async def away(websocket: WebSocket) -> None:
    await websocket.accept()


@app.websocket("/bug")
async def bug(websocket: WebSocket) -> None:
    raise RuntimeError("A bug")


@app.websocket("/deaf")
async def deaf(websocket: WebSocket) -> None:
    """Wait for something other than the client, which may leave unnoticed."""
    await websocket.accept()
    await websocket.send_text("hello")
    await asyncio.Event().wait()
'''


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(server, marks=pytest.mark.xdist_group(f"websockets-{server}"))
        for server in values("server")
    ],
)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def service(server: str, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service with `ROUTES`, in an environment of its own, to which its owner has added `websockets`."""
    if missing := missing_python(DEFAULTS["python_version"]):
        pytest.skip(missing)
    service = render_to(tmp_path_factory.mktemp("service") / "orders-api", server=server, database="sqlite")
    main = service / "app/main.py"
    main.write_text(main.read_text() + ROUTES)
    run("uv add --quiet websockets\nuv sync --quiet\nuv run --quiet alembic upgrade head", service)
    return service


@pytest.fixture(scope="module")
def process(service: Path) -> Iterator[Process]:
    with serving(service) as process:
        yield process


def access_line(process: Process, request_id: str) -> dict[str, object]:
    """Return the one access line of a WebSocket, without what differs between two runs."""

    def lines() -> list[dict[str, object]]:
        return process.records(logger="access", request_id=request_id)

    until(lines, f"the access line of {request_id}")
    [line] = lines()
    return {name: value for name, value in line.items() if name not in {"time", "duration_ms"}}


def expected_line(path: str, status: int, request_id: str) -> dict[str, object]:
    return {
        "level": "INFO",
        "logger": "access",
        "message": f"WEBSOCKET {path} {status}",
        "request_id": request_id,
        "method": "WEBSOCKET",
        "path": path,
        "status": status,
        "client": "127.0.0.1",
    }


def closed(websocket: ClientConnection) -> tuple[int, str]:
    """Return the code and the reason with which a WebSocket is closed from which nothing else comes.

    The code is 1006 where the server closes it without a word.
    """
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv(DEADLINE)
    received = closed.value.rcvd
    return (received.code, received.reason) if received else (1006, "")


def test_a_websocket_has_its_dependencies_and_the_database(process: Process) -> None:
    with connected(process, "/echo?token=secret") as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "Ada: hello"
        websocket.send("write")
        assert websocket.recv(DEADLINE) == "lamp"


def test_a_websocket_has_a_request_id_and_one_line_without_its_query(process: Process, server: str) -> None:
    with connected(process, "/echo?token=secret", X_Request_ID="opened-1") as websocket:
        handshake = websocket.response
        assert handshake
        expected = None if server in WITHOUT_HEADERS else "opened-1"
        assert handshake.headers.get("X-Request-ID") == expected
    assert access_line(process, "opened-1") == expected_line("/echo", 101, "opened-1")


def test_a_close_by_the_endpoint_reaches_the_client_and_the_line_whatever_fails_later(
    process: Process,
) -> None:
    with connected(process, "/echo?token=secret", X_Request_ID="bye-1") as websocket:
        websocket.send("bye")
        assert closed(websocket) == (4000, "Bye")
    assert access_line(process, "bye-1") == expected_line("/echo", 4000, "bye-1")
    [error] = process.records(level="ERROR", request_id="bye-1")
    assert error["logger"] == "app.errors"


def test_an_open_websocket_is_closed_with_1013_where_something_does_not_answer(process: Process) -> None:
    with connected(process, "/echo?token=secret", X_Request_ID="away-1") as websocket:
        websocket.send("away")
        assert closed(websocket) == (1013, "The translator does not answer.")
    assert access_line(process, "away-1") == expected_line("/echo", 1013, "away-1")
    assert not process.records(level="ERROR", request_id="away-1")


def test_an_open_websocket_is_closed_with_1011_after_an_error_which_is_logged_once(process: Process) -> None:
    with connected(process, "/echo?token=secret", X_Request_ID="bug-1") as websocket:
        websocket.send("bug")
        assert closed(websocket) == (1011, "")
    assert access_line(process, "bug-1") == expected_line("/echo", 1011, "bug-1")
    [error] = process.records(level="ERROR", request_id="bug-1")
    assert str(error["exception"]).endswith("RuntimeError: A bug")


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/echo?token=secret-but-wrong", 403, ""),
        ("/echo", 403, ""),
        ("/nothing?token=secret", 403, ""),
        ("/away?token=secret", 503, '{"detail":"The translator does not answer."}'),
        ("/bug?token=secret", 500, '{"detail":"Internal Server Error"}'),
    ],
)
def test_a_websocket_that_is_not_opened_has_a_response_and_a_line_with_its_status(
    process: Process, path: str, status: int, body: str
) -> None:
    request_id = path.replace("?", "-")
    with pytest.raises(InvalidStatus) as refused, connected(process, path, X_Request_ID=request_id):
        pass
    response = refused.value.response
    assert (response.status_code, response.body.decode()) == (status, body)
    assert response.headers.get("Retry-After") == ("1" if status == 503 else None)
    without_query = path.partition("?")[0]
    assert access_line(process, request_id) == expected_line(without_query, status, request_id)
    assert bool(process.records(logger="app.errors", level="ERROR", request_id=request_id)) == (status == 500)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
@pytest.mark.parametrize("environment", ["production", "development"])
def test_no_line_has_the_query_a_header_or_a_message_of_a_websocket(
    service: Path, environment: str, level: str
) -> None:
    with serving(service, ENVIRONMENT=environment, LOG_LEVEL=level) as process:
        for path in ("/echo?token=secret", "/echo?token=secret-but-wrong", "/away?q=secret", "/bug?q=secret"):
            with suppress(InvalidStatus), connected(process, path, Authorization="secret") as websocket:
                websocket.send("a secret")
                assert websocket.recv(DEADLINE) == "Ada: a secret"
        # The client goes away without a word.
        with connected(process, "/echo?token=secret") as websocket:
            websocket.socket.shutdown(socket.SHUT_RDWR)
        assert process.get("/echo?token=secret").status_code == 404
        process.stop()
        lines = process.lines()
    assert sum("WEBSOCKET /echo 101" in line for line in lines) == 2
    assert [line for line in lines if "secret" in line] == []


@pytest.mark.parametrize("workers", values("workers"))
def test_an_open_websocket_does_not_hold_the_stop(service: Path, server: str, workers: int) -> None:
    goodbye = (1006, "") if server in WITHOUT_GOODBYE else (1012, "")
    with (
        serving(service, WEB_CONCURRENCY=str(workers)) as process,
        connected(process, "/echo?token=secret", X_Request_ID="listens") as listens,
        connected(process, "/deaf", X_Request_ID="deaf") as deaf,
    ):
        assert deaf.recv(DEADLINE) == "hello"
        begin = time.monotonic()
        assert process.stop() in {0, -signal.SIGTERM}
        assert time.monotonic() - begin < 10
        assert closed(listens) == goodbye
        assert closed(deaf) == goodbye
        assert access_line(process, "listens") == expected_line("/echo", 101, "listens")
        assert len(process.records(logger="access", request_id="deaf")) == 1
        assert "Traceback" not in json.dumps(process.lines())
