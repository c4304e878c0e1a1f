"""Writes a line for each log record: JSON in production, text in development."""

import json
import logging
import logging.config
import os
import sys
import time
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.trace_id import current_trace_id

# Characters. A client may have made a path long, or the message of an error.
LONGEST_PATH = 750
LONGEST_TEXT = 10_000

# The id of the request that is being handled, which all its log lines have.
request_id: ContextVar[str] = ContextVar("request_id", default="")


def configure() -> None:
    """Apply `logging.json`. The server reads it too, so its lines look the same."""
    configuration = Path(__file__).with_name("logging.json")
    logging.config.dictConfig(json.loads(configuration.read_text()))
    # No format shows thread or process ids, so don't look them up for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(in_production())


def formatter() -> logging.Formatter:
    """Return the formatter for this `ENVIRONMENT`."""
    if in_production():
        return JsonFormatter()
    return TextFormatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s")


def in_production() -> bool:
    return os.environ.get("ENVIRONMENT") == "production"


def log_uncaught(_: object, error: BaseException, __: object) -> None:
    logging.getLogger(__name__).critical("Uncaught exception", exc_info=error)


if in_production():
    # At import, because servers read `logging.json` before they import the application.
    sys.excepthook = log_uncaught


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
            "message": cut(record.getMessage(), LONGEST_TEXT),
        }
        if identifier := request_id.get():
            line["request_id"] = identifier
        if trace_id := current_trace_id():
            line["trace_id"] = trace_id
        for name, value in record.__dict__.items():
            if name not in self.BUILT_IN:
                line.setdefault(name, value)
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            line["exception"] = cut(traceback, LONGEST_TEXT)
        if record.stack_info:
            line["stack"] = record.stack_info
        return self.encode(line)


def cut(text: str, longest: int) -> str:
    """Leave out the middle of a text that is longer."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}…{text[-longest // 2 :]}"


def path_for_logs(path: str) -> str:
    """Return the path cut, and as it was sent unless each character is one printable byte."""
    if not (path.isascii() and path.isprintable()):
        path = quote(cut(path, LONGEST_PATH))
    return cut(path, LONGEST_PATH)


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


class WithoutWebSocketPaths(logging.Filter):
    """Leaves out what the server logs about WebSockets and at DEBUG.

    Its lines about WebSockets have the query, and its lines at DEBUG have headers and messages.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        debug = record.levelno <= logging.DEBUG
        return not debug and '"WebSocket ' not in str(record.msg)
