"""Connections to PostgreSQL."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.settings import Settings

# Held until the migrations are committed. Any number works that nothing else locks.
MIGRATION_LOCK = "SELECT pg_advisory_xact_lock(20260101)"


def create_engines(settings: Settings) -> tuple[AsyncEngine, AsyncEngine]:
    """Create an engine for single statements and one for transactions, on the same connections."""
    _, _, address = str(settings.database_url.get_secret_value()).partition("://")
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # asyncpg reads the URL itself, with the parameters that psql knows, such as sslmode.
        connect_args={"dsn": f"postgresql://{address}", "timeout": 3},
        pool_size=settings.database_pool_size,
        # An overflow connection would be opened and closed for a single request, when load is highest.
        max_overflow=0,
        pool_timeout=5,
        # Connections start in AUTOCOMMIT, so only a transaction has to switch the isolation level.
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Errors are logged, but not the values that clients sent.
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", refuse_closed)
    return engine, engine.execution_options(isolation_level="READ COMMITTED")


def refuse_closed(connection: Any, *_: Any) -> None:
    """Have the pool replace a connection that the server closed, without the round trip of a ping."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def is_unavailable(error: DBAPIError) -> bool:
    """Tell a server that went away from one that refused a statement."""
    state = getattr(error.orig, "sqlstate", None) or ""
    # Class 08: the connection was lost. 53 and 58: a full or broken disk, no memory, no free
    # connection. 57P01 to 57P03: the server stops or starts.
    away = state.startswith(("08", "53", "57P0", "58"))
    return error.connection_invalidated or away
