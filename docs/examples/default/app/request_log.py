"""Gives each request an id, which its response and all its log lines have."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access_log import LONGEST_NAME, AccessLog, Served
from app.environment import run_lifespan
from app.errors import internal_server_error
from app.logs import request_id
from app.open_streams import EVENT_STREAM, PATIENCE, OpenStreams

logger = logging.getLogger(__name__)

# Any other id could forge log lines, or fill the disk.
VALID_ID = re.compile(rb"[\w.:/+=-]{1,128}")

# The messages that have the status and the headers.
STARTS = {"http.response.start", "websocket.http.response.start", "websocket.accept"}

# Every response: a browser takes it for what its Content-Type says.
NOSNIFF = (b"x-content-type-options", b"nosniff")


class RequestLog:
    """Gives each request an id and writes its access line.

    The id is that of the request's `X-Request-ID` header, or a new one. This is the outermost
    middleware, so that the lines of all others have the id too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.access_log = AccessLog()
        self.open_streams = OpenStreams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.open_streams.end_when_the_server_stops()

            async def receive_last() -> Message:
                message = await receive()
                if message["type"] == "lifespan.shutdown":
                    await self.open_streams.end_at_once()
                return message

            await run_lifespan(self.app, scope, receive_last, send)
            return
        started_at = time.perf_counter()
        identifier = random.getrandbits(128).to_bytes(16).hex()
        for name, value in scope["headers"]:
            if name == b"x-request-id" and VALID_ID.fullmatch(value):
                identifier = value.decode()
        request_id.set(identifier)
        task = asyncio.current_task()
        assert task
        status = 0
        unfinished = False

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status, unfinished
            kind = message["type"]
            if kind in STARTS:
                # An accepted WebSocket has the status 101, Switching Protocols.
                status = message.get("status", 101)
                named = (b"x-request-id", identifier.encode())
                message["headers"] = [*message.get("headers", ()), named, NOSNIFF]
                unfinished = kind == "http.response.start"
                if kind == "websocket.accept":
                    self.open_streams.add(task, PATIENCE)
                elif EVENT_STREAM in message["headers"]:
                    self.open_streams.add(task, 0)
            elif kind == "websocket.close":
                # A server refuses a WebSocket with 403 that is closed before it is accepted.
                status = message.get("code", 1000) if status else 403
            elif kind != "websocket.send":
                unfinished = message.get("more_body", False)
            return send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            if not self.open_streams.has_ended(task):
                raise
            task.uncancel()
            if scope["type"] == "http":
                await send({"type": "http.response.body"})
        except Exception:
            # The server closes the connection of a response that is cut off, and logs the error.
            if unfinished or scope["type"] != "http":
                raise
            logger.exception("An error outside of the application")
            if not status:
                await internal_server_error()(scope, receive, send_with_id)
        finally:
            self.open_streams.remove(task)
            # Some servers take a method of any length, or an address that a proxy passes on.
            client = scope.get("client")
            self.access_log.add(
                Served(
                    scope.get("method", "WEBSOCKET")[:LONGEST_NAME],
                    scope["path"],
                    status,
                    identifier,
                    time.perf_counter() - started_at,
                    client[0][:LONGEST_NAME] if client else None,
                )
            )
