"""The database for endpoints: `DatabaseDep` reads, `SessionDep` is a session in one transaction."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import Connection, Executable, QueuePool, Row, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.util import greenlet_spawn

from app.engine import create_engines, is_unavailable
from app.errors import Unavailable
from app.settings import Settings

# Seconds that a statement, or a whole session, may take with its wait for a connection. Without
# a limit, a server that hangs would hold every request and every connection.
TIMEOUT = 10

UNAVAILABLE = "The database is not available."


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
        async with limited(self.read_slots):
            return await greenlet_spawn(self.fetch, statement, parameters)

    def fetch(
        self, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> Sequence[Row[Any]]:
        # All in one greenlet: an AsyncConnection would switch into SQLAlchemy and back at each call.
        with self.connect() as connection:
            return connection.execute(statement, parameters).all()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session in one transaction, which is rolled back if the block raises."""
        async with limited(self.write_slots), self.sessions() as session:
            yield session
            # Not `begin()`, which shields its COMMIT from the time limit.
            await session.commit()


@asynccontextmanager
async def limited(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    """Wait for a slot, and raise Unavailable if the database can't be reached or takes too long."""
    try:
        async with asyncio.timeout(TIMEOUT) as limit, slots:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise Unavailable(UNAVAILABLE) from error
        raise
    except NoFreeConnection as error:
        raise Unavailable(UNAVAILABLE) from error
    except DBAPIError as error:
        if is_unavailable(error):
            raise Unavailable(UNAVAILABLE) from error
        raise


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database. It is connected to when it is needed, so the service starts without it."""
    reading, writing = create_engines(settings)
    for engine in (reading, writing):
        event.listen(engine.sync_engine, "do_connect", open_connection)
    read_slots = slots_for(reading)
    same_pool = writing.pool is reading.pool
    try:
        yield Database(
            reading.sync_engine.connect,
            async_sessionmaker(writing, expire_on_commit=False),
            read_slots,
            read_slots if same_pool else slots_for(writing),
        )
    finally:
        await reading.dispose()
        await writing.dispose()


def slots_for(engine: AsyncEngine) -> asyncio.Semaphore:
    """Return a slot for each pooled connection: unlike SQLAlchemy's pool, slots are first come, first served."""
    assert isinstance(engine.pool, QueuePool)
    return asyncio.Semaphore(engine.pool.size())


def open_connection(dialect: Any, _: Any, args: Any, options: Any) -> Any:
    try:
        return dialect.connect(*args, **options)
    except Exception as error:
        # A refused connection, a wrong password, a timeout: each driver raises errors of its own.
        raise Unavailable(UNAVAILABLE) from error


# Dependencies are `async`, because FastAPI runs the others in a thread.
async def get_database(request: Request) -> Database:
    database: Database = request.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


async def get_session(database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    async with database.session() as session:
        yield session


# An endpoint that has a session also reads through it: `database.rows()` would need a second
# connection while the session holds the first. The scope ends the session before the response is
# sent. Otherwise a failed commit would follow a 201, and a slow client would hold a connection.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
