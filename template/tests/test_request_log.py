import asyncio
import json
import logging
import sys

import pytest
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.websockets import WebSocket, WebSocketDisconnect
from httpx2 import ASGITransport, AsyncClient
from websocket_client import WebSocketClient

from app.errors import Unavailable
from app.logs import JsonFormatter, formatter
from app.service import Service


def client_of(service: Service) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(service), base_url="http://test")


async def test_a_request_id_comes_back(client: AsyncClient) -> None:
    headers = {"X-Request-ID": "abc-123"}
    response = await client.get("/health/live", headers=headers)
    assert response.headers["X-Request-ID"] == "abc-123"


async def test_a_request_without_a_valid_id_gets_one(client: AsyncClient) -> None:
    first = await client.get("/health/live")
    headers = {"X-Request-ID": 'not "valid"'}
    second = await client.get("/health/live", headers=headers)
    assert len(first.headers["X-Request-ID"]) == 32
    assert len(second.headers["X-Request-ID"]) == 32
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


async def test_a_request_is_logged_without_its_query(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    # The line of a probe has this level.
    caplog.set_level(logging.DEBUG)
    await client.get("/health/live", params={"q": "secret"})
    [record] = [r for r in caplog.records if r.name == "access"]
    assert record.getMessage() == "GET /health/live 200"
    assert "secret" not in JsonFormatter().format(record)


def log_as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have only a handler for stdout listen. pytest adds its own when a test begins."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    stdout = logging.StreamHandler(sys.stdout)
    stdout.setFormatter(formatter())
    monkeypatch.setattr(logging.root, "handlers", [stdout])


async def test_in_production_a_request_is_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log_as_in_production(monkeypatch)
    async with client_of(Service()) as client:
        headers = {"X-Request-ID": "abc-123"}
        await client.get("/%0A", params={"q": "secret"}, headers=headers)
        await client.get("/%22")
        # Written after the event loop has had its turn.
        await asyncio.sleep(0)
    lines = capsysbinary.readouterr().out.splitlines()
    first, second = [line for line in lines if b'"logger":"access"' in line]
    assert b"secret" not in first
    line = json.loads(first)
    assert line["message"] == "GET /%0A 404"
    assert (line["status"], line["request_id"]) == (404, "abc-123")
    assert json.loads(second)["path"] == '/"'


async def test_a_handler_of_ones_own_gets_each_request_in_production_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_as_in_production(monkeypatch)
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logging.root.addHandler(Keep())
    async with client_of(Service()) as client:
        await client.get("/nowhere")
    [message] = [r.getMessage() for r in records if r.name == "access"]
    assert message == "GET /nowhere 404"


async def test_an_error_is_a_500_with_the_request_id_and_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service()

    @service.get("/")
    async def fail() -> None:
        raise RuntimeError

    async with client_of(service) as client:
        response = await client.get("/", headers={"X-Request-ID": "abc-123"})
    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error"}
    assert response.headers["X-Request-ID"] == "abc-123"
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "RuntimeError" in JsonFormatter().format(record)


async def test_a_handler_of_ones_own_for_exceptions_responds() -> None:
    service = Service()

    @service.exception_handler(Exception)
    async def respond(_: object, error: Exception) -> JSONResponse:
        return JSONResponse({"problem": str(error)}, 500)

    @service.get("/")
    async def fail() -> None:
        raise RuntimeError("broken")

    async with client_of(service) as client:
        response = await client.get("/")
    assert response.json() == {"problem": "broken"}
    assert "X-Request-ID" in response.headers


async def test_a_500_has_the_headers_of_cors() -> None:
    service = Service()
    service.add_middleware(CORSMiddleware, allow_origins=["https://example.com"])

    @service.get("/")
    async def fail() -> None:
        raise RuntimeError

    async with client_of(service) as client:
        response = await client.get("/", headers={"Origin": "https://example.com"})
    assert response.status_code == 500
    assert response.headers["Access-Control-Allow-Origin"] == "https://example.com"


# WebSockets


@pytest.fixture
def chat() -> Service:
    """A service with a WebSocket that sends the next text back, or ends for its reason."""
    service = Service()

    @service.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        text = await websocket.receive_text()
        if text == "bug":
            raise RuntimeError
        if text == "away":
            raise Unavailable("The translator does not answer.")
        await websocket.send_text(text)

    return service


async def test_a_websocket_has_a_request_id_and_a_line_without_its_query(
    chat: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with WebSocketClient(chat, "/chat?q=secret", x_request_id="abc-123") as one:
        await one.send("hello")
        assert await one.receive() == "hello"
    assert (b"x-request-id", b"abc-123") in one.accepted["headers"]
    [record] = [r for r in caplog.records if r.name == "access"]
    assert record.getMessage() == "WEBSOCKET /chat 101"
    assert "secret" not in JsonFormatter().format(record)


async def test_a_websocket_is_closed_with_1013_where_a_dependency_is_missing(
    chat: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebSocketClient(chat, "/chat") as one:
        await one.send("away")
        with pytest.raises(WebSocketDisconnect) as closed:
            await one.receive()
    assert closed.value.code == 1013
    assert closed.value.reason == "The translator does not answer."


async def test_a_websocket_is_closed_with_1011_after_an_error_which_is_logged(
    chat: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebSocketClient(chat, "/chat") as one:
        await one.send("bug")
        with pytest.raises(WebSocketDisconnect) as closed:
            await one.receive()
    assert closed.value.code == 1011
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "RuntimeError" in JsonFormatter().format(record)
