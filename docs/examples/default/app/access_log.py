"""Writes a line for each request: at INFO, or at DEBUG for a successful health probe."""

import asyncio
import logging
import sys
import time
from typing import NamedTuple

from app.logs import JsonFormatter, path_for_logs, utc

logger = logging.getLogger("access")

# What JsonFormatter makes of the record that `log` makes.
LINE = (
    '{"time":"%s","level":"%s","logger":"access","message":"%s %s %d","request_id":"%s",'
    '"method":"%s","path":"%s","status":%d,"duration_ms":%.2f,"client":%s}\n'
)
# A pipe takes this many bytes in one piece, so that lines of other workers don't mix with them.
PIECE = 4096
# Characters of a method or an address. A line with the longest of all fits into a piece.
LONGEST_NAME = 64


class Served(NamedTuple):
    """A request that was served. Its path has no query, which may hold a secret."""

    method: str
    path: str
    status: int
    request_id: str
    seconds: float
    client: str | None


class AccessLog:
    """Writes the lines of requests that were served.

    Logging each request by itself would add about a third to the time that it takes. So while
    only the JSON handler for stdout listens, all requests that were served in one turn of the
    event loop are written together, past `logging`: only the level in `logging.json` applies.
    """

    def __init__(self) -> None:
        self.served: list[Served] = []
        self.handlers = [*logging.root.handlers]
        self.plain = (
            len(self.handlers) == 1
            and type(self.handlers[0]) is logging.StreamHandler
            and isinstance(self.handlers[0].formatter, JsonFormatter)
            and not self.handlers[0].filters
        )

    def only_stdout_listens(self) -> bool:
        return (
            self.plain
            and logging.root.handlers == self.handlers
            and not logger.handlers
            # Sentry replaces this method.
            and logging.Logger.callHandlers.__module__ == "logging"
        )

    def add(self, served: Served) -> None:
        if not self.only_stdout_listens():
            log(served)
            return
        self.served.append(served)
        if len(self.served) == 1:
            asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        served, self.served = self.served, []
        now = utc(time.time())
        encode = JsonFormatter.encode
        piece = ""
        for method, path, status, request_id, seconds, client in served:
            level = level_of(path, status)
            if not logger.isEnabledFor(level):
                continue
            # A method and a valid id have no character that JSON escapes.
            request = method, encode(path_for_logs(path))[1:-1], status
            fields = now, logging.getLevelName(level), *request, request_id, *request
            line = LINE % (*fields, seconds * 1000, encode(client))
            if len(piece) + len(line) > PIECE:
                write_piece(piece)
                piece = ""
            piece += line
        write_piece(piece)


def log(served: Served) -> None:
    """Log a request as any other record."""
    level = level_of(served.path, served.status)
    if logger.isEnabledFor(level):
        path = path_for_logs(served.path)
        fields = {
            "method": served.method,
            "path": path,
            "status": served.status,
            "duration_ms": round(served.seconds * 1000, 2),
            "client": served.client,
        }
        logger.log(level, "%s %s %d", served.method, path, served.status, extra=fields)


def level_of(path: str, status: int) -> int:
    """Return a lower level for health probes, because they come every few seconds."""
    probe = status == 200 and path.startswith("/health/")
    return logging.DEBUG if probe else logging.INFO


def write_piece(piece: str) -> None:
    if piece:
        sys.stdout.buffer.write(piece.encode())
        sys.stdout.buffer.flush()
