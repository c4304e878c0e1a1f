"""A new database for a run of the tests."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import make_url, text

from app.engine import create_engines
from app.settings import Settings


@asynccontextmanager
async def empty_database(patch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    """Have `DATABASE_URL` name a new database, called like the developer's with `_test` added."""
    own = os.environ.get("DATABASE_URL", "postgresql://app:app@127.0.0.1:5432/app")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    test = make_url(own).set(database=f"{make_url(own).database}_test{worker}")
    patch.setenv("DATABASE_URL", own)
    reading, _ = create_engines(Settings.read())
    try:
        async with reading.connect() as connection:
            quoted = connection.dialect.identifier_preparer.quote(str(test.database))
            await connection.execute(text(f"DROP DATABASE IF EXISTS {quoted}"))
            await connection.execute(text(f"CREATE DATABASE {quoted}"))
    except Exception as error:
        start = "docker compose up --detach --wait database"
        pytest.exit(f"{error!r}: is the database started? {start}", 1)
    finally:
        await reading.dispose()
    patch.setenv("DATABASE_URL", test.render_as_string(hide_password=False))
    yield
