"""A database for tests, where nothing that a test writes is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest
from alembic import command
from alembic.config import Config
from empty_database import empty_database
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from app.database import Database, get_database
from app.engine import create_engines
from app.main import app
from app.settings import Settings


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    # One event loop for connections that live longer than a test.
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def migrated() -> AsyncIterator[None]:
    """Have `DATABASE_URL` name a new database that all migrations have run on."""
    with pytest.MonkeyPatch.context() as patch:
        async with empty_database(patch):
            migrations = Config(toml_file="pyproject.toml")
            await asyncio.to_thread(command.upgrade, migrations, "head")
            yield


@pytest.fixture(scope="session")
async def engine(migrated: None) -> AsyncIterator[AsyncEngine]:
    reading, writing = create_engines(Settings())
    yield writing
    await reading.dispose()
    await writing.dispose()


@pytest.fixture
async def database(engine: AsyncEngine) -> AsyncIterator[Database]:
    """The database on one connection, which the application uses too and which is rolled back."""
    async with engine.connect() as connection, connection.begin() as transaction:
        sessions = async_sessionmaker(
            connection,
            expire_on_commit=False,
            join_transaction_mode="create_savepoint",
        )
        assert connection.sync_connection
        shared = nullcontext(connection.sync_connection)
        slot = asyncio.Semaphore(1)
        database = Database(lambda: shared, sessions, slot, slot)
        app.dependency_overrides[get_database] = lambda: database
        yield database
        del app.dependency_overrides[get_database]
        await transaction.rollback()
