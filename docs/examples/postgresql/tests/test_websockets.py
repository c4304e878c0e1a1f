import logging

import pytest
from fastapi.websockets import WebSocket, WebSocketDisconnect
from websocket_client import WebSocketClient

from app.errors import Unavailable
from app.logs import JsonFormatter
from app.service import Service


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
