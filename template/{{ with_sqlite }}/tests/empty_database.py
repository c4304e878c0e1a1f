"""A new database for a run of the tests."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@asynccontextmanager
async def empty_database(patch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    """Have `DATABASE_URL` name a new file."""
    with TemporaryDirectory() as folder:
        patch.setenv("DATABASE_URL", f"sqlite:///{Path(folder, 'test.db')}")
        yield
