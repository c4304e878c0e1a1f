import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import column, event, insert, select, table, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, undefer

from app.database import Database, DatabaseDep, get_database, open_database
from app.errors import Unavailable
from app.schema import revisions
from app.service import Service
from app.settings import Settings

# In Alembic's table, because every database has it.
WRITE = text("INSERT INTO alembic_version VALUES ('written')")
READ = text("SELECT version_num FROM alembic_version")


def client_of(service: Service, database: Database) -> AsyncClient:
    service.dependency_overrides[get_database] = lambda: database
    return AsyncClient(transport=ASGITransport(service), base_url="http://test")


async def is_written(database: Database) -> bool:
    return "written" in {row.version_num for row in await database.rows(READ)}


@pytest.fixture
async def writer(database: Database) -> AsyncGenerator[AsyncClient]:
    """A client of a service that writes and then raises an error with the given status."""
    service = Service()

    @service.post("/{status}", status_code=201)
    async def write(status: int, database: DatabaseDep) -> None:
        async with database.session() as session:
            await session.execute(WRITE)
            if status != 201:
                raise HTTPException(status)

    async with client_of(service, database) as client:
        yield client


async def test_a_request_that_succeeds_is_committed(
    writer: AsyncClient, database: Database
) -> None:
    assert (await writer.post("/201")).status_code == 201
    assert await is_written(database)


async def test_nothing_is_kept_of_a_request_that_fails(
    writer: AsyncClient, database: Database
) -> None:
    assert (await writer.post("/418")).status_code == 418
    assert not await is_written(database)


async def test_a_failed_commit_is_a_500_and_not_a_201(
    writer: AsyncClient, database: Database
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    event.listen(AsyncSession.sync_session_class, "before_commit", fail)
    try:
        assert (await writer.post("/201")).status_code == 500
    finally:
        event.remove(AsyncSession.sync_session_class, "before_commit", fail)
    assert not await is_written(database)


# What would wait for ever, leak or lie fails at once


async def test_a_read_beside_an_open_session_is_refused(database: Database) -> None:
    async with database.session():
        with pytest.raises(RuntimeError, match="A session is open already. Read"):
            await database.rows(READ)
    assert not await is_written(database)


async def test_a_session_beside_an_open_session_is_refused(database: Database) -> None:
    async with database.session():
        with pytest.raises(RuntimeError, match="A session is open already. Use"):
            async with database.session():
                pass


async def test_a_read_of_another_task_that_a_session_started_is_refused(
    database: Database,
) -> None:
    async with database.session():
        task = asyncio.create_task(database.rows(READ))
        with pytest.raises(RuntimeError, match="A session is open already"):
            await task


async def test_a_session_can_not_be_used_after_its_end(database: Database) -> None:
    async with database.session() as session:
        await session.execute(READ)
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.execute(READ)


async def test_a_streamed_response_may_read_and_open_a_session(
    database: Database,
) -> None:
    service = Service()

    @service.get("/")
    async def stream(database: DatabaseDep) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield f"{len(await database.rows(READ))}\n"
            async with database.session() as session:
                await session.execute(WRITE)
            yield f"{len(await database.rows(READ))}\n"

        return StreamingResponse(lines())

    before = len(await database.rows(READ))
    async with client_of(service, database) as client:
        response = await client.get("/")
    assert response.text == f"{before}\n{before + 1}\n"


@pytest.mark.parametrize(
    "statement",
    [
        WRITE,
        text(" delete from alembic_version"),
        text("with gone as (select 1) delete from alembic_version"),
        insert(table("alembic_version", column("version_num"))),
    ],
)
async def test_a_read_that_would_change_data_is_refused_before_it_is_sent(
    database: Database, statement: Any
) -> None:
    before = await database.rows(READ)
    with pytest.raises(TypeError, match="Change data in a session"):
        await database.rows(statement)
    assert await database.rows(READ) == before


class Table(DeclarativeBase):
    pass


class Note(Table):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)


async def test_a_read_with_options_for_objects_is_refused(database: Database) -> None:
    with pytest.raises(TypeError, match="Use a session"):
        await database.rows(select(Note).options(undefer("*")))


# Without the database


@pytest.fixture
async def unavailable(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Database]:
    """A database that can't be connected to."""
    # Nothing listens on port 1.
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@127.0.0.1:1/app")
    async with open_database(Settings.read()) as database:
        yield database


async def test_without_its_database_the_service_lives_and_is_not_ready(
    state: dict[str, Any], client: AsyncClient, unavailable: Database
) -> None:
    state["database"] = unavailable
    assert (await client.get("/health/live")).status_code == 200
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.json() == {"detail": "The database is not available."}


async def test_reads_and_sessions_of_an_unavailable_database_say_so(
    unavailable: Database,
) -> None:
    with pytest.raises(Unavailable, match="The database is not available."):
        await unavailable.rows(READ)
    with pytest.raises(Unavailable, match="The database is not available."):
        async with unavailable.session() as session:
            await session.execute(WRITE)


async def test_a_session_that_takes_too_long_is_rolled_back_and_says_so(
    database: Database,
) -> None:
    async def hang() -> None:
        # Long enough for the statement: a driver gives up a connection that waits for a response.
        async with database.session(time_limit=0.5) as session:
            await session.execute(WRITE)
            await asyncio.sleep(60)

    with pytest.raises(Unavailable, match="The transaction took longer than 0.5 s"):
        await hang()
    assert not await is_written(database)


async def test_a_session_that_waits_too_long_says_so(database: Database) -> None:
    opened = asyncio.Event()

    async def hold() -> None:
        async with database.session():
            opened.set()
            await asyncio.sleep(60)

    holder = asyncio.create_task(hold())
    await opened.wait()
    with pytest.raises(Unavailable, match="No connection to the database was free"):
        async with database.session(time_limit=0.01):
            pass
    holder.cancel()


async def test_a_full_disk_is_a_503() -> None:
    # As the server reports it.
    full = text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$")
    async with open_database(Settings.read()) as database:
        with pytest.raises(Unavailable):
            async with database.session() as session:
                await session.execute(full)


# Readiness


async def test_the_service_is_ready_unless_its_schema_is_behind(
    client: AsyncClient, database: Database
) -> None:
    async with database.session() as session:
        await session.execute(text("DELETE FROM alembic_version"))
    newest, _ = revisions()
    # Nothing can be behind before there is a migration.
    behind = 503 if newest else 200
    assert (await client.get("/health/ready")).status_code == behind


async def test_the_service_is_ready_when_a_newer_release_has_migrated(
    client: AsyncClient, database: Database
) -> None:
    async with database.session() as session:
        await session.execute(text("DELETE FROM alembic_version"))
        await session.execute(WRITE)
    assert (await client.get("/health/ready")).status_code == 200
