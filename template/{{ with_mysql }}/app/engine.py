"""Connections to MySQL."""

from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.settings import Settings

# Held until the connection ends, because every change of a table commits.
MIGRATION_LOCK = "SELECT GET_LOCK(CONCAT('alembic ', DATABASE()), -1)"


def create_engines(settings: Settings) -> tuple[AsyncEngine, AsyncEngine]:
    """Create an engine for single statements and one for transactions, each with its own pool."""
    url = str(settings.database_url.get_secret_value())
    common: dict[str, Any] = {
        "url": make_url(url).set(drivername="mysql+asyncmy"),
        "connect_args": {"connect_timeout": 3},
        "pool_size": settings.database_pool_size,
        # An overflow connection would be opened and closed for a single request, when load is highest.
        "max_overflow": 0,
        "pool_timeout": 5,
        # The driver doesn't notice when the server has closed a connection.
        "pool_pre_ping": True,
        # Errors are logged, but not the values that clients sent.
        "hide_parameters": True,
    }
    reading = create_async_engine(
        **common, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
    )
    return reading, create_async_engine(**common)


def is_unavailable(error: DBAPIError) -> bool:
    """Tell a server that went away from one that refused a statement."""
    number = error.orig.args[0] if error.orig and error.orig.args else None
    # 1053: the server is shutting down. The others: its disk is full.
    return error.connection_invalidated or number in (1053, 3, 1021, 1026, 1114)
