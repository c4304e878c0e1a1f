"""Tests server-sent events and files under each server: sent, logged, and open while the server stops."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from harness.matrix import DEFAULTS, values
from harness.running import Process, run, serving
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

# Endpoints as an owner would append them.
ROUTES = '''

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import text

from app.database import DatabaseDep


@app.get("/events/{name}", response_class=EventSourceResponse)
async def read_events(name: str, database: DatabaseDep) -> AsyncIterator[ServerSentEvent]:
    """Send the number of items after each time that the file of this name gets one byte longer."""
    number = 0
    try:
        while True:
            async with database.session() as session:
                await session.execute(text(f"INSERT INTO items (name) VALUES ('{name} {number}')"))
            rows = await database.rows(
                text("SELECT count(*) AS count FROM items WHERE name LIKE :name"), {"name": f"{name} %"}
            )
            yield ServerSentEvent(data={"count": rows[0].count}, id=str(number))
            number += 1
            while Path(name).stat().st_size < number:
                await asyncio.sleep(0.02)
    finally:
        Path(f"{name}-ended").touch()


@app.get("/plain")
async def read_plain_events() -> StreamingResponse:
    """Send events without FastAPI's class for them, as older packages do."""

    async def events() -> AsyncIterator[str]:
        yield "data: 0\\n\\n"
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/file")
async def read_file() -> FileResponse:
    return FileResponse("pyproject.toml")
'''


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(server, marks=pytest.mark.xdist_group(f"event-streams-{server}"))
        for server in values("server")
    ],
)
def service(request: pytest.FixtureRequest, installed: RenderTo) -> Path:
    """A service with `ROUTES`."""
    service = installed(**DEFAULTS | {"server": request.param, "database": "sqlite"})
    main = service / "app/main.py"
    main.write_text(main.read_text() + ROUTES)
    run("alembic upgrade head", service)
    return service


@pytest.fixture(scope="module")
def process(service: Path) -> Iterator[Process]:
    with serving(service) as process:
        yield process


class Events:
    """The events of an open response."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.lines = response.iter_lines()

    def next(self) -> list[str]:
        """Wait for the next event, and return its lines."""
        return list(iter(lambda: next(self.lines), ""))


@contextmanager
def open_events(process: Process, path: str, **headers: str) -> Iterator[Events]:
    """Ask for events. `X_Request_ID="a"` sends the header X-Request-ID."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with process.client.stream("GET", path, headers=sent) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Events(response)


def test_events_come_one_by_one_with_the_request_id_and_one_line_at_the_end(
    service: Path, process: Process
) -> None:
    shown = service / "shown"
    shown.touch()
    with open_events(process, "/events/shown?token=secret", X_Request_ID="shown-1") as events:
        assert events.response.headers["x-request-id"] == "shown-1"
        for number in range(3):
            # The next event isn't made before this one has arrived.
            assert events.next() == [f'data: {{"count": {number + 1}}}', f"id: {number}"]
            shown.write_text("." * (number + 1) if number < 2 else "..")
        assert not process.records(logger="access", request_id="shown-1")
    until((service / "shown-ended").exists, "the end of the generator whose client has left")
    until(lambda: process.records(logger="access", request_id="shown-1"), "the request is logged")
    [line] = process.records(request_id="shown-1")
    assert (line["message"], line["status"]) == ("GET /events/shown 200", 200)
    assert "secret" not in process.output()


def test_a_file_has_a_line_with_its_status(process: Process) -> None:
    assert process.get("/file", X_Request_ID="file-1").text.startswith("[project]")
    until(lambda: process.records(logger="access", request_id="file-1"), "the request is logged")
    [line] = process.records(request_id="file-1")
    assert line["message"] == "GET /file 200"


@pytest.mark.parametrize("workers", values("workers"))
def test_open_event_streams_end_well_and_do_not_hold_the_stop(service: Path, workers: int) -> None:
    name = f"stopped-{workers}"
    (service / name).touch()
    with (
        serving(service, WEB_CONCURRENCY=str(workers)) as process,
        open_events(process, f"/events/{name}", X_Request_ID=name) as events,
        open_events(process, "/plain", X_Request_ID="plain") as plain,
    ):
        assert events.next() == ['data: {"count": 1}', "id: 0"]
        assert plain.next() == ["data: 0"]
        begin = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        # A body that is cut off would raise an error here.
        assert list(events.lines) == list(plain.lines) == []
        assert process.wait() in {0, -signal.SIGTERM}
        assert time.monotonic() - begin < 10
        assert (service / f"{name}-ended").exists()
        for request_id, path in ((name, f"/events/{name}"), ("plain", "/plain")):
            [line] = process.records(request_id=request_id)
            assert line["message"] == f"GET {path} 200"
        assert not process.records(level="ERROR")
