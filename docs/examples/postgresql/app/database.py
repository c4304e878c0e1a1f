"""The database for endpoints, which ask for it with `DatabaseDep`."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import Connection, Executable, QueuePool, Row, TextClause, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.util import greenlet_spawn

from app.database_telemetry import MeasuredSlots, record_statements
from app.engine import create_engines, is_unavailable
from app.errors import Unavailable
from app.settings import Settings

# Seconds that a statement, or a whole session, may take with its wait for a connection. Without
# a limit, a server that hangs would hold every request and every connection.
TIME_LIMIT = 10

UNAVAILABLE = "The database is not available."

# The end of the session that this task, or the task that started it, has opened.
session_end: ContextVar[asyncio.Event | None] = ContextVar("session_end", default=None)


class Database:
    """The connections of this worker."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection]],
        sessions: async_sessionmaker[AsyncSession],
        read_slots: asyncio.Semaphore,
        write_slots: asyncio.Semaphore,
    ) -> None:
        self.connect = connect
        self.sessions = sessions
        self.read_slots = read_slots
        self.write_slots = write_slots

    async def rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Return the rows of one statement, which is sent without a BEGIN and a COMMIT."""
        refuse_changes(statement)
        refuse_in_session("Read through it")
        slow = "The database did not answer within"
        async with limited(self.read_slots, TIME_LIMIT, slow):
            return await greenlet_spawn(self.fetch, statement, parameters)

    def fetch(
        self, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> Sequence[Row[Any]]:
        # All in one greenlet: an AsyncConnection would switch into SQLAlchemy and back at each call.
        with self.connect() as connection:
            return connection.execute(statement, parameters).all()

    @asynccontextmanager
    async def session(
        self, time_limit: float | None = TIME_LIMIT
    ) -> AsyncGenerator[AsyncSession]:
        """Open a session in one transaction, which is committed at the end of the block.

        It is rolled back if the block raises, or takes more seconds than the limit.
        """
        refuse_in_session("Use it")
        slow = "The transaction took longer than"
        async with (
            limited(self.write_slots, time_limit, slow),
            self.sessions() as session,
        ):
            end = asyncio.Event()
            session_end.set(end)
            try:
                yield session
                # Not `begin()`, which shields its COMMIT from the time limit.
                await session.commit()
            finally:
                end.set()


def refuse_in_session(advice: str) -> None:
    """Raise an error rather than wait for a connection while this task holds another."""
    end = session_end.get()
    if end and not end.is_set():
        raise RuntimeError(f"A session is open already. {advice}.")


READS = re.compile(
    r"[\s(]*(select|values|table|show|explain|pragma"
    r"|with\b(?!.*\b(insert|update|delete|merge)\b))\b",
    re.IGNORECASE | re.DOTALL,
)


def refuse_changes(statement: Executable) -> None:
    """Raise an error for a statement that changes data, or that needs a session for its options."""
    is_read = (
        READS.match(statement.text)
        if isinstance(statement, TextClause)
        else statement.is_select
    )
    if not is_read:
        raise TypeError("rows() only reads. Change data in a session.")
    if getattr(statement, "_with_options", ()):
        raise TypeError("rows() returns no objects to load options for. Use a session.")


@asynccontextmanager
async def limited(
    slots: asyncio.Semaphore, seconds: float | None, slow: str
) -> AsyncGenerator[None]:
    """Wait for a slot, and raise Unavailable if the database can't be reached or takes too long."""
    limit = asyncio.timeout(seconds)
    waits = True
    try:
        async with limit, slots:
            waits = False
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        reason = "No connection to the database was free within" if waits else slow
        raise Unavailable(f"{reason} {seconds} seconds.") from error
    except NoFreeConnection as error:
        raise Unavailable(UNAVAILABLE) from error
    except DBAPIError as error:
        if is_unavailable(error):
            raise Unavailable(UNAVAILABLE) from error
        raise


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncGenerator[Database]:
    """Open the database. It is connected to when it is needed, so the service starts without it."""
    reading, writing = create_engines(settings)
    for engine in (reading, writing):
        event.listen(engine.sync_engine, "do_connect", open_connection)
    read_slots = slots_for(reading)
    same_pool = writing.pool is reading.pool
    record_statements(reading)
    if not same_pool:
        record_statements(writing)
    try:
        yield Database(
            reading.sync_engine.connect,
            # A session that is used after its end raises an error instead of taking a connection.
            async_sessionmaker(
                writing, expire_on_commit=False, close_resets_only=False
            ),
            read_slots,
            read_slots if same_pool else slots_for(writing),
        )
    finally:
        await reading.dispose()
        await writing.dispose()


def slots_for(engine: AsyncEngine) -> asyncio.Semaphore:
    """Return a slot for each pooled connection: unlike SQLAlchemy's pool, slots are first come, first served."""
    assert isinstance(engine.pool, QueuePool)
    return MeasuredSlots(engine.pool)


def open_connection(dialect: Any, _: Any, args: Any, options: Any) -> Any:
    try:
        return dialect.connect(*args, **options)
    except Exception as error:
        # A refused connection, a wrong password, a timeout: each driver raises errors of its own.
        raise Unavailable(UNAVAILABLE) from error


# `async`, because FastAPI runs other dependencies in a thread.
async def get_database(connection: HTTPConnection) -> Database:
    database: Database = connection.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]
