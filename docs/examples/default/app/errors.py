"""What clients and operators are told when something fails."""

import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection, Request
from fastapi.responses import JSONResponse, Response
from fastapi.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.validation import answer_invalid

logger = logging.getLogger(__name__)


class Unavailable(Exception):
    """Raised where something that a request needs does not answer; the message names it."""


async def answer_http_exception(
    request: Request, error: HTTPException
) -> Response | None:
    """Respond as FastAPI does, but with 503 where an upload has filled the disk."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
        logger.warning("There is no space for the upload. %r", cause)
        return unavailable("There is no space for the upload.")
    return await http_exception_handler(request, error)


async def answer_group(
    request: Request, group: ExceptionGroup[Exception]
) -> Response | None:
    """Respond to the HTTPException in a group, as what `app.middleware` adds raises it."""
    error: Exception = group
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        [error] = error.exceptions
    if isinstance(error, HTTPException):
        return await answer_http_exception(request, error)
    raise group


async def answer_unavailable(
    connection: HTTPConnection, error: Unavailable
) -> Response | None:
    """Respond with 503, or close an open WebSocket with 1013, Try Again Later."""
    cause = f" {error.__cause__!r}" if error.__cause__ else ""
    logger.warning("%s%s", error, cause)
    response = unavailable(str(error))
    if not isinstance(connection, WebSocket):
        return response
    opening = connection.application_state is WebSocketState.CONNECTING
    if opening and takes_response(connection.scope):
        await connection.send_denial_response(response)
    else:
        await connection.close(1013, str(error))
    return None


def unavailable(detail: str) -> Response:
    return JSONResponse({"detail": detail}, 503, {"Retry-After": "1"})


def takes_response(scope: Scope) -> bool:
    """Tell whether the server can send a response in place of opening a WebSocket."""
    return "websocket.http.response" in scope.get("extensions", {})


def internal_server_error() -> Response:
    return JSONResponse({"detail": "Internal Server Error"}, 500)


Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]
HANDLERS: dict[int | type[Exception], Handler] = {
    RequestValidationError: answer_invalid,
    HTTPException: answer_http_exception,
    ExceptionGroup: answer_group,
    Unavailable: answer_unavailable,
}


class UnhandledErrors:
    """Logs an error that has no handler, and responds with 500 or closes a WebSocket with 1011.

    A handler for Exception would run outside of all middleware: its response would lack the
    headers of CORS, and the server would close the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = ""

        def send_and_note(message: Message) -> Awaitable[None]:
            nonlocal sent
            sent = message["type"]
            return send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except WebSocketDisconnect:
            pass
        except Exception:
            # The application has a handler for Exception of its own, or it is too late to respond.
            if Exception in scope["app"].exception_handlers or sent.startswith(
                ("http.", "websocket.http.", "lifespan.")
            ):
                raise
            logger.exception("Unhandled error")
            if scope["type"] == "http" or (not sent and takes_response(scope)):
                await internal_server_error()(scope, receive, send)
            elif sent != "websocket.close":
                await send({"type": "websocket.close", "code": 1011})
