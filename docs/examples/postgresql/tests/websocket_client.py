"""A WebSocket for tests. It runs in the event loop of the test, so both have the same database."""

import asyncio
from typing import Any, Self

from fastapi.websockets import WebSocketDisconnect
from starlette.types import ASGIApp


class WebSocketClient:
    """Connects to a path of the application until the end of the block.

    `WebSocketDisconnect` is raised where the application closes the WebSocket.
    """

    def __init__(self, app: ASGIApp, path: str, **headers: str) -> None:
        self.app = app
        path, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": path,
            "query_string": query.encode(),
            "headers": [
                (name.lower().replace("_", "-").encode(), value.encode())
                for name, value in headers.items()
            ],
            "subprotocols": [],
        }
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_app: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self) -> None:
        try:
            await self.app(self.scope, self.to_app.get, self.from_app.put)
        finally:
            await self.from_app.put({"type": "websocket.close", "code": 1006})

    async def __aenter__(self) -> Self:
        self.running = asyncio.create_task(self.run())
        await self.to_app.put({"type": "websocket.connect"})
        self.accepted = await self.message()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, text: str) -> None:
        await self.to_app.put({"type": "websocket.receive", "text": text})

    async def receive(self) -> str:
        return str((await self.message())["text"])

    async def message(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.from_app.get()
        if message["type"] == "websocket.close":
            await self.close()
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        return message

    async def close(self) -> None:
        """Leave the application, and raise the error that ended it, if one did."""
        await self.to_app.put({"type": "websocket.disconnect", "code": 1000})
        await self.running
