"""Connections to SQLite."""

import logging
import os
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.requests import HTTPConnection
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolResetState

from app.errors import Unavailable
from app.settings import Settings

# Seconds that a statement waits while another process writes.
BUSY_TIMEOUT = 5

# Bytes. With less free space on its disk, a write can fail at any moment.
LEAST_SPACE = 1_000_000

# The file is locked for too long, or its disk is full, read-only or broken.
UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}

# At DEBUG, the driver logs the values that clients sent.
logging.getLogger("aiosqlite").setLevel(logging.INFO)


def create_engines(
    settings: Settings, *, check_foreign_keys: bool = True
) -> tuple[AsyncEngine, AsyncEngine]:
    """Create an engine for single statements and one for transactions.

    Migrations check foreign keys at their end: a table that is copied is dropped, which would
    delete the rows of other tables that refer to it, or fail.
    """
    common: dict[str, Any] = {
        "url": make_url(settings.database_url).set(drivername="sqlite+aiosqlite"),
        # The driver must not begin transactions by itself.
        "connect_args": {"timeout": BUSY_TIMEOUT, "isolation_level": None},
        "max_overflow": 0,
        "pool_timeout": BUSY_TIMEOUT,
        # Errors are logged, but not the values that clients sent.
        "hide_parameters": True,
    }
    reading = create_async_engine(**common, pool_size=settings.database_pool_size)
    # SQLite has one writer at a time. The writers of a process queue for this connection instead of polling the file.
    writing = create_async_engine(**common, pool_size=1)
    for engine in (reading, writing):
        event.listen(engine.sync_engine, "connect", use_wal_mode)
        if check_foreign_keys:
            event.listen(engine.sync_engine, "connect", turn_on_foreign_keys)
    event.listen(writing.sync_engine, "begin", begin_immediate)
    event.listen(writing.sync_engine, "reset", roll_back)
    return reading, writing


def use_wal_mode(connection: Any, _: Any) -> None:
    """Have readers and the writer not wait for each other."""
    connection.execute("PRAGMA journal_mode = WAL")


def turn_on_foreign_keys(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def foreign_keys_kept(connection: Connection) -> Generator[None]:
    """Raise an error at the end of a block that leaves rows which refer to no row."""
    before = broken_foreign_keys(connection)
    yield
    if broken := broken_foreign_keys(connection) - before:
        raise RuntimeError(f"Rows would refer to no row: {min(broken)}.")


def broken_foreign_keys(connection: Connection) -> set[str]:
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return {f"{row.table}, rowid {row.rowid}" for row in rows}


def begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: the busy timeout applies here, and not to a lock upgrade later."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def roll_back(connection: Any, _: Any, state: PoolResetState) -> None:
    """Roll back after a failed COMMIT: SQLite keeps the transaction open, SQLAlchemy believes that it ended."""
    if state.asyncio_safe:
        connection.rollback()


def is_unavailable(error: DBAPIError) -> bool:
    """Tell a file that can't be used at present from a statement that was refused."""
    # Extended result codes keep the primary code in their low byte.
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return code in UNAVAILABLE


async def require_space(connection: HTTPConnection) -> None:
    """Raise a 503 while the file's disk is almost full or read-only."""
    file = make_url(connection.state.settings.database_url).database
    folder = Path(file or "").parent
    if shutil.disk_usage(folder).free < LEAST_SPACE or not os.access(folder, os.W_OK):
        raise Unavailable("The disk of the database is full or read-only.")
