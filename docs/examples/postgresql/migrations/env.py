"""Runs the migrations on the database that `DATABASE_URL` names, in one process at a time."""

import asyncio
import logging
import sys
from contextlib import aclosing
from typing import Any, NoReturn

from alembic import context
from alembic.operations.ops import (
    DropIndexOp,
    DropTableOp,
    MigrationScript,
    ModifyTableOps,
)
from pydantic import ValidationError
from sqlalchemy import Connection

from app import environment, logs
from app.engine import MIGRATION_LOCK, create_engines
from app.models import Base
from app.settings import Settings


def leave_out_indexes(_: Any, __: Any, scripts: list[MigrationScript]) -> None:
    """Have DROP TABLE drop the indexes too: MySQL drops none before that a foreign key needs."""
    for script in scripts:
        for side in (*script.upgrade_ops_list, *script.downgrade_ops_list):
            tables = {op.table_name for op in side.ops if isinstance(op, DropTableOp)}
            for op in side.ops:
                if isinstance(op, ModifyTableOps) and op.table_name in tables:
                    op.ops = [o for o in op.ops if not isinstance(o, DropIndexOp)]


def migrate(connection: Connection) -> None:
    # Wait for another process that migrates, after which nothing is left to do.
    connection.exec_driver_sql(MIGRATION_LOCK)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        process_revision_directives=leave_out_indexes,
    )
    with context.begin_transaction():
        context.run_migrations()


def fail(reason: str) -> NoReturn:
    logging.getLogger("migrations").critical(reason)
    sys.exit(1)


async def main(settings: Settings) -> None:
    reading, writing = create_engines(settings)
    try:
        connection = await writing.connect()
    except Exception as error:
        # A refused connection, a wrong password: each driver raises errors of its own.
        fail(f"No connection to the database. {getattr(error, 'orig', error)}")
    async with aclosing(connection), connection.begin():
        await connection.run_sync(migrate)
    await reading.dispose()
    await writing.dispose()


logs.configure()
try:
    settings = Settings.read()
except ValidationError as error:
    fail(environment.what_to_set(error))
asyncio.run(main(settings))
