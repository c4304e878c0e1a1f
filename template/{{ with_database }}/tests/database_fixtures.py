"""A database for tests, where nothing that a test writes is kept."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext

import pytest
from alembic import command
from alembic.config import Config
from empty_database import empty_database
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from app.database import Database
from app.engine import create_engines
from app.environment import what_to_set
from app.settings import Settings


@pytest.fixture(scope="session", autouse=True)
async def migrated(anyio_backend: str) -> AsyncGenerator[None]:
    """Have `DATABASE_URL` name a new database that all migrations have run on."""
    with pytest.MonkeyPatch.context() as patch:
        async with empty_database(patch):
            try:
                Settings.read()
            except ValidationError as error:
                pytest.exit(f"{what_to_set(error)}. Set it in tests/conftest.py.", 1)
            migrations = Config(toml_file="pyproject.toml")
            await asyncio.to_thread(command.upgrade, migrations, "head")
            yield


@pytest.fixture(scope="session")
async def engine(migrated: None) -> AsyncGenerator[AsyncEngine]:
    reading, writing = create_engines(Settings.read())
    yield writing
    await reading.dispose()
    await writing.dispose()


@pytest.fixture
async def database(engine: AsyncEngine) -> AsyncGenerator[Database]:
    """The database on one connection, which the application has too and which is rolled back."""
    async with engine.connect() as connection, connection.begin() as transaction:
        sessions = async_sessionmaker(
            connection,
            expire_on_commit=False,
            close_resets_only=False,
            join_transaction_mode="create_savepoint",
        )
        assert connection.sync_connection
        shared = nullcontext(connection.sync_connection)
        slot = asyncio.Semaphore(1)
        yield Database(lambda: shared, sessions, slot, slot)
        await transaction.rollback()
