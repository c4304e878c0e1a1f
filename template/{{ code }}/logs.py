"""Writes a line for each log record: JSON in production, text in development."""

import asyncio
import json
import logging
import logging.config
import os
import random
import re
import sys
import time
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

access_logger = logging.getLogger("access")
request_id: ContextVar[str] = ContextVar("request_id", default="")


def configure() -> None:
    """Apply `logging.json`. The server reads it too, so its lines look the same."""
    configuration = Path(__file__).with_name("logging.json")
    logging.config.dictConfig(json.loads(configuration.read_text()))
    # No format shows thread or process ids, so don't look them up for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def formatter() -> logging.Formatter:
    """Return the formatter for this `ENVIRONMENT`."""
    if in_production():
        return JsonFormatter()
    return TextFormatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s")


def in_production() -> bool:
    return os.environ.get("ENVIRONMENT") == "production"


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the fields of its `extra`."""

    # Uvicorn repeats its messages in `color_message`, with colours.
    BUILT_IN = {*logging.makeLogRecord({}).__dict__, "message", "color_message"}

    encode = json.JSONEncoder(default=str, skipkeys=True, separators=(",", ":")).encode

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identifier := request_id.get():
            line["request_id"] = identifier
        for name, value in record.__dict__.items():
            if name not in self.BUILT_IN:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return self.encode(line)


def utc(timestamp: float) -> str:
    return f"{second(int(timestamp))}.{int(timestamp % 1 * 1000):03}Z"


@lru_cache(maxsize=1)
def second(timestamp: int) -> str:
    """Format a timestamp in UTC, once for all records of the same second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(timestamp))


class TextFormatter(logging.Formatter):
    """Formats a record as text for a terminal, with the request id at its end."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return f"{line} [{request_id.get()}]" if request_id.get() else line


class LogMiddleware:
    """Logs each request, and gives it an id that all its log lines have.

    The id is that of the request's `X-Request-ID` header, or a new one; the response has it
    too. An exception that the application does not handle becomes a 500 with the id here,
    and the server logs the traceback.
    """

    # Any other id could forge log lines, or fill the disk.
    VALID_ID = re.compile(rb"[\w.:/+=-]{1,128}")

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.access_log = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            go_on = self.start_and_stop if scope["type"] == "lifespan" else self.app
            await go_on(scope, receive, send)
            return
        started_at = time.perf_counter()
        status = 0
        identifier = random.getrandbits(128).to_bytes(16).hex()
        for name, value in scope["headers"]:
            if name == b"x-request-id" and self.VALID_ID.fullmatch(value):
                identifier = value.decode()
        request_id.set(identifier)

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (b"x-request-id", identifier.encode())
                message["headers"] = [*message["headers"], named]
            return send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            if not status:
                await send_with_id(
                    {
                        "type": "http.response.start",
                        "status": 500,
                        "headers": [(b"content-type", b"application/json")],
                    }
                )
                body = b'{"detail":"Internal Server Error"}'
                await send({"type": "http.response.body", "body": body})
            raise
        finally:
            seconds = time.perf_counter() - started_at
            self.access_log.add(scope, status, identifier, seconds)

    async def start_and_stop(self, scope: Scope, receive: Receive, send: Send) -> None:
        reported = False

        async def send_in_one_line(message: Message) -> None:
            nonlocal reported
            # Starlette reports a failed start while it handles the exception of it.
            error = sys.exception()
            if isinstance(error, ValidationError) and error.title == "Settings":
                message = {**message, "message": what_to_set(error)}
                reported = True
            await send(message)

        try:
            await self.app(scope, receive, send_in_one_line)
        except ValidationError:
            if not reported:
                raise


class AccessLog:
    """Writes a line for each request: at INFO, or at DEBUG for a successful health probe.

    In production, the lines of all requests that were answered in one turn of the event loop
    are written together. Going through `logging` would add about a third to the time of a
    request, so these lines bypass it, and only their level in `logging.json` applies.
    """

    LINE = (
        '{"time":"%s","level":"%s","logger":"access","message":"%s %s %d","request_id":"%s",'
        '"method":"%s","path":"%s","status":%d,"duration_ms":%.2f,"client":%s}\n'
    )
    # A pipe takes this many bytes in one piece, so that lines of other workers don't mix with them.
    PIECE = 4096

    def __init__(self) -> None:
        self.in_production = in_production()
        self.answered: list[tuple[Scope, int, str, float]] = []

    def add(self, scope: Scope, status: int, identifier: str, seconds: float) -> None:
        self.answered.append((scope, status, identifier, seconds))
        if not self.in_production:
            self.write()
        elif len(self.answered) == 1:
            asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        answered, self.answered = self.answered, []
        info, debug = map(access_logger.isEnabledFor, (logging.INFO, logging.DEBUG))
        now = utc(time.time())
        encode = JsonFormatter.encode
        piece = ""
        for scope, status, identifier, seconds in answered:
            # Without the query, which may hold a secret.
            method, path, client = scope["method"], scope["path"], scope.get("client")
            # Health probes come every few seconds.
            probe = status == 200 and path.startswith("/health/")
            if not (debug if probe else info):
                continue
            # A line break in the path would start a line of its own.
            if not path.isprintable():
                path = quote(path)
            if not self.in_production:
                log = access_logger.debug if probe else access_logger.info
                log("%s %s %d", method, path, status)
                continue
            level = "DEBUG" if probe else "INFO"
            # Methods and valid ids have no character that JSON escapes.
            answer = method, encode(path)[1:-1], status
            address = encode(client[0]) if client else "null"
            fields = now, level, *answer, identifier, *answer, seconds * 1000, address
            line = self.LINE % fields
            if len(piece) + len(line) > self.PIECE:
                self.write_piece(piece)
                piece = ""
            piece += line
        self.write_piece(piece)

    def write_piece(self, piece: str) -> None:
        if piece:
            sys.stdout.buffer.write(piece.encode())
            sys.stdout.buffer.flush()


def what_to_set(error: ValidationError) -> str:
    """Say which environment variables are missing or wrong, without their values."""
    problems = [
        ": ".join([*(str(name).upper() for name in problem["loc"]), problem["msg"]])
        for problem in error.errors(include_input=False, include_context=False)
    ]
    return "The environment is not valid. " + "; ".join(problems)
